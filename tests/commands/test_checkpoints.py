"""A checkpoint of a run, and `last`, given to every command that takes a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small import small_config, stopped_at_save

import patchlight
from patchlight.cli.main import main
from patchlight.commands.explain import faithfulness
from patchlight.config import DEFAULT_METHOD, Config
from patchlight.data.splits import load_splits
from patchlight.errors import PatchlightError, UsageError
from patchlight.models import load_backbone, load_model, pin_checkpoints
from patchlight.runs import Run
from patchlight.runs.checkpoints import checkpoints_in
from patchlight.training.fit import fit
from patchlight.training.record import describe_run
from patchlight.training.setup import prepare

pytestmark = pytest.mark.usefixtures("no_charts")

SMALL_DATA = [
    *("--data.image_size=16", "--data.train_per_class=12", "--data.val_per_class=4", "--data.test_per_class=6"),
    *("--train.batch_size=32", "--train.device=cpu", "--train.precision=fp32", "--eval.gallery=2"),
    *("--explain.faithfulness=0", "--explain.snapshots_every=0"),
]
TRAIN = {"epochs": 3, "checkpoint_every": 1}
STAGES = [{"train": {"epochs": 1}}, {"train": {"epochs": 2}, "model": {"img_size": 24}}]
VARIANTS = {
    "plain": {"train": TRAIN},
    "average": {"train": {**TRAIN, "ema_decay": 0.8}},
    "lora": {"train": {**TRAIN, "ema_decay": 0.8, "trainable": "lora"}},
    "stages": {"train": TRAIN, "stages": STAGES},
}


def fitted(path: Path, config: Config, *, resume: bool = False) -> Path:
    """A run that was trained, and not yet tested."""
    config = pin_checkpoints(config)
    data = load_splits(config.data, config.model.img_size)
    setup = prepare(config, data)
    run = Run.create(path, config, resume=resume)
    run.write(describe_run(setup, "patchlight train"))
    fit(setup, run, resume=resume)
    return path


@pytest.fixture(scope="module", params=VARIANTS)
def each(request, tmp_path_factory) -> Path:
    """A run of three epochs of which every checkpoint stayed."""
    return fitted(tmp_path_factory.mktemp(request.param) / "run", small_config(**VARIANTS[request.param]))


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return fitted(tmp_path_factory.mktemp("plain") / "run", small_config(**VARIANTS["plain"]))


@pytest.fixture
def photo(tmp_path) -> Path:
    Image.effect_noise((40, 30), 80).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_each_checkpoint_is_what_validation_measured(each):
    """Top-1 and loss of the validation images are those of the epoch's own line in metrics.jsonl."""
    rows = Run.open(each).epochs()
    assert [path.name for path in sorted((each / "checkpoints").iterdir())] == ["epoch-001", "epoch-002", "epoch-003"]
    assert len({row.val_loss for row in rows}) == 3
    for row in rows:
        result = patchlight.evaluate(each / "checkpoints" / f"epoch-{row.epoch:03d}", split="val", precision="fp32")
        assert result.weights == f"epoch {row.epoch}"
        assert result.top1 == row.val_top1
        assert result.loss == pytest.approx(row.val_loss, rel=1e-5)
    last = patchlight.evaluate(each / "checkpoints" / "last", split="val")
    assert (last.weights, last.loss) == ("epoch 3", result.loss)
    kept = patchlight.evaluate(each, split="val")
    best = next(row for row in reversed(rows) if row.best)
    assert (kept.weights, kept.top1) == (None, best.val_top1)


