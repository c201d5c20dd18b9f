"""NumPy's files: names, shapes, types of values and labels, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz import damaged_versions, outcomes

from patchlight.config import DataConfig
from patchlight.data.sources import list_source, load_source
from patchlight.data.splits import load_splits
from patchlight.errors import PatchlightError, UsageError


def pictures(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *(shape or (6, 6, 3))), dtype=np.uint8)


LABELS = np.array([0, 1, 2, 0, 1, 2])
GREY = pictures(6, 6, 6)


def rgb(array: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) or (N, H, W) uint8 as (N, 3, H, W)."""
    array = array[..., None].repeat(3, axis=3) if array.ndim == 3 else array
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy())


def test_medmnists_file(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {}
    for number, split in enumerate(("train", "val", "test")):
        arrays[f"{split}_images"] = pictures(6 + number, seed=number)
        arrays[f"{split}_labels"] = (np.arange(6 + number) % 3).astype(np.uint8)[:, None]
    np.savez_compressed(tmp_path / "bloodmnist.npz", **arrays)
    sets = load_source(str(tmp_path / "bloodmnist.npz"))
    assert list(sets) == ["train", "val", "test"]
    for split, images in sets.items():
        assert torch.equal(images.images, rgb(arrays[f"{split}_images"]))
        assert images.labels.tolist() == arrays[f"{split}_labels"][:, 0].tolist()
        assert (images.class_names, images.notes) == (("0", "1", "2"), ())
    assert len(load_splits(DataConfig(source=str(tmp_path))).val) == 7, "the folder of the only file"


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("x_train", "y_train"),
        ("X_train", "y_train"),
        ("train_x", "train_y"),
        ("trainX", "trainY"),
        ("xtrain", "ytrain"),
        ("train_data", "train_targets"),
        ("images", "labels"),
        ("x", "y"),
        ("X", "y"),
        ("data", "targets"),
        ("data", "target"),
        ("imgs", "classes"),
        ("training_images", "training_labels"),
    ],
)
def test_names_of_arrays(images: str, labels: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{images: GREY, labels: LABELS})
    (tmp_path / "f").mkdir()
    np.save(tmp_path / "f" / f"{images}.npy", GREY)
    np.save(tmp_path / "f" / f"{labels}.npy", LABELS)
    for source in ("a.npz", "f", f"f/{images}.npy"):
        sets = load_source(str(tmp_path / source))
        assert list(sets) == ["train"]
        assert torch.equal(sets["train"].images, rgb(GREY))
        assert sets["train"].labels.tolist() == LABELS.tolist()


def test_arrays_without_a_split_are_train_beside_a_test(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=GREY, labels=LABELS, x_test=GREY[:3], y_test=LABELS[:3], ids=np.arange(6))
    sets = load_source(str(tmp_path / "a.npz"))
    assert {key: len(images) for key, images in sets.items()} == {"train": 6, "test": 3}
    assert f"not used of {tmp_path / 'a.npz'}: ids" in sets["train"].notes


