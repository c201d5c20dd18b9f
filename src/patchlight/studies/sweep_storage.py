"""Where a sweep's trials are kept, so that many workers share them: a file in a shared folder, or a database."""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.machine.process import import_library
from patchlight.paths import is_there, user_path
from patchlight.progress import say
from patchlight.studies.identity import counts
from patchlight.studies.ranges import Axis, Value
from patchlight.studies.sweep_journal import is_journal, mend

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.study import Study

JOURNAL = "sweep.journal"  # the file in the sweep's folder, if no other storage is given
STUDY = "sweep"  # the study's name in it, whatever the folder is called
PLAN = "patchlight"  # the study's attribute with what the sweep was started with
IMAGES, VERSION = "images", "Patchlight"  # what a plan says beside its settings
PLAN_WAIT_S = 10.0  # for the worker that has made the study, to write its plan

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median", "hyperband", "none")
STARTUP = 10  # trials at random before TPE chooses


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, Optuna says nothing of itself, and nothing of what is new in it."""
    optuna = import_library("optuna", "sweep")
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def open_storage(place: str | None, folder: Path) -> tuple[BaseStorage, str]:
    """Optuna's storage at `place`, a file or the URL of a database, and how it is named, without a password.

    The default is a journal in `folder`: a file that is only added to, under a lock that is a file of its own, which
    works on the disk of one machine and on shared folders (NFS 3 and later), where SQLite's locks do not.

    Raises PatchlightError where it cannot be opened, UsageError for a URL that is none.
    """
    if place is not None and "://" in place:
        return _database(place)
    path = folder / JOURNAL if place is None else user_path(place)
    if path.is_dir():
        raise UsageError(f"--storage is {path}, a folder; name a file in it, or the URL of a database")
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    with _journal_errors(path):
        if is_there(path) and not is_journal(path):
            raise UsageError(
                f"{path} is no journal of a sweep, or is damaged, and nothing was written into it; restore it, or "
                "choose another --storage or --out"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = JournalFileOpenLock(str(path))
        if is_there(path):
            with quiet():
                lock.acquire()
            try:
                mend(path)
            finally:
                lock.release()
        with quiet():
            return JournalStorage(JournalFileBackend(str(path), lock_obj=lock)), str(path)


@contextlib.contextmanager
def _journal_errors(path: str | Path) -> Iterator[None]:
    """What goes wrong inside with a journal as one sentence that names it."""
    try:
        yield
    except OSError as error:
        raise PatchlightError(f"cannot write {path}: {error.strerror}; choose another --out or --storage") from None
    except PatchlightError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise PatchlightError(
            f"{path} is no journal of a sweep, or is damaged ({error}); restore it, or begin anew with another --out"
        ) from None


def _database(url: str) -> tuple[BaseStorage, str]:
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

    try:
        shown = make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):  # the second of a port that is no number
        raise UsageError("--storage is no URL of a database; write postgresql://USER:PASSWORD@HOST/NAME") from None
    wait: dict[str, Any] = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    tries = 5
    for attempt in range(tries):
        try:
            with quiet():
                return RDBStorage(url, engine_kwargs=wait), shown
        except ImportError as error:
            name = getattr(error.__cause__, "name", None) or "the database's driver"
            raise UsageError(f"--storage {shown} needs {name}, which is not installed; pip install {name}") from None
        except (OperationalError, SQLAlchemyError, StorageInternalError) as error:
            # Workers that begin at the same time make the same tables.
            if attempt == tries - 1:
                reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
                raise PatchlightError(f"cannot open --storage {shown}: {reason}; mend that, or leave it out") from None
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError("the last try returns or raises")


def _reading(storage: BaseStorage, where: str) -> contextlib.AbstractContextManager[None]:
    """Inside, what is wrong with a journal is a sentence; a database has its own words."""
    from optuna.storages import JournalStorage

    return _journal_errors(where) if isinstance(storage, JournalStorage) else contextlib.nullcontext()


def study_name(storage: BaseStorage, place: str | None, name: str, where: str) -> str:
    """The study of a sweep in a storage: in one that sweeps share its own `name`; in the journal of its folder always
    the same, so that the folder may be renamed, or that of before, which was the folder's name then.

    Raises UsageError where it is not known which one is meant.
    """
    if place is not None:
        return name
    with quiet(), _reading(storage, where):
        names = [study.study_name for study in storage.get_all_studies()]
    if STUDY in names or not names:
        return STUDY
    if len(names) > 1 and name not in names:
        raise UsageError(
            f"{where} holds {len(names)} sweeps, and none of them is '{name}'; give the folder the name of the one "
            f"that is to go on ({', '.join(sorted(names))}), or choose another --out"
        )
    return names[0] if len(names) == 1 else name


def join_study(
    storage: BaseStorage, name: str, plan: Mapping[str, Any], direction: Literal["minimize", "maximize"], where: str
) -> Study:
    """The sweep of this name, made where there is none.

    Raises UsageError where it was started with another plan, naming what differs.
    """
    from optuna import create_study, load_study
    from optuna.exceptions import DuplicatedStudyError

    with quiet(), _reading(storage, where):
        try:
            study = create_study(storage=storage, study_name=name, direction=direction)
            study.set_user_attr(PLAN, dict(plan))
            return study
        except DuplicatedStudyError:
            study = load_study(storage=storage, study_name=name)
    end = time.monotonic() + PLAN_WAIT_S
    while PLAN not in study.user_attrs and time.monotonic() < end:
        time.sleep(0.1)
    if PLAN not in study.user_attrs:
        if study.get_trials(deepcopy=False):
            raise UsageError(f"{where} has a study '{name}' of another program; choose another --out or --storage")
        study.set_user_attr(PLAN, dict(plan))  # who made it has ended before it could
    _check_same(study.user_attrs[PLAN], json.loads(json.dumps(plan)), where)
    return study


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    if unknown := [key for key in (IMAGES, VERSION) if key not in before]:
        words = " and ".join({IMAGES: "images", VERSION: "version of Patchlight"}[key] for key in unknown)
        say(f"the sweep at {where} did not note its {words} when it began, so whether these are the same is not known")
        before, now = ({key: value for key, value in plan.items() if key not in unknown} for plan in (before, now))
    images, others = before.get(IMAGES, {}), now.get(IMAGES, {})
    if changed := [name for name in sorted({*images, *others}) if images.get(name) != others.get(name)]:
        raise UsageError(
            f"the sweep at {where} was started with other images: its images have changed ({', '.join(changed)}), so "
            "its trials could not be compared; bring back those that it was started with, or choose another --out"
        )
    old, new = _flat(before), _flat(now)
    differing = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if differing:
        words = ", ".join(f"{key} {_word(old.get(key))}, not {_word(new.get(key))}" for key in differing[:5])
        more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise UsageError(
            f"the sweep at {where} was started with {words}{more}; repeat its own command, or choose another --out"
        )


def _flat(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan's settings by their names, of the recipe's those that count."""
    flat: dict[str, Any] = {}
    for key, value in plan.items():
        if isinstance(value, Mapping):
            flat |= {name: each for name, each in value.items() if key != "recipe" or counts(name)}
        else:
            flat[key] = value
    return flat


