"""Models by the names of a hub, over HTTP: what is read, what is recorded, and what is said of a wrong name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import COMMIT, hub
from saved import save_hugging_face, save_timm

ASKED = {
    "hugging face": {"name": "owner/theirs"},
    "a revision": {"name": "owner/theirs", "revision": "v1"},
    "timm": {"name": "hf-hub:owner/timms"},
    "a wrong repository": {"name": "owner/their"},
    "a wrong repository of timm": {"name": "hf-hub:owner/timm"},
    "a wrong revision": {"name": "owner/theirs", "revision": "v2"},
    "a wrong revision of timm": {"name": "hf-hub:owner/timms", "revision": "v2"},
    "timm's by the other door": {"name": "owner/timms"},
    "code of its own": {"name": "owner/code"},
    "no model": {"name": "owner/nothing"},
    "no model of timm": {"name": "hf-hub:owner/nothing"},
}
# A process of its own, for the libraries read where the hub is when they are imported.
LOADS = """
import json, sys
from patchlight.config import ModelConfig
from patchlight.errors import PatchlightError
from patchlight.models import load_backbone

found = {}
for what, fields in json.loads(sys.argv[1]).items():
    try:
        backbone = load_backbone(ModelConfig(**fields), img_size=32, num_classes=3)
        found[what] = {"mean": backbone.mean, **backbone.source}
    except PatchlightError as error:
        found[what] = {"error": str(error)}
print(json.dumps(found))
"""


def load_all(home: Path, endpoint: str, asked: dict[str, dict[str, str]], **more: str) -> dict[str, dict[str, str]]:
    surroundings = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "CUDA_VISIBLE_DEVICES": "", **more}
    words = [sys.executable, "-c", LOADS, json.dumps(asked)]
    done = subprocess.run(
        words, env=surroundings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What became of ASKED, and of two of them without the hub afterwards."""
    root, home = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("home")
    save_hugging_face(root / "owner" / "theirs")
    save_timm(root / "owner" / "timms")
    (root / "owner" / "nothing").mkdir()
    (root / "owner" / "code").mkdir()
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (root / "owner" / "code" / "config.json").write_text(json.dumps(own))
    (root / "owner" / "code" / "own.py").write_text("raise SystemExit('run')")
    with hub(root) as endpoint:
        online = load_all(home, endpoint, ASKED)
    offline = {"hugging face": ASKED["hugging face"], "timm": ASKED["timm"], "new": {"name": "owner/new"}}
    return online, load_all(home, endpoint, offline, HF_HUB_OFFLINE="1")


@pytest.mark.parametrize("name", ["hugging face", "a revision", "timm"])
def test_a_model_of_the_hub_and_its_commit(found, name):
    online = found[0][name]
    assert online["commit"] == COMMIT
    assert online["revision"] == ASKED[name].get("revision")
    assert online["mean"] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("name", ["hugging face", "timm"])
def test_what_was_read_is_there_without_the_hub(found, name):
    assert found[1][name] == found[0][name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a wrong repository", "the hub has no owner/their, or it is private"),
        ("a wrong repository of timm", "the hub has no hf-hub:owner/timm, or it is private"),
        ("a wrong revision", "owner/theirs on the hub has no such model.revision"),
        ("a wrong revision of timm", "hf-hub:owner/timms on the hub has no such model.revision"),
        ("timm's by the other door", "owner/timms is in timm's format; write hf-hub:owner/timms"),
        ("no model", "cannot load owner/nothing: Unrecognized model"),
        ("no model of timm", "hf-hub:owner/nothing on the hub lacks a file of a model: Entry Not Found"),
        ("code of its own", "cannot load owner/code: The repository owner/code contains custom code"),
    ],
)
def test_a_wrong_name_is_one_sentence(found, name, message):
    error = found[0][name]["error"]
    assert error.startswith(message)
    assert "\n" not in error


def test_what_was_never_read_needs_the_hub(found):
    error = found[1]["new"]["error"]
    assert error == "owner/new is not in the hub's cache, and the hub cannot be reached"