def test_two_candidates_are_an_error_and_a_setting_chooses(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=GREY, data=GREY[:, ::-1], labels=LABELS, target=LABELS[::-1])
    with pytest.raises(
        PatchlightError, match=r"2 that can be the image: images, data; say which with data\.image_column"
    ):
        load_source(str(path))
    with pytest.raises(PatchlightError, match="2 that can be the label: labels, target; say which"):
        load_source(str(path), image_column="data")
    chosen = load_source(str(path), image_column="data", label_column="target")["train"]
    assert torch.equal(chosen.images, rgb(GREY[:, ::-1]))
    assert chosen.labels.tolist() == LABELS[::-1].tolist()
    with pytest.raises(UsageError, match=r"data\.label_column: .*a\.npz has no 'targte'; did you mean 'target'\?"):
        load_source(str(path), image_column="data", label_column="targte")
    np.savez(path, faces=GREY, people=LABELS)
    with pytest.raises(
        PatchlightError,
        match=r"none of faces, people .* as images are \(images, .*, x\); data\.im",
    ):
        load_source(str(path))
    with pytest.raises(PatchlightError, match=r"none of people .* as labels are \(labels, .*, y\); data\.lab"):
        load_source(str(path), image_column="faces")
    with pytest.raises(UsageError, match="both name 'faces'; name two arrays"):
        load_source(str(path), image_column="faces", label_column="Faces")
    assert len(load_source(str(path), image_column="faces", label_column="people")["train"]) == 6
    np.savez(path, y=GREY, x=LABELS)
    with pytest.raises(PatchlightError, match=r"none of x .* is called as labels"):
        load_source(str(path), image_column="y", label_column=None)
    assert len(load_source(str(path), image_column="y", label_column="x")["train"]) == 6
    for name in ("cat", "dog"):  # as Quick, Draw! has them
        np.save(tmp_path / f"{name}.npy", GREY)
    path.unlink()
    with pytest.raises(
        PatchlightError, match=r"none of cat, dog .*; where each file holds the images of one class, save them as one"
    ):
        load_source(str(tmp_path))
    np.savez(path, x_train=GREY, fine_train=LABELS, x_test=GREY, fine_test=LABELS)
    assert len(load_source(str(path), label_column="fine")["test"]) == 6


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, rgb(GREY)),
        (GREY[..., None], rgb(GREY)),
        (GREY[:, None], rgb(GREY)),
        (pictures(6, 5, 7, 3), rgb(pictures(6, 5, 7, 3))),
        (pictures(6, 5, 7, 3).transpose(0, 3, 1, 2), rgb(pictures(6, 5, 7, 3))),
        (np.asfortranarray(GREY), rgb(GREY)),
    ],
)
def test_layouts(array: np.ndarray, expected: torch.Tensor, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=array, y=LABELS)
    np.save(tmp_path / "images.npy", array)
    np.save(tmp_path / "labels.npy", LABELS)
    for source in ("a.npz", "images.npy"):
        listing = list_source(DataConfig(source=str(tmp_path / source)))
        found = [pixels for _, pixels in listing.splits["train"].items()]
        assert torch.equal(torch.from_numpy(np.stack(found)), expected)


