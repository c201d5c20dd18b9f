"""Which parameters decay, which go to Muon, and that every row of the table lowers a loss."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import timm.optim
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from patchlight.config import OptimConfig
from patchlight.errors import UsageError
from patchlight.models import VisionTransformer, create_model
from patchlight.training.optim import (
    OPTIMIZERS,
    build_optimizers,
    clip_gradients,
    scaled_rates,
    set_momentum,
    trained_parts,
    update_average,
)

SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}


def test_decay_is_timms():
    model = timm.models.VisionTransformer(**SMALL, reg_tokens=2, init_values=0.1, qk_norm=True)
    groups = timm.optim.param_groups_weight_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert {id(part.parameter) for part in trained_parts(model) if part.decayed} == decayed


def test_muon_needs_blocks():
    with pytest.raises(UsageError, match="none is trained here; use adamw"):
        build_optimizers(create_model("resnet18"), OptimConfig(name="muon"))


@pytest.mark.parametrize(
    ("name", "model"), [*((name, "vit") for name in OPTIMIZERS), ("adamw", "resnet18"), ("sgd", "resnet18")]
)
def test_every_parameter_is_held_once(name, model):
    net = VisionTransformer(**SMALL, reg_tokens=1, stem="conv") if model == "vit" else create_model("resnet18")
    groups = [g for o in build_optimizers(net, OptimConfig(name=name)) for g in o.param_groups]
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in net.parameters())
    assert all(group["lr_scale"] * group["peak_lr"] == group["lr"] for group in groups)


def test_every_setting_reaches_its_optimizer():
    model = VisionTransformer(**SMALL, stem="conv", stem_channels=(8, 24))
    names = {id(p): name for name, p in model.named_parameters()}
    decayed = {id(part.parameter): part.decayed for part in trained_parts(model)}
    config = OptimConfig(lr=1e-3, weight_decay=0.3, beta1=0.7, beta2=0.8, momentum=0.6, nesterov=False, muon_lr=0.02)

    def groups_of(name: str, **more):
        return build_optimizers(model, replace(config, name=name, **more))

    (adamw,) = groups_of("adamw")
    assert {group["betas"] for group in adamw.param_groups} == {(0.7, 0.8)}
    (sgd,) = groups_of("sgd")
    assert {(group["momentum"], group["nesterov"]) for group in sgd.param_groups} == {(0.6, False)}
    assert [g["nesterov"] for g in groups_of("sgd", nesterov=True)[0].param_groups] == [True, True]
    for optimizer in (adamw, sgd, *groups_of("muon")):
        for group in optimizer.param_groups:
            assert {decayed[id(p)] for p in group["params"]} == {group["weight_decay"] == 0.3}

    muon, rest = groups_of("muon", muon_conv_lr=0.06)
    blocks, kernels = muon.param_groups
    assert (blocks["peak_lr"], blocks["weight_decay"], blocks["normalize"]) == (0.02, 0.3, False)
    assert (kernels["peak_lr"], kernels["weight_decay"], kernels["normalize"]) == (0.06, 0.0, True)
    assert {(group["momentum"], group["nesterov"]) for group in muon.param_groups} == {(0.6, False)}
    stem = [name for name, p in model.named_parameters() if name.startswith("patch_embed.stem.") and p.ndim == 4]
    assert sorted(names[id(p)] for p in kernels["params"]) == sorted(stem)
    assert stem
    assert {group["betas"] for group in rest.param_groups} == {(0.7, 0.8)}


def test_one_parameter_group_as_torchs():
    """`AdamW(model.parameters())`: all parameters decay, in one group, and a step is torch's own."""
    model = VisionTransformer(**SMALL)
    twin = copy.deepcopy(model)
    config = OptimConfig(lr=1e-2, weight_decay=0.3, decay_all=True)
    (ours,), theirs = build_optimizers(model, config), torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=0.3)
    assert len(ours.param_groups) == 1
    for optimizer, net in ((ours, model), (theirs, twin)):
        net(torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)).square().sum().backward()
        optimizer.step()
    for (name, mine), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, msg=lambda text, name=name: f"{name}: {text}")


