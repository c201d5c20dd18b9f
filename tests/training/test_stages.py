"""Stages, frozen parts and layer-wise rates: what is trained, what stays, and that a resumed run is the same run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import timm.optim
import torch
from safetensors.torch import load_file
from saved import save_hugging_face
from small import SMALL, rows_of, small_config, small_splits, stopped_at_save

from patchlight.cli.main import main
from patchlight.config import OptimConfig, apply_overrides, config_from_dict, load_recipe
from patchlight.data.images import ImageSet
from patchlight.data.splits import Splits
from patchlight.errors import Interrupted, PatchlightError, UsageError
from patchlight.models import VisionTransformer, create_model, structure_of
from patchlight.runs import Run
from patchlight.training import loop
from patchlight.training.fit import fit
from patchlight.training.optim import build_optimizers
from patchlight.training.record import describe_model
from patchlight.training.setup import build, prepare
from patchlight.training.tasks import Classification, Validation
from patchlight.training.trainable import frozen_modules, set_trainable, train_mode

STAGES = [
    {"train": {"trainable": "head", "epochs": 1}, "optim": {"lr": 1e-2}},
    {"train": {"trainable": "last 1", "epochs": 2}, "schedule": {"name": "constant"}},
    {"train": {"trainable": "all", "epochs": 1, "batch_size": 10}, "augment": {"flip": "random"}},
]


def staged(stages=STAGES, **settings):
    data = small_config().to_dict()
    for key, value in settings.items():
        section, name = key.split("__")
        data.setdefault(section, {})[name] = value
    return config_from_dict({**data, "stages": stages})


def trained(path, config, data=None, resume=False):
    setup = prepare(config, data or small_splits())
    run = Run(path) if resume else Run.create(path, config, resume=False, overwrite=False)
    return fit(setup, run, resume=resume), setup.model, run


def test_each_stage_is_a_recipe():
    config = staged()
    first, second, third = config.of_stages()
    assert (first.optim.lr, second.optim.lr) == (1e-2, config.optim.lr)
    assert (second.schedule.name, third.augment.flip, third.train.batch_size) == ("constant", "random", 10)
    assert all(stage.stages == () for stage in (first, second, third))
    assert config_from_dict(config.to_dict()) == config
    assert config.flat()["stages.1.optim.lr"] == 1e-2


def test_settings_of_a_stage_on_the_command_line():
    config = apply_overrides(staged(), {"stages.1.optim.lr": "0.5", "stages.2.train.label_smoothing": "0.2"})
    assert config.of_stages()[0].optim.lr == 0.5
    assert config.of_stages()[1].train.label_smoothing == 0.2


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("train.epochs", "every stage of this recipe has its own train.epochs; set stages.1.train.epochs"),
        ("stages.4.train.epochs", "this recipe has 3 stages"),
        ("stages.x.train.epochs", "this recipe has 3 stages"),
        ("stages.1.train.epoch", "unknown field 'train.epoch'"),
        ("stages.1.data.source", "data.source is the same in all stages"),
        ("train.budget", "train.budget cannot be divided between stages; set stages.1.train.budget"),
    ],
)
def test_wrong_settings_are_told(key, message):
    with pytest.raises(UsageError, match=message):
        apply_overrides(staged(), {key: "10m" if key == "train.budget" else "2"})


def test_a_setting_without_its_section_is_told():
    with pytest.raises(UsageError, match="stage 1: 'epochs' needs its section before it"):
        config_from_dict({"stages": [{"epochs": 3}]})


def test_only_what_is_named_is_trained(tmp_path):
    config = staged(STAGES[:2], train__select="last")
    before, _ = build(config, small_splits())
    state, model, run = trained(tmp_path / "run", config)
    after = model.state_dict()
    moved = {name for name, p in before.state_dict().items() if not torch.equal(p, after[name])}
    assert moved
    assert all(name.startswith(("head", "norm", "fc_norm", f"blocks.{len(model.blocks) - 1}")) for name in moved)
    rows = rows_of(run)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["stage"] for row in rows] == [1, 2, 2]
    assert [row["step"] for row in rows] == [n * rows[0]["step"] for n in (1, 2, 3)]
    assert (state.stage, state.epochs_done) == (1, 3)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_resumed_staged_run_is_the_same_run(tmp_path, monkeypatch, steps):
    config = staged(train__checkpoint_every=1)
    whole, model, run = trained(tmp_path / "whole", config)
    epochs = []
    inner = loop.epoch_line

    def interrupted(*words):
        epochs.append(words)
        if len(epochs) == (steps + 1) // 2:
            raise Interrupted("stopped")  # after the epoch, before its checkpoint
        return inner(*words)

    other = tmp_path / "other"
    monkeypatch.setattr(loop, "epoch_line", interrupted)
    with pytest.raises(Interrupted):
        trained(other, config)
    monkeypatch.setattr(loop, "epoch_line", inner)
    state, again, rerun = trained(other, config, resume=True)
    for name, p in model.state_dict().items():
        assert torch.equal(p, again.state_dict()[name]), name
    keys = ("epoch", "step", "stage", "train/loss", "val/loss")
    assert [[row[key] for key in keys] for row in rows_of(run)] == [[r[key] for key in keys] for r in rows_of(rerun)]
    assert state.best_epoch == whole.best_epoch


def test_sizes_may_differ_between_stages(tmp_path):
    stages = [{"model": {"img_size": 8}, "train": {"epochs": 1}}, {"model": {"img_size": 16}, "train": {"epochs": 1}}]
    config = staged(stages, train__select="last")
    trained(tmp_path / "run", config)
    card = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert card["args"]["img_size"] == 16


def test_patience_ends_a_stage_and_not_the_training(tmp_path, monkeypatch, capsys):
    stages = [{"train": {"epochs": 5, "early_stop_epochs": 1}}, {"train": {"epochs": 1}}]
    scores = iter([(1.0, 0.5), (1.0, 0.4), (1.0, 0.6)])
    monkeypatch.setattr(Classification, "score", lambda *_: Validation(*next(scores)))
    state, _, run = trained(tmp_path / "run", staged(stages))
    assert [row["stage"] for row in rows_of(run)] == [1, 1, 2]
    assert state.best_epoch == 3
    sentence = "stage 1 stopped after epoch 2 of 5: 1 epoch without a better validation accuracy"
    assert sentence in capsys.readouterr().err.splitlines()
    assert [row.early_stop and row.early_stop.in_words for row in run.epochs()] == [None, sentence, None]


def test_the_two_stage_recipe_is_that_systems():
    """Its model with random weights, and 20,000 made images: what its own description says in numbers."""
    settings = {"model.pretrained": False, "model.fused_attn": True, "train.device": "cpu", "train.precision": "fp32"}
    config = load_recipe("vit-small8-two-stage", settings)
    images = ImageSet(
        torch.zeros(20_000, 3, 32, 32, dtype=torch.uint8), torch.arange(20_000) % 10, tuple(map(str, range(10)))
    )
    few = images.select(range(10))
    setup = prepare(config, Splits(images, few, few, few))
    head, whole = setup.stages
    assert describe_model(setup).trainable == (3_850, 21_379_210)
    assert [(stage.steps_per_epoch, stage.images_per_epoch) for stage in setup.stages] == [(157, 20_000)] * 2
    assert [stage.total_steps for stage in setup.stages] == [1_570, 14_130]
    assert (setup.card.mean, setup.card.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    assert [stage.config.train.early_stop_epochs for stage in setup.stages] == [0, 8]
    assert [stage.config.optim.lr for stage in setup.stages] == [3e-4, 3e-5]
    assert [stage.config.schedule.name for stage in setup.stages] == ["constant", "cosine"]
    for stage in setup.stages:  # one group of parameters
        ((group,),) = (optimizer.param_groups for optimizer in stage.optimizers)
        assert (group["weight_decay"], len(group["params"])) == (0.05, len(stage.trainable))
    assert {stage.config.train.select for stage in (head, whole)} == {"last"}
    assert {stage.config.train.label_smoothing for stage in (head, whole)} == {0.1}


def test_patience_is_of_a_stage(tmp_path, monkeypatch):
    """The second begins below the first one's best, and gets better all the while."""
    stages = [{"train": {"epochs": 1}}, {"train": {"epochs": 5, "early_stop_epochs": 2}}]
    scores = iter([0.9, 0.1, 0.2, 0.3, 0.3, 0.3])
    monkeypatch.setattr(Classification, "score", lambda *_: Validation(1.0, next(scores)))
    state, _, run = trained(tmp_path / "run", staged(stages))
    assert (state.epoch, state.best_epoch) == (5, 1)
    assert [row.early_stop for row in run.epochs()] == [None] * 6  # the fifth was the last anyway