def test_predict_and_export_take_one(each, photo, capsys):
    first, last = each / "checkpoints" / "epoch-001", each / "checkpoints" / "last"
    assert main(["predict", str(last), str(photo), "--json"]) == 0
    out, err = capsys.readouterr()
    assert "epoch-003: weights of epoch 3" in err
    assert json.loads(out)["predictions"][0]["weights"] == "epoch 3"
    assert patchlight.predict(first, [photo])[0].classes != patchlight.predict(last, [photo])[0].classes

    exported = patchlight.export(first, "timm")
    assert (exported.weights, exported.folder) == ("epoch 1", str(each / "export" / "epoch-001" / "timm"))
    text = (each / "export" / "epoch-001" / "timm" / "README.md").read_text()
    assert "weights of epoch 1. It was not measured" in text
    assert "eval_results" not in text
    assert "model-index" not in text
    assert (each / "export" / "epoch-001" / "timm" / "model.safetensors").is_file()


def test_explain_takes_one(plain, photo, capsys):
    first = plain / "checkpoints" / "epoch-001"
    assert main(["explain", str(plain), str(photo)]) == 0
    before = (plain / "explain" / "maps.npz").read_bytes()
    assert main(["explain", str(first), str(photo)]) == 0
    assert "weights of epoch 1" in capsys.readouterr().err
    assert (plain / "explain" / "maps.npz").read_bytes() == before
    maps = [
        np.load(folder / "maps.npz")[DEFAULT_METHOD] for folder in (plain / "explain", plain / "explain" / "epoch-001")
    ]
    assert not np.array_equal(*maps)
    assert (plain / "explain" / "epoch-001" / "maps.png").is_file()


def test_the_faithfulness_of_one_leaves_the_runs_alone(plain):
    table = faithfulness(plain / "checkpoints" / "epoch-002", method="random", count=4)
    assert table.run == str(plain / "checkpoints" / "epoch-002")
    assert (plain / "explain" / "epoch-002" / "faithfulness.json").is_file()
    assert not (plain / "faithfulness.json").exists()
    assert not (plain / "report.html").exists()


def test_training_begins_with_one(each, tmp_path):
    """As model.name and as the teacher; `last` stands in the records as the epoch that it was."""
    last, epoch = str(each / "checkpoints" / "last"), str(each / "checkpoints" / "epoch-003")
    size = load_model(last)[1].img_size
    words = {"name": last, "embed_dim": None, "depth": None, "num_heads": None, "img_size": size}
    child = fitted(tmp_path / "child", small_config(model=words, train={"epochs": 1, "teacher": last}))
    config, card = Run.open(child).config(), load_model(child)[1]
    assert (config.model.name, config.train.teacher, card.source.id) == (epoch, epoch, epoch)
    begun = load_backbone(config.model, img_size=size, num_classes=10, class_names=card.class_names)
    assert "epoch-003" in begun.note
    assert ("moving average" in begun.note) == (each / "checkpoints" / "epoch-003" / "ema.safetensors").is_file()
    theirs = load_model(epoch)[0].state_dict()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in begun.model.state_dict().items())


def test_the_command_line_takes_one(plain, tmp_path, capsys):
    """`train`, to its end and once more with --resume, and `probe`."""
    last, epoch = str(plain / "checkpoints" / "last"), str(plain / "checkpoints" / "epoch-003")
    (tmp_path / "small.toml").write_text(small_config(train={"epochs": 1}).to_toml())
    words = [str(tmp_path / "small.toml"), "--model.name", last, "--train.teacher", last]
    words += ["--explain.faithfulness", "0", "--out", str(tmp_path / "child")]
    assert main(["train", *words]) == 0
    assert "its head kept" in capsys.readouterr().err
    assert main(["train", *words, "--resume"]) == 0
    assert Run.open(tmp_path / "child").config().train.teacher == epoch
    first = small_config(model={"name": str(plain / "checkpoints" / "epoch-1"), **NO_SHAPE})
    assert patchlight.probe(first).weights.id == epoch.replace("003", "001")
    assert patchlight.probe(first, {"model.name": last}).weights.id == epoch


NO_SHAPE = {"embed_dim": None, "depth": None, "num_heads": None}


