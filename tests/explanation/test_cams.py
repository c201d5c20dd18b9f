"""Class activation maps and pixel methods of other networks, each against Captum or its formula, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import NETWORKS, alive, network, pictures, pictures_for, size_of
from torch import Tensor, nn
from vits import images_for, of_timm

from patchlight import explain
from patchlight.explanation.cells import cells_of
from patchlight.explanation.methods import METHODS, methods_for
from patchlight.explanation.relevance import drawn_from
from patchlight.models.anatomy import dissect

captum = pytest.importorskip("captum.attr")

OPTIONS = {"integrated-gradients": {"steps": 3}, "smoothgrad": {"samples": 2}}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_method_on_every_network(name):
    """Maps of all methods that need no attention; a batch has the maps of its images; the model is as it was."""
    model, images = network(name), pictures_for(name)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    methods = [method for method in METHODS if not METHODS[method].attention]
    assert methods_for(dissect(model)) == methods
    assert explain(model, images).method == "gradcam"
    for method in methods:
        found = explain(model, images, method=method, target=1, **OPTIONS.get(method, {}))
        cells = (4, 4) if name == "torchvision vit" and found.maps.shape[1] == 4 else (8, 8)
        assert found.maps.shape == (2, *cells)
        assert found.pixel_maps.shape == (2, size_of(name), size_of(name))
        assert found.maps.isfinite().all()
        if method != "occlusion":  # 64 passes
            single = explain(model, images[1:], method=method, target=1, **OPTIONS.get(method, {}))
            torch.testing.assert_close(found.maps[1:], single.maps)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def at_layer(model: nn.Module, name: str, images: Tensor, target: int, last: bool = False) -> tuple[Tensor, Tensor]:
    """What a module gives and the gradient of a logit by it, (B, C, f, g), by torch alone; of channels that come last
    where it is said.
    """
    kept: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda module, args, output: kept.append(output))
    output = model(images)
    handle.remove()
    logits = output if isinstance(output, Tensor) else output.logits
    (gradient,) = torch.autograd.grad(logits[:, target].sum(), kept[-1])
    pair = kept[-1].detach(), gradient
    return (pair[0].permute(0, 3, 1, 2), pair[1].permute(0, 3, 1, 2)) if last else pair


def on_cells(native: Tensor, size: int = 64, cells: int = 8) -> Tensor:
    """A layer's map (B, f, g), enlarged to the pixels and meant over cells, by torch alone; of that size as it is."""
    if native.shape[-1] == cells:
        return native
    large = F.interpolate(native[:, None], (size, size), mode="bilinear", align_corners=False)
    return F.avg_pool2d(large, size // cells)[:, 0]


FORMULAS = {
    "gradcam": lambda a, g: (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu(),
    "hirescam": lambda a, g: (g * a).sum(dim=1),
    "layercam": lambda a, g: (g.relu() * a).sum(dim=1).relu(),
}


@pytest.mark.parametrize("name", [name for name in NETWORKS if "vit" not in name.split()])
def test_maps_are_their_formulas_at_that_layer(name):
    """Selvaraju et al. eq. 1 and 2, Draelos and Carin eq. 5, Jiang et al. eq. 5 to 7."""
    images = pictures_for(name)
    _, layer, side = NETWORKS[name]
    features, gradient = at_layer(network(name), layer, images, 2, last=name in ("timm swin", "timm swinv2"))
    if features.ndim == 3:  # tokens in reading order
        features, gradient = (part.transpose(1, 2).unflatten(2, (side, side)) for part in (features, gradient))
    for method, formula in FORMULAS.items():
        found = explain(network(name), images, method=method, target=2).maps
        torch.testing.assert_close(found, on_cells(formula(features, gradient), size_of(name)))


@pytest.mark.parametrize(
    "name",
    ["ours resnet18", "timm resnet", "timm convnext", "torchvision resnet", "torchvision swin", "timm mobilenetv4"],
)
@pytest.mark.parametrize("relu", [True, False])
def test_gradcam_is_captums(name, relu):
    """Of ours the positive part: Captum's without `relu_attributions` is that before it."""
    model, images = network(name), pictures_for(name)
    theirs = captum.LayerGradCam(model, model.get_submodule(NETWORKS[name][1]))
    native = theirs.attribute(images, target=3, relu_attributions=relu)[:, 0].detach()
    found = explain(network(name), images, method="gradcam", target=3).maps
    torch.testing.assert_close(found, on_cells(native.relu(), size_of(name)))


def test_gradcam_of_a_vit_without_its_anatomy():
    """torchvision's ViT: the norm before the last attention, its CLS token apart, on a grid of patches."""
    model, images = network("torchvision vit"), pictures()
    features, gradient = at_layer(model, "encoder.layers.encoder_layer_1.ln_1", images, 1)
    features, gradient = (part[:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for part in (features, gradient))
    found = explain(model, images, method="gradcam", target=1).maps
    torch.testing.assert_close(found, on_cells(FORMULAS["gradcam"](features, gradient)))


@pytest.mark.parametrize("post", [False, True])
def test_gradcam_of_a_vit_reads_what_its_last_attention_reads(post):
    """A norm's output or, in blocks whose norms come after attention, the tokens themselves."""
    model, images = (
        of_timm(block_fn=__import__("timm").models.vision_transformer.ResPostBlock) if post else of_timm(),
        images_for(""),
    )
    kept: list[Tensor] = []
    handle = model.blocks[-1].attn.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    logits = model(images)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, 2].sum(), kept[0])
    features, gradient = (part[:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for part in (kept[0].detach(), gradient))
    for method, formula in FORMULAS.items():
        found = explain(model, images, method=method, target=2).maps
        torch.testing.assert_close(found, formula(features, gradient))


@pytest.mark.parametrize("name", ["ours resnet18", "timm resnet", "torchvision mobilenet"])
def test_hirescam_of_a_mean_and_a_linear_head_adds_up_to_the_logit(name):
    """Draelos and Carin, section 3.3: its sum is the logit less the bias, here in the mean, as enlarging keeps it."""
    model, images = network(name), pictures_for(name)
    side = NETWORKS[name][2]
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    found = explain(model, images, method="hirescam", target=4).maps
    expected = (model(images)[:, 4] - head.bias[4]).detach()
    torch.testing.assert_close(found.mean(dim=(1, 2)) * side**2, expected)


def test_smoothgrad_is_captums_with_the_same_noise(monkeypatch):
    model, images = network("torchvision resnet"), pictures()
    samples, noise = 5, 0.15
    spread = noise * (images.amax(dim=(1, 2, 3)) - images.amin(dim=(1, 2, 3)))
    drawn = []
    for image, width in zip(images, spread, strict=True):
        draw = drawn_from(image)
        drawn += [width * torch.randn(image.shape, generator=draw) for _ in range(samples)]
    given = torch.stack(drawn).double()
    monkeypatch.setattr(torch, "normal", lambda mean, std: given)  # Captum's copies of an image follow each other
    tunnel = captum.NoiseTunnel(captum.Saliency(model))
    theirs = tunnel.attribute(images, nt_type="smoothgrad", nt_samples=samples, stdevs=0.3, target=1, abs=False)
    monkeypatch.undo()
    found = explain(model, images, method="smoothgrad", target=1, samples=samples, noise=noise)
    torch.testing.assert_close(found.pixel_maps, theirs.abs().amax(dim=1))
    torch.testing.assert_close(found.maps, F.avg_pool2d(found.pixel_maps[:, None], 8)[:, 0])


@pytest.mark.parametrize("name", ["torchvision resnet", "timm convnext", "Hugging Face swin"])
def test_integrated_gradients_are_captums(name):
    model, images = network(name), pictures_for(name)
    theirs = captum.IntegratedGradients(lambda x: dissect(model).logits(x))
    expected = theirs.attribute(images, target=0, n_steps=8, method="riemann_middle").sum(dim=1)
    found = explain(model, images, method="integrated-gradients", target=0, steps=8)
    torch.testing.assert_close(found.pixel_maps, expected)


def test_occlusion_is_captums_with_cells_for_windows():
    model, images = network("torchvision convnext"), pictures()
    theirs = captum.Occlusion(model).attribute(images, (3, 8, 8), (3, 8, 8), target=3)  # in float32
    found = explain(model, images, method="occlusion", target=3)
    torch.testing.assert_close(found.maps.float(), theirs[:, 0, ::8, ::8].float())


def test_maps_lie_where_the_evidence_is():
    """A network that counts what is bright in one place: all methods point there."""

    class Corner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.see = nn.Conv2d(3, 4, 4, stride=4)
            self.tell = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.tell(self.see(x)[:, :, 1, 6])

    torch.manual_seed(0)
    model, images = alive(Corner()), pictures(32)
    for method in ("hirescam", "integrated-gradients", "occlusion", "smoothgrad"):
        values = explain(model, images, method=method, target=0).maps.abs().flatten(1)
        assert values.argmax(dim=1).tolist() == [1 * 8 + 6] * 2
        assert (values > 1e-9).sum(dim=1).tolist() == [1, 1]


def test_large_images_have_cells_of_sixteen_pixels():
    model, images = network("timm resnet"), pictures((224, 160), count=1)
    found = explain(model, images, method="hirescam", target=0)
    assert found.maps.shape == (1, 14, 10)
    cells = cells_of(dissect(model), images)
    assert cells.whole == (224, 160)
    assert explain(model, pictures(64, count=1), method="gradcam").maps.shape == (1, 8, 8)