def test_alpha_is_white_behind_it(tmp_path: Path) -> None:
    array = pictures(6, 5, 5, 4)
    array[..., 3] = 0
    np.savez(tmp_path / "a.npz", x=array, y=LABELS)
    train = load_source(str(tmp_path / "a.npz"))["train"]
    assert train.images.min() == 255
    assert "the fourth channel is read as alpha" in train.notes[0]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((6, 784), r"the shape \(6, 784\): rows of 784 numbers, not images; store it as \(N, H, W\)"),
        ((6, 3, 3, 3), "in which channels may come second or last"),
        ((6, 1, 5, 4), "in which channels may come second or last"),
        ((6, 5, 5, 2), "images are"),
        ((6, 2, 5, 5), "images are"),
        ((6, 28, 28, 28), "images are"),
        ((6, 2, 5, 5, 3), "images are"),
        ((6, 0, 5), "which holds no images"),
        ((6,), "images are"),
    ],
)
def test_shapes_that_are_no_images(shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(shape, np.uint8), y=LABELS)
    with pytest.raises(PatchlightError, match=message):
        load_source(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f4"])
def test_floats(kind: str, tmp_path: Path) -> None:
    exact = (GREY / 255).astype(kind)
    for array, note in ((exact, "of 0 to 1 are multiplied by 255"), (GREY.astype(kind), "are read as whole numbers")):
        np.savez(tmp_path / "a.npz", x=array, y=LABELS)
        train = load_source(str(tmp_path / "a.npz"))["train"]
        assert (train.images.int() - rgb(GREY).int()).abs().max() == 0
        assert note in train.notes[0]


def test_floats_of_two_splits_are_read_alike(tmp_path: Path) -> None:
    """A split whose whole values are all 0 and 1 beside one of 0..255 is not stretched."""
    np.savez(tmp_path / "a.npz", x_train=GREY * 1.0, y_train=LABELS, x_test=GREY % 2 * 1.0, y_test=LABELS)
    sets = load_source(str(tmp_path / "a.npz"))
    assert torch.equal(sets["test"].images, rgb(GREY % 2))


def test_other_types(tmp_path: Path) -> None:
    wide = GREY.astype(np.uint16) * 257
    cases: list[tuple[np.ndarray, torch.Tensor, str]] = [
        (GREY > 99, rgb((GREY > 99).astype(np.uint8) * 255), "false is black and true is white"),
        (wide, rgb(GREY), "uint16 pixels are divided by 257"),
        (GREY.astype(np.int64), rgb(GREY), "int64 pixels from 0 to 255 are read as whole numbers of 0..255"),
        (GREY // 255, rgb(GREY // 255), "no pixel is above 1 of 255"),
    ]
    for array, expected, note in cases:
        np.savez(tmp_path / "a.npz", x=array, y=LABELS)
        train = load_source(str(tmp_path / "a.npz"))["train"]
        assert torch.equal(train.images, expected)
        assert note in train.notes[0]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            GREY.astype(np.int16) * 16,
            "store uint8 of 0 to 255, or uint16 with the value that is white as data.pixel_max",
        ),
        (GREY - 128.0, "float64 pixels from -128 to 127 are neither of 0..1 nor whole numbers of 0..255; store uint8"),
        (GREY / 2, "are neither of 0..1 nor whole"),
        (GREY * 2.0, "are neither of 0..1 nor whole"),
        (np.where(GREY > 9, GREY, np.nan), "some pixels are not finite numbers"),
        (np.where(GREY > 9, GREY, np.inf), "some pixels are not finite numbers"),
        (GREY.astype(np.uint16), "none of these is above 255; store them as uint8"),
        (GREY.astype(np.int16) - 1, "int16 pixels from -1 to 254 are neither"),
        (GREY.astype(np.int32) // 255, "int32 pixels from 0 to 1 are neither"),
        (GREY.astype(complex), "pixels of type complex128 are not read"),
        (GREY.astype("U3"), "pixels of type <U3 are not read"),
        (GREY.astype("datetime64[s]"), "are not read"),
    ],
)
def test_values_that_are_refused(array: np.ndarray, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=array, y=LABELS)
    with pytest.raises(PatchlightError, match=message):
        load_source(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("labels", "names", "numbers", "note"),
    [
        (LABELS[:, None], ("0", "1", "2"), LABELS, ""),
        (LABELS * 1.0, ("0", "1", "2"), LABELS, "labels stored as float64 are read as whole numbers"),
        (np.eye(3)[LABELS], ("0", "1", "2"), LABELS, "one-hot rows are read as the number of the column"),
        (np.eye(3, dtype=bool)[LABELS], ("0", "1", "2"), LABELS, "one-hot rows"),
        (np.array(list("cabcab")), ("a", "b", "c"), [2, 0, 1, 2, 0, 1], ""),
        (np.array([b"no", b"yes"] * 3), ("no", "yes"), [0, 1] * 3, ""),
        (np.array([10, 9, 2, 10, 9, 2]), ("2", "9", "10"), [2, 1, 0] * 2, ""),
        (np.array([True, False] * 3), ("False", "True"), [1, 0] * 3, ""),
    ],
)
def test_labels(labels: np.ndarray, names: tuple[str, ...], numbers: Any, note: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=GREY, y=labels)
    train = load_source(str(tmp_path / "a.npz"))["train"]
    assert (train.class_names, train.labels.tolist()) == (names, list(numbers))
    assert all(note in each for each in train.notes)
    assert bool(train.notes) == bool(note)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.eye(3)[LABELS] + np.eye(3)[0], "multi-label data are not supported"),
        (np.zeros((6, 3)), "multi-label data are not supported"),
        (np.zeros((6, 2, 2)), r"labels of shape \(6, 2, 2\); one class per image is"),
        (LABELS[:5], "has 6 images and y 5 labels; there must be one for each image"),
        (LABELS + 0.5, "a label is text or a whole number"),
        (np.array([b"\xff"] * 6), "no UTF-8 text"),
        (LABELS.astype("datetime64[s]"), r"datetime64\[s\] labels"),
        (np.array([1j] * 6), "complex128 labels"),
    ],
)
def test_labels_that_are_refused(labels: np.ndarray, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=GREY, y=labels)
    with pytest.raises(PatchlightError, match=message):
        load_source(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("names", "asked", "called"),
    [
        (("x", "y"), None, "y"),
        (("x_train", "y_train"), None, "y"),
        (("train_images", "train_labels"), None, "labels"),
        (("images", "targets"), None, "targets"),
        (("images", "breed"), "breed", "breed"),
    ],
)
def test_sentences_on_labels_name_their_array(
    names: tuple[str, str], asked: str | None, called: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", **{names[0]: GREY, names[1]: LABELS + 0.5})
    with pytest.raises(PatchlightError, match=rf"{names[1]}: the column '{called}' holds 0\.5"):
        load_source(str(tmp_path / "a.npz"), label_column=asked)


def test_images_without_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=GREY, y_train=LABELS, x_test=GREY[:4])
    listing = list_source(DataConfig(source=str(tmp_path / "a.npz")))
    assert list(listing.splits) == ["train"]
    (left,) = listing.left_out
    assert (left.count, left.expected, left.reason) == (4, True, "images without labels (the split test)")
    np.savez(tmp_path / "b.npz", x_train=GREY)
    with pytest.raises(PatchlightError, match="no array of labels for x_train; add one with a label for each image"):
        load_source(str(tmp_path / "b.npz"))
    np.savez(tmp_path / "c.npz", x=GREY, y=np.array(["a", "", "b", "a", " ", "b"]))
    with pytest.raises(PatchlightError, match=r"2 of 6 images would be left out \(images without a label: 2"):
        load_source(str(tmp_path / "c.npz"))
    kept = load_source(str(tmp_path / "c.npz"), max_left_out=0.5)["train"]
    assert torch.equal(kept.images, rgb(GREY[[0, 2, 3, 5]]))


