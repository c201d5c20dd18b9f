"""Boards of maps, masks and tokens: what stands where, what the words say, and that no word lies on another."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from patchlight.errors import UsageError
from patchlight.figures import boards, classes, galleries, masks, overlays, tokens
from patchlight.figures.boards import CONTROLS, MapRow
from patchlight.figures.captions import answer_captions, map_for, pair_captions
from patchlight.figures.sheets import Row, board
from patchlight.figures.style import cut, plain, png, styled, svg, wrapped

THEMES = ["light", "dark"]
LONG = "red-breasted merganser, Mergus serrator"
RNG = np.random.default_rng(0)


def images(count, side=8):
    return RNG.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def rows(count, side=8):
    """Of both signs and of one, of patches and of pixels, and controls."""
    return [
        MapRow("attention (blind to the class)", RNG.random((count, 2, 2))),
        MapRow("integrated-gradients", RNG.normal(size=(count, side, side)), signed=True),
        MapRow("random", RNG.random((count, 2, 2)), control=True),
        MapRow("centre", RNG.random((count, 2, 2)), control=True),
    ]


def words_of(figure: Figure) -> dict[str, Text]:
    """The texts of a sheet that are not empty, by their words on one line, however a machine's fonts break them."""
    return {
        " ".join(text.get_text().replace("\N{NO-BREAK SPACE}", " ").split()).replace("- ", "-"): text
        for text in figure.findobj(Text)
        if text.get_text().strip()
    }


def check_places(figure: Figure, theme: str = "light") -> None:
    """Every word of a sheet lies inside of it, on no other word and on no picture."""
    canvas = FigureCanvasAgg(figure)
    with styled(theme), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.set_dpi(150)
        canvas.draw()
        renderer = canvas.get_renderer()
        texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
        boxes += [("a picture", image.get_window_extent(renderer)) for image in figure.axes[0].images]
    width, height = figure.get_size_inches() * 150
    for words, box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, f"cut: {words}"  # noqa: PT018
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        apart = a.x1 <= b.x0 + 2 or b.x1 <= a.x0 + 2 or a.y1 <= b.y0 + 2 or b.y1 <= a.y0 + 2
        assert apart, f"'{one}' lies on '{other}'"


def captions(count, name="cat"):
    return answer_captions([name] * count, [0.9] * count, [LONG] * count, [map_for(f"{name}, not ship", "3 %")] * count)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", ["8", "automobile", LONG, "Donaudampfschiffahrtsgesellschaftskapitän" * 3])
@pytest.mark.parametrize("count", [1, 2, 12])
def test_no_word_of_a_board_lies_on_another(count, name, theme):
    shown = images(count)
    title = f"What the model looked at, for the class '{name}'"
    figure = boards.maps_board(shown, captions(count, name), rows(count), title, percentile=99, theme=theme)
    check_places(figure, theme)
    noted = [
        MapRow(r.label, r.values, r.signed, r.control, notes=["IoU 0.40, 60 % inside"] * count) for r in rows(count)
    ]
    own = RNG.random((count, 8, 8)) > 0.5
    check_places(masks.agreement_board(shown, captions(count, name), own, noted, title, theme=theme), theme)
    notes = [["8 % of the image"] * count] * 3
    heads = [f"head {i + 1}" for i in range(3)]
    kept = RNG.random((count, 3, 2, 2)) > 0.5
    foot = "The fewest patches that have 60 % of the head's attention."
    check_places(masks.masks_board(shown, captions(count, name), kept, heads, title, notes=notes, foot=foot), "light")


def test_no_word_of_the_other_boards_lies_on_another():
    shown, both = images(8), pair_captions([["cat", LONG]] * 8, np.full((8, 2), 0.4), ["dog"] * 8)
    check_places(boards.pair_board(shown, both, RNG.random((8, 2, 2, 2)), "chefer", difference=RNG.random((8, 2, 2))))
    check_places(boards.heads_board(shown, captions(8), RNG.random((8, 12, 2, 2)), 11, 12))
    check_places(boards.layers_board(shown[:1], captions(1), RNG.random((1, 12, 2, 2))))
    check_places(boards.rollout_board(shown, captions(8), RNG.random((8, 2, 2)), percentile=95))
    check_places(path(3, 12), "light")
    row = classes.ClassRow(LONG, shown, RNG.random((8, 2, 2)), ["cat", LONG] * 4, [0.1] * 8)
    check_places(classes.class_gallery([row, row], "chefer", signed=True, percentile=99))


