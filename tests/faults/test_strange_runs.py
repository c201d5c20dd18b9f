"""Run folders that strangers wrote, or that a disk damaged: a record is read, shown harmlessly, or refused by name."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzz import ROUNDS, damaged_versions
from hypothesis import strategies as st
from made_run import add_first_batch, add_subset, make_run
from strangers import as_json, damaged, tried
from undrawn import undrawn

from patchlight.commands.report import report
from patchlight.errors import PatchlightError
from patchlight.runs import Run
from patchlight.runs.folder import FILES, METRICS
from patchlight.runs.manifest import MANIFEST

FORMAT1 = Path(__file__).parents[1] / "runs" / "format1" / "classify"
KIND_OF = {name: kind for kind, name in FILES.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A small run with every record that a classifier's run has."""
    run = add_first_batch(add_subset(make_run(tmp_path_factory.mktemp("strange") / "run", epochs=2, side=8)))
    shutil.copy(FORMAT1 / "faithfulness.json", run)
    skipped = {"images": [{"split": "train", "index": 3, "name": "a.png", "reason": "it is no image"}]}
    (run / "skipped.json").write_text(json.dumps(skipped))
    (run / "reconstruction.json").write_text(json.dumps({"val_loss": 0.5, "epoch": 2}))
    return run


def read(run: Path, name: str) -> object:
    """The record of a file, which no manifest knows."""
    assert not (run / MANIFEST).exists()
    return Run(run).epochs() if name == METRICS else Run(run).read(KIND_OF[name])


def parsed(path: Path) -> object:
    text = path.read_text()
    return [json.loads(line) for line in text.splitlines()] if path.name == METRICS else json.loads(text)


def write(path: Path, data: object) -> None:
    lines = data if path.name == METRICS and isinstance(data, list) else [data]
    path.write_text("\n".join(map(as_json, lines)) + "\n")


def names(run: Path, ending: str) -> list[str]:
    return sorted(path.name for path in run.glob(f"*{ending}"))


KEYS = ("n", "stage", "early_stop", "scores", "subset_test", "per_class", "weights", "format", "unknown")


@ROUNDS
def test_damaged_records_are_read_or_refused(whole, tmp_path, seed, times):
    """Of right and wrong kinds, with impossible numbers, missing and more fields."""
    run = shutil.copytree(whole, tmp_path / "run")
    for name in (*names(whole, ".json"), METRICS):

        def use(data, name=name):
            write(run / name, data)
            read(run, name)

        assert tried(damaged([parsed(whole / name)], KEYS), 30 * times, seed, use)["refused"] > 5


NUMBERS = [0, 1, -1, 2, 7, 300, 2**31, 2**62, 0.5, -0.5, 1e30, float("nan"), float("inf")]


@st.composite
def odd_arrays(draw, wholes: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of a file, of which one to three have another value, shape or kind, or are gone."""
    arrays = dict(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(arrays) or ["none"]))
        array, kind = arrays.pop(name, np.zeros(1)), draw(st.integers(0, 9))
        if kind == 0:
            continue
        if kind == 1:
            array = array[..., None] if draw(st.booleans()) else array.reshape(-1)
        elif kind == 2:
            array = array[:0] if array.ndim else array
        elif kind == 3:
            array = np.concatenate([array, array]) if array.ndim else array
        elif kind == 4 and array.dtype.kind in "biufU":
            kinds = ["U3", "S3"] if array.dtype.kind == "U" else ["U3", "bool", "complex64", "M8[s]"]
            array = array.astype(draw(st.sampled_from(kinds)), casting="unsafe")
        elif kind == 5 and array.dtype.kind in "iuf":
            with np.errstate(all="ignore"):
                array = array.astype(draw(st.sampled_from(["f4", "f2", "i8", "i2", "u1"])))
        elif kind == 6 and array.ndim > 1:
            array = array.swapaxes(0, -1)
        elif array.size and array.dtype.kind in "iuf":
            array, value = array.copy(), draw(st.sampled_from(NUMBERS))
            with np.errstate(all="ignore"):
                array.reshape(-1)[draw(st.integers(0, min(20, array.size - 1)))] = np.array(value).astype(array.dtype)
        arrays[name] = array
    return arrays


@ROUNDS
@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning", "ignore:invalid value:RuntimeWarning")
def test_odd_arrays_are_read_or_refused(whole, tmp_path, seed, times):
    run = shutil.copytree(whole, tmp_path / "run")
    for name in names(whole, ".npz"):
        with np.load(whole / name) as file:
            arrays = {key: file[key] for key in file.files}

        def use(arrays, name=name):
            np.savez(run / name, **arrays)
            read(run, name)

        assert tried(odd_arrays([arrays]), 30 * times, seed, use)["refused"] > 5


@ROUNDS
def test_damaged_bytes_of_records_are_read_or_refused(whole, tmp_path, seed, times):
    run = shutil.copytree(whole, tmp_path / "run")
    for name in (*names(whole, ".json"), *names(whole, ".npz"), METRICS):
        versions = damaged_versions((whole / name).read_bytes(), 20 * times, seed, front=400)

        def use(number, name=name, versions=versions):
            (run / name).write_bytes(versions[number])
            read(run, name)

        tried(st.integers(0, len(versions) - 1), len(versions), seed, use)
        shutil.copy(whole / name, run)


@ROUNDS
def test_a_record_that_is_read_is_shown(whole, tmp_path, seed, times):
    """Whatever the records let through, the page and the README are made of it, or say in one line what is wrong."""
    run = shutil.copytree(whole, tmp_path / "run")
    files = (*names(whole, ".json"), METRICS, *names(whole, ".npz"))

    def use(case):
        name, data = case
        if name.endswith(".npz"):
            np.savez(run / name, **data)
        else:
            write(run / name, data)
        try:
            read(run, name)
            report(run)
        finally:
            shutil.copy(whole / name, run)

    def cases(name):
        if name.endswith(".npz"):
            with np.load(whole / name) as file:
                return odd_arrays([{key: file[key] for key in file.files}])
        return damaged([parsed(whole / name)], KEYS)

    each = st.sampled_from(files).flatmap(lambda name: cases(name).map(lambda data: (name, data)))
    with undrawn():
        assert tried(each, 12 * times, seed, use)["taken"]


LIMIT = 2**24  # in place of the real one, of which the zeros alone take seconds to pack


def npz(member: bytes) -> bytes:
    """An .npz file with one array of these bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", member)
    return file.getvalue()


def header(shape: tuple[int, ...], body: bytes = b"") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue() + body


def test_arrays_that_claim_more_than_their_file_holds_are_refused(whole, tmp_path, monkeypatch):
    """Before memory is taken for them: by a header, or by zeros that are packed tightly."""
    monkeypatch.setattr("patchlight.runs.npz.MOST_BYTES", LIMIT)
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "samples.npz").write_bytes(npz(header((2**40, 8, 8, 3), b"\0" * 100)))
    with pytest.raises(PatchlightError, match=r"the array 'images' is of uint8 and 1099511627776"):
        read(run, "samples.npz")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w") as part:
        for _ in range(LIMIT // 2**20 + 1):
            part.write(bytes(2**20))
    (run / "samples.npz").write_bytes(packed.getvalue())
    with pytest.raises(PatchlightError, match=r"it has 1 arrays of 17,\d\d\d,\d\d\d bytes"):
        read(run, "samples.npz")