def test_words_for_what_is_trained():
    model = create_model("vit-micro")
    names = [name for name, _ in model.named_parameters()]

    def trainable(what):
        set_trainable(model, what, names)
        return {name for name, p in model.named_parameters() if p.requires_grad}

    assert trainable("head") == {"head.weight", "head.bias"}
    last = trainable("last 1")
    assert {name.split(".")[0] for name in last} == {"blocks", "norm", "head"}
    assert {name.split(".")[1] for name in last if name.startswith("blocks")} == {"3"}
    assert not trainable("last 4") & {"pos_embed", "cls_token", "patch_embed.proj.weight"}
    assert trainable("all") == set(names)
    for wrong in ("half", "last", "last 0", "last five"):
        with pytest.raises(UsageError, match="must be"):
            trainable(wrong)
    with pytest.raises(UsageError, match="the model has 4 blocks"):
        trainable("last 5")


def test_frozen_parts_are_as_in_evaluation():
    model = VisionTransformer(img_size=16, embed_dim=24, num_heads=3, depth=3, stem="conv", proj_drop_rate=0.5)
    set_trainable(model, "last 1", [name for name, _ in model.named_parameters()])
    train_mode(model, frozen_modules(model))
    assert not model.patch_embed.training
    assert [block.training for block in model.blocks] == [False, False, True]
    assert all(not m.training for m in model.blocks[0].modules())


