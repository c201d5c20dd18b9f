"""Sizes that are no multiple of the patch: a patch has the pixels that the model reads for it, or it is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from vits import backbone, of_hugging_face, of_timm, ours, two_towers

from patchlight import explain, record_attention
from patchlight.errors import PatchlightError
from patchlight.explanation.cells import cells_of
from patchlight.explanation.features import first_of
from patchlight.explanation.methods import METHODS
from patchlight.explanation.targets import similar_to
from patchlight.models.anatomy import dissect, dissect_vit

# With the grid of images of 18 x 23 pixels: patches of 4, the rest left out or filled up.
TAKES = {
    "Hugging Face DINOv2": (lambda: of_hugging_face("Dinov2"), (4, 5)),
    "Hugging Face DINOv2, registers": (lambda: of_hugging_face("Dinov2WithRegisters", num_register_tokens=3), (4, 5)),
    "Hugging Face DINOv2, backbone": (lambda: backbone("Dinov2Model"), (4, 5)),
    "Hugging Face DINOv3": (lambda: backbone("DINOv3ViTModel", num_register_tokens=1, num_attention_heads=2), (4, 5)),
    "timm, filled up": (lambda: of_timm(dynamic_img_size=True, dynamic_img_pad=True), (5, 6)),
    "timm, mean": (
        lambda: of_timm(dynamic_img_size=True, dynamic_img_pad=True, global_pool="avg", class_token=False),
        (5, 6),
    ),
}
SIZE = 18, 23


def pictures(size: tuple[int, int] = SIZE, count: int = 2) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def tokens_of(model: nn.Module, images: Tensor) -> Tensor:
    """Patch tokens as the first block reads them, (B, N, D)."""
    anatomy, kept = dissect_vit(model), []
    hook = anatomy.blocks[0].register_forward_pre_hook(lambda module, args: kept.append(first_of(args)))
    with torch.no_grad():
        anatomy.logits(images)
    hook.remove()
    return kept[0][:, anatomy.num_prefix_tokens :]


@pytest.mark.parametrize("name", TAKES)
def test_a_patch_is_made_of_the_pixels_of_its_cell(name):
    """A pixel changes the token of the cell that it is in, and no other; at the edge perhaps none."""
    make, grid = TAKES[name]
    model, images = make(), pictures(count=1)
    cells = cells_of(dissect(model), images)
    assert dissect(model).grid(images) == grid
    before = tokens_of(model, images)
    for row, column in [(0, 0), (3, 4), (4, 3), (15, 19), (16, 0), (17, 22), (15, 20), (7, 21)]:
        changed = images.clone()
        changed[..., row, column] += 1
        moved = (tokens_of(model, changed) - before).abs().amax(dim=2).unflatten(1, grid)[0] > 1e-9
        ours_of_pixel = torch.outer(cells.rows[:, row], cells.columns[:, column]) > 0
        assert torch.equal(moved, ours_of_pixel)


@pytest.mark.parametrize("name", TAKES)
def test_occlusion_hides_the_pixels_of_its_patch(name):
    make, (rows, columns) = TAKES[name]
    model, images = make(), pictures()
    anatomy = dissect(model)
    target = 1 if anatomy.has_head else similar_to(model, pictures(count=1).flip(3))
    found = explain(model, images, method="occlusion", target=target)
    score = (lambda x: anatomy.logits(x)[:, 1]) if anatomy.has_head else (lambda x: target.scores(anatomy, x))
    if not anatomy.has_head:
        target = type(target)(target.vectors.expand(2, -1))
    for row, column in [(0, 0), (1, 3), (rows - 1, columns - 1)]:
        hidden = images.clone()
        hidden[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0
        with torch.no_grad():
            fall = score(images) - score(hidden)
        torch.testing.assert_close(found.maps[:, row, column], fall)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", TAKES)
def test_all_methods_have_maps_over_their_pixels(name, method):
    make, grid = TAKES[name]
    model, images = make(), pictures()
    target = "predicted" if dissect(model).has_head else similar_to(model, pictures(count=1).flip(3))
    options = {"integrated-gradients": {"steps": 2}, "smoothgrad": {"samples": 2}}.get(method, {})
    found = explain(model, images, method=method, target=target, **options)
    assert found.maps.shape == (2, *grid)
    assert found.pixel_maps.shape == (2, *SIZE)
    assert found.maps.isfinite().all()
    if METHODS[method].on_pixels and not name.startswith("timm, "):
        assert (found.pixel_maps[:, 16:] == 0).all()  # which no patch reads
        assert (found.pixel_maps[:, :, 20:] == 0).all()
        torch.testing.assert_close(found.maps[:, 3, 4], found.pixel_maps[:, 12:16, 16:20].mean(dim=(1, 2)))


def test_attention_of_such_sizes_is_recorded():
    model, images = of_hugging_face("Dinov2"), pictures()
    with record_attention(model, values=True) as recorded:
        model(images)
    assert recorded.attention.shape == (2, 3, 3, 21, 21)


# Sizes that a model does not take, and what it says of them.
REFUSES = {
    "Hugging Face ViT": (of_hugging_face, r"Input image size \(18\*23\) doesn't match model \(16\*16\)"),
    "Hugging Face DeiT": (lambda: of_hugging_face("DeiT"), r"Input image size \(18\*23\) doesn't match model"),
    "Hugging Face I-JEPA": (lambda: of_hugging_face("IJepa"), r"Input image size \(18\*23\) doesn't match model"),
    "Hugging Face MAE": (lambda: backbone("ViTMAEModel"), r"Input image size \(18\*23\) doesn't match model"),
    "Hugging Face CLIP": (
        lambda: two_towers("CLIP", "ForImageClassification"),
        r"Input image size \(18\*23\) doesn't match model \(16\*16\)",
    ),
    "Hugging Face SigLIP": (lambda: two_towers("Siglip", "ForImageClassification"), "The size of tensor a"),
    "timm": (of_timm, r"Input height \(18\) doesn't match model \(16\)"),
    "timm, of any whole patches": (
        lambda: of_timm(dynamic_img_size=True),
        r"Input height \(18\) should be divisible by patch size \(4\)",
    ),
    "ours": (ours, "The size of tensor a"),
}


@pytest.mark.parametrize("name", REFUSES)
def test_sizes_that_a_model_does_not_take_are_one_sentence(name):
    """Positions are not resampled behind people's backs: Hugging Face's models ask for `interpolate_pos_encoding`."""
    make, why = REFUSES[name]
    model = make()
    target = "predicted" if dissect(model).has_head else similar_to(model, pictures((16, 16), 1))
    for method in ("rollout", "gradcam", "occlusion"):
        with pytest.raises(PatchlightError, match=rf" does not take images of 3 x 18 x 23 \(torch.float64\): .*{why}"):
            explain(model, pictures(), method=method, target=target)


def test_a_grid_that_is_not_that_of_the_patches_is_refused():
    """A stem that pads makes more tokens than whole patches fit into the image."""
    model = of_timm(dynamic_img_size=True, dynamic_img_pad=True)
    model.patch_embed.proj.padding = (3, 3)
    told = r"makes 43 tokens of images of 18 x 23 pixels, and 5 x 6 patches with 1 tokens before them would be 31"
    with pytest.raises(PatchlightError, match=told):
        explain(model, pictures(), method="rollout")