def test_a_file_without_labels_or_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=GREY, x_test=GREY, y_test=LABELS)
    with pytest.raises(PatchlightError, match=r"no array of labels for x_train; .*, or y_train beside x_train$"):
        load_source(str(tmp_path / "a.npz"))
    np.savez(tmp_path / "a.npz", images=GREY)
    with pytest.raises(PatchlightError, match=r"has labels \(images\) and no array of images; add one"):
        load_source(str(tmp_path / "a.npz"), label_column="images")
    np.savez(tmp_path / "a.npz")
    with pytest.raises(PatchlightError, match=r"holds no arrays; save .* in it: np\.savez\('all\.npz', im"):
        load_source(str(tmp_path / "a.npz"))


def test_files_of_one_array_without_a_name(tmp_path: Path) -> None:
    """As KMNIST's: what they hold is in their names."""
    for split, count in (("train", 6), ("test", 4)):
        np.savez_compressed(tmp_path / f"kmnist-{split}-imgs.npz", GREY[:count])
        np.savez_compressed(tmp_path / f"kmnist-{split}-labels.npz", LABELS[:count])
    sets = load_source(str(tmp_path))
    assert {key: len(images) for key, images in sets.items()} == {"train": 6, "test": 4}
    assert torch.equal(sets["test"].images, rgb(GREY[:4]))
    assert (
        "the array without a name (arr_0) is called as its file is, in kmnist-test-imgs.npz" in sets["train"].notes[0]
    )
    one = load_source(str(tmp_path / "kmnist-train-imgs.npz"))["train"]
    assert (len(one), one.labels.tolist()) == (6, LABELS.tolist())
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    assert len(load_source(str(tmp_path / "kmnist-test-imgs.npz"))["test"]) == 4, "what is beside it does not matter"
    with pytest.raises(PatchlightError, match=r"several files of arrays \(damaged\.npz"):
        load_source(str(tmp_path))
    (tmp_path / "damaged.npz").unlink()
    with pytest.raises(PatchlightError, match="is one array; its labels must stand beside it"):
        load_source(str(tmp_path / "kmnist-train-labels.npz"))
    np.save(tmp_path / "kmnist-test-labels.npy", LABELS)
    with pytest.raises(PatchlightError, match=r"labels\.np[yz] and kmnist-test-labels\.np[yz] are of one name"):
        load_source(str(tmp_path))
    (tmp_path / "kmnist-test-labels.npy").unlink()
    np.savez(tmp_path / "all.npz", x=GREY, y=LABELS)
    with pytest.raises(PatchlightError, match=r"several files of arrays \(all\.npz, kmnist-test-imgs\.npz, .*name one"):
        load_source(str(tmp_path))


