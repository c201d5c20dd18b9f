"""Images of strangers, drawn by Hypothesis: an answer or one sentence, no traceback, no hang, and a bounded memory.

By default hundreds of cases are tried; `make test-fuzz` tries FUZZ (10) times as many, by another seed.
"""

from __future__ import annotations

import csv
import faulthandler
import gzip
import io
import json
import re
import struct
import subprocess
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from fuzz import ROUNDS
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from PIL import Image
from strange_images import damaged_files, fits_file, good_files

import patchlight
from patchlight.cli.main import main
from patchlight.data.decode import decode, header_dimensions
from patchlight.data.heard import listening
from patchlight.data.remarks import Remarks
from patchlight.errors import PatchlightError
from patchlight.models import ModelCard, ModelSpec, build_model, save_model
from patchlight.units import printable

HANGS_S = 300  # after which a case has hung; a slow machine takes seconds
MEMORY_MIB = 2048  # that one image may take, whatever it claims
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
# Names of files that a system takes; a surrogate is a byte that is no UTF-8.
NAMES = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)
ENDS = st.sampled_from([".png", ".jpg", "", ".txt", "\x1b[31m.png", "\n.gif", "\udce9.tif", "*.png", "[a].png"])


def cases(count: int, seed: int) -> Callable[[Any], Any]:
    """As many cases as that, the same ones each time; how long one takes is not asked."""
    settings = hypothesis.settings(
        max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return lambda test: hypothesis.seed(seed)(settings(test))


@contextmanager
def ending() -> Iterator[None]:
    """A case that hangs ends the tests with a traceback, also within a library's own code."""
    faulthandler.dump_traceback_later(HANGS_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def most_memory(*, anew: bool = False) -> int:
    """The most MiB that this process had in memory, since it was asked for `anew`; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) // 1024


def outcome(data: bytes, remarks: Remarks | None = None) -> str:
    """ "" for an image that is decoded, else the sentence; memory stays bounded."""
    before = most_memory(anew=True)
    try:
        with ending():
            header_dimensions(data)
            found = decode(data, 8, "x", "bicubic", 4095)
    except PatchlightError as error:
        said = str(error)
        assert said.startswith("x: ")
        assert not CONTROLS.search(said)
        assert "\n" not in said
    else:
        assert found.pixels.shape == (8, 8, 3)
        assert found.pixels.dtype == np.uint8
        said = ""
        if remarks is not None:
            remarks.add("x", found.facts, found.warnings)
    assert most_memory() - before < MEMORY_MIB
    return said


def test_the_files_are_images_before_they_are_damaged() -> None:
    """Else the damage would test nothing."""
    with listening():
        refused = [ascii(data[:12]) for data in good_files() if outcome(data)]
    assert len(good_files()) > 120
    assert len(refused) < len(good_files()) / 10, refused
    formats = {Image.open(io.BytesIO(data)).format for data in good_files() if not outcome(data)}
    usual = {*"AVIF BMP FITS FLI GIF ICO JPEG JPEG2000 PCX PNG PPM PSD SGI TGA TIFF WEBP XBM XPM".split()}
    assert formats >= usual - ({"AVIF", "WEBP", "JPEG2000"} - set(Image.SAVE))


@ROUNDS
def test_damaged_images_are_decoded_or_refused(seed: int, times: int) -> None:
    ends, remarks = Counter[str](), Remarks()

    @cases(400 * times, seed)
    @given(damaged_files())
    def each(data: bytes) -> None:
        ends["refused" if outcome(data, remarks) else "decoded"] += 1

    with warnings.catch_warnings(record=True) as raw, listening():
        each()
    assert raw == []
    assert min(ends["refused"], ends["decoded"]) > 40 * times
    assert all("\n" not in text and len(text) < 2000 for text in remarks.sentences(65535))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that can be asked, which knows nothing."""
    torch.manual_seed(0)
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 3}
    spec = ModelSpec.from_json("vit-micro", options)
    folder = tmp_path_factory.mktemp("model") / "model"
    names = ("a", "b\x1b[31m", "=c|d")
    save_model(folder, build_model(spec), ModelCard("vit-micro", spec, names, (0.5,) * 3, (0.5,) * 3))
    return folder


def said_by(words: list[str]) -> tuple[int, str, str]:
    """The exit code of a command, and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


@ROUNDS
def test_predict_answers_or_says_why_not(seed: int, times: int, model: Path, tmp_path: Path) -> None:
    ends = Counter[str]()
    places = iter(range(10**9))

    @cases(40 * times, seed)
    @given(
        st.lists(st.tuples(NAMES, ENDS, damaged_files()), min_size=1, max_size=4), st.sampled_from(["json", "csv", ""])
    )
    def each(files: list[tuple[str, str, bytes]], way: str) -> None:
        folder = tmp_path / str(next(places))
        folder.mkdir()
        paths = []
        for name, end, data in files:
            paths.append(folder / f"{name}{end}")
            paths[-1].write_bytes(data)
        with ending():
            found = patchlight.predict(model, paths, device="cpu")
            answers = folder / "the answers.csv"
            words = [] if not way else ["--json"] if way == "json" else ["--csv", str(answers)]
            code, out, err = said_by(["predict", str(model), *map(str, paths), "--device", "cpu", *words])
        bad = [each for each in found if each.error]
        assert [each.image for each in found] == [printable(path) for path in paths]
        assert all(len(each.classes) == (0 if each.error else 3) for each in found)
        assert all(not CONTROLS.search(each.error or "") and "\n" not in (each.error or "") for each in found)
        assert code == bool(bad)
        assert not CONTROLS.search(out + err)
        assert "Traceback" not in err
        if way == "json":
            answer = json.loads(out)
            assert [each["error"] for each in answer["bad"]] == [each.error for each in bad]
            assert len(answer["predictions"]) == len(found) - len(bad)
        if way == "csv":
            with answers.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            assert [row["error"] for row in rows] == [each.error or "" for each in found]
        ends.update("bad" if each.error else "good" for each in found)

    each()
    assert min(ends.values()) > 10 * times


def png(width: int, height: int, extra: bytes = b"", pixels: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(pixels or bytes((width + 1) * height), 9))
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(extra, 9)) if extra else b""
    return b"\x89PNG\r\n\x1a\n" + head + profile + body + chunk(b"IEND", b"")


def gif(width: int, height: int, screen: int) -> bytes:
    frame = b"," + struct.pack("<HHHH", 0, 0, width, height) + b"\0\x02\x02\x4c\x01\0;"
    return b"GIF89a" + struct.pack("<HH", screen, screen) + b"\xf0\0\0" + bytes(6) + frame


def webp(side: int) -> bytes:
    canvas = b"\x02\0\0\0" + 2 * (side - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + canvas


def packed_fits(side: int) -> bytes:
    """A small file that unpacks to a gigabyte and more."""
    head = {"XTENSION": "'BINTABLE'", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 0, "NAXIS2": 8, "ZIMAGE": "T"}
    more = {"ZCMPTYPE": "'GZIP_1  '", "ZBITPIX": 8, "ZNAXIS": 2, "ZNAXIS1": side, "ZNAXIS2": side}
    values = gzip.compress(gzip.compress(bytes(2**26), 9) * 20, 9)
    return fits_file(b"", SIMPLE="T", BITPIX=8, NAXIS=0)[:2880] + fits_file(values, **head, **more)


CLAIMS = {
    "more pixels than an image may have": lambda: [
        png(2**31 - 1, 2**31 - 1, pixels=bytes(100)),
        gif(65535, 65535, 65535),
        gif(65535, 65535, 8),
        webp(16383),
    ],
    "are more than the 64 million that an image may have": lambda: [
        png(9_000, 8_000, pixels=bytes(100)),
        png(20_000, 5_000, pixels=bytes(100)),
    ],
    "Decompressed data too large": lambda: [png(8, 8, extra=bytes(2**28))],
    "unpack it with `funpack`": lambda: [packed_fits(12), packed_fits(8000)],
    "a drawing in PostScript, which is a program": lambda: [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 12 12\n%%EndComments\n{} loop\n"
    ],
}


@pytest.mark.parametrize("sentence", CLAIMS)
def test_small_files_that_claim_to_be_large_are_refused(sentence: str) -> None:
    with listening():
        for data in CLAIMS[sentence]():
            before = most_memory(anew=True)
            assert sentence in outcome(data)
            assert most_memory() - before < 256


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from patchlight.data.decode import decode
from patchlight.errors import PatchlightError

pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**26,) * 2)
try:
    decode(Path(sys.argv[1]), 8, "x")
except PatchlightError as error:
    print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell how large a process is")
def test_an_image_that_no_memory_is_left_for_is_a_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (6000, 5000)).save(tmp_path / "x.png")
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, str(tmp_path / "x.png")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "x: it needs more memory than there is; make it smaller\n"