@pytest.mark.parametrize("what", ["head", "last 1", "all"])
def test_dropout_on_frozen_embeddings_is_off(what):
    rates = {"pos_drop_rate": 0.5, "drop_rate": 0.5, "patch_drop_rate": 0.5}
    model = VisionTransformer(img_size=16, embed_dim=24, num_heads=3, depth=2, **rates)
    set_trainable(model, what, [name for name, _ in model.named_parameters()])
    train_mode(model, frozen_modules(model))
    assert model.pos_drop.training == model.patch_drop.training == (what == "all")
    assert model.head_drop.training  # it is the head's


@pytest.mark.parametrize("architecture", ["maxvit_rmlp_pico_rw_256", "levit_128s", "swin_tiny_patch4_window7_224"])
def test_a_stem_lies_below_all_blocks(architecture):
    with torch.device("meta"):
        model = timm.create_model(architecture)
    found = structure_of(model).depths()
    assert found[next(iter(found))] == 0
    assert list(found.values()) == sorted(found.values())


def test_layer_decay_is_timms():
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}
    model = timm.models.VisionTransformer(**options)
    theirs = {
        id(p): (group["lr_scale"], group["weight_decay"])
        for group in timm.optim.param_groups_layer_decay(
            model, 0.05, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.7
        )
        for p in group["params"]
    }
    optimizers = build_optimizers(model, OptimConfig(lr=1.0, weight_decay=0.05, layer_decay=0.7))
    ours = {
        id(p): (group["lr_scale"], group["weight_decay"])
        for optimizer in optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert ours == {key: (pytest.approx(lr), decay) for key, (lr, decay) in theirs.items()}


def test_depths_of_a_hugging_face_model(tmp_path):
    from patchlight.config import ModelConfig
    from patchlight.models import load_backbone

    folder = save_hugging_face(tmp_path)
    model = load_backbone(ModelConfig(name=str(folder)), img_size=32, num_classes=5).model
    found = structure_of(model).depths()
    assert found["hf.vit.embeddings.cls_token"] == 0
    assert found["hf.vit.layers.1.mlp.fc1.weight"] == 2
    assert (found["hf.vit.layernorm.weight"], found["hf.classifier.weight"]) == (2, 3)


def test_a_stage_without_a_size_has_that_of_the_data(tmp_path):
    """Also when it is the stage that a resumed run begins with."""
    stages = [{"model": {"img_size": 8}, "train": {"epochs": 1}}, {"train": {"epochs": 2}}]
    config = staged(stages, train__select="last", explain__snapshots_every=1)
    trained(tmp_path / "whole", config)
    with stopped_at_save(2):
        trained(tmp_path / "parts", config)
    trained(tmp_path / "parts", config, resume=True)
    for name in ("whole", "parts"):
        card = json.loads((tmp_path / name / "model" / "config.json").read_text())
        assert card["args"]["img_size"] == 16
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    with np.load(tmp_path / "whole" / "snapshots.npz") as movie:  # of all sizes, on the last one's grid
        assert movie["maps"].shape[0] == 3
        assert movie["maps"].shape[2:] == (4, 4)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"model": {"img_size": 18}}, "is no multiple of|does not divide|divide"),
        ({"augment": {"crop_padding": 16, "crop_mode": "reflect"}}, "can be reflected by 15 at most"),
        ({"optim": {"lr": 1e-3}, "train": {"early_stop_epochs": 1}}, "early_stop_epochs needs validation images"),
    ],
)
def test_what_a_later_stage_cannot_do_is_told_before_the_first(tmp_path, second, message):
    stages = [{"train": {"epochs": 1}}, {**second, "train": {"epochs": 1, **second.get("train", {})}}]
    config = staged(stages, train__select="last")
    data = replace(small_splits(), val=None) if "validation" in message else small_splits()
    with pytest.raises(PatchlightError, match=message):
        trained(tmp_path / "run", config, data)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_contradictions_of_a_later_stage_are_told_before_data_are_loaded(tmp_path, capsys):
    path = tmp_path / "recipe.toml"
    path.write_text(
        '[data]\nsource = "nowhere/at/all"\n[augment]\ncrop_padding = 2\n[[stages]]\ntrain.epochs = 1\n[[stages]]\n'
        "train.epochs = 1\naugment.resized_crop_scale = [0.5, 1.0]\n"
    )
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 2
    assert "choose one crop" in capsys.readouterr().err


