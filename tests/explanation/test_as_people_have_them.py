"""Models as people have them: wrapped, in half precision, with their head taken away, or with parts of their own."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn
from vits import images_for, of_hugging_face, of_timm, ours

from patchlight import explain
from patchlight.config import DEFAULT_METHOD
from patchlight.errors import PatchlightError, UsageError
from patchlight.explanation.faithfulness import rank_correlation
from patchlight.explanation.methods import METHODS, explain_inputs
from patchlight.explanation.targets import ClassTarget, Similarity, similar_to
from patchlight.models.anatomy import VitAnatomy, dissect

MAKERS = {"ours": ours, "timm": of_timm, "Hugging Face": of_hugging_face}


class Normalize(nn.Module):
    """As people put it before a network, so that it takes pixels in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / 0.25


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_attention_is_seen_behind_a_normalisation_and_copies(make):
    model, images = make(), images_for("")
    expected = explain(model, images)
    copied = explain(nn.DataParallel(model), images)
    assert copied.method == expected.method == DEFAULT_METHOD
    torch.testing.assert_close(copied.maps, expected.maps)
    norm = Normalize()
    wrapped = nn.Sequential(norm, nn.Sequential(nn.Identity(), model))
    found = explain(wrapped, images * 0.25 + norm.mean, normalized=True)
    assert found.method == DEFAULT_METHOD
    torch.testing.assert_close(found.maps, expected.maps)
    assert wrapped.training == nn.Sequential(norm).training


def test_a_network_behind_one_that_changes_the_size_is_explained_as_any():
    """Where its patches lie in the image that is given is not known."""
    larger = nn.Sequential(nn.Upsample(scale_factor=2), of_timm())
    assert not isinstance(dissect(larger), VitAnatomy)
    images = torch.nn.functional.interpolate(images_for(""), size=8)
    assert explain(larger, images).method == "gradcam"
    assert not isinstance(
        dissect(nn.Sequential(nn.Conv2d(3, 3, 1), of_timm())), VitAnatomy
    )  # a stem is no normalisation


