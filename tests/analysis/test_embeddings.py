"""Tokens before the first block, against the same by hand in float64: pixels times kernel, plus positions."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from vits import SHAPE, VITS, images_for, of_hugging_face, of_timm, ours, stirred

from patchlight.analysis import embeddings
from patchlight.analysis.embeddings import added, embedded, embedding_maps, in_reading_order, likeness, middle
from patchlight.models.anatomy import dissect


def by_hand(images, weight, bias):
    """A patch's pixels times the kernel, patch by patch."""
    size = weight.shape[-1]
    patches = F.unfold(images, size, stride=size).transpose(1, 2)  # (B, N, 3 p p)
    return patches @ weight.flatten(1).T + bias


def parts(model):
    """The patch kernel with its bias, and the patches' rows of the table, by each library's own names."""
    if hasattr(model, "patch_embed"):
        proj = model.patch_embed.proj
        return proj.weight, proj.bias, model.pos_embed[0, -16:]
    if hasattr(model, "vision_model"):  # SigLIP
        embeddings = model.vision_model.embeddings
        proj = embeddings.patch_embedding
        return proj.weight, proj.bias, embeddings.position_embedding.weight[-16:]
    embeddings = model.base_model.embeddings
    proj = embeddings.patch_embeddings.projection
    return proj.weight, proj.bias, embeddings.position_embeddings[0, -16:]


# CLIP has a norm between the positions and the blocks.
@pytest.mark.parametrize("name", [n for n in VITS if "stem" not in n and "square" not in n and "CLIP" not in n])
def test_tokens_are_those_worked_out_by_hand(name):
    model, images = VITS[name](), images_for(name)
    weight, bias, table = parts(model)
    found = embedded(dissect(model), images)
    expected = by_hand(images, weight, bias)
    torch.testing.assert_close(found.patches, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.tokens, expected + table, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.positions, table.detach(), rtol=0, atol=1e-12)
    assert found.about == "a position embedding is added to each patch"


def test_a_convolutional_stem_and_a_grid_that_is_not_square():
    for name in ("ours, conv stem", "timm, not square"):
        model, images = VITS[name](), images_for(name)
        found = embedded(dissect(model), images)
        torch.testing.assert_close(found.patches, model.patch_embed(images), rtol=0, atol=1e-12)
        count = found.patches.shape[1]
        torch.testing.assert_close(found.positions, model.pos_embed[0, -count:].detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_one_image_in_a_lower_precision(dtype, close):
    """Positions are found within the rounding of their addition, and a model without any is not said to have some."""
    model = ours().to(dtype)
    found = embedded(dissect(model), images_for("", 1).to(dtype))
    torch.testing.assert_close(found.positions, model.pos_embed[0, 1:].detach(), rtol=0, atol=close)
    assert found.patches.shape == (1, 16, 24)
    assert embedded(dissect(ours(pos_embed="none").to(dtype)), images_for("", 1).to(dtype)).positions is None
    assert embedded(dissect(of_timm(pre_norm=True).to(dtype)), images_for("", 1).to(dtype)).positions is None


@pytest.mark.parametrize(
    "model",
    [
        lambda: ours(pos_embed="none"),
        lambda: of_timm(pos_embed="none"),
        lambda: of_hugging_face("Beit", use_relative_position_bias=True),
    ],
)
def test_models_without_positions_say_so(model):
    network = model()
    found = embedded(dissect(network), images_for(""))
    assert found.positions is None
    relative = not dissect(network).can_drop_patches
    assert found.about == "no position embedding is added" + (
        "; its layers know positions by rotations or biases of their own" if relative else ""
    )
    torch.testing.assert_close(found.patches, found.tokens)


def test_rotary_positions_of_timm_are_not_added():
    torch.manual_seed(0)
    network = timm.models.Eva(**SHAPE, use_rot_pos_emb=True, use_abs_pos_emb=False, class_token=True)
    found = embedded(dissect(stirred(network)), images_for(""))
    assert found.positions is None
    assert "rotations" in found.about


def test_a_norm_before_the_blocks_is_no_addition():
    found = embedded(dissect(of_timm(pre_norm=True)), images_for(""))
    assert found.positions is None
    assert found.about.startswith("more than an addition stands between the patch embedding and the first block")


def test_positions_that_a_model_resamples_are_those_it_adds():
    """timm makes a table of 4 x 4 positions one of 6 x 6 in the forward pass, and its embedding gives (B, r, c, D)."""
    model = of_timm(dynamic_img_size=True)
    images = torch.randn(2, 3, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = embedded(dissect(model), images)
    assert found.positions.shape == (36, 24)
    grid = timm.layers.resample_abs_pos_embed(model.pos_embed, (6, 6), num_prefix_tokens=1)
    torch.testing.assert_close(found.positions, grid[0, 1:].detach(), rtol=0, atol=1e-12)


def test_shapes_of_a_patch_embedding():
    tokens = torch.arange(2 * 6 * 5.0).reshape(2, 6, 5)
    for form in (tokens, tokens.unflatten(1, (2, 3)), tokens.transpose(1, 2).unflatten(2, (2, 3))):
        assert torch.equal(in_reading_order(form, (2, 3)), tokens)
    assert in_reading_order(tokens[:, :5], (2, 3)) is None


def test_what_is_not_the_same_for_all_images_is_not_a_position():
    patches = torch.randn(3, 4, 5, dtype=torch.float64)
    table = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(added(patches, patches + table)[0], table)
    assert added(patches, 2 * patches)[0] is None
    other = patches + table
    other[1, 2, 3] += 1e-6
    assert added(patches, other)[0] is None


def test_likeness_is_the_cosine_and_the_middle_is_in_the_middle():
    tokens = torch.randn(2, 6, 3, dtype=torch.float64)
    matrix = likeness(tokens)
    assert matrix.shape == (2, 6, 6)
    assert matrix[1, 2, 4].item() == pytest.approx(F.cosine_similarity(tokens[1, 2], tokens[1, 4], dim=0).item())
    assert (middle((4, 4)), middle((2, 3)), middle((1, 1))) == (10, 4, 0)


def test_of_very_many_patches_the_matrix_has_some(monkeypatch):
    monkeypatch.setattr(embeddings, "MOST_PATCHES", 4)
    anatomy, images = dissect(ours()), images_for("")
    maps, found = embedding_maps(anatomy, images), embedded(anatomy, images)
    places = [0, 5, 10, 15]
    for view, tokens in enumerate((found.patches, found.tokens)):
        expected = likeness(tokens[0])[places][:, places]
        torch.testing.assert_close(torch.from_numpy(maps.matrices[view]).double(), expected, rtol=0, atol=1e-3)
        row = torch.from_numpy(maps.likeness[:, view]).double().flatten(1)
        torch.testing.assert_close(row, likeness(tokens)[:, 10], rtol=0, atol=1e-6)
    assert maps.positions.shape == (4, 4)