def test_controls_stand_apart_below_the_others():
    words = words_of(boards.maps_board(images(3), captions(3), rows(3), "What the model looked at"))
    down = [words[label].get_position()[1] for label in ("image", "integrated-gradients", CONTROLS, "random", "centre")]
    assert down == sorted(down)
    assert down[3] - down[1] > down[4] - down[3] + 0.3  # a gap
    figure = boards.maps_board(images(3), captions(3), rows(3)[:2], "What the model looked at")
    assert CONTROLS not in words_of(figure)
    only = words_of(boards.maps_board(images(3), captions(3), rows(3)[2:], "Control: random numbers"))
    assert {CONTROLS, "image", "random"} <= only.keys()


def test_scales_are_those_of_the_rows():
    def scale(*chosen):
        return {"least", "most", "against", "0", "for"} & words_of(
            boards.maps_board(images(2), ["a", "b"], [rows(2)[i] for i in chosen], "t")
        ).keys()

    assert scale(0) == {"least", "most"}
    assert scale(1) == {"against", "0", "for"}
    assert scale(0, 1) == scale(1, 2) == {"least", "most", "against", "0", "for"}


def test_a_board_says_what_is_clipped_and_that_maps_are_not_compared():
    words = words_of(boards.maps_board(images(2), ["a", "b"], rows(2), "t", percentile=98)).keys()
    assert {"brightest 2 % clipped", "strongest 2 % clipped", boards.OWN_SCALE} <= words
    assert not any("clipped" in each for each in words_of(boards.maps_board(images(2), ["a", "b"], rows(2), "t")))
    with pytest.raises(UsageError, match="percentile is 30"):
        boards.maps_board(images(2), ["a", "b"], rows(2), "t", percentile=30)


def test_of_one_image_the_maps_stand_side_by_side():
    one = boards.maps_board(images(1), ["predicted cat, 90 %"], rows(1), "t")
    words = words_of(one)
    y = words["image"].get_position()[1]
    assert words["integrated-gradients"].get_position()[1] == y
    assert words["random"].get_position()[1] == words["centre"].get_position()[1] > y
    assert "predicted cat, 90 %" in words
    many = boards.heads_board(images(1), ["a"], RNG.random((1, 12, 2, 2)), 0, 12)
    assert len({round(words_of(many)[f"head {i + 1}"].get_position()[1], 3) for i in range(12)}) == 3  # 13 pictures


def test_large_pixel_maps_have_larger_pictures():
    def sides(row):
        picture = boards.maps_board(images(2, 224), ["a", "b"], [row], "t").axes[0].images[0]
        return picture.get_extent()[1] - picture.get_extent()[0]

    assert sides(MapRow("pixels", RNG.random((2, 224, 224)))) * 150 >= 224
    assert sides(MapRow("patches", RNG.random((2, 14, 14)))) < 1.4


def test_maps_of_a_row_are_over_their_own_images():
    shown, row = images(2), MapRow("pixels", RNG.normal(size=(2, 8, 8)), signed=True)
    for picture, image, values in zip(row.pictures(shown, 90), shown, row.values, strict=True):
        np.testing.assert_array_equal(picture, overlays.overlay(image, values, signed=True, percentile=90))


def test_captions_read_as_sentences():
    assert answer_captions(["cat", "8"], [0.9, 0.451], ["cat", "3"]) == [
        "predicted cat, 90\N{NO-BREAK SPACE}%",
        "predicted 8, 45\N{NO-BREAK SPACE}%\ntrue: 3",
    ]
    maps = ["", map_for("dog", "7 %"), map_for("ship", "3 %")]
    told = answer_captions(["cat"] * 3, [0.9] * 3, ["cat", "dog", "dog"], maps)
    assert [caption.replace("\N{NO-BREAK SPACE}", " ").split("\n") for caption in told] == [
        ["predicted cat, 90 %"],
        ["predicted cat, 90 %", "true: dog", "map for dog, 7 %"],
        ["predicted cat, 90 %", "true: dog", "map for ship, 3 %"],
    ]
    pairs = pair_captions([["cat", "dog"]] * 3, np.array([[0.9, 0.05]] * 3), ["cat", "dog", "ship"])
    assert [caption.replace("\N{NO-BREAK SPACE}", " ").split("\n") for caption in pairs] == [
        ["predicted cat, 90 %", "or dog, 5 %"],
        ["predicted cat, 90 %", "true: dog, 5 %"],
        ["predicted cat, 90 %", "or dog, 5 %", "true: ship"],
    ]
    assert pair_captions([["cat", "dog"]], np.array([[0.9, 0.05]]))[0].split("\n")[1].startswith("or dog")
    assert "\n" not in answer_captions(["two\nlines"], [0.9], ["two\nlines"])[0]


