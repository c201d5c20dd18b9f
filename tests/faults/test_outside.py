"""What a data set names lies in its folder: paths and links that lead out of it are refused by default."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_files import picture, write_folder

from patchlight.cli.main import main
from patchlight.data.decode import decode_image
from patchlight.data.files import find_images
from patchlight.data.sources import load_source
from patchlight.data.sources.tree import scan
from patchlight.errors import PatchlightError

REFUSED = r"outside the folder of the data set, by a path or a link: .*; put them into the folder, or set data\.outside"


def private(root: Path) -> Path:
    """A folder that the data set is not given, with an image and files of data in it."""
    folder = root / "private"
    folder.mkdir()
    picture(99).save(folder / "secret.png")
    return folder


def stranger(root: Path) -> Path:
    return write_folder(root / "set", ["a", "b"], per_class=4)


def names(root: Path) -> list[str]:
    return [f"{name}/{index}.png" for name in "ab" for index in range(4)]


def rows_of(root: Path, first: str) -> list[tuple[str, int]]:
    return [(name, int(name[0] == "b")) for name in [first, *names(root)]]


def as_csv(root: Path, first: str) -> Path:
    lines = [f'"{name}",{label}' for name, label in rows_of(root, first)]
    (root / "list.csv").write_text("\n".join(["image,label", *lines]))
    return root / "list.csv"


def as_metadata(root: Path, first: str) -> Path:
    flat = root / "flat"
    flat.mkdir()
    lines = []
    for number, (name, label) in enumerate(rows_of(root, first)):
        if name != first:
            shutil.copy(root / name, flat / f"{number}.png")
        lines.append(f"{name if name == first else f'{number}.png'},{label}")
    (flat / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    return flat


def as_jsonl(root: Path, first: str) -> Path:
    rows = [json.dumps({"image": name, "label": label}) for name, label in rows_of(root, first)]
    (root / "list.jsonl").write_text("\n".join(rows))
    return root / "list.jsonl"


def as_parquet(root: Path, first: str, kind: Any = None, cell: Callable[[str], Any] = str) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = rows_of(root, first)
    columns = {"image": pa.array([cell(name) for name, _ in rows], kind), "label": [label for _, label in rows]}
    pq.write_table(pa.table(columns), root / "set.parquet")
    return root / "set.parquet"


def as_structs(root: Path, first: str) -> Path:
    import pyarrow as pa

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return as_parquet(root, first, kind, lambda name: {"bytes": None, "path": name})


def as_saved(root: Path, first: str) -> Path:
    """A data set of the library `datasets` whose cells are paths: a folder that a stranger may have made so."""
    import datasets

    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = rows_of(root, first)
    cells = [{"bytes": (root / name).read_bytes(), "path": name} for name, _ in rows[1:]]
    cells.insert(0, {"bytes": None, "path": str(root / first)})
    import pyarrow as pa

    storage = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    labels = pa.array([label for _, label in rows], pa.int64())
    table = pa.table({"image": storage, "label": labels}).cast(kinds.arrow_schema)
    saved = root / "saved"
    datasets.Dataset.from_dict({"image": [None], "label": [0]}, features=kinds).save_to_disk(str(saved))
    (arrow,) = saved.glob("*.arrow")
    with pa.OSFile(str(arrow), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return saved


WRITERS = (as_csv, as_metadata, as_jsonl, as_parquet, as_structs, as_saved)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("way", ["up", "absolute", "link"])
def test_paths_that_lead_out_of_a_data_set_are_refused(
    write: Callable[[Path, str], Path], way: str, tmp_path: Path
) -> None:
    secret, root = private(tmp_path) / "secret.png", stranger(tmp_path)
    first = {"up": "../private/secret.png", "absolute": str(secret), "link": "a/link.png"}[way]
    if write is as_metadata and way != "absolute":
        first = {"up": "../../private/secret.png", "link": "../a/link.png"}[way]
    if way == "link":
        (root / "a" / "link.png").symlink_to(secret)
    source = write(root, first)
    for limit in (64, 0):
        with pytest.raises(PatchlightError, match=REFUSED) as refused:
            load_source(str(source), memory_limit_mb=limit)
        assert str(secret.resolve()) in str(refused.value)
        assert "1 of 9 images lies" in str(refused.value)
    assert sum(map(len, load_source(str(source), outside_paths=True).values())) == 9


def test_paths_inside_may_be_absolute_or_go_up_and_down(tmp_path: Path) -> None:
    root = stranger(tmp_path)
    (root / "a" / "inner.png").symlink_to(root / "b" / "0.png")
    for first in (str(root / "a" / "0.png").replace("/a/", "/b/../a/"), "b/../a/inner.png", "a/inner.png"):
        assert len(load_source(str(as_csv(root, first)), max_left_out=1)["train"]) in (8, 9)
    (tmp_path / "linked").symlink_to(root)  # the user named the link
    assert len(load_source(str(tmp_path / "linked"))["train"]) == 9
    assert len(load_source(str(tmp_path / "linked" / "list.csv"))["train"]) == 9


def test_the_folder_that_a_setting_names_is_inside(tmp_path: Path) -> None:
    root, folder = stranger(tmp_path), private(tmp_path)
    (root / "list.csv").write_text("image,label\nsecret.png,0\n../set/a/0.png,1\n")
    assert len(load_source(str(root / "list.csv"), image_folder=str(folder))["train"]) == 2
    (root / "list.csv").write_text("image,label\n../other.png,0\nsecret.png,1\n")
    picture(5).save(tmp_path / "other.png")
    with pytest.raises(PatchlightError, match=REFUSED):
        load_source(str(root / "list.csv"), image_folder=str(folder))


def linked_image(root: Path, out: Path) -> Path:
    (root / "a" / "me.png").symlink_to(out / "secret.png")
    return root


def linked_folder(root: Path, out: Path) -> Path:
    (root / "c").symlink_to(out)
    return root


def linked_upwards(root: Path, out: Path) -> Path:
    (root / "c").symlink_to(os.path.relpath(out, root))
    return root


def linked_parquet(root: Path, out: Path) -> Path:
    shutil.move(as_parquet(root, "a/0.png", cell=lambda name: (root / name).read_bytes()), out / "x.parquet")
    folder = root / "tables"
    folder.mkdir()
    (folder / "train.parquet").symlink_to(out / "x.parquet")
    return folder


def linked_list(root: Path, out: Path) -> Path:
    as_metadata(root, "1.png")
    shutil.move(root / "flat" / "metadata.csv", out / "metadata.csv")
    (root / "flat" / "metadata.csv").symlink_to(out / "metadata.csv")
    return root / "flat"


def linked_arrays(root: Path, out: Path) -> Path:
    folder = root / "arrays"
    folder.mkdir()
    np.save(out / "images.npy", np.zeros((4, 8, 8), np.uint8))
    np.save(folder / "labels.npy", np.array([0, 1, 0, 1]))
    (folder / "images.npy").symlink_to(out / "images.npy")
    return folder


def linked_shards(root: Path, out: Path) -> Path:
    folder = root / "shards"
    folder.mkdir()
    with tarfile.open(out / "train-0.tar", "w") as tar:
        for index in range(4):
            tar.add(root / "a" / f"{index}.png", f"{index}.png")
            header = tarfile.TarInfo(f"{index}.cls")
            header.size = 1
            tar.addfile(header, io.BytesIO(str(index % 2).encode()))
    (folder / "train-0.tar").symlink_to(out / "train-0.tar")
    return folder


def linked_idx(root: Path, out: Path) -> Path:
    folder = root / "idx"
    folder.mkdir()
    (out / "images").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 4]) + bytes(32))
    (folder / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 0, 1]))
    (folder / "train-images-idx3-ubyte").symlink_to(out / "images")
    return folder


def linked_labels(root: Path, out: Path) -> Path:
    """Tiny ImageNet's file of labels."""
    whole = root / "tiny"
    write_folder(whole / "train", ["a", "b"], per_class=4)
    (whole / "val" / "images").mkdir(parents=True)
    for index in range(2):
        picture(index).save(whole / "val" / "images" / f"{index}.png")
    (out / "labels.txt").write_text("0.png\ta\n1.png\tb\n")
    (whole / "val" / "val_annotations.txt").symlink_to(out / "labels.txt")
    return whole