@pytest.mark.parametrize("method", [name for name in METHODS if name != "random"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_maps_of_half_precision_are_those_of_the_same_weights(method, dtype):
    """Products of attention and its gradient are below what float16 holds."""
    model, images = of_timm().to(dtype), images_for("").to(dtype)
    # An answer that depends little on attention, as of a trained model of many layers.
    with torch.no_grad():
        model.head.weight.mul_(0.02)
    found = explain_inputs(model, images, method=method, target=1)
    exact = explain_inputs(model.double(), images.double(), method=method, target=1)
    assert found.pixel_maps.dtype == (dtype if method in ("occlusion", "centre") else torch.float32)
    alike = rank_correlation(found.maps.double(), exact.maps)
    assert alike.min() > (0.9 if dtype == torch.float16 else 0.6), alike


def test_the_likeness_in_half_precision_is_no_rounder_than_its_features():
    vectors = torch.tensor([[1.0, 0.0]], dtype=torch.bfloat16)
    outputs = torch.tensor([[1.0, 0.03]], dtype=torch.bfloat16)
    assert Similarity(vectors).strength(outputs).item() == pytest.approx(1 / (1 + 0.03**2) ** 0.5, abs=1e-5)


HEADS_TAKEN = {
    "torchvision ViT": lambda: torchvision.models.VisionTransformer(16, 4, 1, 2, 8, 16),
    "torchvision ConvNeXt": lambda: torchvision.models.convnext_tiny(num_classes=3),
    "torchvision MobileNet": lambda: torchvision.models.mobilenet_v3_small(num_classes=3),
    "torchvision VGG": lambda: torchvision.models.vgg11(num_classes=3),
    "torchvision ResNet": lambda: torchvision.models.resnet18(num_classes=3),
    "timm ConvNeXt": lambda: timm.create_model("convnext_atto", num_classes=3),
    "timm EfficientNet": lambda: timm.create_model("efficientnet_lite0", num_classes=3),
    "Hugging Face ResNet": lambda: transformers.ResNetForImageClassification(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=3)
    ),
}
PLACES = {
    "torchvision ViT": "heads.head",
    "torchvision ConvNeXt": "classifier.2",
    "torchvision MobileNet": "classifier.3",
    "torchvision VGG": "classifier.6",
    "torchvision ResNet": "fc",
    "timm ConvNeXt": "head.fc",
    "timm EfficientNet": "classifier",
    "Hugging Face ResNet": "classifier.1",
}


@pytest.mark.parametrize("name", HEADS_TAKEN)
def test_features_do_not_pass_for_classes(name):
    model = HEADS_TAKEN[name]()
    assert dissect(model).has_head
    parent, _, child = PLACES[name].rpartition(".")
    part = model.get_submodule(parent)
    assert isinstance(part.get_submodule(child), nn.Linear)
    setattr(part, child, nn.Identity())
    assert not dissect(model).has_head
    setattr(model, PLACES[name].split(".")[0], nn.Sequential() if "Hugging" not in name else nn.Identity())
    assert not dissect(model).has_head
    assert not dissect(nn.Sequential(Normalize(), model)).has_head


def test_a_head_with_an_identity_beside_its_last_map_is_a_head():
    model = torchvision.models.resnet18(num_classes=3)
    model.fc = nn.Sequential(nn.Identity(), nn.Linear(512, 3), nn.Identity())
    assert dissect(model).has_head


class TwoHeads(nn.Module):
    """Keeps the head that it had beside its own, as PEFT does, or runs both."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.classifier = nn.ModuleDict({"original": nn.Linear(4, 5), "own": nn.Linear(4, 5)})
        self.both = both

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x).relu().mean(dim=(2, 3))
        if self.both:
            features = features + self.classifier["original"](features).mean()
        return self.classifier["own"](features)


def test_likeness_reads_the_head_that_runs():
    torch.manual_seed(0)
    model, images = TwoHeads(both=False), torch.randn(2, 3, 16, 16)
    expected = model.conv(images).relu().mean(dim=(2, 3))
    torch.testing.assert_close(similar_to(model, images).vectors, expected.detach())
    with pytest.raises(PatchlightError, match=r"2 linear heads \(classifier.original, classifier.own\)"):
        similar_to(TwoHeads(both=True), images)


class OwnViT(nn.Module):
    """As people write one: a CLS token, four registers, and torch's encoder, which has the tokens first or not."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 24, 4, 4)
        self.first = nn.Parameter(torch.randn(1, 5, 24))
        layer = nn.TransformerEncoderLayer(24, 3, 48, dropout=0.0, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(24, 5)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.first.expand(len(x), -1, -1), self.patches(x).flatten(2).transpose(1, 2)], dim=1)
        if self.batch_first:
            return self.out(self.encoder(tokens).mean(dim=1))
        return self.out(self.encoder(tokens.transpose(0, 1)).mean(dim=0))


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_last_block_of_peoples_own_vit_is_found(batch_first):
    """Behind registers, and where tokens come before images, as in torch's own Transformer; not its patch embedding."""
    model, images = OwnViT(batch_first).eval(), torch.randn(3, 3, 32, 32)
    found = explain(model, images, method="hirescam", target=2)
    assert found.layer.endswith("8 x 8 cells")
    assert found.layer.startswith("encoder")
    tokens = model.encoder(torch.zeros(69, 1, 24) if not batch_first else torch.zeros(1, 69, 24))
    assert tokens.numel() == 69 * 24
    # The mean of tokens is linear in them: of the patches the map is the part that each gives to the logit.
    with torch.no_grad():
        kept: list[Tensor] = []
        handle = model.encoder.register_forward_hook(lambda module, args, output: kept.append(output))
        model(images)
        handle.remove()
    patches = (kept[0] if batch_first else kept[0].transpose(0, 1))[:, 5:]
    expected = (patches @ model.out.weight[2] / 69).detach().unflatten(1, (8, 8))
    torch.testing.assert_close(found.maps, expected)