@pytest.mark.parametrize("weight", ["normal", "bold"])
@pytest.mark.parametrize(
    "text", ["predicted automobile, 92 %", f"map for {LONG}, 3 %", "W" * 90, "$5 " * 30, "a-b-" * 20, ""]
)
def test_wrapped_words_are_as_wide_as_they_may_be(text, weight):
    lines = wrapped(text, 1.28, 3, 8, weight).split("\n")
    assert len(lines) <= 3
    figure = Figure(dpi=100)
    renderer = FigureCanvasAgg(figure).get_renderer()
    with styled("light"):
        for line in lines:
            drawn = figure.text(0, 0, line, fontsize=8, fontweight=weight).get_window_extent(renderer)
            assert drawn.width <= 1.28 * 100 + 2
    if len(text) < 50:
        assert " ".join(lines) == text  # nothing is cut where it has room


def test_wrapping_keeps_ends_and_numbers_with_their_sign():
    assert wrapped("predicted horse, 65 %", 10) == "predicted horse, 65 %"
    for first, second in itertools.product(range(4, 15), repeat=2):
        assert "\n%" not in wrapped(f"{'n' * first} {'n' * second} 92 %", 0.071 * max(first, second) + 0.02)
    assert wrapped(f"predicted {LONG * 4}, 92 %", 1.28).endswith("92 %")
    assert wrapped("one\ntwo", 3) == "one\ntwo"
    assert wrapped("$5", 3) == plain("$5") == r"\$5"
    assert len(cut("日" * 200, 60)) == 60
    assert len(wrapped("日" * 200, 1.28, 2).split("\n")) == 2


def path(count, depth, prefix=()):
    walked = RNG.integers(0, 4, (count, depth + 1))
    for at, token in prefix:
        walked[:, at] = token
    maps, weights = RNG.random((count, depth, 2, 2)), np.full((count, depth), 0.314)
    return tokens.path_board(images(count), ["cat"] * count, maps, walked, weights)


def test_a_path_tells_each_layer():
    walked = np.array([[3, 3, 0, 2]])
    figure = tokens.path_board(images(1), ["cat"], RNG.random((1, 3, 2, 2)), walked, np.array([[0.5, 0.25, 0.125]]))
    assert {"layer 1: 50 %, itself", "layer 2: 25 %", "layer 3: 12 %", "from patch 1,0"} <= words_of(figure).keys()
    words = words_of(path(1, 3, prefix=[(1, -1), (3, -1)])).keys()
    assert {"layer 2: 31 %, CLS token", "from the CLS token"} <= words
    wide = path(2, 12)
    assert len(wide.axes[0].images) == 2 * 13 + 1
    assert wide.get_size_inches()[0] < 12


