"""WebDataset's shards: samples told from other archives, labels of every kind, splits, gaps, and damage."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz import damaged_versions, outcomes
from source_files import chw, encode, picture, write_folder

from patchlight.config import DataConfig
from patchlight.data.sources import list_source, load_source
from patchlight.data.sources.shards import is_shards, split_key
from patchlight.errors import PatchlightError, UsageError

Fields = dict[str, Any]


def write_tar(path: Path, samples: list[tuple[str, Fields]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for key, fields in samples:
            for name, value in fields.items():
                data = value if isinstance(value, bytes) else str(value).encode()
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def samples(count: int, first: int = 0, **fields: Any) -> list[tuple[str, Fields]]:
    """Samples with the pictures of their numbers; a field is a value, or a function of the number."""
    made = []
    for n in range(first, first + count):
        own = {name: value(n) if callable(value) else value for name, value in fields.items()}
        made.append((f"{n:06}", {"png": encode(picture(n)), **own}))
    return made


def cls(n: int) -> int:
    return n % 3


def expected(*numbers: int) -> torch.Tensor:
    return torch.stack([chw(picture(n)) for n in numbers])


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz"])
def test_shards_in_order_and_by_split(suffix: str, tmp_path: Path) -> None:
    mode = "w" if suffix == "tar" else "w:gz"
    for shard in (10, 9, 8):  # written in another order than they are read in
        write_tar(tmp_path / f"train-{shard:06}.{suffix}", samples(4, 4 * shard, cls=cls), mode)
    write_tar(tmp_path / f"val-000000.{suffix}", samples(3, 90, cls=cls), mode)
    write_tar(tmp_path / f"test.{suffix}", samples(3, 95, cls=cls), mode)
    sets = load_source(str(tmp_path))
    assert list(sets) == ["train", "val", "test"]
    assert torch.equal(sets["train"].images, expected(*range(32, 44)))
    assert sets["train"].labels.tolist() == [n % 3 for n in range(32, 44)]
    assert torch.equal(sets["test"].images, expected(95, 96, 97))
    assert sets["train"].class_names == ("0", "1", "2")
    assert f"{tmp_path}: labels are read from .cls" in sets["train"].notes
    names = [name for name, _ in list_source(DataConfig(source=str(tmp_path))).splits["train"].items()]
    assert names[0] == f"train-000008.{suffix}:000032.png"


def test_shards_that_webdataset_names_in_its_own_ways(tmp_path: Path) -> None:
    write_tar(tmp_path / "a" / "train" / "000.tar", samples(4, cls=cls))
    write_tar(tmp_path / "a" / "val" / "000.tar", samples(4, 4, cls=cls))
    assert list(load_source(str(tmp_path / "a"))) == ["train", "val"]
    one = write_tar(tmp_path / "imagenet-train-000007.tar", samples(4, cls=cls))
    assert list(load_source(str(one))) == ["train"]
    write_tar(tmp_path / "b" / "shard_1.tar", samples(4, cls=cls))
    write_tar(tmp_path / "b" / "shard_2.tar", samples(4, 4, cls=cls))
    assert len(load_source(str(tmp_path / "b"))["train"]) == 8


@pytest.mark.parametrize(
    ("fields", "names", "labels"),
    [
        ({"cls": lambda n: f" {n % 3}\n"}, ("0", "1", "2"), [0, 1, 2] * 2),
        ({"cls": lambda n: 11 - n % 3}, ("9", "10", "11"), [2, 1, 0] * 2),
        ({"cls": lambda n: "cab"[n % 3]}, ("a", "b", "c"), [2, 0, 1] * 2),
        ({"txt": lambda n: "cab"[n % 3]}, ("a", "b", "c"), [2, 0, 1] * 2),
        ({"json": lambda n: json.dumps({"label": n % 3, "w": 8})}, ("0", "1", "2"), [0, 1, 2] * 2),
        ({"json": lambda n: json.dumps({"Class": "cab"[n % 3]})}, ("a", "b", "c"), [2, 0, 1] * 2),
        ({"json": lambda n: json.dumps({"cls": float(n % 3)})}, ("0", "1", "2"), [0, 1, 2] * 2),
        ({"json": lambda n: str(n % 3)}, ("0", "1", "2"), [0, 1, 2] * 2),
        ({"cls": cls, "json": '{"label": 7, "class": 8}', "txt": "a caption"}, ("0", "1", "2"), [0, 1, 2] * 2),
        ({"json": '{"width": 8}', "txt": lambda n: "ab"[n % 2]}, ("a", "b"), [0, 1] * 3),
    ],
)
def test_labels(fields: Fields, names: tuple[str, ...], labels: list[int], tmp_path: Path) -> None:
    path = write_tar(tmp_path / "train-000000.tar", samples(6, **fields))
    for source in (path, tmp_path):
        train = load_source(str(source))["train"]
        assert (train.class_names, train.labels.tolist()) == (names, labels)
        assert torch.equal(train.images, expected(*range(6)))


def test_settings_choose_among_fields_and_keys(tmp_path: Path) -> None:
    about = samples(
        6,
        **{"json": lambda n: json.dumps({"label": n % 2, "class": n % 3}), "txt": lambda n: f"t{n % 2}"},
        **{"mask.png": encode(picture(99))},
    )
    path = str(write_tar(tmp_path / "train.tar", about))
    with pytest.raises(
        PatchlightError, match=r"2 that can be the label: label, class; say which with data\.label_column"
    ):
        load_source(path, image_column="png")
    with pytest.raises(PatchlightError, match=r"train\.tar: 000000 has 2 that can be the image: png, mask\.png"):
        load_source(path, label_column="label")
    for column, labels in (("class", [0, 1, 2] * 2), ("label", [0, 1] * 3), ("txt", [0, 1] * 3)):
        train = load_source(path, label_column=column, image_column="png")["train"]
        assert train.labels.tolist() == labels
    mask = load_source(path, label_column="txt", image_column="mask.png")["train"]
    assert torch.equal(mask.images, expected(*[99] * 6))
    with pytest.raises(UsageError, match=r"data\.label_column: .*train\.tar has no 'klass'"):
        load_source(path, label_column="klass", image_column="png")


def test_captions_are_no_labels_unless_they_are_asked_for(tmp_path: Path) -> None:
    path = str(write_tar(tmp_path / "train.tar", samples(20, txt=lambda n: f"photo {n} of a cat")))
    with pytest.raises(PatchlightError, match=r"the column 'txt' has 20 values in 20 rows, too many for labels"):
        load_source(path)
    assert len(load_source(path, label_column="txt")["train"].class_names) == 20


@pytest.mark.parametrize("count", [6, 300])  # within what tells shards from other archives, and beyond
@pytest.mark.parametrize("images_first", [True, False])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_samples_whose_members_are_apart(count: int, images_first: bool, mode: str, tmp_path: Path) -> None:
    images = [(key, {"png": own["png"]}) for key, own in samples(count)]
    labels = [(key, {"cls": index % 2}) for index, (key, _) in enumerate(images)]
    ordered = images + labels if images_first else labels + images
    path = write_tar(tmp_path / f"a.{'tar' if mode == 'w' else 'tgz'}", ordered, mode)
    message = r"the image and the label of the sample '000000' do not follow each other, .* \(`tar --sort=name`\)$"
    with pytest.raises(PatchlightError, match=message):
        load_source(str(path))
    folder = tmp_path / "shards"
    folder.mkdir()
    path.rename(folder / path.name)
    with pytest.raises(PatchlightError, match=message):
        load_source(str(folder))


@pytest.mark.parametrize(("field", "name"), [("cls", "cls"), ("txt", "txt"), ("json", "json")])
def test_sentences_on_labels_name_their_field(field: str, name: str, tmp_path: Path) -> None:
    values: Fields = {field: lambda n: '{"label": 7}' if field == "json" else 7}
    (tmp_path / "labels.txt").write_text("ant\nbee\n")
    path = str(write_tar(tmp_path / "train.tar", samples(4, **values)))
    for settings in ({}, {"label_column": field}):
        with pytest.raises(
            PatchlightError, match=rf"has the label 7 in the column '{name}', whose 2 classes are ant, bee"
        ):
            load_source(path, **settings)


def test_what_is_incomplete_is_counted(tmp_path: Path) -> None:
    made = samples(8, cls=cls)
    del made[2][1]["png"], made[5][1]["cls"]
    made.insert(0, ("__meta__", {"json": "{}"}))
    path = str(write_tar(tmp_path / "train-000000.tar", made))
    with pytest.raises(PatchlightError, match=r"2 of 8 images would be left out \(samples without an image: 1"):
        load_source(path)
    train = load_source(path, max_left_out=0.5)["train"]
    assert torch.equal(train.images, expected(0, 1, 3, 4, 6, 7))
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    write_tar(tmp_path / "test-000000.tar", samples(4, 50))
    listing = list_source(DataConfig(source=str(tmp_path)))
    assert [(each.count, each.expected) for each in listing.left_out] == [(1, False), (1, False), (4, True)]
    assert listing.left_out[0].example == "train-000000.tar:000002"


def test_class_names_beside_the_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-000000.tar", samples(6, cls=cls))
    (tmp_path / "classnames.txt").write_text("ant\nbee\ncow\ndog\n")
    for source in (tmp_path, tmp_path / "train-000000.tar"):
        train = load_source(str(source))["train"]
        assert train.class_names == ("ant", "bee", "cow", "dog")
        assert f"class names are read from {tmp_path / 'classnames.txt'}" in train.notes
    for text, message in (
        ("ant\nbee\n", "the label 2"),
        ("ant\n\ncow\n", "has an empty line"),
        (b"\xff\xfe\0", "cannot read class names"),
        ("ant\nant\ncow", "names two classes 'ant'"),
    ):
        data = text.encode() if isinstance(text, str) else text
        (tmp_path / "classnames.txt").write_bytes(data)
        with pytest.raises(PatchlightError, match=message):
            load_source(str(tmp_path))
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    with pytest.raises(PatchlightError, match="may both name the classes; remove one"):
        load_source(str(tmp_path))
    (tmp_path / "classnames.txt").unlink()
    write_tar(tmp_path / "train-000000.tar", samples(6, cls=lambda n: "cab"[n % 3]))
    assert load_source(str(tmp_path))["train"].labels.tolist() == [2, 0, 1] * 2


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["train-000000", "train-000002"], "number 1 is missing beside train-000000.tar (1 of 3 is"),
        (["train-000003", "train-000001"], "number 2 is missing"),
        (["a_1", "a_2", "a_4", "a_6"], "number 3 is missing beside a_1.tar (2 of 6 are"),
        (["train-00000-of-00003", "train-00001-of-00003"], "number 2 is missing"),
        (["train-00001-of-00002"], "number 0 is missing"),
        (["train-1-of-2"], "number 2 is missing"),
        (["train-0", "val-0", "val-2"], "number 1 is missing beside val-0.tar"),
        (["train-000005", "train-000006"], ""),
        (["photos-2017", "photos-2019"], ""),
        (["train-00000-of-00001"], ""),
        (["train-1-of-1"], ""),
    ],
)
def test_missing_shards(names: list[str], missing: str, tmp_path: Path) -> None:
    for number, name in enumerate(names):
        write_tar(tmp_path / f"{name}.tar", samples(3, 3 * number, cls=cls))
    if not missing:
        assert len(load_source(str(tmp_path))["train"]) == 3 * len(names)
        return
    with pytest.raises(PatchlightError) as caught:
        load_source(str(tmp_path))
    assert missing in str(caught.value)


def test_other_archives_are_not_taken_for_shards(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", ["ant", "bee"], per_class=3)
    for name in ("ant", "bee"):
        for index in range(3):
            (tmp_path / "images" / name / f"{index}.json").write_text('{"label": 1, "box": []}')
            (tmp_path / "images" / name / f"{index}.txt").write_text("0 0.5 0.5 1 1")  # YOLO's boxes
    with tarfile.open(tmp_path / "plain.tar", "w") as archive:
        archive.add(tmp_path / "images", "images")
    assert not is_shards(tmp_path / "plain.tar")
    train = load_source(str(tmp_path / "plain.tar"))["train"]
    assert train.class_names == ("ant", "bee")
    with_folders = write_tar(
        tmp_path / "wds.tar", [(f"{'ab'[n % 2]}/{n}", own[1]) for n, own in enumerate(samples(4, cls=cls))]
    )
    assert is_shards(with_folders)
    assert split_key("./a.b/0001.seg.PNG") == ("a.b/0001", "seg.png")
    with_folders.unlink()
    assert not is_shards(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("cls", b"\xff\xfe", r"000000\.cls is no UTF-8 text"),
        ("json", b"{", r"000000\.json is no JSON"),
        ("json", b"[" * 100_000, r"000000\.json"),
        ("json", b'{"label": [1, 2]}', r"the label is \[1, 2\]; one class per image is"),
        ("json", b'{"label": 1.5}', r"the label is 1\.5; one class per image is"),
        ("txt", b"", "no image has a label"),
        ("npy", b"", "3 images in no or one class folder"),
    ],
)
def test_labels_that_are_refused(field: str, value: bytes, message: str, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "train-000000.tar", samples(3, **{field: value}))
    with pytest.raises(PatchlightError, match=message):
        load_source(str(path))


def test_a_folder_of_damaged_shards_says_so(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "train-000000.tar", samples(6, cls=cls))
    whole = path.read_bytes()
    for data in (whole[:700], b"", b"x" * 2000, whole[:-9000]):
        path.write_bytes(data)
        with pytest.raises(PatchlightError, match=r"train-000000\.tar is damaged or cut off"):
            load_source(str(tmp_path))


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    made = samples(6, cls=cls)
    made[3][1]["png"] = b"no image"
    write_tar(tmp_path / "train-000000.tar", made)
    with pytest.raises(PatchlightError, match=r"train-000000\.tar:000003\.png: it is not an image"):
        load_source(str(tmp_path))


def test_the_cache_notices_changed_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-000000.tar", samples(6, cls=cls))
    load_source(str(tmp_path), memory_limit_mb=0)
    write_tar(
        tmp_path / "train-000000.tar", [(f"{n}", own[1]) for n, own in enumerate(samples(6, 30, cls=lambda n: n % 3))]
    )
    found = load_source(str(tmp_path), memory_limit_mb=0)["train"]
    assert torch.equal(found.gather(range(6))[0], expected(*range(30, 36)))


def damaged(tmp_path: Path, count: int, seed: int) -> None:
    made = samples(4, json=lambda n: json.dumps({"label": n % 2}))
    for name, mode in (("train-000000.tar", "w"), ("train-000000.tar.gz", "w:gz")):
        path = write_tar(tmp_path / name / name, made, mode)
        assert outcomes(path, damaged_versions(path.read_bytes(), count, seed, front=3000), path.parent)["refused"] > 5


def test_damaged_shards_end_in_a_sentence(tmp_path: Path) -> None:
    damaged(tmp_path, 40, 0)


@pytest.mark.fuzz
def test_many_damaged_shards_end_in_a_sentence(tmp_path: Path) -> None:
    damaged(tmp_path, 800, 1)


def test_a_class_minus_one_is_told(tmp_path: Path) -> None:
    write_tar(tmp_path / "train.tar", samples(6, cls=lambda n: n % 2 - 1))
    assert any("-1" in note for note in load_source(str(tmp_path))["train"].notes)


def test_shards_that_begin_later_are_told(tmp_path: Path) -> None:
    for shard in (1, 2):
        write_tar(tmp_path / f"train-{shard:06}.tar", samples(4, 4 * shard, cls=cls))
    notes = load_source(str(tmp_path))["train"].notes
    assert f"{tmp_path}: the shards begin with train-000001.tar; none has a lower number" in notes
