"""`patchlight train`: the run folder, what is safe from being overwritten, and every recipe."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from saved import SAVED
from small import SMALL

from patchlight.cli.main import main
from patchlight.commands import train
from patchlight.config import DEFAULT_METHOD, load_recipe, recipe_names
from patchlight.explanation.methods import CONTROLS
from patchlight.models import MODELS, load_model
from patchlight.models.layers import Attention
from patchlight.runs import BatchFacts, Environment, EvalResult, Faithfulness, FirstBatch, Metrics, Run, SubsetSamples


def test_a_run_folder_holds_what_is_promised(run):
    names = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    promised = {
        "config.toml",
        "environment.json",
        "metrics.jsonl",
        "eval.json",
        "first_batch.json",
        "first_batch.npz",
        "samples.npz",
        "report.html",
        "README.md",
        "model/model.safetensors",
        "model/config.json",
    }
    assert promised <= names
    assert any(name.startswith("figures/") and name.endswith(".png") for name in names)
    assert any(re.match(r"checkpoints/epoch-\d{3}/model\.safetensors", name) for name in names)
    assert not [name for name in names if ".part" in name]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    environment = json.loads((run / "environment.json").read_text())
    assert environment["time"]["train_wall_s"] > 0
    (note,) = environment["data"].pop("notes")
    assert note.startswith("120 training images in steps of 32 leave 24 out of each epoch")
    digests = environment["data"].pop("digests")
    assert set(digests) == {"train", "val", "test"}
    assert environment["data"] == {
        "source": "digits",
        "path": None,
        "train": 120,
        "val": 40,
        "test": 60,
        "classes": 10,
        "train_per_class": dict.fromkeys("0123456789", 12),
    }


def test_the_subsets_test_and_the_first_batch_of_a_run_that_mixes(here, capsys, no_charts):
    words = [*SMALL, "--data.subset_test_per_class", "5", "--augment.mixup_alpha", "1", "--augment.mix_mode", "batch"]
    assert main(["train", "quickstart", *words, "--out", "run"]) == 0
    said = capsys.readouterr()
    assert "120 training, 40 validation, 50 subset test, 60 test images; " in said.err
    assert re.search(
        r"first batch: 32 x 3 x 16 x 16 float32, .*; \d+ of 10 classes; \d+ of 32 images are mixed", said.err
    )
    assert "of the 50 test images of the subset" in said.out
    run = Run.open(here / "run")
    result = run.read(EvalResult)
    assert isinstance(result.subset_test, Metrics)
    assert np.sum(result.subset_test.confusion, axis=1).tolist() == [5] * 10
    assert main(["eval", "run", "--split", "subset_test", "--device", "cpu", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    measured = result.subset_test.to_json()
    assert {key: again[key] for key in measured} == measured
    assert (again["split"], again["n"]) == ("subset_test", 50)
    samples = run.read(SubsetSamples)
    assert (samples.probs.argmax(1) == samples.labels).tolist() == (samples.kind == "right").tolist()
    assert samples.images.shape[1:] == (16, 16, 3)
    batch, shown = run.read(BatchFacts), run.read(FirstBatch)
    assert batch.mixed
    assert np.allclose(shown.targets.sum(1), 1)
    data = json.loads((here / "run" / "environment.json").read_text())["data"]
    assert (data["subset_test"], list(data["digests"])) == (50, ["train", "val", "subset_test", "test"])
    page = (here / "run" / "report.html").read_text()
    assert "own test images</h2>" in page


def test_what_cannot_be_trained_on_is_said_before_there_is_a_run(here, capsys):
    words = [*SMALL, "--data.mean", "0,0,0", "--data.std", "1e-42,1,1", "--out", "run"]
    assert main(["train", "quickstart", *words]) == 1
    assert "values of the first batch are not finite after normalisation by the mean 0, 0, 0" in capsys.readouterr().err
    assert not (here / "run").exists()


def test_maps_are_measured_beside_the_page(here, no_charts):
    words = [*SMALL, "--train.epochs", "1", "--explain.faithfulness", "6", "--out", "run"]
    assert main(["train", "quickstart", *words]) == 0
    found = json.loads((here / "run" / "faithfulness.json").read_text())
    assert found["n"] == 6
    assert [row["method"] for row in found["rows"]] == ["attention", "scaled-rollout", DEFAULT_METHOD, *CONTROLS]
    assert "On 6 test images" in (here / "run" / "report.html").read_text()


class Doubled(Attention):
    """What a user's own change of a network may be: weights times values do not give what it gives."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_a_network_that_cannot_be_explained_is_tested_all_the_same(here, monkeypatch, capsys, no_charts):
    """The page lacks its maps, and the reason is said, recorded and shown."""

    def load_changed(*args):
        model, card = load_model(*args)
        model.blocks[-1].attn.__class__ = Doubled
        return model, card

    monkeypatch.setattr(train, "load_model", load_changed)
    words = [*SMALL, "--train.epochs", "1", "--explain.faithfulness", "3", "--explain.snapshots_every", "0"]
    assert main(["train", "quickstart", *words, "--out", "run"]) == 0
    lacks = Run(here / "run").read(EvalResult).unexplained
    assert [reason.split(":")[0] for reason in lacks] == [
        "the report lacks the maps of attention",
        "the report lacks the insight into layers",
        "the report lacks the table of faithfulness",
    ]
    assert "blocks.1.attn" in lacks[0]
    assert lacks[0] in " ".join(capsys.readouterr().err.split())
    assert "The report lacks the maps of attention" in (here / "run" / "report.html").read_text()