def test_rates_are_scaled_with_the_batch():
    config = OptimConfig(lr=5e-4, lr_base_size=512, muon_lr=0.02, muon_conv_lr=0.06)
    scaled = scaled_rates(config, 1024)
    assert (scaled.lr, scaled.muon_lr, scaled.muon_conv_lr) == (1e-3, 0.04, 0.12)
    assert scaled_rates(replace(config, lr_base_size=None), 1024) == replace(config, lr_base_size=None)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_momentum_of_every_optimizer_can_be_set(name):
    for optimizer in build_optimizers(VisionTransformer(**SMALL), OptimConfig(name=name)):
        for group in optimizer.param_groups:
            set_momentum(group, 0.42)
            assert group["betas"] == (0.42, 0.999) if "betas" in group else group["momentum"] == 0.42


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(name):
    torch.manual_seed(0)
    model = VisionTransformer(**SMALL)
    labels = torch.arange(32) % 5
    images = torch.randn(32, 3, 16, 16) + labels[:, None, None, None]
    optimizers = build_optimizers(model, OptimConfig(name=name, lr=0.005 if name == "sgd" else 0.01))
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        losses.append(loss.item())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < 0.75 * losses[0]


def test_muon_takes_the_matrices_of_the_blocks():
    model = VisionTransformer(**SMALL)
    matrices, rest = build_optimizers(model, OptimConfig(name="muon", lr=1e-3, muon_lr=0.02))
    names = {id(p): n for n, p in model.named_parameters()}
    chosen = sorted(names[id(p)] for g in matrices.param_groups for p in g["params"])
    parts = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert chosen == sorted(f"blocks.{i}.{part}.weight" for i in range(2) for part in parts)
    assert {g["peak_lr"] for g in matrices.param_groups} == {0.02}
    assert {g["peak_lr"] for g in rest.param_groups} == {1e-3}
    assert "head.weight" not in chosen


def test_frozen_parameters_are_left_out():
    model = VisionTransformer(**SMALL)
    model.patch_embed.requires_grad_(False)
    held = {id(p) for o in build_optimizers(model, OptimConfig()) for g in o.param_groups for p in g["params"]}
    assert not held & {id(p) for p in model.patch_embed.parameters()}


def test_gradients_are_clipped_together_unless_one_is_no_number():
    model = nn.Linear(2, 2)
    model.weight.grad, model.bias.grad = torch.full((2, 2), 3.0), torch.full((2,), -4.0)
    clip_gradients(model, 100.0)
    assert model.weight.grad[0, 0] == 3
    clip_gradients(model, 1.0)
    norm = (4 * 9 + 2 * 16) ** 0.5
    torch.testing.assert_close(model.weight.grad, torch.full((2, 2), 3 / norm))
    torch.testing.assert_close(model.bias.grad, torch.full((2,), -4 / norm))
    model.weight.grad[0, 0], before = torch.nan, model.bias.grad.clone()
    clip_gradients(model, 0.1)  # GradScaler looks at each optimizer apart, and would step with NaN in the other
    assert torch.equal(model.bias.grad, before)


def test_an_average_leaves_frozen_weights_alone():
    model = nn.Linear(2, 2)
    average = AveragedModel(model)
    model.bias.requires_grad_(False)
    with torch.no_grad():
        model.weight += 1
        model.bias += 1
    before = average.module.bias.clone()
    update_average(average, model, 0.9)
    assert average.module.bias.equal(before)
    assert average.module.weight.equal(model.weight)


def test_an_average_smooths_weights_and_keeps_whole_numbers():
    """Indices among the buffers, as Swin has them, are not rounded away."""
    model = nn.Linear(2, 2)
    model.register_buffer("index", torch.arange(20))
    model.register_buffer("mean", torch.zeros(3))
    average = AveragedModel(model)
    update_average(average, model, 0.9)
    with torch.no_grad():
        model.weight += 1
        model.index += 100
        model.mean += 1
    before = average.module.weight.clone()
    for _ in range(3):
        update_average(average, model, 0.9)
    torch.testing.assert_close(average.module.weight, before + (1 - 0.9**3))
    torch.testing.assert_close(average.module.mean, torch.full((3,), 1 - 0.9**3))
    assert torch.equal(average.module.index, torch.arange(100, 120))
