"""What is said before anything is explained: of images, sizes, weights, targets and options."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from vits import images_for, of_hugging_face, of_timm, ours

from patchlight import explain
from patchlight.errors import PatchlightError, UsageError
from patchlight.explanation.methods import METHODS, explain_inputs
from patchlight.explanation.options import call_text, check_options, options_of, read_call
from patchlight.models import VisionTransformer
from patchlight.models.anatomy import dissect


def images(low: float, high: float) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return low + (high - low) * torch.rand(2, 3, 16, 16, generator=draw, dtype=torch.float64)


def with_a_nan() -> Tensor:
    found = images_for("")
    found[1, 2, 3, 4] = torch.nan
    return found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (images(0, 255), r"pixels go from .* to 25\d.*, which is not normalised: divide by 255"),
        (images(0, 1), "pixels go from .*, as if they were not normalised yet: take away the mean"),
        ((255 * torch.rand(2, 3, 16, 16)).byte(), "images are torch.uint8: divide by 255"),
        (with_a_nan(), "some pixels are NaN or infinite"),
        (torch.full((1, 3, 16, 16), torch.inf), "some pixels are NaN or infinite"),
        (torch.zeros(0, 3, 16, 16), "there are no images to explain"),
        (torch.zeros(3, 16, 16), "images are a batch"),
    ],
)
def test_images_that_are_not_what_a_model_was_trained_on(given, message):
    with pytest.raises(UsageError, match=message):
        explain(ours(), given)


def test_images_in_0_to_1_can_be_meant():
    given = images(0, 1)
    meant = explain(ours(), given, normalized=True).maps
    torch.testing.assert_close(meant, explain_inputs(ours(), given).maps)
    model = of_timm()
    model.pretrained_cfg = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # as timm says it of such a model
    assert explain(model, given).maps.shape == (2, 4, 4)
    model.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    with pytest.raises(UsageError, match="not normalised yet"):
        explain(model, given)


@pytest.mark.parametrize("target", [1.7, torch.tensor([0.0, 1.0, 2.0]), True, torch.tensor([True, False, True])])
def test_a_target_that_is_no_class(target):
    with pytest.raises(UsageError, match="targets are class indices, whole numbers from 0 to 4"):
        explain(ours(), images_for(""), target=target)


def test_inside_inference_mode_maps_are_the_same():
    model = ours()
    expected = explain(model, images_for("")).maps
    with torch.inference_mode():
        inside = explain(model, images_for(""))  # images that were made inside
        made_inside = ours()
        with pytest.raises(PatchlightError, match=r"the model was made inside torch\.inference_mode"):
            explain(made_inside, images_for(""))
    assert not inside.maps.is_inference()
    torch.testing.assert_close(inside.maps, expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_sees_one_patch(method):
    model = ours(patch_size=16)
    with pytest.raises(PatchlightError, match="sees images of 16 x 16 pixels as 1 patch, so there are no parts"):
        explain(model, images_for(""), method=method)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_without_blocks(method):
    model = VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=0, num_heads=3, num_classes=5)
    model = model.double().eval()
    if METHODS[method].attention:
        with pytest.raises(PatchlightError, match=f"{method} reads attention, and the model has no blocks"):
            explain(model, images_for(""), method=method)
    elif method in ("gradcam", "hirescam", "layercam"):  # with a CLS token nothing reaches the answer
        with pytest.raises(PatchlightError, match="no layer of VisionTransformer gives a map of features"):
            explain(model, images_for(""), method=method)
    else:
        assert explain(model, images_for(""), method=method).maps.shape == (3, 4, 4)


def test_a_model_without_blocks_that_pools_its_patches_has_maps_of_features():
    model = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=24, depth=0, num_heads=3, num_classes=5, global_pool="avg"
    )
    found = explain(model.double().eval(), images_for(""))
    assert found.method == "gradcam"
    assert found.maps.shape == (3, 4, 4)


@pytest.mark.parametrize("size", [12, 17, 20])
def test_a_size_that_the_model_does_not_take(size):
    given = torch.randn(1, 3, size, size, dtype=torch.float64)
    with pytest.raises(PatchlightError, match=f"VisionTransformer does not take images of 3 x {size} x {size}"):
        explain(of_timm(), given)


def test_other_types_and_answers_are_told():
    with pytest.raises(PatchlightError, match=r"does not take images of 3 x 16 x 16 \(torch.float32\)"):
        explain(ours(), images_for("").float())

    class Pairs(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.mean(dim=(2, 3)), x.mean(dim=(2, 3))

    with pytest.raises(PatchlightError, match="Pairs gives tuple, not a row of numbers for each image"):
        explain(Pairs(), images_for(""))
    broken = ours()
    with torch.no_grad():
        broken.head.bias[0] = torch.nan
    with pytest.raises(PatchlightError, match="VisionTransformer gives NaN or infinite numbers"):
        explain(broken, images_for(""))


def test_features_are_no_classes():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=0).eval()
    given = torch.randn(2, 3, 32, 32)
    for target in ("predicted", 0, torch.tensor([0, 1])):
        with pytest.raises(UsageError, match="the model has no head, so it gives features and no classes"):
            explain(model, given, target=target)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("model", "grid"),
    [(of_hugging_face("Dinov2"), (4, 5)), (of_timm(dynamic_img_size=True, dynamic_img_pad=True), (5, 6))],
    ids=["without the edge", "filled up"],
)
def test_sizes_that_are_no_multiple_of_the_patch(model, grid, method):
    """Of 18 x 23 pixels DINOv2 sees 16 x 20, and timm fills up to 20 x 24 where it is told to."""
    given = torch.randn(2, 3, 18, 23, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = explain(model, given, method=method, target=1)
    assert found.maps.shape == (2, *grid)
    assert found.pixel_maps.shape == (2, 18, 23)
    assert found.maps.isfinite().all()
    if method == "occlusion":
        hidden = given.clone()
        hidden[:, :, 4:8, 16:20] = 0
        anatomy = dissect(model)
        with torch.no_grad():
            fall = anatomy.logits(given)[:, 1] - anatomy.logits(hidden)[:, 1]
        torch.testing.assert_close(found.maps[:, 1, 4], fall)


def test_every_option_is_checked_and_written_as_it_is_read():
    for name, method in METHODS.items():
        options = options_of(method.run)
        assert {type(default) for default in options.values()} <= {int, float, str}
        word = call_text(name, options)
        read, written = read_call(word)
        assert (read, set(written)) == (name, set(options))
        assert explain_inputs(ours(), images_for(""), method=word).call == word
    assert check_options("rollout", {"discard": 0}, METHODS["rollout"].run) == {"discard": 0.0}
    for value in (True, "0.5", None):
        with pytest.raises(UsageError, match="rollout:discard is a number"):
            check_options("rollout", {"discard": value}, METHODS["rollout"].run)
    with pytest.raises(UsageError, match="discard is given in 'rollout:discard=0' and as an argument"):
        explain(ours(), images_for(""), method="rollout:discard=0", discard=0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("integrated-gradients:steps=0", "steps must be at least 1"),
        ("smoothgrad:samples=0", "samples must be at least 1"),
        ("smoothgrad:noise=-1", "noise is a share"),
        ("legrad:read=cls", "legrad reads 'mean' or 'pooled'"),
        ("legrad:first=3", "legrad's first layer is one of 3"),
        ("hirescam:layer=3", "there is no layer 3"),
    ],
)
def test_options_out_of_range(call, message):
    with pytest.raises(UsageError, match=message):
        explain(ours(), images_for(""), method=call)


def test_a_network_without_parts_has_pixels_and_cells():
    """Any module that gives a row of numbers can be explained."""
    draw = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    given = torch.randn(2, 3, 32, 32, generator=draw)
    anatomy = dissect(model)
    assert anatomy.grid(given) == (8, 8)
    with pytest.raises(PatchlightError, match="no layer of Sequential gives a map of features"):
        explain(model, given)
    weight = model[1].weight.view(4, 3, 32, 32)
    found = explain(model, given, method="integrated-gradients", target=2)
    torch.testing.assert_close(found.pixel_maps, (weight[2] * given).sum(dim=1).detach())
    torch.testing.assert_close(found.maps[:, 0, 0], found.pixel_maps[:, :4, :4].mean(dim=(1, 2)))
    hidden = explain(model, given, method="occlusion", target=2).maps
    torch.testing.assert_close(hidden, 16 * found.maps, rtol=1e-4, atol=1e-4)
