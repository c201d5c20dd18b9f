"""Every row of the source tables, sizes, the cache, and what is no source."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from source_files import chw, encode, hub_folder, official, pack, picture, pixels_of, write_folder

from patchlight.config import DataConfig
from patchlight.data.cache import cache_folder
from patchlight.data.images import ImageSet
from patchlight.data.listing import Listing, from_arrays
from patchlight.data.sources import PATH_KINDS, SOURCES, NamedSource, cifar, list_source, load_source
from patchlight.data.sources.mat import list_mat
from patchlight.errors import PatchlightError, UsageError


def digits_oracle(grey: np.ndarray, size: int) -> torch.Tensor:
    image = Image.fromarray(np.rint(grey * 255 / 16).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image))


@pytest.mark.parametrize("size", [None, 8, 16])
def test_digits(size: int | None) -> None:
    from sklearn.datasets import load_digits

    sets = load_source("digits", image_size=size)
    assert list(sets) == ["train", "test"]
    train, test = sets["train"], sets["test"]
    assert train.image_size == (size or 32, size or 32)
    assert len(train) + len(test) == 1797
    assert train.class_names == tuple("0123456789")
    share = test.class_counts() / (train.class_counts() + test.class_counts())
    assert (share - 0.2).abs().max() < 0.01
    original = load_digits().images
    resized = {digits_oracle(grey, size or 32).numpy().tobytes() for grey in original}
    found = pixels_of(train)
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[:, 0], found[:, 2])
    ours = {image.numpy().tobytes() for images in sets.values() for image in pixels_of(images)[:, 0]}
    assert ours == resized


def test_digits_test_split_is_the_same_every_time() -> None:
    a, b = load_source("digits")["test"], load_source("digits")["test"]
    assert torch.equal(a.images, b.images)
    digest = hashlib.sha256(a.labels.numpy().astype("<i8").tobytes()).hexdigest()
    assert digest == DIGITS_TEST_LABELS, "published digits results rest on this split"


DIGITS_TEST_LABELS = "40bc7f8da50e869e268986d86d1f75974158fb6c447455e7e653f55b48e1dee1"


def check_hub_sets(sets: dict[str, ImageSet]) -> None:
    assert list(sets) == ["train", "test"]
    for split, seed in (("train", 0), ("test", 50)):
        assert sets[split].class_names == ("ant", "bee", "cow")
        assert sets[split].labels.tolist() == [0, 1, 2, 0, 1, 2]
        assert torch.equal(pixels_of(sets[split]), torch.stack([chw(picture(seed + i)) for i in range(6)]))


@pytest.mark.parametrize("name", [name for name in SOURCES if name.startswith("cifar")])
def test_named_hub_sources(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's repository is stood in for by a local copy in its own format; all else is the real library."""
    import datasets

    local, asked = hub_folder(tmp_path / "repo", name), []
    real = datasets.load_dataset

    def from_local(path: str, *rest: Any, **options: Any) -> Any:
        asked.append(path)
        return real(str(local))

    monkeypatch.setattr(datasets, "load_dataset", from_local)
    check_hub_sets(load_source(name))
    assert asked == [f"uoft-cs/{name}"]


def test_hf_with_a_path_and_hf_with_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    local = hub_folder(tmp_path / "repo", "cifar100")
    with pytest.raises(PatchlightError, match=r"2 columns that can be the label: coarse_label .*data\.label_column"):
        load_source(f"hf:{local}")
    check_hub_sets(load_source(f"hf:{local}", label_column="fine_label"))
    loaded, asked = datasets.load_dataset(str(local)), []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args: asked.append(args) or loaded)
    load_source("hf:owner/name:plain", label_column="FINE_label")
    load_source("hf:owner/name", label_column="fine_label")
    assert asked == [("owner/name", "plain"), ("owner/name", None)]


def test_hf_with_a_folder_of_images_agrees_with_our_own_reading(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", ["a", "b"])
    write_folder(tmp_path / "test", ["a", "b"], seed=7)
    ours, theirs = load_source(str(tmp_path)), load_source(f"hf:{tmp_path}")
    assert list(ours) == list(theirs)
    for key, images in ours.items():
        assert images.class_names == theirs[key].class_names
        assert torch.equal(images.images, theirs[key].images)
        assert torch.equal(images.labels, theirs[key].labels)


def test_hub_errors_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    for error, message in (
        (ConnectionError("Couldn't reach"), "cannot reach the Hugging Face hub for 'o/n'"),
        (datasets.exceptions.DatasetNotFoundError("gone"), "hub has no data set 'o/n'"),
        (ValueError("Config name is missing.\nPick one: ['a', 'b']"), r"cannot load 'o/n': Config .* Pick one"),
        (RuntimeError("Dataset scripts are no longer supported"), "cannot load 'o/n': Dataset scripts"),
    ):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(datasets, "load_dataset", fail)
        with pytest.raises(PatchlightError, match=message) as caught:
            load_source("hf:o/n")
        assert "\n" not in str(caught.value)


def archive_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    layout = pack(root, official(root, cifar.LAYOUTS[0]))
    monkeypatch.setattr(cifar, "LAYOUTS", (layout,))
    return root / layout.archive[0]


def cifar_folder_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cifar, "LAYOUTS", (official(root, cifar.LAYOUTS[0]),))
    return root / cifar.LAYOUTS[0].folder


