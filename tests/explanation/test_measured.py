"""Where networks hold maps of features: the layers that everyone uses, found without their names."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from networks import NETWORKS, alive, network, pictures, pictures_for
from torch import Tensor, nn

from patchlight import explain
from patchlight.errors import PatchlightError, UsageError
from patchlight.explanation.features import find_layer, layer_about
from patchlight.explanation.measured import follows_places, measured_layers
from patchlight.explanation.targets import ClassTarget
from patchlight.models.anatomy import dissect

ZERO = ClassTarget(torch.zeros(2, dtype=torch.long))


def names(model: nn.Module, images: Tensor) -> list[str]:
    return [layer.name for layer in measured_layers(dissect(model), images, ZERO)]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_layer_is_the_one_that_everyone_uses(name):
    """The last block of a ResNet, the last stage of ConvNeXt and MobileNet, Swin's last norm, a ViT's last before the
    attention that only the CLS token reads.
    """
    model, images = network(name), pictures_for(name)
    last = find_layer(dissect(model), images, ZERO, -1)
    _, expected, side = NETWORKS[name]
    assert (last.name, last.grid) == (expected, (side, side))
    assert layer_about(dissect(model), images, ZERO, -1) == f"{expected}, {side} x {side} cells"
    with last.recorded() as recorded:
        dissect(model).logits(images)
    assert last.as_map(recorded[0], (8, 8)).shape[2:] == (side, side)


def test_there_is_one_layer_for_each_size_at_the_end_of_its_stage():
    """Not the first convolution of the next stage, which still has that size, nor an activation that is everywhere."""
    assert names(network("torchvision resnet"), pictures()) == ["relu", "layer1", "layer2", "layer3", "layer4"]
    assert names(network("timm bottlenecks"), pictures()) == ["act1", "layer1", "layer2", "layer3", "layer4"]
    assert names(network("timm convnext"), pictures()) == ["stages.0", "stages.1", "stages.2", "norm_pre"]
    blocks = ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "bn2"]
    assert names(network("timm efficientnet"), pictures()) == blocks
    dense = ["features.relu0", "features.denseblock1", "features.denseblock2", "features"]
    assert names(network("torchvision densenet"), pictures()) == dense
    assert names(network("timm swin"), pictures()) == ["layers.0", "layers.1", "norm"]


@pytest.mark.parametrize("name", ["torchvision resnet", "timm convnext", "torchvision mobilenet"])
def test_of_small_images_the_last_with_more_than_one_cell(name):
    model, images = network(name), pictures(32)
    *_, last = measured_layers(dissect(model), images, ZERO)
    assert last.grid == (2, 2)
    assert last.name in ("layer3", "stages.2", "features.13")
    found = explain(model, images, method="gradcam")
    assert found.maps.shape == (2, 8, 8)


def test_layers_of_a_model_are_the_same_for_all_its_images_and_classes():
    model, images = network("torchvision resnet"), pictures()
    anatomy = dissect(model)
    expected = names(model, images)
    assert names(model, torch.zeros_like(images)) == expected
    other = measured_layers(anatomy, images * 9, ClassTarget(torch.tensor([4, 1])))
    assert [layer.name for layer in other] == expected


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (64, 80)])
@pytest.mark.parametrize("name", ["timm resnet", "torchvision convnext", "Hugging Face resnet"])
def test_images_that_are_not_square(name, size):
    model, images = network(name), pictures(size)
    *_, last = measured_layers(dissect(model), images, ZERO)
    stride = 64 // NETWORKS[name][2]
    assert last.grid == (math.ceil(size[0] / stride), math.ceil(size[1] / stride))
    assert explain(model, images).maps.shape == (2, *dissect(model).grid(images))


def test_the_layers_are_named_where_there_is_no_such_one():
    model, images = network("timm convnext"), pictures()
    listed = "the layers are 0 stages.0, 1 stages.1, 2 stages.2, 3 norm_pre, or -1 for the last"
    with pytest.raises(UsageError, match=f"there is no layer 4: {listed}"):
        explain(model, images, method="gradcam", layer=4)
    assert explain(model, images, method="hirescam:layer=1").maps.isfinite().all()


class Small(nn.Module):
    """Two stages whose activation is one module, or one for each."""

    def __init__(self, shared: bool, inplace: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace)
        self.other = self.relu if shared else nn.ReLU(inplace)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        x = self.other(self.second(x))
        return self.fc(x.mean(dim=(2, 3)))


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "layercam"])
@pytest.mark.parametrize("inplace", [False, True])
def test_a_module_that_is_called_in_two_places_is_two_layers(method, inplace):
    """The same maps as where each place has a module of its own."""
    shared, apart, images = Small(shared=True, inplace=inplace).double(), Small(shared=False).double(), pictures(16)
    apart.load_state_dict(shared.state_dict())
    assert names(shared, images) == ["relu", "relu (call 1)"]
    assert names(apart, images) == ["relu", "other"]
    for layer in (0, 1, -1):
        one, other = (explain(model, images, method=method, layer=layer, target=2).maps for model in (shared, apart))
        torch.testing.assert_close(one, other)
        assert one.abs().sum() > 0


class Beside(nn.Module):
    """A ResNet that also has what looks like maps and is none: of weights, of attention, of windows, of pooled keys."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.places = nn.Linear(2, 8)  # of a table of coordinates, not of the image
        self.block = Mixing()
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        steps = torch.linspace(-1, 1, 15, dtype=x.dtype)
        table = self.places(torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)[None])
        return self.fc(self.block(x, table.mean(dim=(1, 2))).mean(dim=(2, 3)))