def test_an_encoder_that_learned_without_labels(tmp_path, capsys):
    config = small_config(train={**TRAIN, "task": "reconstruct"}, mae={"decoder_dim": 16, "decoder_depth": 1})
    run = fitted(tmp_path / "mae", config)
    kept = load_model(run)[0].state_dict()
    best = next(row for row in reversed(Run.open(run).epochs()) if row.best).epoch
    for epoch in (1, 2, 3):
        path = run / "checkpoints" / f"epoch-{epoch:03d}"
        weights = load_model(path)[0].state_dict()
        assert all(torch.equal(weights[key], kept[key]) for key in kept) == (epoch == best)
    assert main(["eval", str(path)]) == 1
    assert "learned without labels" in capsys.readouterr().err
    tuned = fitted(tmp_path / "tuned", small_config(model={"name": str(path), **NO_SHAPE}, train={"epochs": 1}))
    assert load_model(tuned)[1].source.id == str(path)


def test_a_wrong_path_lists_what_is_there(plain, tmp_path):
    listed = "it has epoch-001, epoch-002, epoch-003, and last for the newest"
    for name in ("epoch-004", "first", "epoch-001-step-00000004"):
        for ask in (
            lambda path: patchlight.evaluate(path),
            lambda path: patchlight.predict(path, []),
            lambda path: patchlight.explain(path),
            lambda path: patchlight.export(path),
            lambda path: patchlight.probe("quickstart", {"model.name": path}),
            lambda path: patchlight.train("quickstart", {"train.teacher": path}, out=tmp_path / "none"),
        ):
            with pytest.raises(UsageError, match=f"checkpoints has no '{name}'; {listed}"):
                ask(str(plain / "checkpoints" / name))
    with pytest.raises(UsageError, match="checkpoints holds several; name one: epoch-001"):
        patchlight.evaluate(plain / "checkpoints")
    assert not (tmp_path / "none").exists()


def test_an_epoch_is_found_with_fewer_zeros(plain):
    assert patchlight.evaluate(plain / "checkpoints" / "epoch-2", split="val").weights == "epoch 2"
    assert patchlight.evaluate(plain / "checkpoints" / "epoch-0002", split="val").weights == "epoch 2"


def test_a_run_that_would_delete_its_own_beginning(plain, capsys):
    words = ["train", "quickstart", "--model.name", str(plain / "checkpoints" / "last"), "--out", str(plain)]
    assert main([*words, "--overwrite"]) == 2
    assert "--overwrite would delete" in capsys.readouterr().err


def as_before(run: Path, steps: dict[str, int]) -> None:
    """Give a run's checkpoints the form of version 0.2.0: no card, no manifest, and the weights in training."""
    for checkpoint in checkpoints_in(run / "checkpoints"):
        state = json.loads((checkpoint.path / "state.json").read_text())
        (checkpoint.path / "state.json").write_text(json.dumps({k: v for k, v in state.items() if k != "sealed"}))
        for later in ("config.json", "manifest.jsonl", *(path.name for path in checkpoint.path.glob("run-*"))):
            (checkpoint.path / later).unlink()
        if (checkpoint.path / "training.safetensors").is_file():
            (checkpoint.path / "training.safetensors").replace(checkpoint.path / "model.safetensors")
        checkpoint.path.rename(run / "checkpoints" / f"step-{steps[checkpoint.path.name]:08d}")


def test_an_older_versions_checkpoint_has_the_runs_card(each, tmp_path):
    """Where that is its own; stages of two sizes and adapters are refused in a sentence."""
    run = tmp_path / "run"
    shutil.copytree(each, run)
    rows = Run.open(run).epochs()
    as_before(run, {f"epoch-{row.epoch:03d}": row.step for row in rows})
    config = Run.open(run).config()
    sizes = {stage.model.img_size for stage in config.of_stages()}
    for row in rows:
        path = run / "checkpoints" / f"step-{row.step:08d}"
        if len(sizes) > 1 or config.train.trainable == "lora":
            with pytest.raises(PatchlightError, match="of an earlier version, which did not record"):
                patchlight.evaluate(path, split="val")
            continue
        result = patchlight.evaluate(path, split="val", precision="fp32")
        assert (result.top1, result.weights) == (row.val_top1, f"{row.step} steps")


