"""Images that are given in Python: arrays, lists, ImageSets, data sets of torch and of `datasets`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image
from source_files import chw, picture, write_folder

from patchlight.config import GIVEN, DataConfig
from patchlight.data.images import ImageSet
from patchlight.data.sources import list_source, load_source, read_given
from patchlight.data.sources.given import list_given
from patchlight.data.splits import given_splits
from patchlight.errors import PatchlightError, UsageError

COUNT = 12
PIXELS = torch.stack([chw(picture(i)) for i in range(COUNT)])  # (12, 3, 8, 8) uint8
LABELS = [i % 3 for i in range(COUNT)]


def given(data: Any, **settings: Any) -> ImageSet:
    return read_given(data, DataConfig(source=GIVEN, **settings))["train"]


class Pairs(torch.utils.data.Dataset[Any]):
    """A data set of torch with `classes`, as torchvision's have them."""

    classes: Any = ("ant", "bee", "cow")

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.make(index), LABELS[index]


WAYS: dict[str, Any] = {
    "an array": lambda root: (PIXELS.numpy(), LABELS),
    "channels last": lambda root: (PIXELS.permute(0, 2, 3, 1).numpy(), np.array(LABELS)),
    "a tensor of floats": lambda root: (PIXELS / 255, torch.tensor(LABELS)),
    "a list of Pillow images": lambda root: ([picture(i) for i in range(COUNT)], LABELS),
    "a list of arrays": lambda root: ([PIXELS[i].numpy() for i in range(COUNT)], LABELS),
    "a list of paths": lambda root: (
        sorted(write_folder(root, [f"{i:02}" for i in range(COUNT)], per_class=1).rglob("*.png")),
        LABELS,
    ),
    "with names": lambda root: (PIXELS.numpy(), LABELS, ["ant", "bee", "cow"]),
    "labels of text": lambda root: (PIXELS.numpy(), [["ant", "bee", "cow"][i] for i in LABELS]),
    "an ImageSet": lambda root: ImageSet(PIXELS, torch.tensor(LABELS), ("ant", "bee", "cow")),
    "torch, Pillow images": lambda root: Pairs(picture),
    "torch, tensors": lambda root: Pairs(lambda i: torchvision.transforms.functional.to_tensor(picture(i))),
    "datasets": lambda root: datasets.Dataset.from_dict(
        {"img": [picture(i) for i in range(COUNT)], "label": LABELS},
        features=datasets.Features(
            {"img": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee", "cow"])}
        ),
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("limit", [64, 0])
def test_every_way_gives_the_same_images(way: str, limit: int, tmp_path: Path) -> None:
    given = WAYS[way](tmp_path)
    (train,) = read_given(given, DataConfig(source="python", memory_limit_mb=limit)).values()
    expected = PIXELS if way != "a list of paths" else torch.stack([chw(picture(100 * i)) for i in range(COUNT)])
    assert torch.equal(train.images, expected)
    assert train.labels.tolist() == LABELS
    assert train.class_names in (("ant", "bee", "cow"), ("0", "1", "2"))


def test_sets_by_their_splits() -> None:
    train, test = (PIXELS[:8].numpy(), ["b", "a"] * 4), (PIXELS[8:].numpy(), ["a", "b"] * 2)
    sets = read_given({"training": train, "test": test}, DataConfig(source="python"))
    assert {key: len(images) for key, images in sets.items()} == {"train": 8, "test": 4}
    assert sets["test"].class_names == ("a", "b")
    both = datasets.DatasetDict({"train": WAYS["datasets"](None), "validation": WAYS["datasets"](None)})
    assert list(read_given(both, DataConfig(source="python"))) == ["train", "val"]
    cut = given_splits((PIXELS.repeat(4, 1, 1, 1).numpy(), LABELS * 4), DataConfig(source="python"))
    assert (len(cut.train), len(cut.val or ()), len(cut.test)) == (36, 3, 9)


PAIR = (PIXELS.numpy(), np.array(LABELS))
PART = (PIXELS[:6].numpy(), np.array(LABELS[:6]))


@pytest.mark.parametrize(
    ("data", "note"),
    [
        ((PAIR, PART), "as load_data() returns: the first is train, the second is test"),
        ([list(PAIR), (PART[0], LABELS[:6])], "the first is train"),
        (((PAIR[0], PAIR[1][:, None]), (PART[0], PART[1][:, None])), "the first is train"),
        ({"x_train": PAIR[0], "y_train": PAIR[1], "x_test": PART[0], "y_test": PART[1]}, None),
        ({"x_train": PIXELS, "y_train": LABELS, "x_test": PIXELS[:6], "y_test": LABELS[:6]}, None),
        (
            {"images": PAIR[0], "labels": pd.Series(LABELS), "x_test": PART[0], "y_test": PART[1], "a": 1},
            "not used of data: a",
        ),
        ({"train": {"images": PAIR[0], "labels": PAIR[1]}, "test": {"x": PART[0], "y": PART[1]}}, None),
    ],
)
def test_forms_of_train_and_test(data: Any, note: str | None) -> None:
    sets = read_given(data, DataConfig(source=GIVEN))
    assert torch.equal(sets["train"].images, PIXELS)
    assert torch.equal(sets["test"].images, PIXELS[:6])
    assert [own.labels.tolist() for own in sets.values()] == [LABELS, LABELS[:6]]
    assert len(sets["train"].notes) == (note is not None)
    assert all(str(note) in said for said in sets["train"].notes)


@pytest.mark.parametrize(
    "classes",
    [
        [("ant", "emmet"), ("bee",), ("cow",)],
        {"ant, emmet": 0, "bee": 1, "cow": 2},
        {0: "ant, emmet", 1: "bee", 2: "cow"},
    ],
)
def test_names_of_classes_of_a_set_of_torch(classes: Any) -> None:
    pairs = Pairs(picture)
    pairs.classes = classes
    assert given(pairs).class_names == ("ant, emmet", "bee", "cow")
    pairs.classes = ("ant", "ant", "bee")
    with pytest.raises(PatchlightError, match=r"data\.classes has the name 'ant' twice"):
        given(pairs)


def test_two_images_with_two_labels_are_one_set() -> None:
    assert given(((PIXELS[0].numpy(), PIXELS[1].numpy()), (0, 1))).labels.tolist() == [0, 1]


def test_a_bunch_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    train = given(digits)
    assert torch.equal(train.images[:, 0], torch.tensor(digits.images).to(torch.uint8))
    assert train.labels.tolist() == digits.target.tolist()
    assert "not used of data: data, whose rows of numbers are no images" in train.notes
    named = {"images": PIXELS, "labels": LABELS, "class_names": {0: "ant", 1: "bee", 2: "cow"}}
    assert given(named).class_names == ("ant", "bee", "cow")


def test_splits_beside_count_their_images() -> None:
    with pytest.raises(PatchlightError, match=r"6 of 18 images would be left out .*'extra'"):
        given({"train": PAIR, "extra": PART})
    (left,) = list_given({"x_train": PAIR[0], "y_train": PAIR[1], "x_test": PART[0]}, DataConfig(source=GIVEN)).left_out
    assert (left.count, left.reason) == (6, "images without labels (the split test)")


RIGHT = r".* as in \{\"train\": \(x_train, y_train\), \"test\": \(x_test, y_test\)\}"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((*PAIR, *PART), f"data is of the type tuple with 4 parts; give {RIGHT}"),
        ((PAIR, PART, PART), f"data is of the type tuple with 3 parts; give {RIGHT}"),
        ((Pairs(picture), Pairs(picture)), f"data is of the type tuple with 2 parts; give {RIGHT}"),
        ([*PAIR], f"data is of the type list; give {RIGHT}"),
        (PAIR[0], f"data is of the type ndarray; give {RIGHT}"),
        ({"train": PAIR[0], "test": PART[0]}, rf"data\['train'\] is of the type ndarray; give {RIGHT}, or of arrays"),
        ({"a": PAIR[0], "b": PAIR[1]}, rf"data\['a'\] is of the type ndarray; give {RIGHT}, or of arrays"),
        ({"train": PAIR, "extra": 3}, f"a split of the type int, no set; give {RIGHT}"),
        (
            {"train": {"x_train": PAIR[0], "y_train": PAIR[1], "x_test": PAIR[0]}},
            "has the splits train, test in it",
        ),
        ({"images": PAIR[0], "data": PAIR[0], "labels": LABELS}, "2 that can be the image: images, data; say which"),
        ({"images": PAIR[0]}, "data has no array of labels for images; add one"),
        ({"labels": LABELS}, r"data has labels \(labels\) and no array of images; add one"),
        ({"x_train": PAIR[0], "y_train": PART[1]}, r"data\['x_train'\] has 12 images and 6 labels"),
        ({"data": PIXELS.reshape(COUNT, -1), "target": LABELS}, r"data\['data'\] .* rows of 192 numbers"),
    ],
)
def test_forms_that_are_none(data: Any, message: str) -> None:
    with pytest.raises(PatchlightError, match=message):
        read_given(data, DataConfig(source=GIVEN))


def test_torchvisions_own_sets(tmp_path: Path) -> None:
    root = write_folder(tmp_path, ["ant", "bee"], per_class=3)
    theirs = torchvision.datasets.ImageFolder(str(root))
    ours, given = load_source(str(root))["train"], read_given(theirs, DataConfig(source="python"))["train"]
    assert torch.equal(ours.images, given.images)
    assert (ours.labels.tolist(), ours.class_names) == (given.labels.tolist(), given.class_names)
    part = torch.utils.data.Subset(theirs, [0, 5, 3])
    assert read_given(part, DataConfig(source="python"))["train"].labels.tolist() == [0, 1, 1]


def test_images_of_other_sizes_are_fitted() -> None:
    images = [picture(i, (20 + i, 24)) for i in range(6)]
    train = read_given((images, LABELS[:6]), DataConfig(source="python", image_size=16))["train"]
    assert train.image_size == (16, 16)


class Walked(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "data is of the type int; give"),
        ("photos", "data is of the type str; a source on disk is the setting data.source"),
        ([1, 2], "data is of the type list; give"),
        (pd.DataFrame({"image": ["a"], "label": [1]}), "data is a table; give its columns"),
        (Pairs(lambda i: 1 // 0), r"data\[0\] cannot be read: ZeroDivisionError: integer"),
        ({}, "an empty dictionary"),
        ((3, LABELS), "the images of data are of the type int; give an array"),
        ((dict(enumerate(PIXELS)), LABELS), "the images of data are of the type dict; give"),
        ((pd.DataFrame({"a": ["b"] * COUNT}), LABELS), "the images of data are of the type DataFrame"),
        ((PIXELS.numpy(), 3), "the list of labels of data is of the type int; give a list"),
        ((PIXELS.numpy(), "a" * COUNT), "the list of labels of data is of the type str"),
        ((PIXELS.numpy(), dict.fromkeys(range(COUNT), 1)), "the list of labels of data is of the type dict"),
        ((PIXELS.numpy(), pd.DataFrame({"a": LABELS, "b": LABELS})), "of the type DataFrame; give a list or an array"),
        ((PIXELS.to("meta"), LABELS), "data is a tensor of the device 'meta', which holds no values"),
        ((PIXELS.to(torch.complex64), LABELS), "pixels of type complex64 are not read; store uint8"),
        ((PIXELS.view(torch.bits8), LABELS), r"data is a tensor of torch\.bits8, which cannot be made an array"),
        ((PIXELS.numpy(), [None] * COUNT), "no image has a label"),
        (Walked(), "can only be walked"),
        ((PIXELS.numpy(), LABELS[:5]), "12 images and 5 labels"),
        ((PIXELS.numpy() * 3.0, LABELS), "neither of 0..1 nor whole numbers"),
        ((PIXELS.numpy().reshape(COUNT, -1), LABELS), "rows of 192 numbers"),
        ((PIXELS.numpy(), [0.5] * COUNT), "a label is text or a whole number"),
        ((PIXELS.numpy(), np.ones((COUNT, 2), int)), "multi-label data are not supported"),
        ((PIXELS.numpy(), LABELS, ["a", "b"]), "row 2 has the label 2"),
        ((PIXELS.numpy(), [object()] * COUNT), "must be an array of numbers or text"),
        ((PIXELS.numpy(), [[1], [1, 2]]), "cannot be made an array"),
        (Pairs(lambda i: torch.rand(3, 8, 8)), "its transform draws at random"),
        (torch.utils.data.TensorDataset(PIXELS), "not a pair of image and label"),
        ({"train": Pairs(picture), "test": WAYS["datasets"](None)}, "give sets of one kind"),
        ((["/no/such.png"] * COUNT, LABELS), "there is no such file"),
    ],
)
def test_what_cannot_be_used_is_said(data: Any, message: str) -> None:
    with pytest.raises(PatchlightError, match=message):
        read_given(data, DataConfig(source="python"))


@pytest.mark.parametrize(
    "make",
    [
        lambda unit: unit.bfloat16(),
        lambda unit: unit.half(),
        lambda unit: unit.to(torch.float8_e4m3fn),
        lambda unit: unit.clone().requires_grad_(),
        lambda unit: unit.to_sparse(),
        lambda unit: torch.quantize_per_tensor(unit, 1.0, 0, torch.quint8),
        lambda unit: torch.nested.nested_tensor(list(unit)),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of torch, on kinds of tensors that are in the making
def test_tensors_of_any_kind(make: Callable[[torch.Tensor], Any]) -> None:
    unit = (PIXELS > 100).float()  # 0 and 1 are the same in all types
    assert torch.equal(given((make(unit), torch.tensor(LABELS))).images, (unit * 255).to(torch.uint8))


TEXT = [["ant", "bee", "cow"][label] for label in LABELS]


@pytest.mark.parametrize(
    "labels",
    [
        TEXT,
        tuple(TEXT),
        np.array(TEXT),
        [np.str_(text) for text in TEXT],
        [text.encode() for text in TEXT],
        np.array(TEXT, dtype=object),
        np.array(TEXT, dtype=object)[:, None],
        pd.Series(TEXT),
        pd.Series(TEXT, dtype=object),
        pd.Series(TEXT, dtype="category"),
        pd.Series(TEXT, dtype="string"),
        pd.DataFrame({"label": TEXT}),
    ],
)
def test_labels_of_text(labels: Any) -> None:
    train = given((PIXELS, labels))
    assert (train.class_names, train.labels.tolist(), train.notes) == (("ant", "bee", "cow"), LABELS, ())


@pytest.mark.parametrize(
    "labels",
    [
        [None, *TEXT[1:]],
        [float("nan"), *TEXT[1:]],
        pd.Series([None, *TEXT[1:]], dtype="string"),
        pd.Series([None, *TEXT[1:]], dtype="category"),
        [None, *LABELS[1:]],
        pd.Series([None, *LABELS[1:]], dtype="Int64"),
        np.array([None, *LABELS[1:]], dtype=object),
        [None, *torch.tensor(LABELS)[1:]],
    ],
)
def test_images_without_a_label_are_counted(labels: Any) -> None:
    with pytest.raises(PatchlightError, match=r"1 of 12 images would be left out \(images without a label: 1"):
        given((PIXELS, labels))
    train = given((PIXELS, labels), max_left_out=0.1)
    assert torch.equal(train.images, PIXELS[1:])
    assert (train.labels.tolist(), len(train.notes)) == (LABELS[1:], 1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", 1] * 6, r"the list of labels of data holds text \('cat' at \[0\]\) and numbers \(1 at \[1\]\)"),
        (np.array([1, "cat"] * 6, dtype=object), r"holds numbers \(1 at \[0\]\) and text \('cat' at \[1\]\); give all"),
        (pd.Series([None, 1, "cat"] * 4, dtype=object), r"numbers \(1 at \[1\]\) and text \('cat' at \[2\]\)"),
        ([True, 2] * 6, r"truths \(True at \[0\]\) and numbers \(2 at \[1\]\)"),
        (["a", b"b"] * 6, r"text \('a' at \[0\]\) and bytes \(b'b' at \[1\]\)"),
    ],
)
def test_labels_of_several_types_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(PatchlightError, match=message):
        given((PIXELS, labels))


def test_a_class_that_may_be_none_is_told_of() -> None:
    (note,) = given((PIXELS, np.array(LABELS) - 1)).notes
    assert note == "'labels' has the class -1; if that means no label, leave these images out"


@pytest.mark.parametrize(
    "names",
    [
        ("cow", "bee", "ant"),
        np.array(["cow", "bee", "ant"]),
        pd.Series(["cow", "bee", "ant"]),
        {0: "cow", 1: "bee", 2: "ant"},
        {2: "ant", 0: "cow", 1: "bee"},
        {"2": "ant", "0": "cow", "1": "bee"},
        {"ant": 2, "bee": 1, "cow": 0},
        {"ant": np.int64(2), "bee": np.int64(1), "cow": np.int64(0)},
    ],
)
def test_names_of_classes(names: Any) -> None:
    train = given((PIXELS, LABELS, names))
    assert (train.class_names, train.labels.tolist()) == (("cow", "bee", "ant"), LABELS)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("abc", "the list of class names of data is of the type str; give a list"),
        ({"a", "b", "c"}, "is of the type set"),
        (None, "is of the type NoneType"),
        (["a", "b", "a"], "has the name 'a' twice"),
        ([0, 1, 2], "holds 0; give a name that is text"),
        (["a", "b", None], "holds None; give a name that is text"),
        (["a", "b", " "], "holds ' '; give a name that is text"),
        ([], "is empty; give a name"),
        ({1: "a", 2: "b", 3: "c"}, r"not of all the numbers from 0 to 2 and their names; give \{0: 'cat'"),
        ({"a": 0, "b": 1, "c": 1}, "not of all the numbers from 0 to 2"),
        ({"a": "0", "b": "1", "c": "2"}, "not of all the numbers from 0 to 2"),
        ({0: "a", 1: "b", 2: 3}, "not of all the numbers from 0 to 2"),
        ({0: "a", 1: "b", 2: "a"}, "has the name 'a' twice"),
    ],
)
def test_names_of_classes_that_are_refused(names: Any, message: str) -> None:
    with pytest.raises(PatchlightError, match=message):
        given((PIXELS, LABELS, names))


