"""To extend is one or two edits: one of each is added here from outside the package, and used.

Those that have their tests elsewhere: an augmentation operation (data/test_policies.py), a policy
(config/test_names.py), a source (data/test_sources.py), a family of Hugging Face (models/test_families.py), a section
of the page (reporting/test_sections.py), a verb (cli/test_verbs.py). CONTRIBUTING.md lists the edits of all.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from small import make_trainer, run_fit, small_config
from torch import Tensor, nn

import patchlight
from patchlight.config import load_recipe, recipe_names
from patchlight.config.names import (
    METHOD_NAMES,
    OPTIMIZER_NAMES,
    SAMPLER_NAMES,
    SCHEDULE_NAMES,
    TRACKER_NAMES,
    Names,
)
from patchlight.data.sampling import SAMPLERS, Draws
from patchlight.explanation.methods import METHODS, Method
from patchlight.models import MODELS, create_model
from patchlight.training.optim import OPTIMIZERS, decay_groups
from patchlight.training.schedule import SHAPES
from patchlight.training.trackers import TRACKERS
from patchlight.training.trackers.tracker import Tracker


@contextmanager
def named(names: Names, name: str) -> Iterator[None]:
    """The name is one of the names of a setting, for the time of the test."""
    names.append(name)
    try:
        yield
    finally:
        names.remove(name)


class Linear(nn.Module):
    """A model of somebody else's: one linear map of all pixels."""

    def __init__(self, *, img_size: int = 32, num_classes: int = 10, width: int = 8) -> None:
        super().__init__()
        self.squeeze = nn.Linear(3 * img_size**2, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.squeeze(x.flatten(1)).relu())


def test_a_model_is_a_class_and_a_row(tmp_path, no_charts, monkeypatch):
    monkeypatch.setitem(MODELS, "linear", (Linear, {"width": 16}))
    assert create_model("linear", img_size=16).squeeze.out_features == 16
    fields = dict.fromkeys(("embed_dim", "depth", "num_heads", "fused_attn"))  # it has none of these
    config = small_config(model={"name": "linear", **fields})
    run = patchlight.train(config, out=tmp_path / "run")
    assert patchlight.evaluate(run).n == 50
    model, _ = patchlight.load_model(run.path)
    assert isinstance(model, Linear)
    assert (run.path / "report.html").is_file()


def test_an_optimizer_is_a_function_and_a_row(tmp_path, monkeypatch):
    def adagrad(parts, config):
        return [torch.optim.Adagrad(decay_groups(parts, config.lr, config.weight_decay))]

    monkeypatch.setitem(OPTIMIZERS, "adagrad", adagrad)
    with named(OPTIMIZER_NAMES, "adagrad"):
        _, run = run_fit(tmp_path, optim={"name": "adagrad"})
    assert len(run.epochs()) == 2
    with pytest.raises(patchlight.UsageError, match="cannot be 'adagrad'"):
        small_config(optim={"name": "adagrad"})


def test_a_schedule_is_a_function_and_a_row(tmp_path, monkeypatch):
    monkeypatch.setitem(SHAPES, "halved", lambda progress, config: 0.5 if progress >= 0.5 else 1.0)
    with named(SCHEDULE_NAMES, "halved"):
        _, run = run_fit(tmp_path, schedule={"name": "halved"})
    assert [row.lr for row in run.epochs()] == pytest.approx([3e-3, 1.5e-3])


def test_a_sampler_is_a_function_and_a_row(tmp_path, monkeypatch):
    monkeypatch.setitem(SAMPLERS, "in_order", lambda labels, length, seed, epoch: Draws(*2 * [torch.arange(length)]))
    with named(SAMPLER_NAMES, "in_order"):
        trainer = make_trainer(small_config(data={"sampler": "in_order"}, train={"batch_size": 16}), tmp_path)
    assert trainer.batches.indices(0, 1).tolist() == list(range(16, 32))
    assert torch.equal(trainer.begin_step(1, 2)[1], trainer.data.train.labels[32:48])


def test_a_method_of_explanation_is_a_function_and_a_row(monkeypatch):
    def corner(anatomy, images, targets):
        maps = torch.zeros(len(images), *anatomy.grid(images))
        maps[:, 0, 0] = 1
        return maps

    monkeypatch.setitem(METHODS, "corner", Method(corner, "the first patch", by_class=False))
    model = create_model("vit-micro", img_size=16, depth=1)
    images = torch.randn(2, 3, 16, 16)
    assert patchlight.explain(model, images, method="corner").maps.argmax() == 0
    with named(METHOD_NAMES, "corner"):
        assert small_config(explain={"method": "corner"}).explain.method == "corner"


class Journal(Tracker):
    """A tracker of somebody else's: a text file with a line for each call."""

    errors = (OSError,)

    def __init__(self, subject):
        self.id, self.place, self.words = "", str(subject.folder / "journal.txt"), "a journal"
        self._path = subject.folder / "journal.txt"
        subject.folder.mkdir(exist_ok=True)
        self._write(f"lr {subject.settings['optim.lr']}")

    def _write(self, line):
        with self._path.open("a") as file:
            file.write(f"{line}\n")

    def last_step(self):
        return 0

    def log(self, step, scalars):
        self._write(f"{step} {scalars['epoch']:g}")

    def conclude(self, step, result, figures, report):
        self._write(f"{step} {result['test/n']:g} {bool(figures)} {report.name}")

    def close(self, end):
        self._write(end)


def test_a_tracker_is_a_file_and_a_row(tmp_path, no_charts, monkeypatch):
    module = types.ModuleType("a_file_of_somebody")
    module.Journal = Journal
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(TRACKERS, "journal", "a_file_of_somebody:Journal")
    with named(TRACKER_NAMES, "journal"):
        run = patchlight.train(small_config(train={"track": ["journal"]}), out=tmp_path / "run")
    lines = (run.path / "tracking" / "journal.txt").read_text().splitlines()
    assert lines == ["lr 0.003", "3 1", "6 2", "6 50 True report.html", "finished"]


def test_a_recipe_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text('[about]\ntitle = "mine"\n\n[train]\nepochs = 3\n')
    assert load_recipe(str(tmp_path / "mine.toml")).train.epochs == 3  # anybody's, by its path
    monkeypatch.setattr("patchlight.config.recipe.RECIPES", tmp_path)  # among those that come with the package
    assert recipe_names() == ["mine"]
    assert load_recipe("mine").about.name == "mine"