def test_a_path_is_drawn_from_token_to_token():
    black = np.zeros((8, 8, 3), np.uint8)
    whole = tokens._walked(black, [0, 1, 3], (2, 2)).astype(int)
    side = whole.shape[0]
    first, second, last = (whole[y * side // 4, x * side // 4] for y, x in ((1, 1), (1, 3), (3, 3)))
    assert first[1] > second[1] > last[1]  # from yellow to red
    assert whole[side // 4, side // 2].any()
    assert whole[side // 2, 3 * side // 4].any()
    assert not whole[side // 2, side // 4].any()
    figure = tokens.path_board(black[None], ["a"], np.ones((1, 2, 2, 2)), np.array([[0, 1, 3]]), np.ones((1, 2)))
    for picture, at in zip([image.get_array() for image in figure.axes[0].images][1:3], ((1, 1), (1, 3)), strict=True):
        dot, on_path = (p[at[0] * len(p) // 4, at[1] * len(p) // 4].tolist() for p in (picture, whole))
        assert dot == on_path  # in a layer's map the token that is read has its colour of the path
    read = tokens._read(black, np.zeros((2, 2)), -1, -1, (1, 2, 3), 100)
    np.testing.assert_array_equal(read, overlays.overlay(black, np.zeros((2, 2))))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (12, 12), (4, 3), (32, 16)])
def test_a_pair_of_tokens(shape, weights, theme):
    scores = RNG.random(shape) - (0 if weights else 0.5)
    figure = tokens.query_key(
        images(1)[0],
        RNG.random((2, 2)),
        2,
        -1,
        scores,
        cell=(0, 0),
        weights=weights,
        caption=captions(1)[0],
        theme=theme,
    )
    words = words_of(figure).keys()
    assert any("query, framed: patch 1,0 key: the CLS token" in each for each in words)  # as --pair takes it
    assert any("layer 1, head 1" in each for each in words)
    table = figure.axes[2]
    np.testing.assert_array_equal(table.images[0].get_array(), scores.T)
    low, high = table.images[0].get_clim()
    assert low == (0 if weights else -high)
    assert len(png(figure, theme)) > 1000


def test_masks_are_over_their_own_images():
    shown, kept = images(2), np.zeros((2, 3, 2, 2), bool)
    kept[0, 1] = True
    figure = masks.masks_board(shown, ["a", "b"], kept, ["head 1", "head 2", "head 3"], "t")
    pictures = [image.get_array() for image in figure.axes[0].images]
    assert len(pictures) == 8
    whole = overlays.enlarged(shown[0], overlays.canvas(shown[0]))
    equal = [np.array_equal(picture, whole) for picture in pictures]
    assert equal == [False] * 4 + [True] + [False] * 3  # of head 2, the first image


def test_a_persons_mask_and_the_greatest_value_are_marked():
    shown, own = np.full((1, 8, 8, 3), 100, np.uint8), np.zeros((1, 8, 8), bool)
    own[:, 2:6, 2:6] = True
    values = np.zeros((1, 4, 4))
    values[0, 3, 0] = 1
    figure = masks.agreement_board(shown, ["a"], own, [MapRow("m", values), MapRow("n", values, signed=True)], "t")
    for picture in [image.get_array() for image in figure.axes[0].images][1:3]:
        dots = (picture == overlays.LINE).all(axis=2)
        side = len(picture)
        assert dots[7 * side // 8, side // 8]  # in the middle of the last row's first patch
        assert not dots[side // 8, 7 * side // 8]
        assert dots[side // 4, side // 2]  # the mask's upper edge


def dots_of(picture):
    return bool((picture == overlays.LINE).all(axis=2).any())


def test_a_map_that_says_nothing_is_said_to_and_has_no_dot():
    shown, none = images(2), np.zeros((2, 8, 8), bool)
    seen, zeros = RNG.random((1, 4, 4)), np.zeros((1, 4, 4))
    some = [
        MapRow("gradcam", np.concatenate([seen, zeros]), notes=["IoU 0.40"] * 2),
        MapRow("attention", np.concatenate([seen, zeros + 0.1])),
        MapRow("occlusion", np.concatenate([seen - 0.5, -seen]), signed=True),
        MapRow("hirescam", np.concatenate([seen, zeros]), signed=True),
    ]
    figure = masks.agreement_board(shown, ["a", "b"], none, some, "t")
    pictures = [image.get_array() for image in figure.axes[0].images][2:10]
    assert [dots_of(picture) for picture in pictures] == [True, False] * 4
    words = words_of(figure).keys()
    assert {"IoU 0.40", "IoU 0.40 no evidence", "the same everywhere", masks.NOTHING_FOR, "no evidence"} <= words
    check_places(figure)
    words = words_of(boards.maps_board(shown, ["a", "b"], some, "t")).keys()
    assert {"IoU 0.40 no evidence", "the same everywhere", "no evidence"} <= words
    row = classes.ClassRow("cat", shown, some[0].values, ["cat", "dog"], [0.9, 0.1])
    assert "✗ predicted dog map for cat, 10 % no evidence" in words_of(classes.class_gallery([row], "gradcam"))
    assert "no evidence" in words_of(galleries.attention(shown, some[0].values, "t"))


def test_norms_of_all_pages_have_one_scale():
    norms, colours = np.full((2, 2, 2), 1.0), RNG.integers(0, 256, (2, 2, 2, 3), dtype=np.uint8)
    figure = boards.tokens_board(images(2), ["a", "b"], colours, colours, norms, 12, greatest=4.0)
    for picture in [image.get_array() for image in figure.axes[0].images][6:8]:
        np.testing.assert_array_equal(picture, overlays.heat(np.full((2, 2), 0.25)))


def test_pictures_of_every_board_lie_where_patches_are():
    """Of 40 pixels two patches of 16 cover 32: right of them and below a board has nothing that a patch would have."""
    shown, covered = np.full((2, 40, 40, 3), 100, np.uint8), (0.8, 0.8)
    maps, colours = np.zeros((2, 2, 2)), RNG.integers(0, 256, (2, 2, 2, 3), dtype=np.uint8)
    maps[:, 1, 1] = 1

    def pictures(figure):
        return [image.get_array() for image in figure.axes[0].images]

    peak = overlays.overlay(shown[0], maps[0], covered=covered)
    for figure in (
        boards.maps_board(shown, ["a", "b"], [MapRow("m", maps, covered=covered)], "t"),
        boards.heads_board(shown, ["a", "b"], maps[:, None], 0, 1, covered=covered),
        boards.layers_board(shown, ["a", "b"], maps[:, None], covered=covered),
        boards.pair_board(shown, ["a", "b"], maps[:, None].repeat(2, axis=1), "m", covered=covered),
    ):
        np.testing.assert_array_equal(pictures(figure)[2], peak)
    rollout = pictures(boards.rollout_board(shown, ["a", "b"], maps, covered=covered))
    np.testing.assert_array_equal(rollout[4], peak)
    clear = [
        rollout[2],
        *pictures(boards.tokens_board(shown, ["a", "b"], colours, colours, maps, 2, covered=covered))[2:8],
        *pictures(boards.embeddings_board(shown, ["a", "b"], colours[:, None], maps[:, None], "w", covered=covered))[
            2:6
        ],
    ]
    for picture in clear:
        side = len(picture)
        assert picture.shape == (side, side, 4)
        assert (picture[..., 3] == 255).sum() == (4 * side // 5) ** 2
    gallery = classes.class_gallery(
        [classes.ClassRow("cat", shown, maps, ["cat"] * 2, [1.0] * 2)], "m", covered=covered
    )
    np.testing.assert_array_equal(pictures(gallery)[1], peak)
    np.testing.assert_array_equal(pictures(galleries.attention(shown, maps, "t", covered=covered))[1], peak)
    agreed = masks.agreement_board(
        shown, ["a", "b"], np.zeros((2, 40, 40), bool), [MapRow("m", maps, covered=covered)], "t"
    )
    down, across = np.nonzero((pictures(agreed)[2] == overlays.LINE).all(axis=2))
    assert (down.mean() + 0.5, across.mean() + 0.5) == pytest.approx((120, 120), abs=1)  # 24 of 40 pixels
    kept = pictures(masks.masks_board(shown, ["a", "b"], maps[:, None] > 0, ["h"], "t", covered=covered))[2]
    edge = np.nonzero((kept == overlays.LINE).all(axis=2))
    assert [(at.min(), at.max()) for at in edge] == [(80, 159)] * 2
    dark = np.zeros((40, 40, 3), np.uint8)
    steps = tokens.path_board(
        dark[None], ["a"], np.ones((1, 1, 2, 2)), np.array([[3, 3]]), np.ones((1, 1)), covered=covered
    )
    pair = tokens.query_key(dark, np.ones((2, 2)), 3, 3, np.ones((1, 1)), covered=covered)
    for picture in (*pictures(steps)[:2], pair.axes[0].images[0].get_array()):
        seen = np.nonzero((picture == 255).all(axis=2))  # the frame's outer edge
        assert [(at.min(), at.max() + 1) for at in seen] == [(2 * len(picture) // 5, 4 * len(picture) // 5)] * 2


def test_a_board_of_rows_with_notes_and_without():
    pictures = list(images(3))
    figure = board([("image", pictures), Row("maps", [None, *pictures[1:]], ["", "a note"])], "t", ["c"], scales=())
    words = words_of(figure)
    assert {"image", "maps", "a note", "c", "t"} == words.keys()
    assert len(figure.axes[0].images) == 5
    assert "</svg>" in svg(figure, "light")
