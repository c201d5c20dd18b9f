"""Weights & Biases: a run online or, with WANDB_MODE=offline, a file in RUN/tracking/wandb that `wandb sync` sends.

Online, a run that goes on learns from the server what it has. Offline no server can be asked, and W&B begins a file
with each process; so the new file gets all epochs of metrics.jsonl, and those of the processes before are deleted: what
is sent later is one run with one curve.

W&B also records the computer, the command, the code, the installed packages, the console and the load of the machine.
Nobody asked for these with `train.track`, so each is off where its environment variable does not say otherwise.
"""

from __future__ import annotations

import os
import shlex
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from patchlight.errors import UsageError
from patchlight.progress import say
from patchlight.training.trackers.tracker import PROJECT, End, Scalars, Setting, Subject, Tracker

FORBIDDEN, LONGEST = "/\\#?%:", 128  # signs that no name of a project has, and how long it may be

# Settings of the client, each with the environment variable by which a user sets it.
QUIET: dict[str, tuple[str, Setting]] = {
    "console": ("WANDB_CONSOLE", "off"),
    "silent": ("WANDB_SILENT", True),  # where the run is found is said by `Trackers`
    "disable_code": ("WANDB_DISABLE_CODE", True),
    "disable_git": ("WANDB_DISABLE_GIT", True),
    "host": ("WANDB_HOST", ""),
    "symlink": ("WANDB_SYMLINK", False),  # a run folder that was moved would have links that lead nowhere
    "x_disable_meta": ("WANDB__DISABLE_META", True),
    "x_disable_machine_info": ("WANDB__DISABLE_MACHINE_INFO", True),
    "x_disable_stats": ("WANDB__DISABLE_STATS", True),
    "x_save_requirements": ("WANDB__SAVE_REQUIREMENTS", False),
    # Without a limit the end of a training would wait for ever for a network that is away.
    "finish_timeout": ("WANDB_FINISH_TIMEOUT", 300.0),
    "finish_timeout_raises": ("WANDB_FINISH_TIMEOUT_RAISES", True),
}


class WeightsAndBiases(Tracker):
    """A run of a W&B project."""

    # Not wandb.Error alone: where its service was killed, other kinds come, which it keeps in private modules.
    errors = (Exception,)

    @classmethod
    def check_project(cls, project: str | None) -> None:
        field, name = "train.track_project", project
        if name is None:
            field, name = "WANDB_PROJECT", os.environ.get("WANDB_PROJECT") or PROJECT
        if found := [sign for sign in FORBIDDEN if sign in name]:
            raise UsageError(
                f"{field} is {name!r}, and no name of a project in W&B may have {' '.join(found)}; leave that out "
                "(WANDB_ENTITY names the team)"
            )
        if len(name) > LONGEST:
            raise UsageError(f"{field} has {len(name)} characters, and a project in W&B has {LONGEST} at most")

    def __init__(self, subject: Subject) -> None:
        offline = wandb.setup().settings.mode in ("offline", "dryrun")
        known = wandb.Settings.model_fields  # version 0.22 has no finish_timeout
        quiet: dict[str, Any] = {
            key: value for key, (name, value) in QUIET.items() if key in known and name not in os.environ
        }
        own = None if os.environ.get("WANDB_DIR") else subject.folder
        if own is not None:
            (own / "wandb").mkdir(parents=True, exist_ok=True)  # where it is missing, W&B takes a hidden one
        self._run = wandb.init(
            project=subject.project or os.environ.get("WANDB_PROJECT") or PROJECT,
            id=subject.id or uuid.uuid4().hex[:12],
            name=subject.named or os.environ.get("WANDB_NAME") or subject.folder_name,
            dir=own,
            config=nested(subject.settings),
            resume=None if offline else "allow",
            reinit="create_new",  # a run of the user's own in the same process stays what it is
            settings=wandb.Settings(**quiet),
        )
        self.id = str(self._run.id)
        folder = Path(self._run.settings.sync_dir)
        if self._run.offline:  # by WANDB_MODE, or by what the user answered to the question for a login
            self.place, self.words = str(folder), f"offline; `wandb sync {shlex.quote(str(folder))}` sends it"
        else:
            self.place = self._run.url or ""
            self.words = "switched off by WANDB_MODE; nothing is kept" if self._run.disabled else self.place
        for before in sorted(folder.parent.glob(f"offline-run-*-{self.id}")):
            if before != folder:
                shutil.rmtree(before)
                say(f"wandb: {folder.name} takes the place of {before.name}; it gets all epochs")

    def last_step(self) -> int:
        return self._run.starting_step - 1

    def log(self, step: int, scalars: Scalars) -> None:
        self._run.log(scalars, step=step, commit=True)

    def conclude(self, step: int, result: Scalars, figures: list[Path], report: Path) -> None:
        self._run.summary.update(result)
        artifact = wandb.Artifact(f"report-{self.id}", type="report")
        for path in (*figures, report):  # immutable: the files stay where they are, and W&B keeps no copies of them
            name = path.name if path == report else f"figures/{path.name}"
            artifact.add_file(str(path), name=name, skip_cache=True, policy="immutable")
        self._run.log_artifact(artifact)

    def close(self, end: End) -> None:
        self._run.finish(exit_code=0 if end == "finished" else 1)


def nested(flat: Mapping[str, Setting]) -> dict[str, Any]:
    """{"train.epochs": 5} as {"train": {"epochs": 5}}: names of W&B's settings have no points."""
    whole: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        place = whole
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return whole