def saved_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    datasets.load_dataset(str(hub_folder(root / "repo", "cifar10"))).save_to_disk(str(root / "saved"))
    return root / "saved"


def parquet_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return hub_folder(root / "repo", "cifar10")


def list_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_folder(root / "images", ["ant", "bee", "cow"])
    lines = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    (root / "all.csv").write_text("\n".join(["image,label", *lines]))
    return root / "all.csv"


def images_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_folder(root / "images", ["ant", "bee", "cow"])


def idx_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for what, values in (("images", np.zeros((6, 5, 5), np.uint8)), ("labels", np.arange(6, dtype=np.uint8) % 3)):
        head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, dtype=">u4").tobytes()
        (root / f"emnist-x-train-{what}-idx{values.ndim}-ubyte").write_bytes(head + values.tobytes())
    codes = (" ".join(str(ord(letter)) for letter in name) for name in ("ant", "bee", "cow"))
    (root / "emnist-x-mapping.txt").write_text("\n".join(f"{label} {own}" for label, own in enumerate(codes)))
    return root


def shards_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(root / "train-000000.tar", "w") as tar:
        for index in range(6):
            for field, data in (("png", encode(picture(index))), ("cls", ("ant", "bee", "cow")[index % 3].encode())):
                info = tarfile.TarInfo(f"{index:04}.{field}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return root


def zip_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return Path(shutil.make_archive(str(root / "images"), "zip", images_row(root, monkeypatch)))


def arrays_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    np.savez(root / "a.npz", images=np.zeros((6, 5, 5), np.uint8), labels=["ant", "bee", "cow"] * 2)
    return root / "a.npz"


def mat_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from scipy.io import savemat

    savemat(root / "train_32x32.mat", {"X": np.zeros((5, 5, 3, 6), np.uint8), "y": [0, 1, 2] * 2})
    return root


PATH_ROWS: dict[str, Callable[[Path, pytest.MonkeyPatch], Path]] = {
    "the official CIFAR archive (.tar.gz)": archive_row,
    "MNIST's idx files, a folder of them or one set's images": idx_row,
    "WebDataset's shards, a .tar of samples or a folder of them": shards_row,
    "an archive (.zip, .tar, .tar.gz, .tar.bz2, .tar.xz) of any of these": zip_row,
    "the official CIFAR folder": cifar_folder_row,
    "a folder that `datasets` saved": saved_row,
    "Parquet, a file or a folder of them": parquet_row,
    "arrays of NumPy, an .npz or .npy file or a folder of them": arrays_row,
    "MATLAB files as SVHN's, a .mat file or a folder of them": mat_row,
    "a list of image files (CSV, TSV, JSON Lines), or a folder of lists": list_row,
    "a folder of class folders with images": images_row,
}


def test_the_table_of_paths_is_walked_whole() -> None:
    assert list(PATH_ROWS) == [kind.about for kind in PATH_KINDS]


@pytest.mark.parametrize("about", PATH_ROWS)
def test_every_kind_of_path(about: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = PATH_ROWS[about](tmp_path, monkeypatch)
    kind = next(kind for kind in PATH_KINDS if kind.matches(path))
    assert kind.about == about
    in_memory = load_source(str(path))
    named = ("0", "1", "2") if kind.listing is list_mat else ("ant", "bee", "cow")
    assert in_memory["train"].class_names == named
    for _ in range(2):  # made, then read back
        cached = load_source(str(path), memory_limit_mb=0)
        assert list(cached) == list(in_memory)
        for key, images in cached.items():
            assert torch.equal(images.images, in_memory[key].images)
            assert torch.equal(images.labels, in_memory[key].labels)
    assert len(list(cache_folder().glob("*.pixels"))) == 1
    fitted = load_source(str(path), image_size=5)["train"]
    assert fitted.image_size == (5, 5)


def test_a_common_square_size_is_kept_and_others_are_fitted_with_a_note(tmp_path: Path) -> None:
    write_folder(tmp_path, ["a", "b"])
    assert load_source(str(tmp_path))["train"].image_size == (8, 8)
    picture(9, (9, 9)).save(tmp_path / "b" / "9.png")
    for limit in (1024, 0, 0):
        train = load_source(str(tmp_path), memory_limit_mb=limit)["train"]
        assert train.image_size == (32, 32)
        assert len(train.notes) == 1
        assert "9.png is 9 x 9" in train.notes[0]
        assert "fitted to 32 x 32" in train.notes[0]
    assert load_source(str(tmp_path), image_size=9)["train"].notes == ()
    asked = load_source(str(tmp_path), fallback_size=48)["train"]  # what the model takes, say
    assert asked.image_size == (48, 48)
    assert "fitted to 48 x 48" in asked.notes[0]


def test_images_that_are_not_square_are_fitted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    picture(0, (40, 20)).save(tmp_path / "a" / "0.png")
    train = load_source(str(tmp_path))["train"]
    assert train.image_size == (32, 32)
    assert "not square" in train.notes[0]
    assert "0.png is 40 x 20" in train.notes[0]


def test_large_images_decode_alike_with_threads(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for index in range(20):
        picture(index, (200, 200)).save(tmp_path / "a" / f"{index:02}.png")
    train = load_source(str(tmp_path))["train"]
    assert torch.equal(train.images, torch.stack([chw(picture(i, (200, 200))) for i in range(20)]))


def test_the_cache_notices_changed_files(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "images", ["a", "b"])
    first = load_source(str(root), memory_limit_mb=0)["train"]
    picture(77).save(root / "a" / "0.png", compress_level=1)
    second = load_source(str(root), memory_limit_mb=0)["train"]
    assert torch.equal(second.images[0], chw(picture(77)))
    assert torch.equal(second.images[1:], first.images[1:])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digit", r"unknown data source 'digit' \(nor is it a path or hf:owner/name\); did you mean 'digits'"),
        ("cifar-10", "did you mean 'cifar10'"),
        ("qqqq", "known: cifar10, cifar100, digits"),
        ("./qqqq", "no folder or file './qqqq'"),
        ("owner/name", "no folder or file 'owner/name' .*hf:owner/name"),
        ("~/qqqq-not-there", "no folder or file"),
        ("cifar.tar.gz", "no folder or file"),
    ],
)
def test_unknown_sources(source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_source(source)


def test_a_file_that_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("")
    with pytest.raises(UsageError, match="is a file that is no data source; a source is a folder of class folders"):
        list_source(DataConfig(source=str(tmp_path / "a.log")))


def test_a_name_wins_over_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "digits", ["a", "b"])
    monkeypatch.chdir(tmp_path)
    assert len(list_source(DataConfig(source="digits")).class_names) == 10
    assert list_source(DataConfig(source="./digits")).class_names == ("a", "b")


def test_start_up_does_not_wait_for_datasets() -> None:
    code = "import sys, patchlight.data.sources; print(*{'datasets', 'sklearn', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, b""), done.stderr.decode()


def test_a_row_is_all_that_a_source_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """From outside the package: one function and one row."""
    pixels = np.zeros((4, 3, 8, 8), dtype=np.uint8)

    def list_mine(config: DataConfig) -> Listing:
        return Listing({"train": from_arrays(pixels, np.array([0, 1, 0, 1]), "mine")}, ("a", "b"))

    monkeypatch.setitem(SOURCES, "mine", NamedSource("four black images", list_mine))
    train = load_source("mine")["train"]
    assert (len(train), train.image_size, train.class_names) == (4, (8, 8), ("a", "b"))


def test_a_bug_of_our_own_is_not_called_a_damaged_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    class Bug(Exception):
        pass

    def fail(*_: object) -> None:
        raise Bug

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(Bug):
        load_source("hf:o/n")


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (images_row, {"label_column": "x"}),
        (images_row, {"image_folder": "x"}),
        (list_row, {"class_folders": "outer"}),
        (parquet_row, {"split_column": "x"}),
        (cifar_folder_row, {"train_split": "x"}),
        (lambda root, monkeypatch: "digits", {"label_column": "x"}),
    ],
)
def test_a_setting_that_says_nothing_of_a_source_is_an_error(
    make: Callable[[Path, pytest.MonkeyPatch], Path],
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (name,) = settings
    with pytest.raises(UsageError, match=rf"data\.{name} says nothing of .*, which is .*; leave it out"):
        load_source(str(make(tmp_path, monkeypatch)), **settings)


def test_a_part_of_a_saved_dataset_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = next(saved_row(tmp_path, monkeypatch).rglob("*.arrow"))
    part.unlink()
    with pytest.raises(PatchlightError, match=rf"cannot load '.*saved': {part} is missing; get it again"):
        load_source(str(tmp_path / "saved"))


def test_a_folder_with_the_name_of_a_built_in_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not any("built-in" in note for note in load_source("digits")["train"].notes)
    (tmp_path / "digits").mkdir()
    assert "digits is the built-in set; ./digits is your own folder" in load_source("digits")["train"].notes