LINKED = (linked_image, linked_folder, linked_upwards, linked_parquet, linked_list, linked_arrays, linked_shards)


@pytest.mark.parametrize("link", [*LINKED, linked_idx, linked_labels], ids=lambda link: link.__name__)
def test_links_that_lead_out_of_a_data_set_are_refused(link: Callable[[Path, Path], Path], tmp_path: Path) -> None:
    source = link(stranger(tmp_path), private(tmp_path))
    with pytest.raises(PatchlightError, match=REFUSED) as refused:
        load_source(str(source))
    assert str(tmp_path / "private") in str(refused.value)
    assert load_source(str(source), outside_paths=True)


def test_links_into_the_stores_of_tools_are_inside(tmp_path: Path) -> None:
    """A download of the hub, git-annex and DVC put the files of a data set as links into a folder beside it."""
    root = stranger(tmp_path)
    table = as_parquet(root, "a/0.png")
    hub = tmp_path / "hub" / "datasets--x--y"
    (hub / "blobs").mkdir(parents=True)
    (hub / "snapshots" / "0" / "data").mkdir(parents=True)
    shutil.move(table, hub / "blobs" / "abc")
    (hub / "snapshots" / "0" / "data" / "train.parquet").symlink_to("../../../blobs/abc")
    for name in ("a", "b"):
        shutil.move(root / name, hub / "snapshots" / "0" / name)
    assert len(load_source(str(hub / "snapshots" / "0"), image_folder=str(hub / "snapshots" / "0"))["train"]) == 9
    for store in (".git/annex/objects", ".dvc/cache"):
        repository = tmp_path / store.strip(".").partition("/")[0]
        objects = repository / store
        objects.mkdir(parents=True)
        for index in range(4):
            own = repository / "deep" / "set" / "ab"[index % 2]
            own.mkdir(parents=True, exist_ok=True)
            picture(index).save(objects / f"{index}.png")
            (own / f"{index}.png").symlink_to(objects / f"{index}.png")
        assert len(load_source(str(repository / "deep" / "set"))["train"]) == 4
    # A stranger's folder that is called so and is itself a link is none.
    private(tmp_path)
    shutil.rmtree(tmp_path / "dvc" / ".dvc")
    (tmp_path / "dvc" / ".dvc").mkdir()
    (tmp_path / "dvc" / ".dvc" / "cache").symlink_to(tmp_path / "private")
    (tmp_path / "dvc" / "deep" / "set" / "a" / "me.png").symlink_to(tmp_path / "private" / "secret.png")
    with pytest.raises(PatchlightError, match=REFUSED):
        load_source(str(tmp_path / "dvc" / "deep" / "set"), max_left_out=1)


