"""Models by the names of a hub, over HTTP: what is read, what is recorded, and what is said of a wrong name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
from hub_server import COMMIT, hub
from saved import save_hugging_face, save_timm

pytestmark = pytest.mark.slow
ASKED = {
    "hugging face": {"name": "owner/theirs"},
    "a revision": {"name": "owner/theirs", "revision": "v1"},
    "timm": {"name": "hf-hub:owner/timms"},
    "timm's registry": {"name": "timm/test_vit.r160_in1k"},
    "a revision of timm": {"name": "hf-hub:owner/timms@v1"},
    "no preprocessor": {"name": "owner/bare"},
    "a preprocessor that is lost later": {"name": "owner/lost"},
    "a wrong repository": {"name": "owner/their"},
    "a wrong repository of timm": {"name": "hf-hub:owner/timm"},
    "a wrong revision": {"name": "owner/theirs", "revision": "v2"},
    "a wrong revision of timm": {"name": "hf-hub:owner/timms", "revision": "v2"},
    "timm's by the other door": {"name": "owner/timms"},
    "code of its own": {"name": "owner/code"},
    "no model": {"name": "owner/nothing"},
    "no model of timm": {"name": "hf-hub:owner/nothing"},
}
STAY = ["hugging face", "timm", "timm's registry", "no preprocessor"]
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
        found[what] = {"mean": backbone.own.mean, **backbone.source.to_json()}
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
    for name in ("bare", "lost"):
        save_hugging_face(root / "owner" / name)
    (root / "owner" / "bare" / "preprocessor_config.json").unlink()
    registered = timm.create_model("test_vit")
    timm.models.save_for_hf(registered, root / "timm" / "test_vit.r160_in1k", safe_serialization=True)
    (root / "owner" / "nothing").mkdir()
    (root / "owner" / "code").mkdir()
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (root / "owner" / "code" / "config.json").write_text(json.dumps(own))
    (root / "owner" / "code" / "own.py").write_text("raise SystemExit('run')")
    with hub(root) as endpoint:
        online = load_all(home, endpoint, ASKED)
    for path in (home / "hub" / "models--owner--lost").rglob("preprocessor_config.json"):
        path.unlink()
    offline = {what: ASKED[what] for what in STAY} | {"new": {"name": "owner/new"}}
    offline["a preprocessor that is lost later"] = ASKED["a preprocessor that is lost later"]
    # As a run that goes on asks for them.
    offline["pinned"] = {"name": "timm/test_vit.r160_in1k", "revision": COMMIT}
    offline["pinned of timm"] = {"name": "hf-hub:owner/timms@v1", "revision": COMMIT}
    return online, load_all(home, endpoint, offline, HF_HUB_OFFLINE="1")


@pytest.mark.parametrize("name", ["hugging face", "a revision", "timm", "a revision of timm"])
def test_a_model_of_the_hub_and_its_commit(found, name):
    online = found[0][name]
    assert online["commit"] == COMMIT
    assert online.get("revision") == ASKED[name].get("revision", "v1" if "@" in ASKED[name]["name"] else None)
    assert online["mean"] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(("before", "later"), [("timm's registry", "pinned"), ("a revision of timm", "pinned of timm")])
def test_a_run_goes_on_without_the_hub(found, before, later):
    """With the commit that it began with, of a name whose repository's config.json was never read."""
    assert found[1][later] == found[0][before] | {"revision": COMMIT}


def test_a_preprocessor_that_cannot_be_read_is_not_a_missing_one(found):
    assert found[0]["no preprocessor"]["mean"] is None
    assert found[0]["a preprocessor that is lost later"]["mean"] == [0.1, 0.2, 0.3]
    error = found[1]["a preprocessor that is lost later"]["error"]
    assert error.startswith("the preprocessor_config.json of owner/lost cannot be read")


@pytest.mark.parametrize("name", STAY)
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
        ("no model", "the config.json of owner/nothing describes no model that can be loaded: 'model_type' is missing"),
        ("no model of timm", "hf-hub:owner/nothing on the hub lacks a file of a model: Entry Not Found"),
        (
            "code of its own",
            "the config.json of owner/code describes no model that can be loaded: 'model_type' is 'own', which this "
            "version of transformers does not have; code of a repository is never run",
        ),
    ],
)
def test_a_wrong_name_is_one_sentence(found, name, message):
    error = found[0][name]["error"]
    assert error.startswith(message)
    assert "\n" not in error


def test_what_was_never_read_needs_the_hub(found):
    error = found[1]["new"]["error"]
    assert error == "owner/new is not in the hub's cache, and the hub cannot be reached"