def _word(value: object) -> str:
    return "unset" if value is None else str(value)


def make_sampler(name: str, seed: int, grid: Mapping[str, Value] | None = None) -> BaseSampler:
    """Optuna's sampler; of a grid, the one that gives a trial these settings."""
    from optuna.samplers import PartialFixedSampler, RandomSampler, TPESampler

    with quiet():
        if grid is not None:
            return PartialFixedSampler(dict(grid), RandomSampler(seed=seed))
        if name == "random" or name == "grid":
            return RandomSampler(seed=seed)
        # constant_liar: what other workers try now counts as bad, so that they do not all try the same.
        return TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=True)


def make_pruner(name: str, epochs: float | None) -> BasePruner:
    """Optuna's pruner for trainings of so many epochs; None where it is not known, as under a budget."""
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    with quiet():
        if name == "median":
            # No trial is judged in its first quarter, and none by fewer than five. Epochs count from 1.
            return MedianPruner(n_startup_trials=5, n_warmup_steps=1 + max(1, int((epochs or 4) / 4)))
        if name == "hyperband":
            # Where the epochs are not known it takes those of the trials that are finished.
            most: int | str = "auto" if epochs is None else max(1, int(-(-epochs // 1)))
            return HyperbandPruner(min_resource=1, max_resource=most, reduction_factor=3)
        return NopPruner()


def check_names(sampler: str, pruner: str) -> None:
    """Raises UsageError for a sampler or a pruner that there is not."""
    for option, name, known in (("sampler", sampler, SAMPLERS), ("pruner", pruner, PRUNERS)):
        if name not in known:
            raise UsageError(f"no {option} '{name}'; {did_you_mean(name, known)}")


def suggest(trial: Any, axes: tuple[Axis, ...]) -> dict[str, Value]:
    """The settings of a trial, which are in the storage afterwards."""
    params: dict[str, Value] = {}
    for axis in axes:
        if axis.choices:
            params[axis.field] = trial.suggest_categorical(axis.field, axis.choices)
        elif axis.is_whole:
            params[axis.field] = trial.suggest_int(
                axis.field, int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1)
            )
        else:
            params[axis.field] = trial.suggest_float(axis.field, axis.low, axis.high, log=axis.log, step=axis.step)
    return params