def test_the_command_line_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    private(tmp_path)
    source = as_csv(stranger(tmp_path), "../private/secret.png")
    assert main(["data", str(source)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "data.outside_paths = true" in said[0]


def test_a_folder_that_is_predicted_leaves_out_what_lies_elsewhere(tmp_path: Path) -> None:
    out, root = private(tmp_path), stranger(tmp_path)
    linked_image(root, out)
    linked_folder(root, out)
    found = find_images([root])
    assert len(found.paths) == 8
    (note,) = found.notes
    assert "links that lead out of the folder (what they lead to can be named itself): 2, such as" in note
    assert len(find_images([root / "a" / "me.png", root / "c"]).paths) == 2  # named, they are taken


def test_links_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    """Each real folder is read once: 40 class folders that all link to each other are 40 folders, not 40 * 39."""
    root = write_folder(tmp_path / "set", [f"class{i:02}" for i in range(40)], per_class=2)
    for one in sorted(root.iterdir()):
        for other in sorted(root.iterdir()):
            if one != other:
                (one / f"to-{other.name}").symlink_to(other)
        (one / "up").symlink_to(root)
    begin = time.monotonic()
    tree = scan(root)
    assert len(list(tree.walk())) == 41
    assert len(tree.all_images()) == 80
    images = load_source(str(root), max_left_out=0)["train"]
    assert (len(images), len(images.class_names)) == (80, 40)
    assert any(
        "links to folders whose images are taken where they lie: 1,600, such as" in note for note in images.notes
    )
    assert time.monotonic() - begin < 60  # it was without end


def test_two_class_folders_that_link_to_each_other(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", ["a", "b"], per_class=12)
    (root / "a" / "other").symlink_to(root / "b")
    (root / "b" / "other").symlink_to(root / "a")
    images = load_source(str(root))["train"]
    assert (len(images), images.class_names) == (24, ("a", "b"))
    assert any("2, such as" in note and "taken where they lie" in note for note in images.notes)


def test_a_link_to_a_hidden_folder_inside_is_followed(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", [".store/a", ".store/b"], per_class=3)
    for name in "ab":
        (root / name).symlink_to(root / ".store" / name)
    assert len(load_source(str(root))["train"]) == 6


@pytest.mark.parametrize("hidden", [False, True])
def test_folders_nested_without_end_are_a_sentence(hidden: bool, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", ["a", "b"], per_class=2)
    (root / ("a" if not hidden else ".a")).mkdir(exist_ok=True)
    top = os.open(root / (".a" if hidden else "a"), os.O_RDONLY)
    place = top
    for _ in range(1200):
        os.mkdir("x", dir_fd=place)
        place, before = os.open("x", os.O_RDONLY, dir_fd=place), place
        os.close(before)
    os.close(place)
    try:
        if hidden:
            assert len(load_source(str(root))["train"]) == 4
        else:
            with pytest.raises(PatchlightError, match="nested more than 100 deep; give the folder that holds") as said:
                load_source(str(root))
            assert len(str(said.value)) < 400
            with pytest.raises(PatchlightError, match="nested more than 100 deep"):
                find_images([root])
    finally:  # shutil.rmtree is recursive
        os.system(f"rm -rf '{root}'")


def test_an_archive_of_folders_without_end_is_refused(tmp_path: Path) -> None:
    data = io.BytesIO()
    picture(0).save(data, "PNG")
    with tarfile.open(tmp_path / "deep.tar", "w") as tar:
        header = tarfile.TarInfo("x/" * 1500 + "0.png")
        header.size = len(data.getvalue())
        tar.addfile(header, io.BytesIO(data.getvalue()))
    with pytest.raises(PatchlightError, match="nested more than 100 deep"):
        load_source(str(tmp_path / "deep.tar"))


def test_pipes_devices_and_sockets_are_no_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reading them would never end."""
    monkeypatch.chdir(tmp_path)
    root = stranger(tmp_path)
    os.mkfifo(root / "a" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("set/b/socket.png")
        for file in (root / "a" / "pipe.png", root / "b" / "socket.png", Path("/dev/zero")):
            with pytest.raises(PatchlightError, match="it is a pipe, a device or a socket; copy what it gives into a"):
                decode_image(file)
        assert len(load_source(str(root))["train"]) == 8  # in a folder they are files that are no images
        for limit in (64, 0):
            with pytest.raises(PatchlightError, match="it is a pipe, a device or a socket"):
                load_source(str(as_csv(root, "a/pipe.png")), memory_limit_mb=limit)
            with pytest.raises(PatchlightError, match="it is a pipe, a device or a socket"):
                load_source(str(as_parquet(root, "/dev/zero")), memory_limit_mb=limit, outside_paths=True)
    os.mkfifo(tmp_path / "list.csv")
    assert main(["data", str(tmp_path / "list.csv")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_paths_that_no_system_takes_are_bad_images(tmp_path: Path) -> None:
    root = stranger(tmp_path)
    for first in ("a\0b.png", "x" * 5000 + ".png", "/".join("x" * 900), "C:\\photos\\x.png", "\udc80.png"):
        if "\0" not in first and "\udc80" not in first:
            assert len(load_source(str(as_csv(root, first)), max_left_out=1)["train"]) == 8
        if "\udc80" not in first:
            with pytest.raises(PatchlightError, match=r"no such file|null byte|too long"):
                load_source(str(as_parquet(root, first)), memory_limit_mb=0)
    for address in ("https://x.org/a.png", "file:///etc/a.png", "s3://b/a.png", "ftp://x/a.png"):
        (root / "one.csv").write_text(f"image,label\n{address},0\n{address}2,1\n")
        with pytest.raises(PatchlightError, match="addresses"):
            load_source(str(root / "one.csv"))
