"""A model is given back exactly as it was, of every family and after an exception too; so is torch's own state."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from networks import NETWORKS, network, pictures, pictures_for
from torch import Tensor, nn
from vits import BACKBONES, VITS, backbone, images_for, of_hugging_face, ours, stirred

from patchlight import explain, record_attention
from patchlight.explanation.capture import as_found, keep_patches
from patchlight.explanation.methods import METHODS, methods_for
from patchlight.explanation.targets import similar_to
from patchlight.models import VisionTransformer
from patchlight.models.anatomy import VitAnatomy, dissect, dissect_vit

MODELS = {
    **{f"ViT: {name}": (make, lambda name=name: images_for(name)) for name, make in VITS.items()},
    **{f"backbone: {name}": (make, lambda: images_for("")) for name, make in BACKBONES.items()},
    **{name: (lambda name=name: network(name), lambda name=name: pictures_for(name)) for name in NETWORKS},
}
OPTIONS: dict[str, dict[str, Any]] = {"integrated-gradients": {"steps": 2}, "smoothgrad": {"samples": 2}}
HOOKS = [name for name in vars(nn.Module()) if "hooks" in name]


def mixed(model: nn.Module) -> nn.Module:
    """As people leave models: some modules in training, some weights frozen, some with a gradient, a hook of theirs."""
    for number, module in enumerate(model.modules()):
        module.training = number % 3 != 0
    for number, p in enumerate(model.parameters()):
        p.requires_grad_(p.is_floating_point() and number % 2 == 0)
        if number % 4 == 0:
            p.grad = torch.ones_like(p)
    model.register_forward_hook(lambda module, args, output: None)
    return model


def facts(model: nn.Module) -> dict[str, Any]:
    """All that there is of a model, down to the plain attributes of each module; tensors with their identity."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        found[f"{name} mode"] = module.training
        for hooks in HOOKS:
            found[f"{name} {hooks}"] = list(getattr(module, hooks).items())
        for key, value in vars(module).items():
            if isinstance(value, bool | int | float | str | torch.dtype | type(None)):
                found[f"{name}.{key}"] = value
        if hasattr(module, "config"):
            found[f"{name} config"] = settings(module.config)
    for name, p in model.named_parameters():
        found[f"{name} p"] = (id(p), p.requires_grad, id(p.grad), list((p._backward_hooks or {}).items()))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[f"{name} tensor"] = (id(tensor), tensor.dtype, tensor.detach().clone())
        if isinstance(tensor, nn.Parameter) and tensor.grad is not None:
            found[f"{name} grad"] = tensor.grad.clone()
    return found


def settings(config: Any) -> dict[str, Any]:
    """Of a configuration and those inside it, private ones too: how attention is computed is one."""
    return {key: settings(value) if hasattr(value, "to_dict") else repr(value) for key, value in vars(config).items()}


