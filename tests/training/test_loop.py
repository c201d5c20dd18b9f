"""The loop: the same run however it is cut, what it writes, and what each setting does."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shutil
import signal

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from small import make_trainer, rows_of, run_fit, small_config, small_splits, stopped_at_save

from patchlight.config import ModelConfig
from patchlight.errors import Interrupted, PatchlightError, UsageError
from patchlight.models import build_model, load_model
from patchlight.models import pixels_to_input as to_input
from patchlight.runs import Run
from patchlight.training import fit as fitting
from patchlight.training.checkpoint import list_checkpoints
from patchlight.training.loop import Trainer
from patchlight.training.schedule import momentum
from patchlight.training.setup import prepare
from patchlight.training.state import StopSignal
from patchlight.training.tasks import Classification, Validation

DROPOUTS = {"proj_drop_rate": 0.1, "pos_drop_rate": 0.1, "attn_drop_rate": 0.1, "drop_path_rate": 0.2}
EVERYTHING = {"crop_padding": 2, "flip": "random", "policy": "randaugment", "mixup_alpha": 0.5, "cutmix_alpha": 1.0}


def start(tmp_path, **sections) -> Trainer:
    sections.setdefault("train", {}).setdefault("batch_size", 16)
    return make_trainer(small_config(**sections), tmp_path)


def clockless(run: Run) -> list[dict]:
    """The epochs without their times."""
    clocks = ("images_per_s", "epoch_s", "wall_s")
    return [{k: v for k, v in row.items() if k not in clocks} for row in rows_of(run)]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_model(run.path)[0].state_dict()


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


class StopAfter(StopSignal):
    """A signal that comes after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    @property
    def requested(self) -> str:  # type: ignore[override]
        self.left -= 1
        return "SIGTERM" if self.left < 0 else ""


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_run_stopped_anywhere_and_resumed_is_the_same_run(tmp_path, monkeypatch, optimizer, steps):
    """20 images a step leave 8 for the third of an epoch."""
    sections = {
        "model": DROPOUTS,
        "augment": EVERYTHING,
        "optim": {"name": optimizer, "grad_clip": 1.0},
        "train": {"epochs": 2.7, "ema_decay": 0.9, "batch_size": 20, "drop_last": False},
        "schedule": {"warmup_epochs": 1},
    }
    _, whole = run_fit(tmp_path, "whole", **sections)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "stop_on_signal", lambda: _context(StopAfter(steps)))
        with pytest.raises(Interrupted, match="stopped by SIGTERM after"):
            run_fit(tmp_path, "cut", **sections)
    state, cut = run_fit(tmp_path, "cut", resume=True, **sections)
    assert state.epoch == 3
    assert clockless(cut) == clockless(whole)
    assert_same(weights(cut), weights(whole))


class _context:
    def __init__(self, value):
        self.value = value

    def __enter__(self):
        return self.value

    def __exit__(self, *error):
        return False