def test_given_paths_that_cannot_be_read(tmp_path: Path) -> None:
    """There is no source that `patchlight data` could list, and no advice that does not help."""
    paths = [str(tmp_path / f"{index}.png") for index in range(6)]
    labels, config = [0, 1] * 3, DataConfig(source=GIVEN)
    with pytest.raises(PatchlightError, match=r"0\.png: there is no such file; none of the 6 images can be read$"):
        read_given((paths, labels), config)
    for path in paths[:4]:
        Image.new("RGB", (4, 4)).save(path)
    ways = r"2 of 6 images are bad \(data\.on_bad = 'skip' leaves them out\)$"
    with pytest.raises(PatchlightError, match=ways):
        read_given((paths, labels), config)
    assert len(read_given((paths, labels), replace(config, on_bad="skip"))["train"]) == 4
    for path in paths[1:4:2]:  # all of a class
        Path(path).unlink()
    with pytest.raises(PatchlightError, match=r"4 of 6 images are bad$"):
        read_given((paths, labels), config)


def test_the_name_of_what_was_given_gives_nothing() -> None:
    with pytest.raises(
        PatchlightError, match=r"were given to patchlight.train\(\.\.\., data=\.\.\.\) and are not stored"
    ):
        list_source(DataConfig(source="python"))
    with pytest.raises(UsageError):
        read_given(7, DataConfig(source="python"))


def test_pillow_images_of_sixteen_bits_are_read_as_files_are() -> None:
    deep = [Image.fromarray(np.full((8, 8), 40 * i, dtype=np.uint16)) for i in range(COUNT)]
    config = DataConfig(source="python", pixel_max=4095)
    train = read_given((deep, LABELS), config)["train"]
    assert train.images[11].unique().tolist() == [round(440 * 255 / 4095)]
    dark = read_given((deep, LABELS), DataConfig(source="python"))["train"]
    assert any("data.pixel_max" in note for note in dark.notes)


def test_parts_of_a_torch_set_have_its_names_of_classes(tmp_path: Path) -> None:
    from torch.utils.data import ConcatDataset, Subset
    from torchvision.datasets import ImageFolder

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.new("RGB", (8, 8), (index, 9, 9)).save(tmp_path / name / f"{index}.png")
    whole = ImageFolder(str(tmp_path))
    for part in (Subset(whole, range(1, 7)), ConcatDataset([whole, Subset(whole, [0])])):
        assert read_given(part, DataConfig(source=GIVEN))["train"].class_names == ("cat", "dog")
