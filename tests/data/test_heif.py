"""HEIC images: read with the extra, and one sentence that names it without."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import torch
from fuzz import damaged_versions, outcomes
from PIL import Image
from source_files import picture, write_folder

from patchlight.data import heif
from patchlight.data.decode import decode_image, header_dimensions, load_image
from patchlight.data.sources import load_source
from patchlight.errors import LibraryMissing, PatchlightError

SMOOTH = Image.fromarray(np.indices((40, 30)).sum(0).astype(np.uint8)).convert("RGB")


def write_heic(path: Path, image: Image.Image = SMOOTH, **options: object) -> Path:
    pillow_heif.from_pillow(image).save(path, quality=100, chroma=444, **options)
    return path


def near(pixels: np.ndarray, image: Image.Image) -> bool:
    """HEVC is lossy, and so are its colours."""
    other = np.asarray(image).astype(int)
    return pixels.shape == other.shape and float(abs(pixels.astype(int) - other).mean()) < 1.5


def test_heic_files_and_bytes(tmp_path: Path) -> None:
    path = write_heic(tmp_path / "photo.heic")
    assert near(decode_image(path), SMOOTH)
    assert near(decode_image(path.read_bytes()), SMOOTH)
    assert header_dimensions(path) == (40, 30)
    assert load_image(path, 16).shape == (3, 16, 16)
    renamed = path.rename(tmp_path / "photo.jpg")  # as telephones' programs do
    assert near(decode_image(renamed), SMOOTH)


def test_the_orientation_is_applied_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = SMOOTH.transpose(Image.Transpose.ROTATE_270)
    write_heic(tmp_path / "turned.heic", exif=exif.tobytes())
    with pillow_heif.open_heif(tmp_path / "turned.heic").to_pillow() as theirs:
        assert theirs.size == turned.size
    assert near(decode_image(tmp_path / "turned.heic"), turned)
    assert header_dimensions(tmp_path / "turned.heic") == (30, 40)


def test_a_folder_of_heic_images(tmp_path: Path) -> None:
    write_folder(tmp_path, ["ant", "bee"])
    for name in ("ant", "bee"):
        write_heic(tmp_path / name / "IMG_0001.HEIC")
    train = load_source(str(tmp_path), image_size=8)["train"]
    assert len(train) == 6
    assert torch.equal(train.images[1], torch.from_numpy(np.asarray(picture(1)).transpose(2, 0, 1).copy()))


def test_without_the_extra_one_sentence_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, extra: str) -> None:
        raise LibraryMissing(f"{name} is not installed; pip install 'patchlight[{extra}]'")

    # Pillow as it was before this process first met such a file.
    for table in ("OPEN", "ID", "MIME"):
        there = getattr(Image, table)
        monkeypatch.setattr(
            Image,
            table,
            [i for i in there if i != "HEIF"] if table == "ID" else {k: v for k, v in there.items() if k != "HEIF"},
        )
    monkeypatch.setattr(heif, "import_library", missing)
    path = write_heic(tmp_path / "photo.heic")
    with pytest.raises(
        PatchlightError, match=r"photo\.heic: pillow_heif is not installed; pip install 'patchlight\[heic\]'"
    ):
        decode_image(path)
    assert header_dimensions(path) is None
    with pytest.raises(PatchlightError, match="it is not an image file that Pillow can read"):
        decode_image(b"\0\0\0\x18ftypisom, a film")


def test_the_library_is_loaded_with_the_first_such_file_only(tmp_path: Path) -> None:
    SMOOTH.save(tmp_path / "plain.png")
    write_heic(tmp_path / "photo.heic")
    code = (
        "import sys; from pathlib import Path; from patchlight.data.decode import decode_image as d\n"
        "for path in sys.argv[1:]: d(Path(path)); print('pillow_heif' in sys.modules)"
    )
    files = [str(tmp_path / "plain.png"), str(tmp_path / "photo.heic")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_damaged_heic_images_end_in_a_sentence(tmp_path: Path) -> None:
    whole = write_heic(tmp_path / "photo.heic").read_bytes()
    found = outcomes(
        tmp_path / "photo.heic",
        damaged_versions(whole, 60, 0, front=600),
        load=lambda path, **_: decode_image(Path(path)),
    )
    assert found["refused"] > 20


@pytest.mark.fuzz
def test_many_damaged_heic_images_end_in_a_sentence(tmp_path: Path) -> None:
    whole = write_heic(tmp_path / "photo.heic").read_bytes()
    for seed in range(10):
        versions = damaged_versions(whole, 100, seed, front=600)
        outcomes(tmp_path / "photo.heic", versions, load=lambda path, **_: decode_image(Path(path)))


def test_other_files_are_not_taken_for_heif() -> None:
    assert not heif.is_heif(io.BytesIO(b""))
    assert not heif.is_heif(io.BytesIO(b"\0\0\0\x20ftypavif"))
    assert heif.is_heif(io.BytesIO(b"\0\0\0\x20ftypheic"))
