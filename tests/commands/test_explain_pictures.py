"""What stands in the pictures of `patchlight explain`: what maps are for, where they lie, what tokens are called."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image
from vits import of_timm

from patchlight.analysis.classes import ClassMaps
from patchlight.analysis.embeddings import embedding_maps
from patchlight.analysis.subject import Subject
from patchlight.commands.explain_attention import Looks, draw_attention, draw_pair
from patchlight.commands.explain_figures import draw, draw_classes, draw_embedding
from patchlight.commands.explain_masks import draw_masks
from patchlight.commands.explain_target import find_target
from patchlight.data.masks import Masks
from patchlight.explanation.methods import METHODS, explain_inputs, find_call
from patchlight.figures import boards, classes, overlays, tokens
from patchlight.figures import masks as masks_
from patchlight.models import ModelCard, ModelSpec
from patchlight.models.anatomy import dissect

DRAWING = [
    *((boards, f"{kind}_board") for kind in ("maps", "heads", "layers", "rollout", "pair", "tokens", "embeddings")),
    (masks_, "masks_board"),
    (tokens, "path_board"),
    (tokens, "query_key"),
    (classes, "class_gallery"),
]
SIZES = {"cut": (40, 16, {}), "filled up": (40, 16, {"dynamic_img_size": True, "dynamic_img_pad": True})}


def subject_of(size=16, patch=4, count=4, **options) -> Subject:
    model = of_timm(img_size=size, patch_size=patch, **options).float()
    spec = ModelSpec("timm", "vit", {}, size, 5)
    card = ModelCard("vit", spec, ("cat", "dog", "emu", "fox", "gnu"), (0.5,) * 3, (0.25,) * 3)
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draws)
    return Subject.of(dissect(model), card, pixels, np.zeros(count, dtype=np.int64))


def texts(figure) -> list[str]:
    """Without the ends of lines, which depend on a machine's fonts."""
    words = (" ".join(text.get_text().replace("\N{NO-BREAK SPACE}", " ").split()) for text in figure.findobj(Text))
    return [each for each in words if each]


def explained(subject, *calls, **target):
    asked = find_target(subject, **target)
    return asked, {
        call: explain_inputs(subject.anatomy, subject.inputs, method=call, target=asked.target) for call in calls
    }


def class_maps_of(subject) -> ClassMaps:
    even = np.ones((1, 4, 4))
    return ClassMaps("occlusion", (0,), np.array([4]), np.array([0]), even, even, {"centre": np.zeros(1)}, even[0])


def test_maps_say_which_two_classes_they_are_for():
    subject = subject_of()
    asked, found = explained(subject, "occlusion", versus="second")
    words = texts(draw(subject, found, asked, 100)["maps"])
    names, likely = subject.card.class_names, subject.probs.topk(2, dim=1)
    for (one, other), probs in zip(likely.indices.tolist(), likely.values, strict=True):
        share = round(100 * float(probs[0] / probs.sum()))
        line = f"map for {names[one]}, not {names[other]}, {share} % of the two"
        assert any(each.endswith(line) for each in words)


def test_maps_of_a_likeness_say_the_cosine(tmp_path):
    subject = subject_of()
    Image.fromarray(subject.pictures[0]).save(tmp_path / "one.png")
    asked, found = explained(subject, "occlusion", like=tmp_path / "one.png")
    words = texts(draw(subject, found, asked, 100)["maps"])
    for strength in found["occlusion"].strength.tolist():
        assert any(each.endswith(f"map for likeness, cosine {strength:.2f}") for each in words)


def test_masks_of_people_say_what_maps_are_for():
    subject = subject_of()
    masks = Masks(torch.ones(4, 16, 16, dtype=torch.bool), torch.tensor([False, True, True, True]), ())
    asked, found = explained(subject, "occlusion", "rollout", target="fox")
    words = texts(draw_masks(subject, found, asked, masks, 100))
    assert "Maps and the masks of people, for the class 'fox'" in words
    told = [each for each in words if each.startswith("predicted ")]
    assert len(told) == 3
    for each, pred, strength in zip(told, subject.preds[1:], found["rollout"].strength[1:].tolist(), strict=True):
        assert ("map for fox" in each) == (subject.card.class_names[pred] != "fox")
        assert each.endswith(f"map for fox, {round(100 * strength)} %") or "map for" not in each
    assert any("map for fox" in each for each in told)
    asked, found = explained(subject, "occlusion", versus="second")
    words = texts(draw_masks(subject, found, asked, masks, 100))
    assert sum("map for" in each and "of the two" in each for each in words) == 3
    asked, found = explained(subject, "occlusion")
    words = texts(draw_masks(subject, found, asked, masks, 100))
    assert "Maps and the masks of people" in words
    assert not any("map for" in each for each in words)


@pytest.mark.parametrize("call", ["attention:layer=0", "legrad:first=1,read=pooled", "rollout:discard=0.5", "gradcam"])
def test_the_title_of_one_method_says_its_options(call):
    subject = subject_of()
    asked, found = explained(subject, call)
    (title,) = (
        each for each in texts(draw(subject, found, asked, 100)["maps"]) if "(" in each and "=" in each.split("(")[1]
    )
    assert "the last layer" not in title
    name, method, given = find_call(call)
    assert title.lower().startswith(METHODS[name].about.lower())
    for option, value in given.items():
        assert f"{option}={value}" in title
    if name == "gradcam":
        assert "layer=-1" in title  # options that are not given, too
    assert method.about == METHODS[name].about