def test_a_real_signal_saves_and_stops(tmp_path, monkeypatch):
    """SIGINT from outside, in the middle of a step."""
    step = Trainer.train_step

    def interrupted(self, epoch, number):
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, epoch, number)

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(
        Interrupted,
        match=r"SIGINT after 0 epochs and 1 step; the checkpoint is saved: repeat the command with --resume to go on$",
    ):
        run_fit(tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert [p.name for p in list_checkpoints(tmp_path / "run" / "checkpoints")] == ["epoch-000-step-00000001"]


def test_two_runs_of_one_seed_are_equal_and_another_seed_differs(tmp_path):
    _, a = run_fit(tmp_path, "a", augment=EVERYTHING, model=DROPOUTS)
    _, b = run_fit(tmp_path, "b", augment=EVERYTHING, model=DROPOUTS)
    _, c = run_fit(tmp_path, "c", augment=EVERYTHING, model=DROPOUTS, train={"seed": 1})
    assert_same(weights(a), weights(b))
    assert clockless(a) == clockless(b) != clockless(c)


def test_it_learns(tmp_path):
    state, run = run_fit(tmp_path, train={"epochs": 12})
    rows = rows_of(run)
    assert state.best_score > 0.9
    assert rows[-1]["train/loss"] < 0.5 * rows[0]["train/loss"]
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert rows[-1]["step"] == 36
    assert all(math.isfinite(row["images_per_s"]) for row in rows)


def test_a_few_steps_are_the_textbooks(tmp_path):
    """Forward, smoothed cross-entropy, AdamW, by hand on the same batches."""
    trainer = start(
        tmp_path,
        train={"label_smoothing": 0.1, "epochs": 1},
        model={"fused_attn": True},
        optim={"weight_decay": 0.1, "beta1": 0.8, "beta2": 0.95},
        schedule={"name": "linear"},
    )
    stage = trainer.stage
    reference = build_model(stage.card.spec)
    reference.load_state_dict(stage.model.state_dict())
    decayed = [p for n, p in reference.named_parameters() if n.endswith("weight") and p.ndim > 1]
    rest = [p for n, p in reference.named_parameters() if not (n.endswith("weight") and p.ndim > 1)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], betas=(0.8, 0.95)
    )
    for step in range(3):
        batch = trainer.batches.batch(0, step)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / 3)
        logits = reference(to_input(batch.images, stage.card.mean, stage.card.std))
        loss = F.cross_entropy(logits, batch.targets, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean_loss, correct = trainer.train_step(0, step)
        assert mean_loss.item() == pytest.approx(loss.item(), rel=1e-5)
        assert correct.item() == (logits.argmax(1) == batch.targets).sum().item()
    for ours, theirs in zip(stage.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_cycle_of_momentum_reaches_the_optimizer(tmp_path):
    schedule = {"name": "onecycle", "cycle_momentum": True}
    trainer = start(tmp_path, schedule=schedule, optim={"lr": 1e-3}, train={"epochs": 3})
    (optimizer,), total = trainer.stage.optimizers, trainer.state.total_steps
    for step in range(total):
        trainer.train_step(*divmod(step, trainer.stage.steps_per_epoch))
        expected = momentum(step, total, trainer.stage.config.schedule)
        assert {group["betas"] for group in optimizer.param_groups} == {(expected, 0.999)}
    assert expected == pytest.approx(0.95)


def test_layers_keep_their_share_of_the_rate_down_to_the_floor(tmp_path):
    trainer = start(
        tmp_path,
        optim={"layer_decay": 0.5, "lr": 1e-3},
        schedule={"name": "linear", "min_lr": 5e-4},
        train={"epochs": 2},
    )
    for step in range(trainer.state.total_steps):
        trainer.train_step(*divmod(step, trainer.stage.steps_per_epoch))
        groups = [group for optimizer in trainer.stage.optimizers for group in optimizer.param_groups]
        rates = {group["lr_scale"]: group["lr"] for group in groups}
        assert sorted(rates) == [0.125, 0.25, 0.5, 1.0]
        assert all(rate == pytest.approx(scale * rates[1.0]) for scale, rate in rates.items())
    assert 5e-4 <= rates[1.0] < 6e-4


def test_pieces_of_a_batch_give_the_same_step(tmp_path):
    whole = start(tmp_path, augment={"mixup_alpha": 0.5}, train={"batch_size": 20, "drop_last": False})
    pieces = start(
        tmp_path, augment={"mixup_alpha": 0.5}, train={"batch_size": 20, "drop_last": False, "micro_batch_size": 5}
    )
    for step in (0, 2):  # 20 images, and 8
        torch.testing.assert_close(whole.train_step(0, step), pieces.train_step(0, step))
    for p, q in zip(whole.stage.model.parameters(), pieces.stage.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=1e-4)


CONV = {"name": "vit-compact", "embed_dim": 24, "depth": 2, "num_heads": 2, "stem_whitening": 12, "init_values": 0.3}


@pytest.mark.parametrize("fused", [True, False])
def test_blocks_have_the_kind_of_attention_that_was_chosen(tmp_path, fused):
    stage = start(tmp_path, model={"fused_attn": fused}).stage
    assert {block.attn.fused_attn for block in stage.model.blocks} == {fused}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("model", [{}, CONV])
def test_low_precision_stays_close_to_fp32(tmp_path, precision, model, fused):
    """The loss within 2 %, and the direction of the gradient within a cosine of 0.98, over three steps of Muon."""
    sections = {"model": {**model, "fused_attn": fused}, "optim": {"name": "muon", "muon_conv_lr": 0.01}}
    exact = start(tmp_path, **sections)
    low = start(tmp_path, **sections, train={"precision": precision})
    gradients = [watch_gradient(trainer) for trainer in (exact, low)]
    for step in range(3):
        a, b = exact.train_step(0, step)[0], low.train_step(0, step)[0]
        assert b.item() == pytest.approx(a.item(), rel=0.02)
        one, other = (found[-1] for found in gradients)
        assert torch.cosine_similarity(one, other, dim=0) > 0.98
    assert all(p.dtype == torch.float32 for p in low.stage.model.parameters())


def watch_gradient(trainer: Trainer) -> list[torch.Tensor]:
    """The whole gradient of every step from now on, as one vector of unit norm."""
    found: list[torch.Tensor] = []

    def note(*_: object) -> None:
        flat = torch.cat([p.grad.flatten() for p in trainer.stage.model.parameters() if p.grad is not None])
        found.append(flat / flat.norm())

    trainer.stage.optimizers[0].register_step_pre_hook(note)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compile_gives_the_same_step(tmp_path):
    """Also of a smaller last batch."""
    plain = start(tmp_path, train={"batch_size": 20, "drop_last": False})
    compiled = start(tmp_path, train={"batch_size": 20, "drop_last": False, "compile": True})
    for step in (0, 2, 1):
        torch.testing.assert_close(plain.train_step(0, step), compiled.train_step(0, step))


def test_compile_without_a_compiler_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"train\.compile needs a C\+\+ compiler"):
        run_fit(tmp_path, train={"compile": True})


def test_images_left_out_of_an_epoch_are_mentioned(tmp_path, capsys):
    run_fit(tmp_path, "most", train={"epochs": 1, "batch_size": 32})
    assert "48 training images in steps of 32 leave 16 out of each epoch" in capsys.readouterr().err
    run_fit(tmp_path, "none", train={"epochs": 1, "batch_size": 16})
    assert "out of each epoch" not in capsys.readouterr().err
    run_fit(tmp_path, "all", train={"epochs": 1, "batch_size": 32, "drop_last": False})
    assert "out of each epoch" not in capsys.readouterr().err


def test_means_of_an_epoch_with_a_smaller_last_batch_are_of_its_images(tmp_path, monkeypatch):
    """48 images in batches of 20, 20 and 8: loss and accuracy by hand from the logits of every step."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    loss = Classification.loss

    def watched(self, output, images, targets, *batch):
        seen.append((output.detach().double(), targets))
        return loss(self, output, images, targets, *batch)

    monkeypatch.setattr(Classification, "loss", watched)
    state, run = run_fit(tmp_path, train={"batch_size": 20, "drop_last": False, "epochs": 2})
    assert [len(targets) for _, targets in seen] == [20, 20, 8] * 2
    assert (state.done, [row.step for row in run.epochs()]) == (6, [3, 6])
    for row, steps in zip(run.epochs(), (seen[:3], seen[3:]), strict=True):
        logits, targets = (torch.cat(parts) for parts in zip(*steps, strict=True))
        assert row.train_loss == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-5)
        assert row.train_top1 == pytest.approx((logits.argmax(1) == targets).double().mean().item())
        assert row.images_per_s * row.epoch_s == pytest.approx(48)


@pytest.mark.parametrize("epochs", [1, 2.5])
def test_images_of_a_stage_are_counted_with_its_smaller_batches(tmp_path, epochs):
    trainer = start(tmp_path, train={"batch_size": 20, "drop_last": False, "epochs": epochs})
    stage = trainer.stage
    sizes = [len(trainer.batches.batch(*divmod(step, 3)).images) for step in range(stage.total_steps)]
    assert stage.total_steps == round(3 * epochs)
    assert [stage.images_in(steps) for steps in range(len(sizes) + 1)] == [
        sum(sizes[:n]) for n in range(len(sizes) + 1)
    ]
    short = start(tmp_path, train={"batch_size": 20, "drop_last": False, "debug": True})
    assert (short.stage.steps_per_epoch, short.stage.images_per_epoch) == (2, 40)


def test_a_last_batch_of_one_image(tmp_path):
    """It is mixed with itself; batch norm, which has no deviation of one image, refuses it before training."""
    train = {"batch_size": 47, "drop_last": False, "epochs": 1}
    trainer = start(tmp_path, train=train, augment=EVERYTHING)
    images, targets = trainer.begin_step(0, 1)
    assert (len(images), targets.sum().item(), targets.max().item()) == (1, 1.0, 1.0)
    loss, _ = trainer.train_step(0, 1)
    assert torch.isfinite(loss)
    data, resnet = small_splits(), ModelConfig(name="resnet18")
    config = dataclasses.replace(small_config(train=train), model=resnet)
    with pytest.raises(
        UsageError, match=r"a single image, too few for the model's batch norm; change train\.batch_size"
    ):
        prepare(config, data)
    prepare(dataclasses.replace(small_config(train={**train, "batch_size": 46}), model=resnet), data)
    prepare(
        dataclasses.replace(small_config(train={**train, "trainable": "head"}), model=resnet), data
    )  # in evaluation
    with pytest.raises(UsageError, match=r"the last micro-batch of one, is a single image"):
        prepare(dataclasses.replace(small_config(train={"batch_size": 33, "micro_batch_size": 16}), model=resnet), data)
    for asked in ({"batch_size": 34, "micro_batch_size": 16}, {"batch_size": 1}):  # of one image each: it was asked for
        prepare(dataclasses.replace(small_config(train=asked), model=resnet), data)


def test_validation_loss_is_shown_with_the_smoothing_of_training(tmp_path, capsys):
    _, run = run_fit(tmp_path, train={"label_smoothing": 0.2, "epochs": 1, "select": "last"})
    (row,) = run.epochs()
    model, card = load_model(run.path)
    pixels, labels = small_splits().val.gather(torch.arange(12))
    with torch.inference_mode():
        logits = model.eval()(card.to_input(pixels)).double()
    assert row.val_loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
    smoothed = F.cross_entropy(logits, labels, label_smoothing=0.2).item()
    assert row.val_loss_smoothed == pytest.approx(smoothed, rel=1e-4)
    assert f"val loss {row.val_loss:.3f} ({smoothed:.3f} smoothed)" in capsys.readouterr().err
    _, plain = run_fit(tmp_path, "plain", train={"epochs": 1})
    assert "val/loss_smoothed" not in rows_of(plain)[0]


def test_seconds_of_an_epoch_are_on_its_line(tmp_path, capsys):
    _, run = run_fit(tmp_path, train={"epochs": 1})
    assert f" images/s  {run.epochs()[0].epoch_s:,.1f} s/epoch  0:00 left" in capsys.readouterr().err


def test_clipping_bounds_the_gradient(tmp_path, monkeypatch):
    trainer = start(tmp_path, optim={"grad_clip": 0.01})
    norms = []
    adamw = trainer.stage.optimizers[0]
    step = adamw.step

    def watched(*args, **kwargs):
        norms.append(torch.stack([p.grad.norm() for p in trainer.stage.model.parameters()]).norm().item())
        return step(*args, **kwargs)

    monkeypatch.setattr(adamw, "step", watched)
    trainer.train_step(0, 0)
    assert norms == [pytest.approx(0.01, rel=1e-3)]


def test_the_average_is_validated_and_kept(tmp_path):
    trainer = start(tmp_path, train={"ema_decay": 0.5})
    trainer.train_step(0, 0)
    model = trainer.stage.model
    first = model.head.weight.detach().clone()  # the first update copies
    trainer.train_step(0, 1)
    torch.testing.assert_close(trainer.stage.selected_model.head.weight, 0.5 * first + 0.5 * model.head.weight)


def test_the_best_epoch_is_kept_and_patience_ends_training(tmp_path, monkeypatch, capsys):
    """A tie is decided by the loss for the weights that are kept, and is no better epoch for patience."""
    scores = iter([(1.0, 0.5), (0.9, 0.7), (0.8, 0.7), (0.7, 0.7), (0.9, 0.9)])
    kept = {}

    def scored(self, model, images):
        kept[len(kept) + 1] = {k: v.clone() for k, v in model.state_dict().items()}
        return Validation(*next(scores))

    monkeypatch.setattr(Classification, "score", scored)
    state, run = run_fit(tmp_path, train={"epochs": 9, "early_stop_epochs": 2})
    assert (state.epoch, state.best_epoch, state.stopped_early) == (4, 4, True)
    assert [row["best"] for row in rows_of(run)] == [True, True, True, True]
    assert_same(weights(run), kept[4])
    sentence = "stopped after epoch 4 of 9: 2 epochs without a better validation accuracy"
    assert capsys.readouterr().err.splitlines()[-1] == sentence
    assert [row.early_stop and row.early_stop.in_words for row in run.epochs()] == [None, None, None, sentence]


def test_patience_that_ends_with_the_last_epoch_stops_nothing_early(tmp_path, monkeypatch):
    monkeypatch.setattr(Classification, "score", lambda *_: Validation(1.0, 0.5))
    state, run = run_fit(tmp_path, train={"epochs": 3, "early_stop_epochs": 2})
    assert (state.epoch, state.stopped_early) == (3, False)
    assert [row.early_stop for row in run.epochs()] == [None] * 3


def test_patience_counts_on_in_a_resumed_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Classification, "score", lambda *_: Validation(1.0, 0.5))
    with stopped_at_save(2):
        run_fit(tmp_path, train={"epochs": 9, "early_stop_epochs": 2})
    state, _ = run_fit(tmp_path, resume=True, train={"epochs": 9, "early_stop_epochs": 2})
    assert (state.epoch, state.stopped_early) == (3, True)


def test_the_last_can_be_kept_instead(tmp_path):
    _, run = run_fit(tmp_path, train={"select": "last", "epochs": 3})
    last = list_checkpoints(run.path / "checkpoints")[-1]
    assert_same(weights(run), load_file(last / "model.safetensors"))


def test_every_nth_checkpoint_stays(tmp_path):
    _, run = run_fit(tmp_path, train={"epochs": 5, "checkpoint_every": 2})
    assert [p.name for p in list_checkpoints(run.path / "checkpoints")] == [
        "epoch-002",
        "epoch-004",
        "epoch-005",
    ]


def test_mixing_stops_when_it_is_told_to(tmp_path):
    trainer = start(tmp_path, augment={"mixup_alpha": 1.0, "strong_until": 0.5}, train={"epochs": 4})
    assert trainer.state.total_steps == 12
    shapes = [trainer.begin_step(epoch, step)[1].shape for epoch in range(4) for step in range(3)]
    assert shapes == [(16, 3)] * 6 + [(16,)] * 6
    _, run = run_fit(tmp_path, "mixed", augment={"mixup_alpha": 1.0, "strong_until": 0.5})
    assert [row.train_mixed for row in run.epochs()] == [True, False]


@pytest.mark.parametrize("engine", ["loop", "hf"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_training_accuracy_of_mixed_images_counts_both_labels(tmp_path, monkeypatch, capsys, engine, smoothing):
    """In the file and on the console, whichever engine: lam of the own and 1 - lam of the partner's label, step by
    step, in an epoch in whose middle mixing stops and in the one after it.
    """
    counted: list[float] = []
    loss = Classification.loss

    def watched(self, output, images, targets, *batch):
        soft = targets if targets.ndim == 2 else F.one_hot(targets, 3)
        counted.append(sum(row[i] for row, i in zip(soft.tolist(), output.argmax(1).tolist(), strict=True)) / 48)
        return loss(self, output, images, targets, *batch)

    monkeypatch.setattr(Classification, "loss", watched)
    augment = {
        "mixup_alpha": 1.0,
        "cutmix_alpha": 1.0,
    }
    _, run = run_fit(
        tmp_path, augment={**augment, "strong_until": 0.3}, train={"engine": engine, "label_smoothing": smoothing}
    )
    rows = run.epochs()
    assert [row.train_mixed for row in rows] == [True, False]
    assert [row.train_top1 for row in rows] == [pytest.approx(sum(counted[i : i + 3]), abs=1e-6) for i in (0, 3)]
    assert any(c * 48 != pytest.approx(round(c * 48)) for c in counted[:2])
    assert counted[2] * 48 == pytest.approx(round(counted[2] * 48))  # mixing had stopped
    text = capsys.readouterr().err
    lines = [line for line in text.splitlines() if line.startswith("epoch ")]
    assert f"acc {rows[0].train_top1:.1%} (mixed)  " in lines[0]
    assert f"acc {rows[1].train_top1:.1%}  " in lines[1]
    assert "acc counts of each the share that the predicted class has in its label" in text


def test_every_step_that_is_shown_counts_alike(tmp_path, monkeypatch, capsys):
    """Also the last step of an epoch and of the run."""
    monkeypatch.setattr("patchlight.progress.LINE_EVERY_S", 0.0)
    run_fit(tmp_path, augment={"cutmix_alpha": 1.0})
    steps = [line for line in capsys.readouterr().err.splitlines() if re.match(r"epoch \d/2 \d/6", line)]
    assert len(steps) == 6
    assert all(re.search(r"acc \d+\.\d% \(mixed\)", line) for line in steps)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    said = r"the loss is (nan|inf) in step \d+ of epoch \d, of the training images \d.*; lower optim.lr"
    with pytest.raises(PatchlightError, match=said):
        run_fit(tmp_path, optim={"name": "sgd", "lr": 1e12, "nesterov": False}, train={"epochs": 4})


def test_selection_needs_validation_images(tmp_path):
    data = dataclasses.replace(small_splits(), val=None)
    with pytest.raises(PatchlightError, match=r"set data.val_fraction, or --train.select last"):
        prepare(small_config(train={"batch_size": 16}), data)
    _, run = run_fit(tmp_path, data_set=data, train={"batch_size": 16, "select": "last"})
    assert [row["val/top1"] for row in rows_of(run)] == [None, None]


def test_training_leaves_the_callers_random_numbers_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    run_fit(tmp_path, model=DROPOUTS, augment=EVERYTHING)
    assert torch.equal(torch.rand(1), expected)


def test_cuda_graphs_need_a_gpu(tmp_path):
    with pytest.raises(UsageError, match=r"train\.cuda_graphs needs train\.compile = true and a CUDA device"):
        run_fit(tmp_path, train={"cuda_graphs": True})


def test_what_others_may_use_of_the_loop(tmp_path):
    """A second engine, the rehearsal and the benchmarks need no more than this."""
    trainer = start(tmp_path)
    assert {name for name in vars(trainer) if not name.startswith("_")} == {"stage", "data", "state", "batches"}
    methods = {name for name in vars(Trainer) if not name.startswith("_")}
    assert methods == {"run", "train_step", "begin_step", "check_step", "end_step", "epoch_is_over", "pause"}