def test_an_older_versions_run_goes_on(tmp_path):
    """From step-NNNNNNNN, with a moving average; its checkpoints are pruned, and the weights are the same."""
    config = small_config(train={"epochs": 4, "ema_decay": 0.8})
    fitted(tmp_path / "whole", config)
    with stopped_at_save(2):
        fitted(tmp_path / "cut", config)
    run = tmp_path / "cut"
    as_before(run, {f"epoch-{row.epoch:03d}": row.step for row in Run.open(run).epochs()})
    assert {path.name.partition("-")[0] for path in (run / "checkpoints").iterdir()} == {"step"}
    fitted(run, config, resume=True)
    ours, theirs = (load_model(tmp_path / name / "checkpoints" / "last")[0].state_dict() for name in ("cut", "whole"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    names, expected = (
        sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir()) for name in ("cut", "whole")
    )
    best = [row.epoch for row in Run.open(run).epochs() if row.best][-1]
    assert len(names) == len(expected) == len({3, 4, best})


def test_an_average_is_said(tmp_path, capsys):
    run = fitted(tmp_path / "run", small_config(**VARIANTS["average"]))
    capsys.readouterr()
    path = run / "checkpoints" / "epoch-002"
    assert main(["eval", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "weights of epoch 2, their moving average" in err
    assert "test accuracy of the weights of epoch 2" in out
    in_training, average = load_file(path / "training.safetensors"), load_file(path / "model.safetensors")
    assert any(not torch.equal(average[key], in_training[key]) for key in average)


def test_damage_is_named(plain, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    path = run / "checkpoints" / "epoch-002"
    save_file({"a": torch.zeros(1)}, path / "model.safetensors")
    with pytest.raises(
        PatchlightError, match=r"epoch-002/model\.safetensors is damaged: it has \d+ bytes, and [\d,]+ were written"
    ):
        patchlight.evaluate(path)
    (path / "manifest.jsonl").unlink()
    with pytest.raises(PatchlightError, match=r"epoch-002/model\.safetensors is damaged or not of"):
        patchlight.evaluate(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(PatchlightError, match=r"no .*epoch-002/model\.safetensors"):
        patchlight.evaluate(path)


def test_a_run_goes_on_with_the_checkpoint_that_last_was(tmp_path, monkeypatch, capsys):
    """The other run has gone on meanwhile, and deleted it; a finished run needs it no more."""
    monkeypatch.chdir(tmp_path)
    other = fitted(tmp_path / "other", small_config(train={"epochs": 2}))
    words = [f"--model.name={other}/checkpoints/last", "--model.embed_dim=none", "--model.depth=none"]
    words = [
        "train",
        "quickstart",
        *SMALL_DATA,
        *words,
        "--model.num_heads=none",
        "--model.global_pool=none",
        "--train.epochs=1",
        "--out=child",
    ]
    assert main(words) == 0
    assert "is not finished, and its training may delete epoch-002" in capsys.readouterr().err
    assert (
        f"--model.name {other}/checkpoints/epoch-002"
        in json.loads(Path("child/environment.json").read_text())["command"]
    )
    newest = other / "checkpoints" / "epoch-002"
    newest.rename(other / "checkpoints" / "epoch-005")
    assert main([*words, "--resume"]) == 0
    assert "child is finished" in capsys.readouterr().err
    started = Run.open("child").config()
    asked = small_config(model={"name": f"{other}/checkpoints/last"})
    assert pin_checkpoints(asked).model.name.endswith("epoch-005")
    assert pin_checkpoints(asked, started).model.name.endswith("epoch-002")


def test_a_wrong_name_inside_a_run_is_told(plain):
    with pytest.raises(UsageError, match="modle"):
        load_backbone(small_config(model={"name": str(plain / "modle")}).model, img_size=16, num_classes=10)