@pytest.mark.parametrize("kind", SIZES)
def test_maps_lie_where_their_patches_are(kind):
    """In pictures as in `pixel_maps`, by which maps are compared with masks."""
    size, patch, options = SIZES[kind]
    subject = subject_of(size, patch, **options)
    shares = {"cut": 0.8, "filled up": 1.2}[kind]
    assert subject.covered == (shares, shares)
    asked, found = explained(subject, "occlusion", "integrated-gradients")
    assert found["occlusion"].covered == subject.covered
    assert found["integrated-gradients"].covered == (1, 1)  # of pixels
    pictures = [image.get_array() for image in draw(subject, found, asked, 100)["maps"].axes[0].images]
    plotted = [image.get_array() for image in found["occlusion"].plot().axes[0].images]
    for i, (image, maps) in enumerate(zip(subject.pictures, found["occlusion"].maps.numpy(), strict=True)):
        expected = overlays.overlay(image, maps, signed=True, covered=subject.covered)
        np.testing.assert_array_equal(pictures[4 + i], expected)
        assert (plotted[4 + i] != overlays.overlay(plotted[i], maps, signed=True)).any()
        flat = np.full((size, size, 3), 128, np.uint8)
        mine = overlays.overlay(flat, maps, signed=True, side=size, covered=subject.covered).astype(int)
        limit = np.abs(maps).max()  # of the cells, also where their middles lie between pixels
        on_pixels = found["occlusion"].pixel_maps[i].numpy() / limit
        theirs = overlays.colours_of(0.5 + 0.5 * on_pixels, overlays.FOR_AND_AGAINST) * (0.7 + 0.3 * 128 / 255)
        assert np.abs(mine - theirs).max() < 4


@pytest.mark.parametrize("kind", SIZES)
def test_every_figure_is_told_where_patches_are(kind, monkeypatch):
    """All that draw maps, masks, frames, dots or tokens."""
    size, patch, options = SIZES[kind]
    subject, told = subject_of(size, patch, **options), set[str]()
    for module, name in DRAWING:
        monkeypatch.setattr(module, name, spied(getattr(module, name), name, subject.covered, told))
    asked, found = explained(subject, "rollout")
    draw(subject, found, asked, 100)
    draw_embedding(subject, embedding_maps(subject.anatomy, subject.inputs))
    draw_attention(subject.anatomy, subject, Looks(token="1,1", pair="0,1:1,0"), 100)
    draw_classes(subject, class_maps_of(subject), 100)
    assert told == {name for _, name in DRAWING}


def spied(run, name, covered, told):
    def call(*args, **options):
        rows = args[2] if name == "maps_board" else ()
        assert covered in (options.get("covered"), *(row.covered for row in rows)), name
        told.add(name)
        return run(*args, **options)

    return call


def test_tokens_are_called_as_the_options_take_them():
    subject = subject_of(reg_tokens=3, count=2)
    looks = Looks(token="2,1", pair="0,3:2,1")
    figures = draw_attention(subject.anatomy, subject, looks, 100)
    assert texts(figures["path"]).count("from patch 2,1") == 2
    assert any("query, framed: patch 0,3 key, dot: patch 2,1" in each for each in texts(figures["pair"]))


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("registers:2,1", "query: the registers key, dot: patch 2,1"),
        ("2,1:registers", "query, framed: patch 2,1 key: the registers"),
        ("registers:registers", "query: the registers key: the registers"),
        ("register1:cls", "query: the register1 key: the CLS token"),
    ],
)
def test_several_tokens_have_their_common_name(pair, words):
    subject = subject_of(reg_tokens=3, count=1)
    assert words in texts(draw_pair(subject.anatomy, subject, pair, 100)["pair"])


def test_a_percentile_is_of_the_gallery_of_classes_too():
    subject = subject_of()
    whole, cut = (
        draw_classes(subject, class_maps_of(subject), percentile)["class_gallery"] for percentile in (100, 60)
    )
    assert "strongest 40 % clipped" in texts(cut)
    assert not any("clipped" in each for each in texts(whole))
    pictures = [figure.axes[0].images[1].get_array() for figure in (whole, cut)]
    assert (pictures[0] != pictures[1]).any()


def test_norms_are_on_one_scale_in_all_pictures(monkeypatch):
    monkeypatch.setattr("patchlight.commands.explain_figures.ABREAST", 1)
    subject = subject_of(count=3)
    figures = draw_attention(subject.anatomy, subject, Looks(), 100)
    brightest = overlays.heat([1.0])
    seen = [
        (figures[name].axes[0].images[3].get_array() == brightest).all(axis=-1).any()
        for name in ("patches", "patches-2", "patches-3")
    ]
    assert seen.count(True) == 1


@pytest.mark.parametrize("count", [3, 4])
def test_layers_are_compared_by_four_images_at_least(count):
    subject = subject_of(count=count)
    figures = draw_attention(subject.anatomy, subject, Looks(), 100)
    assert ("layer_likeness" in figures) == (count == 4)
    if count == 4:
        assert "Likeness of layers (CKA) of 4 images" in texts(figures["layer_likeness"])
