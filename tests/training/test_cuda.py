"""On a GPU: the same batches and losses as on the CPU, compiled and replayed as graphs too, and no waiting."""

from __future__ import annotations

import pytest
import torch
from small import make_trainer, small_config

from patchlight.training.loop import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

EVERYTHING = {
    "crop_padding": 2,
    "flip": "alternating",
    "policy": "randaugment",
    "erasing_prob": 0.5,
    "cutmix_alpha": 1.0,
}
CONV = {"name": "vit-compact", "embed_dim": 24, "depth": 2, "num_heads": 2, "stem_whitening": 12}


def trainer(tmp_path, device: str, **train: object) -> Trainer:
    config = small_config(
        model=CONV,
        augment=EVERYTHING,
        optim={"name": "muon", "muon_conv_lr": 0.01},
        train={"batch_size": 16, "device": device, **train},
    )
    return make_trainer(config, tmp_path / device)


def losses(trainer: Trainer, steps: int = 6) -> list[float]:
    trainer.stage.model.train()
    return [trainer.train_step(step // 3, step % 3)[0].item() for step in range(steps)]


def test_batches_are_the_cpus(tmp_path):
    there, here = (trainer(tmp_path, device).batches for device in ("cuda", "cpu"))
    assert there._resident is not None
    for epoch, step in ((0, 0), (1, 2)):
        a, b = there.batch(epoch, step), here.batch(epoch, step)
        assert a.images.device.type == "cuda"
        assert torch.equal(a.images.cpu(), b.images)
        assert torch.equal(a.targets.cpu(), b.targets)


def test_losses_are_the_cpus(tmp_path):
    assert losses(trainer(tmp_path, "cuda", precision="fp32")) == pytest.approx(
        losses(trainer(tmp_path, "cpu")), rel=1e-2
    )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_stays_close(tmp_path, precision):
    exact = losses(trainer(tmp_path, "cuda", precision="fp32"), 3)
    assert losses(trainer(tmp_path, "cuda", precision=precision), 3) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("graphs", [False, True])
def test_compiled_steps_are_the_same(tmp_path, graphs):
    """Also of a smaller last batch: 20, 20 and 8 images."""
    train = {"precision": "fp32", "batch_size": 20, "drop_last": False}
    plain = losses(trainer(tmp_path, "cuda", **train))
    compiled = losses(trainer(tmp_path, "cuda", **train, compile=True, cuda_graphs=graphs))
    assert compiled == pytest.approx(plain, rel=1e-2)


def test_a_step_never_waits_for_the_gpu(tmp_path):
    training = trainer(tmp_path, "cuda", precision="bf16", ema_decay=0.9)
    training.stage.model.train()
    training.train_step(0, 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        training.train_step(0, 1)
        training.train_step(1, 0)  # new batches are made
        training.train_step(2, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