def test_a_beginning_that_all_names_share_says_nothing(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", fine_images=GREY, fine_labels=LABELS)
    assert list(load_source(str(tmp_path / "a.npz"))) == ["train"]
    np.savez(tmp_path / "a.npz", set_test_x_train=GREY, set_test_x_labels=LABELS)
    with pytest.raises(PatchlightError, match="none of set_test_x_train, set_test_x_labels"):
        load_source(str(tmp_path / "a.npz"))


def test_class_names_and_further_splits(tmp_path: Path) -> None:
    more = {"x_extra": pictures(4, 6, 6), "y_extra": LABELS[:4]}
    np.savez(tmp_path / "a.npz", x=GREY, y=LABELS, class_names=["ant", "bee", "cow", "dog"])
    assert load_source(str(tmp_path / "a.npz"))["train"].class_names == ("ant", "bee", "cow", "dog")
    np.savez(tmp_path / "a.npz", x=GREY, y=LABELS + 2, class_names=["ant", "bee", "cow", "dog"])
    with pytest.raises(PatchlightError, match="row 2 has the label 4"):
        load_source(str(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", x_train=GREY, y_train=LABELS, **more)
    assert "not used of" in load_source(str(tmp_path / "b.npz"))["train"].notes[0]


def test_names_and_classes_that_may_be_wrong_are_told_of(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=GREY, y=LABELS, class_names=["ant", "bee", "ant"])
    with pytest.raises(PatchlightError, match="class_names has the name 'ant' twice; give each class a name"):
        load_source(str(tmp_path / "a.npz"))
    np.savez(tmp_path / "a.npz", x=GREY, y=LABELS - 1)
    (note,) = load_source(str(tmp_path / "a.npz"))["train"].notes
    assert note == "'y' has the class -1; if that means no label, leave these images out"


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    objects = np.empty(6, dtype=object)
    objects[:] = [Trap()] * 6
    np.savez(tmp_path / "a.npz", x=GREY, y=objects)
    np.save(tmp_path / "images.npy", GREY)
    np.save(tmp_path / "labels.npy", objects, allow_pickle=True)
    for source in ("a.npz", "images.npy"):
        with pytest.raises(PatchlightError, match=r"holds Python objects, .* save labels as text or .*np\.stack"):
            load_source(str(tmp_path / source))
    assert not (tmp_path / "sprung").exists()


def test_large_arrays_stay_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "images.npy", GREY)
    np.save(tmp_path / "labels.npy", LABELS)
    from patchlight.data.sources import arrays

    read = arrays._arrays(tmp_path).read
    assert isinstance(read("images"), np.memmap)
    np.savez(tmp_path / "big.npz", x=GREY, y=LABELS)
    monkeypatch.setattr(arrays, "_free_memory", lambda: 100)
    with pytest.raises(PatchlightError, match=r"0\.0 GB are free; save it with np\.save as \.npy, which need not fit"):
        load_source(str(tmp_path / "big.npz"))


def test_files_that_cannot_be_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", x=GREY, y=LABELS)
    with pytest.raises(PatchlightError, match=r"several files of arrays \(a\.npz, b\.npz\); name one"):
        load_source(str(tmp_path))
    (tmp_path / "one").mkdir()
    np.save(tmp_path / "one" / "images.npy", GREY)
    for source in ("one/images.npy",):
        with pytest.raises(PatchlightError, match="is one array; its labels must stand beside it"):
            load_source(str(tmp_path / source))


def test_the_cache_notices_a_changed_file(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", GREY)
    np.save(tmp_path / "labels.npy", LABELS)
    assert torch.equal(load_source(str(tmp_path), memory_limit_mb=0)["train"].gather(range(6))[0], rgb(GREY))
    np.save(tmp_path / "images.npy", GREY[::-1])
    assert torch.equal(load_source(str(tmp_path), memory_limit_mb=0)["train"].gather(range(6))[0], rgb(GREY[::-1]))


def sources(root: Path) -> list[Path]:
    np.savez(root / "plain.npz", x=GREY, y=LABELS)
    np.savez_compressed(root / "packed.npz", x=GREY / 255, y=np.array(list("abcabc")))
    np.save(root / "images.npy", GREY)
    np.save(root / "labels.npy", LABELS)
    return [root / "plain.npz", root / "packed.npz", root / "images.npy"]


def test_damaged_arrays_end_in_a_sentence(tmp_path: Path) -> None:
    for path in sources(tmp_path):
        assert outcomes(path, damaged_versions(path.read_bytes(), 40, 0, front=128))["refused"] > 10


@pytest.mark.fuzz
def test_many_damaged_arrays_end_in_a_sentence(tmp_path: Path) -> None:
    for path in sources(tmp_path):
        outcomes(path, damaged_versions(path.read_bytes(), 1000, 1, front=128))