def test_a_stem_without_blocks_is_trained_and_reported(tmp_path, capsys, no_charts):
    stem = ("--model.depth", "0", "--model.stem", "conv", "--model.global_pool", "avg", "--optim.name", "adamw")
    assert main(["train", "quickstart", *SMALL, *stem, "--out", str(tmp_path / "stem")]) == 0
    assert (tmp_path / "stem" / "report.html").is_file()


@pytest.mark.parametrize("size", ["8", "16"])
def test_a_model_of_one_patch_is_trained_to_the_end(size, here, no_charts):
    """There is nothing to compare in its maps, so there is no table; the result and the page are there."""
    words = [*SMALL, "--data.image_size", size, "--model.patch_size", size, "--train.epochs", "1", "--out", "run"]
    assert main(["train", "quickstart", *words, "--explain.faithfulness", "8"]) == 0
    assert Run.open(here / "run").read(EvalResult).n == 60
    assert (here / "run" / "report.html").is_file()
    assert not (here / "run" / "faithfulness.json").exists()
    assert "Not measured yet" not in (here / "run" / "report.html").read_text()


def test_a_model_without_blocks_is_measured_by_what_needs_none(here, no_charts):
    words = [*SMALL, "--model.depth", "0", "--optim.name", "adamw", "--train.epochs", "1"]
    assert main(["train", "quickstart", *words, "--explain.faithfulness", "8", "--out", "run"]) == 0
    assert Run.open(here / "run").read(EvalResult).n == 60
    table = Run.open(here / "run").read(Faithfulness)
    assert [row.method for row in table.rows] == ["gradcam", *CONTROLS]
    assert "On 8 test images" in (here / "run" / "report.html").read_text()


def test_an_existing_run_is_safe(run, tmp_path, capsys, no_charts):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    words = ["train", "quickstart", *SMALL, "--out", str(copy)]
    assert main(words) == 2
    assert "exists; continue it with --resume, replace it with --overwrite" in capsys.readouterr().err
    (copy / "report.html").unlink()
    assert main([*words, "--resume"]) == 0
    assert "is finished; its report is built again" in capsys.readouterr().err
    assert (copy / "report.html").exists()
    (copy / "report.html").unlink()
    (copy / "eval.json").unlink()
    environment = json.loads((copy / "environment.json").read_text())
    environment |= {"precision": "fp32", "fused_attn": not environment["fused_attn"]}  # as if chosen by another probe
    (copy / "environment.json").write_text(json.dumps(environment))
    (copy / "manifest.jsonl").unlink()  # which would tell that it was changed
    assert main([*words, "--resume"]) == 0  # as after a kill between training and evaluation
    chosen = {key: environment[key] for key in ("precision", "fused_attn")}
    environment = json.loads((copy / "environment.json").read_text())
    assert len(environment["resumed"]) == 1
    assert {key: environment["resumed"][0][key] for key in chosen} == chosen
    assert environment["started"] == json.loads((run / "environment.json").read_text())["started"]
    assert json.loads((copy / "eval.json").read_text()) == json.loads((run / "eval.json").read_text())
    assert (copy / "report.html").exists()
    assert main([*words, "--resume", "--overwrite"]) == 2
    assert main([*words, "--resume", "--train.seed", "1"]) == 2
    assert "was started with train.seed = 0, not 1" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == str(copy)


def test_a_run_that_is_needed_is_not_replaced(run, here, capsys):
    shutil.copytree(run, here / "mine")
    (here / "mine" / "export" / "timm").mkdir(parents=True)
    exported = "local-dir:mine/export/timm"
    for field, name in (("train.teacher", "mine"), ("model.name", "mine"), ("model.name", exported)):
        words = ["train", "quickstart", *SMALL, f"--{field}", name, "--overwrite", "--out", "mine"]
        assert main(words) == 2
        assert f"{field} is {name}, which --overwrite would delete" in capsys.readouterr().err
    assert main(["train", "quickstart", *SMALL, "--train.teacher", "mina", "--overwrite", "--out", "mine"]) == 1
    assert (here / "mine" / "eval.json").is_file()  # nothing is lost by a wrong name