def test_what_is_trained_is_counted(tmp_path, capsys, no_charts):
    """On the terminal, in the record and on the page: of one stage and of several."""
    words = [*SMALL, "--optim.name", "adamw", "--train.debug", "true"]
    assert main(["train", "quickstart", *words, "--train.trainable", "head", "--out", str(tmp_path / "one")]) == 0
    assert "training head, 250 of " in capsys.readouterr().err
    record = json.loads((tmp_path / "one" / "environment.json").read_text())["model"]
    assert record["trainable"] == [250]
    page = (tmp_path / "one" / "report.html").read_text()
    assert f"head, 250 of {record['params']:,} parameters" in page
    assert "2 epochs of at most two steps (train.debug), 32 images a step" in page
    path = tmp_path / "two.toml"
    stages = "".join(f'[[stages]]\ntrain.epochs = 1\ntrain.trainable = "{what}"\n' for what in ("head", "all"))
    path.write_text(f"{load_recipe('quickstart').to_toml()}\n{stages}")
    pairs = [pair for pair in zip(words[::2], words[1::2], strict=True) if pair[0] != "--train.epochs"]
    words = [word for pair in pairs for word in pair]
    assert main(["train", str(path), *words, "--out", str(tmp_path / "two")]) == 0
    record = json.loads((tmp_path / "two" / "environment.json").read_text())["model"]
    assert record["trainable"] == [250, record["params"]]
    assert "head, 250 of " in (tmp_path / "two" / "report.html").read_text()
