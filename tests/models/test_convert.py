"""timm's ViT, ours and Hugging Face's: there and back again, with equal logits at every step."""

from __future__ import annotations

import pytest
import torch
from vits import SHAPE, images_for, of_hugging_face, of_timm, ours

from patchlight.errors import PatchlightError
from patchlight.models.convert import from_hugging_face, from_timm, to_hugging_face, to_timm

NAMES = tuple("abcde")


def close(a, b) -> None:
    torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reg_tokens": 2, "init_values": 0.1, "qk_norm": True},
        {"global_pool": "avg", "mlp_ratio": 2.0},
        {"pos_embed": "none"},
        {"pos_embed": "sincos2d", "global_pool": "avg"},
    ],
)
def test_ours_to_timm_and_back(options):
    model, images = ours(**options), images_for("")
    theirs, arguments = to_timm(model)
    theirs.double()
    close(theirs(images), model(images))
    assert arguments["init_values"] == options.get("init_values")
    again = from_timm(theirs)
    close(again.double()(images), model(images))
    assert again.img_size == SHAPE["img_size"]
    assert len(again.blocks) == SHAPE["depth"]


def test_timm_to_ours_to_hugging_face_and_back():
    reference, images = of_timm(), images_for("")
    expected = reference(images)
    middle = from_timm(reference)
    close(middle.double()(images), expected)
    theirs = to_hugging_face(middle, NAMES).double()
    close(theirs(pixel_values=images).logits, expected)
    assert theirs.config.id2label == dict(enumerate(NAMES))
    again = from_hugging_face(theirs)
    close(again.double()(images), expected)
    close(to_timm(again)[0].double()(images), expected)


def test_hugging_face_to_ours():
    reference, images = of_hugging_face(layer_norm_eps=1e-6), images_for("")
    model = from_hugging_face(reference)
    close(model.double()(images), reference(pixel_values=images).logits)


@pytest.mark.parametrize(
    ("convert", "options", "message"),
    [
        (to_timm, {"stem": "conv"}, "timm's ViT has no convolutional stem"),
        (to_timm, {"global_pool": "seq"}, "timm's ViT has no sequence pooling"),
        (to_hugging_face, {"global_pool": "avg"}, "no pooling without a CLS token"),
        (to_hugging_face, {"reg_tokens": 1}, "no register tokens"),
        (to_hugging_face, {"qk_norm": True}, "no normalised queries"),
        (to_hugging_face, {"init_values": 0.1}, "no LayerScale"),
    ],
)
def test_what_they_do_not_have_is_told(convert, options, message):
    more = (NAMES,) if convert is to_hugging_face else ()
    with pytest.raises(PatchlightError, match=message):
        convert(ours(**options), *more)


def test_others_have_no_counterpart():
    with pytest.raises(PatchlightError, match="plain ViT, which alone can be converted"):
        from_timm(torch.nn.Linear(1, 1))
    with pytest.raises(PatchlightError, match="has no counterpart here"):
        from_hugging_face(of_hugging_face("Dinov2"))