class Mixing(nn.Module):
    """Each cell reads from all, by attention whose keys are pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.soft, self.window = nn.AvgPool2d(2), nn.Softmax(dim=-1), nn.Identity()

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        keys = self.pool(x).flatten(2)  # (B, C, M)
        weights = self.soft(x.flatten(2).transpose(1, 2) @ keys)
        windows = self.window(x.unflatten(2, (2, -1)).unflatten(4, (2, -1)).permute(0, 1, 3, 5, 2, 4).flatten(4, 5))
        mixed = (weights @ keys.transpose(1, 2)).transpose(1, 2).unflatten(2, tuple(x.shape[2:]))
        return x + mixed + bias[..., None, None] + windows.mean()


def test_what_only_looks_like_a_map_is_no_layer():
    model, images = alive(Beside()), pictures(32)
    assert names(model, images) == ["block"]
    *_, last = measured_layers(dissect(model), images, ZERO)
    assert last.grid == (8, 8)


class ChannelsLast(nn.Module):
    """Its stages have as many channels as cells a side, so that one of them could be either."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cut, self.norm, self.fc = nn.Conv2d(3, width, 4, stride=4), nn.LayerNorm(width), nn.Linear(width, 5)
        self.step, self.end = nn.Linear(width, width + 3), nn.Linear(width + 3, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.cut(x).permute(0, 2, 3, 1))
        return self.fc(self.end(self.step(x).relu()).mean(dim=(1, 2)))


def test_where_channels_may_come_first_or_last_they_are_where_they_are_elsewhere():
    model, images = alive(ChannelsLast(8)), pictures(32)
    last = find_layer(dissect(model), images, ZERO, -1)
    with last.recorded() as recorded:
        model(images)
    assert recorded[0].shape == (2, 8, 8, 8)
    torch.testing.assert_close(last.as_map(recorded[0], (8, 8)), recorded[0].permute(0, 3, 1, 2))


def test_tokens_that_are_sorted_by_window_are_refused():
    """Hiera keeps them so until its last stage; the maps would be right in no cell."""
    model, images = network("timm hiera"), pictures()
    anatomy = dissect(model)
    *early, last = measured_layers(anatomy, images, ZERO)
    assert [layer.name for layer in early] == ["blocks.0", "blocks.1", "blocks.2"]
    assert not any(follows_places(anatomy, images, layer) for layer in early)
    assert follows_places(anatomy, images, last)
    with pytest.raises(
        PatchlightError, match=r"the tokens of blocks\.1 of Hiera do not follow the places of an image of"
    ):
        explain(model, images, method="gradcam", layer=1)
    assert explain(model, images, method="gradcam").maps.isfinite().all()


@pytest.mark.parametrize("name", ["Hugging Face swin", "timm mixer", "torchvision vit"])
def test_tokens_in_reading_order_are_known_as_such(name):
    model, images = network(name), pictures_for(name)
    anatomy = dissect(model)
    assert all(follows_places(anatomy, images, layer) for layer in measured_layers(anatomy, images, ZERO))


def test_a_network_whose_answer_depends_on_no_map():
    model = timm.models.MlpMixer(img_size=32, patch_size=8, num_blocks=1, embed_dim=12, num_classes=5).double().eval()
    nn.init.zeros_(model.head.weight)
    with pytest.raises(
        PatchlightError, match="no layer of MlpMixer gives a map of features on which the answer depends"
    ):
        explain(model, pictures(32), method="gradcam")


def test_weights_that_are_trained_or_not_stay_so():
    model, images = network("timm swinv2"), pictures()
    for number, p in enumerate(model.parameters()):
        p.requires_grad_(number % 2 == 0)
    before = [p.requires_grad for p in model.parameters()]
    expected = names(model, images)
    for p in model.parameters():
        p.requires_grad_(False)
    assert names(model, images) == expected  # nothing that weights alone make is among them
    for p, trained in zip(model.parameters(), before, strict=True):
        p.requires_grad_(trained)
    measured_layers(dissect(model), images, ZERO)
    assert [p.requires_grad for p in model.parameters()] == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