class Probe(nn.Module):
    """A head on a backbone that runs without gradients, as a linear probe is often written."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = of_timm(num_classes=0), nn.Linear(24, 5).double()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.backbone(x)
        return self.head(features)


@pytest.mark.parametrize("method", ["integrated-gradients", "smoothgrad"])
def test_a_network_through_which_no_gradient_goes(method):
    with pytest.raises(PatchlightError, match=r"no gradient of the answer reaches the pixels: .* take occlusion"):
        explain(Probe(), images_for(""), method=method)
    assert explain(Probe(), images_for(""), method="occlusion").maps.abs().max() > 0


@pytest.mark.parametrize("method", ["scaled-rollout", "legrad", "gradcam"])
def test_a_vit_that_detaches_its_tokens(method):
    model = of_timm()
    model.blocks[-1].register_forward_hook(lambda module, args, output: output.detach())
    with pytest.raises(PatchlightError, match=r"no gradient of the answer reaches .* take occlusion"):
        explain(model, images_for(""), method=method)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((1, 3, 16, 16)), "images are a torch tensor .*, not a ndarray"),
        ([torch.zeros(3, 16, 16)], "images are a torch tensor .*, not a list"),
        ({"pixel_values": torch.zeros(1, 3, 16, 16)}, r"not a dict; give its \['pixel_values'\]"),
        (transformers.BatchFeature({"pixel_values": torch.zeros(1, 3, 16, 16)}), r"give its \['pixel_values'\]"),
    ],
)
def test_what_is_no_tensor(given, message):
    with pytest.raises(UsageError, match=message):
        explain(of_timm(), given)


def test_a_function_is_no_model():
    with pytest.raises(UsageError, match=r"a model is a torch.nn.Module, not a function"):
        explain(lambda images: images, images_for(""))


def test_none_is_the_predicted_class_and_others_targets_are_told():
    model, images = of_timm(), images_for("")
    torch.testing.assert_close(explain(model, images, target=None).maps, explain(model, images).maps)
    with pytest.raises(UsageError, match=r"target is 'predicted', a class index .*, not namespace\(category=1\)"):
        explain(model, images, target=SimpleNamespace(category=1))


class TakesMore(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x.flatten(1) * mask


def test_a_network_that_takes_more_than_images():
    with pytest.raises(PatchlightError, match=r"TakesMore does not take images of 3 x 16 x 16 .*'mask'"):
        explain(TakesMore(), images_for(""))


def test_a_model_that_gives_tuples():
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=3, return_dict=False, layer_type="basic"
    )
    model = transformers.ResNetForImageClassification(config).eval()
    with pytest.raises(PatchlightError, match=r"gives a tuple, as its config.return_dict is False; set it to True"):
        explain(model, torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize("method", METHODS)
def test_another_default_device(method):
    """What is drawn is drawn on the CPU, whatever torch makes tensors on."""
    model, images = of_timm(), images_for("")
    expected = explain(model, images, method=method).maps
    with torch.device("meta"):
        torch.testing.assert_close(explain(model, images, method=method).maps, expected)


def test_a_single_output_is_a_yes_or_no():
    model, images = of_timm(num_classes=1), images_for("")
    found, logits = explain(model, images), model(images)
    torch.testing.assert_close(found.probs.double(), logits.sigmoid(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.strength.double(), logits[:, 0].sigmoid(), rtol=1e-5, atol=1e-6)
    assert ClassTarget(torch.zeros(2, dtype=torch.long)).holds(torch.tensor([[1.0], [-1.0]])).tolist() == [True, False]


def test_pictures_of_grey_images_and_of_other_channels():
    model = of_timm(in_chans=1)
    found = explain(model, images_for("")[:, :1])
    assert found.plot().axes
    found = explain(of_timm(in_chans=4), torch.randn(1, 4, 16, 16, dtype=torch.float64))
    with pytest.raises(UsageError, match="images of 4 channels have no picture"):
        found.plot()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_model_is_given_back_in_its_mode():
    torch.manual_seed(0)
    parts = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = torch.jit.trace(parts, torch.zeros(1, 3, 16, 16))
    model.train()
    assert explain(model, torch.randn(1, 3, 16, 16), method="integrated-gradients").maps.isfinite().all()
    assert [part.training for part in model.modules()] == [True] * 5
