"""Compiled models, whole, in place and in part, have the maps of the model that was compiled."""

from __future__ import annotations

import pytest
import torch
from networks import network, pictures_for
from torch import Tensor, nn
from vits import images_for, of_hugging_face, of_timm, ours

from patchlight import explain, record_attention
from patchlight.explanation.capture import keep_patches
from patchlight.explanation.methods import methods_for
from patchlight.models.anatomy import VitAnatomy, dissect, dissect_vit

MODELS = {
    "ours": (ours, lambda: images_for("")),
    "timm": (lambda: of_timm(reg_tokens=2), lambda: images_for("")),
    "Hugging Face": (of_hugging_face, lambda: images_for("")),
    "resnet": (lambda: network("torchvision resnet"), lambda: pictures_for("torchvision resnet")),
}


def whole(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def blocks_of(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """What holds each block, and its name there."""
    inside = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]
    anatomy = dissect(model)
    wanted = anatomy.blocks if isinstance(anatomy, VitAnatomy) else [model.layer3[0], model.layer4[0]]
    return [(parent, name) for parent, name, child in inside if any(child is block for block in wanted)]


def blocks(model: nn.Module) -> nn.Module:
    for parent, name in blocks_of(model):
        setattr(parent, name, torch.compile(getattr(parent, name), backend="eager"))
    return model


def blocks_in_place(model: nn.Module) -> nn.Module:
    for parent, name in blocks_of(model):
        getattr(parent, name).compile(backend="eager")
    return model


WAYS = {way.__name__: way for way in (whole, in_place, blocks, blocks_in_place)}


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def logits_of(output) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # torch's own, of a part's input
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_maps_recordings_and_removals_are_those_of_the_plain_model(name, way):
    make, draw = MODELS[name]
    plain, compiled, images = make(), WAYS[way](make()), draw()
    expected = logits_of(plain(images))
    torch.testing.assert_close(logits_of(compiled(images)), expected)  # compiled by now
    for method in methods_for(dissect(plain)):
        if method != "occlusion":
            options = {"integrated-gradients": {"steps": 2}, "smoothgrad": {"samples": 2}}.get(method, {})
            one, other = (explain(model, images, method=method, target=1, **options) for model in (plain, compiled))
            torch.testing.assert_close(one.maps, other.maps)
    if name == "resnet":
        return
    recorded = []
    for model in (plain, compiled):
        with record_attention(model, gradients=True, values=True) as recording:
            logits = logits_of(model(images))
        recorded.append((recording.attention, recording.values, recording.gradients(logits[:, 2])))
    torch.testing.assert_close(*recorded)
    kept = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(n))[:9] for n in range(len(images))])
    fewer = []
    for model in (plain, compiled):
        with keep_patches(dissect_vit(model), kept):
            fewer.append(logits_of(model(images)))
    torch.testing.assert_close(*fewer)
    assert (fewer[0] - expected).abs().max() > 1e-3
    torch.testing.assert_close(logits_of(compiled(images)), expected)  # and compiled still
