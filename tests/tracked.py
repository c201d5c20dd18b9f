"""What trackers hold of a run, by their own readers. W&B has none in Python for its files, which are LevelDB's logs of
its own messages: these are taken apart here.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import wandb
from mlflow import MlflowClient
from small import small_config
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from wandb.proto.wandb_internal_pb2 import Record

from patchlight.runs import Epoch, Run
from patchlight.runs.tracking import Tracked

RESULT = ("test", "kept/")  # what the names of a result's numbers begin with
Curve = list[tuple[int, float]]  # (step, value), in the order in which they were sent


@dataclass
class Held:
    """A run as a tracker has it."""

    curves: dict[str, Curve]
    result: dict[str, float]
    settings: dict[str, str]
    files: set[str] = field(default_factory=set)  # "figures/curves", "report"


def held(name: str, run: Run) -> Held:
    return {"tensorboard": in_tensorboard, "wandb": in_wandb, "mlflow": in_mlflow}[name](run)


def in_tensorboard(run: Run) -> Held:
    events = EventAccumulator(str(run.path / "tracking" / "tensorboard"), size_guidance={SCALARS: 0})
    events.Reload()
    tags = events.Tags()
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags["scalars"]}
    begun = HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    ).session_start_info
    settings = {key: str(value.string_value or value.number_value) for key, value in begun.hparams.items()}
    result = {tag: curve[0][1] for tag, curve in curves.items() if tag.startswith(RESULT)}
    assert all(len(curves[tag]) == 1 for tag in result)
    files = {*tags["images"], *(["report"] if "report/text_summary" in tags["tensors"] else [])}
    for tag in tags["images"]:
        (image,) = events.Images(tag)
        assert image.encoded_image_string.startswith(b"\x89PNG")
    return Held({tag: curve for tag, curve in curves.items() if tag not in result}, result, settings, files)


def in_mlflow(run: Run) -> Held:
    entry = run.read(Tracked).trackers["mlflow"]
    client = MlflowClient(tracking_uri=entry.place)
    data = client.get_run(entry.id).data
    curves = {
        key: [(point.step, point.value) for point in client.get_metric_history(entry.id, key)] for key in data.metrics
    }
    result = {key: curve[0][1] for key, curve in curves.items() if key.startswith(RESULT)}
    assert all(len(curves[key]) == 1 for key in result)
    files = {item.path.removesuffix(".html") for item in client.list_artifacts(entry.id) if not item.is_dir}
    files |= {item.path.removesuffix(".png") for item in client.list_artifacts(entry.id, "figures")}
    return Held({k: curve for k, curve in curves.items() if k not in result}, result, data.params, files)


def wandb_files(run: Run) -> list[Path]:
    return sorted((run.path / "tracking" / "wandb").glob("offline-run-*/run-*.wandb"))


def in_wandb(run: Run) -> Held:
    (file,) = wandb_files(run)
    found = Held({}, {}, {})
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for key, value in row.items():
                if not key.startswith("_"):
                    found.curves.setdefault(key, []).append((row["_step"], value))
        elif kind == "summary":
            found.result |= {item.key: json.loads(item.value_json) for item in record.summary.update}
        elif kind == "run":
            for item in record.run.config.update:
                sections = json.loads(item.value_json)
                if isinstance(sections, dict):
                    found.settings |= {f"{item.key}.{name}": str(value) for name, value in sections.items()}
        elif kind == "artifact":
            assert record.artifact.type == "report"
            for entry in record.artifact.manifest.contents:
                assert Path(entry.local_path).is_absolute()
                assert Path(entry.local_path).is_file()
                found.files.add(entry.path.rpartition(".")[0])
    found.result = {key: value for key, value in found.result.items() if key.startswith(RESULT)}
    return found


def records(file: Path) -> Iterator[Record]:
    """The messages of a .wandb file: a header of 7 bytes, then blocks of 32 KiB with parts of messages, each after its
    CRC-32, its length and its type (LevelDB's log format, https://github.com/google/leveldb/blob/main/doc/log_format.md).
    """
    whole, first, middle, last = 1, 2, 3, 4
    data = file.read_bytes()
    assert data[:4] == b":W&B"
    place, message = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        checksum, length, kind = struct.unpack("<IHB", data[place : place + 7])
        part = data[place + 7 : place + 7 + length]
        place += 7 + length
        assert zlib.crc32(bytes([kind]) + part) == checksum
        message = part if kind in (whole, first) else message + part
        if kind in (whole, last):
            yield Record.FromString(message)
        else:
            assert kind in (first, middle)


PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch, no_charts):
    """Pictures of one pixel, no network, and no file of a client outside of the test's folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_DIR", "WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.MonkeyPatch.context() as drawn:  # taken back before what no_charts has put there is
        for where in ("patchlight.reporting.page.png", "patchlight.figures.style.png"):
            drawn.setattr(where, lambda figure, theme, description=None: PIXEL)
        yield


@pytest.fixture(scope="module", autouse=True)
def _no_service_is_left():
    yield
    wandb.teardown()


def recipe(*names: str, **train: object):
    return small_config(train={"epochs": 3, "track": names, **train}, explain={"faithfulness": 0, "snapshots_every": 0})


def stop_after(epoch: int):
    def stop(row: Epoch) -> None:
        if row.epoch == epoch:
            raise RuntimeError("stopped on purpose")

    return stop
