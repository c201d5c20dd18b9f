"""No command uses the network unless it is told to fetch or to push something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pictures import picture
from small import SMALL

CLOSED = Path(__file__).parents[1] / "closed.py"
# As root or in a user namespace of one's own; some systems, and all but Linux, allow neither.
ALONE = ["unshare", "--user", "--map-root-user", "--net"]
QUICK = [
    ["train", "quickstart", *SMALL, "--out", "run"],
    ["eval", "run"],
    ["predict", "run", "a.png"],
    ["explain", "run", "a.png"],
    ["export", "run", "--out", "plain"],
    ["models"],
    ["models", "timm/vit_tiny_patch16_224"],
    ["recipes"],
    ["compare", "run", "run"],
]
ALL = [
    *QUICK,
    ["train", "quickstart", *SMALL, "--out", "run", "--overwrite", "--augment.policy", "randaugment"],
    ["train", "planted", *SMALL, "--out", "planted", "--train.debug"],
    ["explain", "run", "--count", "2", "--method", "all"],
    ["explain", "run", "--faithfulness", "--count", "8"],
    ["export", "run", "--format", "onnx", "--out", "onnx"],
    ["export", "run", "--format", "timm", "--out", "timm"],
    ["train", "quickstart", *SMALL, "--model.global_pool", "token", "--out", "token"],
    ["export", "token", "--format", "hf", "--out", "hf"],
    ["models", "vit-tiny"],
    ["report", "run"],
    ["recipes", "quickstart"],
    ["recipes", "--fields"],
    ["data", "digits", "--out", "seen"],
    ["probe", "quickstart", *SMALL[:8]],
    ["doctor"],
]


def alone() -> list[str]:
    """The words before a command that give it a network of its own; none where that is not allowed."""
    try:
        allowed = subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    return ALONE if allowed else []


def closed(commands: list[list[str]], folder: Path) -> dict[str, Any]:
    """What the commands asked of the network, in a process of their own whose network is closed."""
    # The first start of a user: nothing in the caches, and no word that the hub shall not be asked.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {"HF_HOME": str(folder / "hub"), "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    words = [*alone(), sys.executable, str(CLOSED), json.dumps(commands)]
    done = subprocess.run(words, cwd=folder, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    answer["said"] = done.stderr
    return answer


@pytest.mark.parametrize(
    "commands", [pytest.param(QUICK, id="quick"), pytest.param(ALL, id="all", marks=pytest.mark.faults)]
)
def test_no_command_asks_for_the_network(commands, tmp_path):
    picture(tmp_path / "a.png")
    answer = closed(commands, tmp_path)
    assert answer["codes"] == [0] * len(commands), answer["said"]
    assert answer["asked"] == []
    if alone():
        assert answer["counted"] == []


def test_what_is_asked_of_the_network_is_seen(tmp_path):
    """A model of the hub is the network asked for; so the test above can fail."""
    answer = closed([["models", "someone/some-model"]], tmp_path)
    assert answer["codes"] == [None]
    assert "huggingface.co" in answer["asked"][0]


@pytest.mark.skipif(not alone(), reason="a process cannot have a network of its own here")
def test_what_code_of_other_languages_asks_of_the_network_is_seen():
    code = """if True:
        import ctypes, struct
        from closed import counters
        before, libc = counters(), ctypes.CDLL(None)
        address = struct.pack("<H", 2) + struct.pack(">H", 80) + bytes([192, 0, 2, 1]) + bytes(8)
        assert libc.connect(libc.socket(2, 1, 0), address, 16) == -1
        assert counters() != before
    """
    environment = os.environ | {"PYTHONPATH": str(CLOSED.parent)}
    done = subprocess.run([*alone(), sys.executable, "-c", code], env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.faults
@pytest.mark.skipif(not alone(), reason="a process cannot have a network of its own here")
@pytest.mark.parametrize("disabled", [True, False])
def test_onnx_runtime_reports_nothing(disabled, tmp_path):
    """Its threads begin to ask for their server some seconds after the import."""
    code = "import patchlight" if disabled else "pass"
    code += "; import closed, time, onnxruntime; before = closed.counters(); time.sleep(12)"
    code += "; print(closed.counters() != before)"
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    environment |= {
        "PYTHONPATH": f"{CLOSED.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [*alone(), sys.executable, "-c", code], env=environment, cwd=tmp_path, text=True, capture_output=True
    )
    asked = done.stdout.strip() == "True"
    if not disabled and not asked:
        pytest.skip("this version of ONNX Runtime reports nothing by itself")
    assert asked is not disabled, done.stderr