def same(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs."""
    different = [key for key in before.keys() | after.keys() if key not in before or key not in after]
    for key in before.keys() & after.keys():
        one, other = before[key], after[key]
        equal = (
            all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(one, other, strict=True))
            if isinstance(one, tuple)
            else torch.equal(one, other)
            if isinstance(one, Tensor)
            else one == other
        )
        if not equal:
            different.append(key)
    return different


def state_of_torch() -> list[Any]:
    return [
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002 -- the global state is what must not change
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.backends.cuda.flash_sdp_enabled(),
    ]


@pytest.mark.parametrize("name", MODELS)
def test_explaining_changes_nothing(name):
    make, draw = MODELS[name]
    model, images = mixed(make()), draw()
    anatomy = dissect(model)
    before, torch_before = facts(model), state_of_torch()
    target = "predicted" if anatomy.has_head else similar_to(model, images.flip(3)[:1])
    for method in methods_for(anatomy):
        if method == "occlusion" and images.shape[-1] > 32:
            continue  # nothing but forward passes, as others
        explain(model, images, method=method, target=target, **OPTIONS.get(method, {}))
    assert same(before, facts(model)) == []
    assert state_of_torch() == torch_before


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith(("ViT", "backbone"))])
def test_recording_changes_nothing(name):
    """The mode stays the user's, inside too."""
    make, draw = MODELS[name]
    model, images = mixed(make()).eval(), draw()
    anatomy = dissect_vit(model)
    before, torch_before = facts(model), state_of_torch()
    with record_attention(model, gradients=True, values=True) as recorded:
        recorded.gradients(anatomy.logits(images)[:, 0])
    with keep_patches(anatomy, torch.arange(7).expand(len(images), -1)):
        if anatomy.can_drop_patches:
            anatomy.logits(images)
    anatomy.logits(images)
    assert same(before, facts(model)) == []
    assert state_of_torch() == torch_before


class Stop(Exception):
    """On purpose."""


def stops_in_pass(model: nn.Module, number: int) -> None:
    """From now on the model fails in the middle of its forward pass of this number."""
    passes = 0
    middle = [module for module in model.modules() if not list(module.children())]
    inner = middle[len(middle) // 2]

    def stop(module: nn.Module, args: Any) -> None:
        nonlocal passes
        passes += 1
        if passes >= number:
            raise Stop

    inner.register_forward_pre_hook(stop)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("name", ["ViT: ours", "ViT: timm, registers", "ViT: Hugging Face BEiT", "backbone: MAE"])
def test_an_exception_in_the_middle_changes_nothing(name, number):
    """In the first pass of `explain`, or inside the method."""
    make, draw = MODELS[name]
    images = draw()
    for method in METHODS:
        if number == 2 and method in ("random", "centre"):
            continue  # they look at no model
        model = mixed(make())
        target = "predicted" if dissect(model).has_head else similar_to(model, images.flip(3)[:1])
        stops_in_pass(model, number)
        before, torch_before = facts(model), state_of_torch()
        with pytest.raises(Stop):
            explain(model, images, method=method, target=target, **OPTIONS.get(method, {}))
        assert same(before, facts(model)) == []
        assert state_of_torch() == torch_before


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("name", ["timm bottlenecks", "torchvision swin", "Hugging Face swin"])
def test_an_exception_while_layers_are_measured_changes_nothing(name, number):
    model, images = mixed(network(name)), pictures_for(name)
    stops_in_pass(model, number)
    before, torch_before = facts(model), state_of_torch()
    for method in ("gradcam", "smoothgrad", "integrated-gradients"):
        try:
            explain(model, images, method=method, **OPTIONS.get(method, {}))
        except Stop:
            pass
        else:
            raise AssertionError("it should have stopped")
        assert same(before, facts(model)) == []
    assert state_of_torch() == torch_before


@pytest.mark.parametrize("name", ["ViT: ours", "ViT: Hugging Face CLIP", "backbone: SigLIP", "backbone: MAE"])
def test_an_exception_while_recording_changes_nothing(name):
    make, draw = MODELS[name]
    model, images = mixed(make()), draw()
    before = facts(model)

    def fail() -> None:
        with record_attention(model, gradients=True, values=True):
            dissect(model).logits(images)
            raise Stop

    with pytest.raises(Stop):
        fail()
    assert same(before, facts(model)) == []


class Counting(nn.Module):
    """A model that keeps count of what it sees and draws when it predicts, whatever its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 4, stride=4), nn.Linear(4, 5)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("own", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        self.mean = self.conv(x).detach().mean(dim=(0, 2, 3))  # another tensor
        self.own.fill_(torch.nan)
        return self.fc(self.conv(x).mean(dim=(2, 3))) + 0.1 * torch.rand(len(x), 5)


def test_buffers_that_a_pass_changes_and_what_it_draws_are_put_back():
    torch.manual_seed(0)
    model, images = Counting(), torch.randn(2, 3, 16, 16)
    before, torch_before = facts(model), state_of_torch()
    for method in methods_for(dissect(model)):
        explain(model, images, method=method, **OPTIONS.get(method, {}))
    assert same(before, facts(model)) == []
    assert state_of_torch() == torch_before


class Folding(nn.Linear):
    """As some adapters, it adds its weights together in evaluation mode: there and back is not exact in floats."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.extra = nn.Parameter(torch.randn_like(self.weight) * 1e-3)

    def train(self, mode: bool = True) -> nn.Module:
        if mode != self.training:
            self.weight.data += -self.extra.data if mode else self.extra.data
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (nn.functional.linear(x, self.extra) if self.training else 0)


def test_weights_that_fold_in_evaluation_mode_are_left_alone():
    torch.manual_seed(0)
    model = VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=5)
    model.blocks[0].mlp.fc1 = Folding(24, 96)
    model.train()
    before = facts(model)
    explain(model, torch.randn(2, 3, 16, 16), method="chefer")
    assert same(before, facts(model)) == []


def test_inside_the_model_is_in_evaluation_mode_and_normal_tensors_are_made():
    model = mixed(ours())
    with torch.inference_mode(), as_found(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_inference_mode_enabled()
        assert not torch.zeros(1).is_inference()
        torch.rand(3)
        model.blocks[0].training = True
        next(model.parameters()).requires_grad_(False)
    assert [module.training for module in model.modules()] == [n % 3 != 0 for n, _ in enumerate(model.modules())]
    assert next(model.parameters()).requires_grad


def test_the_likeness_to_an_image_is_that_in_evaluation_mode():
    """And is found without a trace, though batch norms and dropout would leave one."""
    model, images = network("timm resnet").train(), pictures_for("timm resnet")
    before = facts(model)
    like = similar_to(model, images)
    assert same(before, facts(model)) == []
    torch.testing.assert_close(like.vectors, model.eval().forward_head(model.forward_features(images), pre_logits=True))


def test_a_network_that_remembers_a_size_forgets_it():
    """Hugging Face's Swin never shifts its windows again once it has seen an image of one window."""
    model = network("Hugging Face swin")
    small, large = pictures_for("Hugging Face swin"), pictures(128)
    expected = network("Hugging Face swin")(large).logits
    explain(model, small)
    torch.testing.assert_close(model(large).logits, expected, rtol=0, atol=0)
    model(small)
    assert not torch.equal(model(large).logits, expected)  # as it does by itself


@pytest.mark.parametrize("kind", ["eager", "sdpa"])
def test_the_kind_of_attention_is_put_back_whatever_it_was(kind):
    model = of_hugging_face("ViT")
    model.set_attn_implementation(kind)
    before = facts(model)
    with record_attention(model):
        assert model.config._attn_implementation == "eager"
    assert same(before, facts(model)) == []
    assert model.config._attn_implementation == kind


def test_the_test_sees_a_difference():
    """Each kind of trace is one that `same` finds."""
    for leave in (
        lambda m: m.blocks[1].eval(),
        lambda m: m.head.weight.requires_grad_(not m.head.weight.requires_grad),
        lambda m: m.head.bias.data.mul_(1 + 1e-15),
        lambda m: m.norm.register_full_backward_hook(lambda *_: None),
        lambda m: setattr(m.blocks[0].attn, "fused_attn", False),
        lambda m: setattr(m.head.bias, "grad", torch.ones_like(m.head.bias)),
    ):
        model = mixed(ours())
        model.blocks[1].train()
        before = facts(model)
        leave(model)
        assert same(before, facts(model))
    model = stirred(backbone("ViTMAEModel"))
    before = facts(model)
    model.config.mask_ratio = 0.1
    assert same(before, facts(model))
    assert isinstance(dissect(model), VitAnatomy)