def test_a_folder_does_not_stand_for_a_new_model(run, here, capsys, no_charts):
    shutil.copytree(run, here / "vit-micro")
    words = ["train", "quickstart", *SMALL, "--train.debug", "--out", "new"]
    assert main([*words, "--model.name", "vit-micro"]) == 0
    assert "with the weights of" not in capsys.readouterr().err
    assert json.loads((here / "new" / "environment.json").read_text())["model"]["weights"] is None
    assert main([*words, "--model.name", "./vit-micro", "--overwrite"]) == 0
    assert "vit-micro with the weights of ./vit-micro" in capsys.readouterr().err


def test_a_saved_config_is_a_recipe(run, tmp_path, no_charts):
    again = tmp_path / "again"
    assert main(["train", str(run / "config.toml"), "--out", str(again)]) == 0
    a, b = (json.loads((path / "eval.json").read_text()) for path in (run, again))
    kinds = {Run(path).read(Environment).fused_attn for path in (run, again)}
    if len(kinds) == 1:
        assert a == b
    # Which attention is the faster is timed, and on a busy machine the two runs may take another: equal to rounding.
    assert a.keys() == b.keys()
    assert (a["n"], a["data"], a["confusion"]) == (b["n"], b["data"], b["confusion"])
    assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)


LARGE = (
    "vit-base",
    "vit-small",
    "cifar10-gpu-best",
    "cifar10-gpu-fast",
    "deit-tiny-300",
)  # recipes whose steps take long on two cores


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in recipe_names()]
)
def test_every_recipe_trains_two_steps(name, tmp_path, no_charts):
    """On digits in place of CIFAR-10, which has the same shape; the models and all other settings are the recipe's,
    but for weights of a hub, in whose place stand small ones of the same format.
    """
    words = [
        "train",
        name,
        "--out",
        str(tmp_path / "run"),
        "--data.source",
        "digits",
        "--train.debug",
        "--train.device",
        "cpu",
        "--data.test_per_class",
        "2",
        "--data.val_per_class",
        "2",
        "--data.train_per_class",
        "6",
        "--train.batch_size",
        "8",
        "--eval.gallery",
        "2",
    ]
    if name not in ("quickstart", "planted", "vit-tiny"):  # it is half of the time, and the same for all
        words += ["--explain.faithfulness", "0"]
    recipe = load_recipe(name)
    if recipe.model.name not in MODELS:
        library = "timm" if recipe.model.name.startswith("timm/") else "huggingface"
        words += ["--model.name", str(SAVED[library](tmp_path / "weights")), "--model.img_size", "32"]
    if recipe.data.subset_test_per_class:
        words += ["--data.subset_test_per_class", "2"]
    assert main(words) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2 * n for n in range(1, 2 * max(1, len(recipe.stages)) + 1)]


def test_an_interrupted_run_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    from patchlight.errors import Interrupted

    def stop(*args, **kwargs):
        raise Interrupted("stopped by SIGINT after 0 epochs and 3 steps; the checkpoint is saved")

    monkeypatch.setattr("patchlight.commands.train.fit", stop)
    assert main(["train", "quickstart", *SMALL, "--out", str(tmp_path / "run")]) == 130
    assert "stopped by SIGINT after 0 epochs and 3 steps; the checkpoint is saved" in capsys.readouterr().err


def test_a_rate_at_which_maps_are_not_finite_and_endless_epochs(tmp_path, capsys, no_charts):
    words = ["train", "quickstart", *SMALL, "--out", str(tmp_path / "run")]
    assert main([*words, "--optim.lr", "1e12"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "finite" in error or "the loss is" in error
    assert "lower optim.lr" in error
    assert main([*words, "--train.epochs", "1e308", "--overwrite"]) == 2
    assert "train.epochs must be above 0 and at most 100000, not 1e+308" in capsys.readouterr().err


def test_what_is_said_of_steps_and_classes_is_recorded(tmp_path, no_charts):
    words = ["train", "quickstart", *SMALL, "--train.debug", "--train.batch_size", "50", "--out", str(tmp_path / "run")]
    assert main([*words, "--train.class_weights", "balanced"]) == 0
    notes = json.loads((tmp_path / "run" / "environment.json").read_text())["data"]["notes"]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for start in ("120 training images in steps of 50 leave 20 out of each epoch", "class weights (balanced)"):
        assert sum(note.startswith(start) for note in notes) == 1
        assert f"{start[0].upper()}{start[1:]}" in page
