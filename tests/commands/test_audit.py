"""`patchlight data`: a folder with its faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pictures import picture

from patchlight.cli.main import main


def test_data_shows_a_folder_with_its_faults(here, capsys):
    for name in ("cat", "dog"):
        (here / "pets" / name).mkdir(parents=True)
        for i in range(12):
            picture(here / "pets" / name / f"{i}.png", size=(20 + i, 30))
    (here / "pets" / "dog" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    assert main(["data", "pets", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [Path(bad["name"]).name for bad in result["bad_files"]] == ["broken.jpg"]
    assert result["duplicates"]["label_conflicts"] == 12
    assert result["figures"] == []
    (here / "pets" / "dog" / "broken.jpg").unlink()
    assert main(["data", "pets", "--augment.policy", "randaugment"]) == 0
    captured = capsys.readouterr()
    figures = sorted(Path("previews/pets").glob("*.png"))
    assert [f.name for f in figures] == ["augmentation.png", "class_balance.png", "samples.png"]
    assert all(str(figure) in captured.out for figure in figures)
    assert main(["data", "pets"]) == 2
    assert "replace its pictures with --overwrite" in capsys.readouterr().err
    assert main(["data", "pets", "--overwrite"]) == 0


def test_what_the_terminal_cannot_write_is_no_traceback(here):
    """Names of an old archive that are no UTF-8."""
    for name in (b"caf\xe9", b"the"):
        folder = here / "drinks" / os.fsdecode(name)
        folder.mkdir(parents=True)
        for i in range(3):
            picture(folder / f"{i}.png", size=(16, 16))
    command = [sys.executable, "-m", "patchlight", "data", "drinks", "--data.val_fraction", "0"]
    done = subprocess.run(command, capture_output=True, cwd=here, env={**os.environ, "PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr
    assert rb"caf\udce9" in done.stdout
