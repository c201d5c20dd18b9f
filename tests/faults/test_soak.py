"""Long work stays as large as it was: memory, open files, threads, files on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pictures import picture
from small import SMALL

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="Linux tells what a process holds"),
]
COMMAND = [sys.executable, "-m", "patchlight"]
EPOCHS = 120  # of the training, each of 100 steps
MEGABYTES = 30  # between the middle and the end; a copy of the weights or of an image set for each epoch would be more


def held(process: int | str = "self") -> dict[str, int]:
    """Memory in kB, threads and open files of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    files = len(os.listdir(f"/proc/{process}/fd"))  # noqa: PTH208 (a listing of nothing but names)
    return {"memory": int(status["VmRSS"].split()[0]), "threads": int(status["Threads"]), "files": files}


def on_disk(*folders: Path) -> int:
    """Files, without those of checkpoints: `train.checkpoint_every` keeps more and more of these, as it shall."""
    files = (path for folder in folders for path in folder.rglob("*") if "checkpoints" not in path.parts)
    return sum(path.is_file() for path in files)


def flat(early: list[dict[str, int]], late: list[dict[str, int]]) -> None:
    """Nothing that is held has grown, but for what moves up and down."""
    most = {key: (max(each[key] for each in early), max(each[key] for each in late)) for key in early[0]}
    assert most["memory"][1] < most["memory"][0] + 1024 * MEGABYTES, most
    assert most["threads"][1] <= most["threads"][0] + 1, most
    assert most["files"][1] <= most["files"][0] + 5, most
    assert most["disk"][1] <= most["disk"][0] + 5, most


def test_a_long_training_stays_as_large_as_it_was(tmp_path):
    """12,000 steps with all that is done between them, which take two minutes or more."""
    run, scratch = tmp_path / "run", tmp_path / "scratch"
    scratch.mkdir()
    words = [*SMALL, "--data.train_per_class", "80", "--train.batch_size", "8", "--train.epochs", str(EPOCHS)]
    words += ["--train.ema_decay", "0.99", "--explain.snapshots_every", "30", "--train.checkpoint_every", "30"]
    environment = os.environ | {"TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"}
    seen: list[dict[str, int]] = []
    with (tmp_path / "said.txt").open("w") as said:
        training = subprocess.Popen(
            [*COMMAND, "train", "quickstart", *words, "--out", str(run)], env=environment, stdout=said, stderr=said
        )
        while training.poll() is None:
            rows = (run / "metrics.jsonl").read_text().count("\n") if (run / "metrics.jsonl").exists() else 0
            if 0 < rows < EPOCHS:
                try:
                    seen.append(held(training.pid) | {"disk": on_disk(run, scratch), "epoch": rows})
                except OSError:  # it has just ended
                    break
            time.sleep(0.5)
        assert training.wait() == 0, (tmp_path / "said.txt").read_text()[-2000:]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 100 * EPOCHS
    early = [each for each in seen if 35 <= each["epoch"] < 60]
    late = [each for each in seen if each["epoch"] >= 95]
    assert min(len(early), len(late)) >= 5
    flat(early, late)
    assert on_disk(scratch) == 0  # torch makes an empty folder for what it might compile
    kept = [path.name for path in (run / "checkpoints").iterdir() if path.is_dir() and not path.is_symlink()]
    assert {"epoch-030", "epoch-060", "epoch-090", "epoch-120"} <= set(kept)
    assert len(kept) <= 7, kept  # and the one before the last, and the best ones of both


def test_many_answers_of_one_process_leave_nothing_behind(tmp_path):
    from patchlight import explain, predict
    from patchlight.cli.main import main

    assert main(["train", "quickstart", *SMALL, "--out", str(tmp_path / "run")]) == 0
    image = picture(tmp_path / "a.png")
    seen = []
    for number in range(200):
        predict(tmp_path / "run", [image])
        if number % 5 == 0:
            explain(tmp_path / "run", [image], out=tmp_path / "seen")
        seen.append(held() | {"disk": on_disk(tmp_path)})
    flat(seen[60:100], seen[160:])
