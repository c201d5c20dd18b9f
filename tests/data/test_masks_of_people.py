"""Masks that people drew: which is of which image, what is inside, and that they lie where their images lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz import ROUNDS, mutated
from PIL import Image

from patchlight.data.decode import decode_image, fit_square
from patchlight.data.files import find_images
from patchlight.data.mask_pixels import fit_mask, read_mask
from patchlight.data.masks import MaskFiles, find_masks, read_masks
from patchlight.errors import PatchlightError, UsageError
from patchlight.models.card import ModelCard, ModelSpec

INSIDE = np.zeros((6, 9), dtype=bool)
INSIDE[1:4, 2:5] = True


def save(path: str | Path, pixels: np.ndarray, **options) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path, **options)
    return path


def photo(path: str | Path, size: tuple[int, int] = (9, 6)) -> Path:
    draw = np.random.default_rng(0)
    return save(path, draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def grey(path: str | Path, inside: np.ndarray = INSIDE) -> Path:
    return save(path, inside.astype(np.uint8) * 255)


def found(folder: str, *images: str | Path) -> list[str | None]:
    return [None if path is None else str(path) for path in find_masks(folder, images).masks]


# Which mask is of which image


@pytest.mark.parametrize(
    "name",
    [
        *("a.png", "a_mask.png", "a-mask.gif", "a_segmentation.bmp", "a_seg.tif", "a_gt.tiff", "a_mask.npy", "a.npy"),
        *("a_Masks.png", "a_groundtruth.png", "a ground truth.png", "a_mask_1.png", "a.mask.PNG"),
    ],
)
def test_names_of_masks(here, name):
    grey(f"masks/{name}") if not name.endswith("npy") else save(f"masks/{name}", INSIDE)
    assert found("masks", photo("photos/a.jpg")) == [f"masks/{name}"]
    with pytest.raises(PatchlightError, match=r"no mask in masks is called as an image: photos/b\.jpg needs b\.png or"):
        find_masks("masks", [photo("photos/b.jpg")])


def test_names_that_only_begin_alike(here):
    for name in ("a2.png", "a_mask_left.png", "amask.png", "b_a.png", "a_.png"):
        grey(f"masks/{name}")
    grey("masks/b.png")
    assert found("masks", "photos/a.jpg", "photos/b.jpg") == [None, "masks/b.png"]


def test_names_with_dots_and_of_no_file(here):
    grey("masks/a.v2_mask.png")
    grey("masks/test 17.png")
    grey("masks/test 1.5.png")
    assert found("masks", photo("a.v2.png"), "test 17", "test 1.5") == [
        *("masks/a.v2_mask.png", "masks/test 17.png", "masks/test 1.5.png")
    ]


def test_sub_folders_tell_images_of_one_name_apart(here):
    for name in ("cats/a.jpg", "dogs/a.jpg", "dogs/deep/a.jpg"):
        photo(f"photos/{name}")
    for name in ("cats/a_mask.png", "dogs/a.png", "dogs/deep/a.png"):
        grey(f"masks/{name}")
    images = find_images(["photos"]).paths
    masks = ["masks/cats/a_mask.png", "masks/dogs/a.png", "masks/dogs/deep/a.png"]
    assert found("masks", *images) == masks
    assert found(str(here / "masks"), *images) == [str(here / each) for each in masks]
    assert found("masks", (here / "photos/dogs/a.jpg")) == [masks[1]]  # without the other
    with pytest.raises(PatchlightError, match="no mask in masks"):
        find_masks("masks", [photo("photos/birds/a.jpg")])


def test_the_mask_in_more_sub_folders_is_taken(here):
    for name in ("a.png", "cats/a.png", "photos/cats/a_mask.png"):
        grey(f"masks/{name}")
    photo("photos/cats/a.jpg")
    files = find_masks("masks", ["photos/cats/a.jpg"])
    assert files.masks == (Path("masks/photos/cats/a_mask.png"),)
    assert files.notes == ("2 masks in masks of none of the images, such as masks/a.png",)


def test_images_of_any_suffix(here):
    photo("photos/a.png").rename("photos/a.dat")
    grey("masks/a_mask.png")
    assert found("masks", "photos/a.dat") == ["masks/a_mask.png"]


def test_a_flat_folder_of_masks_for_images_in_folders(here):
    images = [photo("photos/cats/a.jpg"), photo("photos/dogs/b.jpg")]
    grey("masks/a.png")
    grey("masks/b.png")
    assert found("masks", *images) == ["masks/a.png", "masks/b.png"]
    assert found("masks", images[0], images[0].resolve()) == ["masks/a.png"] * 2  # twice the same image
    with pytest.raises(
        PatchlightError,
        match=r"masks/a\.png is by its name the mask of photos/cats/a\.jpg and of photos/dogs/a\.jpg; lay masks into",
    ):
        find_masks("masks", [*images, photo("photos/dogs/a.jpg")])


def test_two_masks_of_one_image(here):
    for one, other in (("a.png", "a_mask.png"), ("a.npy", "a.png"), ("a_mask.png", "a_mask_1.png")):
        paths = [save(f"masks {one}/{name}", INSIDE.astype(np.uint8)) for name in (one, other)]
        with pytest.raises(PatchlightError) as error:
            find_masks(f"masks {one}", [photo("a.jpg")])
        assert (
            str(error.value) == f"a.jpg has 2 masks, {paths[0]} and {paths[1]}; join them into one file, or remove one"
        )


def test_masks_beside_their_images(here):
    """A photograph is no mask of itself."""
    image, mask = photo("data/a.png"), grey("data/a_mask.png")
    assert found("data", image) == [str(mask)]
    files = find_masks("data", [image, mask])
    assert files.masks == (mask, None)
    assert files.notes == ("1 image without a mask left out: data/a_mask.png",)


def test_what_is_left_out_is_said(here):
    images = [photo(f"photos/{i:02}.jpg") for i in range(15)]
    for name in ("03.png", "x.png", "y_mask.png", ".hidden.png"):
        grey(f"masks/{name}")
    save("masks/z.npy", INSIDE)
    Path("masks/notes.txt").write_text("no mask")
    files = find_masks("masks", images)
    assert [path is not None for path in files.masks] == [i == 3 for i in range(15)]
    names = ", ".join(f"photos/{i:02}.jpg" for i in range(13) if i != 3)
    assert files.notes == (
        f"14 images without a mask left out: {names} and 2 more",
        "3 masks in masks of none of the images, such as masks/x.png",
        "left out of masks: files that are no images: 1, such as masks/notes.txt",
        "left out of masks: hidden images, or images that a system made: 1, such as masks/.hidden.png",
    )
    masks = read_masks(files, 6)
    assert masks.given.tolist() == [i == 3 for i in range(15)]
    assert masks.inside.any(dim=(1, 2)).tolist() == masks.given.tolist()


def test_folders_that_are_none(here):
    (here / "empty").mkdir()
    grey("mask.png")
    (here / "texts").mkdir()
    Path("texts/a.txt").write_text("no mask")
    for folder, what in (
        ("missing", "missing is not there; name the folder that the masks are in"),
        ("empty", "empty is an empty folder; name"),
        ("mask.png", "mask.png is a file; name the folder"),
        ("texts", "texts holds no image and no .npy array but 1 .txt file; name"),
    ):
        with pytest.raises(PatchlightError) as error:
            find_masks(folder, ["a.jpg"])
        assert what in str(error.value)
    with pytest.raises(UsageError, match="a path is empty"):
        find_masks("", ["a.jpg"])
    assert find_masks(".", []).masks == ()


# What is inside


def palette(first: tuple[int, ...], second: tuple[int, ...]) -> Image.Image:
    image = Image.fromarray(INSIDE.astype(np.uint8)).convert("P")
    image.putpalette([*first, *second])
    return image


def kinds_of_files(folder: Path) -> dict[str, Path]:
    """The same mask in every kind of file."""
    bits, colour = INSIDE.astype(np.uint8), np.where(INSIDE[..., None], [200, 0, 0], 0).astype(np.uint8)
    clear = np.dstack([np.full_like(colour, 90), bits * 255])
    key = np.dstack([colour, np.full_like(bits, 255)])
    black = np.dstack([0 * colour, bits * 255])
    images = {
        "1-bit.png": Image.fromarray(INSIDE),
        "1-bit.tif": Image.fromarray(INSIDE),
        "1-bit.bmp": Image.fromarray(INSIDE),
        "255.png": Image.fromarray(bits * 255),
        "1.png": Image.fromarray(bits),
        "16-bit.png": Image.fromarray(bits.astype(np.uint16)),
        "32-bit.tif": Image.fromarray(bits.astype(np.int32)),
        "float.tif": Image.fromarray(bits.astype(np.float32)),
        "palette.png": palette((0, 0, 0), (0, 0, 9)),
        "turned palette.png": Image.fromarray((~INSIDE).astype(np.uint8)).convert("P"),
        "palette.gif": palette((0, 0, 0), (255, 255, 255)),
        "colour.png": Image.fromarray(colour),
        "colour.bmp": Image.fromarray(colour),
        "cmyk.tif": Image.fromarray(colour).convert("CMYK"),
        "opaque.png": Image.fromarray(key),
        "transparent.png": Image.fromarray(clear),
        "black.png": Image.fromarray(black),
        "grey and alpha.png": Image.fromarray(np.dstack([bits * 0 + 255, bits * 255])),
        "lossless.webp": Image.fromarray(colour),
    }
    images["turned palette.png"].putpalette([255, 255, 255, 0, 0, 0])
    for name, image in images.items():
        image.save(folder / name, lossless=True) if name.endswith("webp") else image.save(folder / name)
    arrays = {"bool": INSIDE, "float": INSIDE * 1.0, "int": bits * 7, "first": INSIDE[None], "last": bits[..., None]}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    Image.fromarray(bits * 255).save(folder / "key.png", transparency=0)
    return {name: folder / name for name in [*images, "key.png", *(f"{name}.npy" for name in arrays)]}


def test_every_kind_of_file_holds_the_same_mask(here):
    for name, path in kinds_of_files(here).items():
        pixels = read_mask(path)
        assert pixels.inside.dtype == np.bool_, name
        assert np.array_equal(pixels.inside, INSIDE), name
        transparency = ("masks that are black wherever they can be seen (what is not transparent is inside)",)
        assert pixels.said == (transparency if name == "black.png" else ()), name


def test_more_than_two_values_are_inside_and_said(here):
    labels = INSIDE.astype(np.uint8)
    labels[2, 3] = 2
    soft = labels * 0.3
    several = "masks of more than two values, as label maps and soft masks have (every value but 0 is inside)"
    void = Image.fromarray(labels).convert("P")
    void.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    void.save("a_gt.png")
    soft_alpha = np.dstack([np.full((6, 9, 3), 255), labels * 100]).astype(np.uint8)
    for path in (
        save("a.png", labels),
        save("b.npy", soft),
        save("c.png", np.stack([labels] * 3, axis=2)),
        save("d.tif", soft.astype(np.float32)),
        save("e.png", soft_alpha),
        Path("a_gt.png"),
    ):
        pixels = read_mask(path)
        assert np.array_equal(pixels.inside, INSIDE), path
        assert pixels.said == (several,), path
    masks = read_masks(MaskFiles(here, (Path("x"), Path("y")), (Path("a.png"), Path("b.npy"))), 6)
    assert masks.notes == (f"{several}: 2, such as a.png",)


def test_edges_that_a_format_blurs_are_cut_in_the_middle(here):
    inside = np.zeros((40, 60), dtype=bool)
    inside[7:23, 11:38] = True
    for mode in ("L", "RGB"):
        for name, options in (("a.jpg", {"quality": 60}), ("a.webp", {"quality": 20})):
            Image.fromarray(inside.astype(np.uint8) * 255).convert(mode).save(name, **options)
            assert len(np.unique(np.asarray(Image.open(name)))) > 2, (mode, name)
            pixels = read_mask(Path(name))
            assert (pixels.inside != inside).mean() < 0.02, (mode, name)
            assert pixels.said == ("masks in a format that blurs their edges (values from 128 of 255 on are inside)",)
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save("labels.jpg")
    with pytest.raises(
        PatchlightError, match=r"labels\.jpg has no value above \d+ of 255, in a format that does not keep"
    ):
        read_mask(Path("labels.jpg"))


def test_the_first_of_several_pictures(here):
    empty = Image.fromarray(INSIDE.astype(np.uint8) * 0)
    for name in ("a.gif", "a.tif"):
        Image.fromarray(INSIDE.astype(np.uint8) * 255).save(name, save_all=True, append_images=[empty])
        pixels = read_mask(Path(name))
        assert np.array_equal(pixels.inside, INSIDE)
        assert pixels.said == ("files of masks with more than one picture (the first is used)",)


def test_a_mask_that_its_own_exif_data_turn(here):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the right when shown
    save("a.png", np.rot90(INSIDE).astype(np.uint8) * 255, exif=exif)
    assert np.array_equal(read_mask(Path("a.png")).inside, INSIDE)


def test_tiff_files_in_which_zero_is_white(here):
    """Pillow turns 8 bits round, and not 16."""
    save("a.tif", INSIDE.astype(np.uint8) * 255, tiffinfo={262: 0})
    assert np.array_equal(read_mask(Path("a.tif")).inside, INSIDE)
    save("b.tif", INSIDE.astype(np.uint16), tiffinfo={262: 0})
    with pytest.raises(PatchlightError, match=r"b\.tif is a TIFF file in which 0 is white; save it as PNG"):
        read_mask(Path("b.tif"))


def test_files_that_hold_no_mask(here):
    Path("text.png").write_text("no mask")
    Path("text.npy").write_text("no mask")
    np.save("object.npy", np.array([{}, None]), allow_pickle=True)
    with Path("archive.npy").open("wb") as file:
        np.savez(file, a=INSIDE, b=INSIDE)
    nothing = INSIDE * np.nan
    for path, what in (
        (Path("missing.png"), "missing.png: there is no such file"),
        (Path("text.png"), "text.png: it is not an image file"),
        (Path("text.npy"), "text.npy cannot be read as an array"),
        (Path("object.npy"), "object.npy cannot be read as an array"),
        (Path("archive.npy"), "archive.npy holds no single array"),
        (save("words.npy", np.array([["a"]])), "words.npy holds <U1 of shape (1, 1); a mask is (height, width), of"),
        (save("flat.npy", INSIDE.ravel()), "flat.npy holds bool of shape (54,); a mask is (height, width)"),
        (save("rgb.npy", np.zeros((6, 9, 3))), "rgb.npy holds float64 of shape (6, 9, 3); a mask is"),
        (save("none.npy", np.zeros((0, 9))), "none.npy holds float64 of shape (0, 9)"),
        (save("nan.npy", nothing), "nan.npy holds values that are no finite numbers; write 0 where it is outside"),
        (save("nan.tif", nothing.astype(np.float32)), "nan.tif holds values that are no finite numbers"),
        (
            save("huge.npy", np.zeros((8001, 8000), dtype=bool)),
            "huge.npy: 8000 x 8001 values are more than the 64 million",
        ),
    ):
        with pytest.raises(PatchlightError) as error:
            read_mask(path)
        assert str(error.value).startswith(what), path


@ROUNDS
def test_damaged_files_are_one_sentence(here, capfd, seed, times):
    refused, notes = list[str](), list[str]()
    kinds = [(path.suffix, path.read_bytes()) for path in kinds_of_files(here).values()]
    for number, data in enumerate(mutated([content for _, content in kinds], 450 * times, seed)):
        broken = here / f"broken{kinds[number % len(kinds)][0]}"
        broken.write_bytes(data)
        try:
            masks = read_masks(MaskFiles(here, (Path("x"),), (broken,)), 6)
        except PatchlightError as error:
            refused.append(str(error))
        else:
            assert masks.inside.shape == (1, 6, 6)
            notes += masks.notes
    assert 100 * times < len(refused) < 440 * times
    assert all(message.startswith(str(here / "broken")) and "\n" not in message for message in refused)
    assert all("\n" not in note and len(note) < 2000 for note in notes)
    assert capfd.readouterr() == ("", "")


# Where masks lie


def card(fit_size: int, img_size: int) -> ModelCard:
    spec = ModelSpec("patchlight", "vit", {}, img_size, 2)
    return ModelCard("vit", spec, (), (0.5,) * 3, (0.5,) * 3, data_size=None if fit_size == img_size else fit_size)


@pytest.mark.parametrize(
    "size", [(9, 6), (6, 9), (64, 48), (31, 200), (501, 333), (7, 7), (900, 40), (3, 100), (1, 64)]
)
@pytest.mark.parametrize(("fit_size", "img_size"), [(7, 7), (32, 32), (32, 96), (224, 112)])
def test_a_mask_lies_where_its_image_lies(here, size, fit_size, img_size):
    """A picture that is white inside of its mask goes the way of images: it differs at the mask's edges alone."""
    block = max(20, min(size) // 2)  # more than a pixel that is shown
    blocks = np.random.default_rng(0).random((-(-size[1] // block), -(-size[0] // block))) < 0.5
    inside = np.kron(blocks, np.ones((block, block)))[: size[1], : size[0]] > 0
    image = save("photos/a.png", np.repeat(inside[..., None], 3, axis=2).astype(np.uint8) * 255)
    grey("masks/a_mask.png", inside)
    pixels = torch.from_numpy(decode_image(image, fit_size).transpose(2, 0, 1).copy())[None]
    shown = card(fit_size, img_size).resized(pixels)[0].float().mean(dim=0)
    masks = read_masks(find_masks("masks", [image]), fit_size, img_size)
    assert masks.inside.shape == (1, img_size, img_size)
    # What is clearly inside or outside in the picture, all around, must be so in the mask.
    wide = torch.nn.functional.max_pool2d(shown[None, None], 3, 1, 1)[0, 0]
    narrow = -torch.nn.functional.max_pool2d(-shown[None, None], 3, 1, 1)[0, 0]
    assert masks.inside[0][narrow > 140].all()
    assert not masks.inside[0][wide < 115].any()


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (9, 16), (24, 16), (200, 8), (8, 175), (8, 71), (67, 8)])
def test_nearest_is_exact_where_an_image_is_only_cut(size):
    """The shorter side is what it is fitted to, so each pixel of the picture is one of its own."""
    ids = np.arange(size[0] * size[1]).reshape(size[1], size[0])
    short = min(size)
    for bit in range(11):
        inside = (ids >> bit & 1).astype(bool)
        cut = np.asarray(fit_square(Image.fromarray(inside.astype(np.uint8) * 255), short)) > 0
        assert np.array_equal(fit_mask(inside, short, short), cut)
        assert np.array_equal(fit_mask(inside, short, 3 * short), np.kron(cut, np.ones((3, 3))) > 0)


def test_a_scaled_mask_is_laid_over_the_whole_image(here):
    photo("photos/a.png", (200, 100))
    inside = np.zeros((50, 100), dtype=bool)
    inside[:, 60:] = True
    grey("masks/a.png", inside)
    half = read_masks(find_masks("masks", ["photos/a.png"]), 10)
    assert half.inside[0].all(dim=0).tolist() == [False] * 7 + [True] * 3
    photo("photos/a.png", (199, 100))  # which rounds to 100 x 50
    assert torch.equal(read_masks(find_masks("masks", ["photos/a.png"]), 10).inside, half.inside)


def test_a_scaled_mask_is_cut_as_its_image_is(here):
    """The image loses 18 of its 101 columns on the left; half as many columns would be 18 of 100."""
    photo("photos/a.png", (101, 64))
    stripes = np.zeros((32, 50), dtype=bool)
    stripes[:, ::2] = True
    grey("masks/a.png", stripes)
    masks = read_masks(find_masks("masks", ["photos/a.png"]), 64)
    columns = ((18 + np.arange(64) + 0.5) * 50 / 101).astype(int)
    assert np.array_equal(masks.inside[0, 5].numpy(), stripes[0, columns])


def test_a_mask_of_another_shape(here):
    photo("photos/a.png", (64, 48))
    grey("masks/a.png", np.ones((48, 48), dtype=bool))
    with pytest.raises(PatchlightError) as error:
        read_masks(find_masks("masks", ["photos/a.png"]), 16)
    assert str(error.value) == (
        "masks/a.png is 48 x 48 pixels, its image photos/a.png 64 x 48; save the mask in the shape of its image"
    )


def test_images_that_exif_data_turn(here):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    save("photos/a.jpg", pixels, exif=exif)  # shown as 48 x 64
    turned = np.zeros((64, 48), dtype=bool)
    turned[:20] = True
    grey("masks/a.png", turned)
    masks = read_masks(find_masks("masks", ["photos/a.jpg"]), 48)
    assert masks.inside[0, :12].all()
    assert not masks.inside[0, 12:].any()
    assert masks.notes == (
        "images that their EXIF data turn (their masks are taken as drawn on the turned image): 1, such as "
        "photos/a.jpg",
    )
    grey("masks/a.png", turned.T)
    with pytest.raises(
        PatchlightError, match=r"64 x 48 pixels, its image .* 48 x 64, and lies as the image did before its"
    ):
        read_masks(find_masks("masks", ["photos/a.jpg"]), 48)


def test_masks_in_which_nothing_can_be_measured(here):
    """The second is outside of the square that is shown."""
    corner, empty = np.zeros((10, 40), dtype=bool), np.zeros((10, 40), dtype=bool)
    corner[:, :5] = True
    images = [photo(f"photos/{name}.png", (40, 10)) for name in "abc"]
    for name, inside in zip("abc", (empty, corner, ~empty), strict=True):
        grey(f"masks/{name}.png", inside)
    masks = read_masks(find_masks("masks", images), 10)
    assert masks.notes == (
        "masks that are empty, or all of the image, where it is shown (nothing can be measured there): 3, such as "
        "masks/a.png",
    )
    assert masks.inside.flatten(1).sum(dim=1).tolist() == [0, 0, 100]
