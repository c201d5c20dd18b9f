"""`patchlight compare`: runs side by side. Validation chooses; test accuracies stand beside it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from patchlight.commands.compare_groups import SEED, ComparedRun, RunGroup, grouped
from patchlight.commands.compare_lead import Lead, lead
from patchlight.config import Config
from patchlight.errors import PatchlightError, UsageError, first_of
from patchlight.evaluation.metrics import balanced_accuracy, wilson_interval
from patchlight.paths import is_there, printable, user_path
from patchlight.progress import say
from patchlight.runs import Environment, Epoch, EvalResult, Run, config_differences, images_per_s, kept_epoch
from patchlight.runs.codec import JSON, Record
from patchlight.runs.overwrite import RECIPE
from patchlight.studies.identity import counts

# Settings that change the pixels of images, and not which images they are.
PIXELS = ("data.image_size", "data.interpolation", "data.pixel_max")


@dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """Runs, those that differ only by their seed as groups, which one is ahead, and what differs in their settings."""

    runs: tuple[ComparedRun, ...]  # as they were named
    groups: tuple[RunGroup, ...]  # best validation first
    differences: dict[str, tuple[JSON, ...]]  # a setting, and its value in each of `runs`; None where it is not set
    # Of each setting of a stage in `differences` what counts there: of a run whose stage does not set it, and of one
    # without stages, the value of its whole recipe. None where the run has no such stage.
    in_stages: dict[str, tuple[JSON, ...]]
    lead: Lead | None  # None where no two groups can be compared, and `notes` say why
    notes: tuple[str, ...]  # sentences

    def of_single_runs(self) -> tuple[RunGroup, ...]:
        """Every run as a group of its own, best validation first."""
        return grouped(self.runs, [run.run for run in self.runs])


@dataclass(frozen=True)
class _Member:
    """A run that was read."""

    summary: ComparedRun
    config: Config
    environment: Environment

    @property
    def key(self) -> str:
        """Equal for runs that differ only by their seed, and by what changes nothing of what is trained. One that is
        not finished is like no other.
        """
        settings = {key: value for key, value in self.config.flat().items() if key != SEED and counts(key)}
        digests, source = self.environment.data.digests, self.config.data.source
        stands_alone = None if self.summary.finished else self.summary.run
        return json.dumps([settings, digests or source, stands_alone], sort_keys=True, default=str)


def compare(runs: Sequence[str | Path | Run]) -> Comparison:
    """Runs by their folders, those of one recipe that differ only by `train.seed` also as groups.

    Accuracies are of the weights that each run kept. The groups are sorted by validation accuracy, the best first.
    A run without a test result is compared by its validation; one without an epoch is named on standard error and
    left out, and so are a masked autoencoder, which has no accuracy, and among several paths what is there and no run
    folder, as a study, a sweep or the store of a tracker.

    Raises UsageError where `runs` is no list, PatchlightError where one is not there or is damaged, where a single one
    is not a run folder, and where none is left.
    """
    if isinstance(runs, str | Path | Run):
        raise UsageError("compare takes a list of runs, as compare(['runs/a', 'runs/b'])")
    members = [member for run in _once(_opened(runs)) if (member := _read(run)) is not None]
    if not members:
        raise PatchlightError(
            "none of these runs has an accuracy to compare; finish one with `patchlight train ... --resume`"
        )
    summaries = tuple(member.summary for member in members)
    groups = grouped(summaries, [member.key for member in members])
    notes = [*_notes_of_runs(groups, summaries)]
    validated = [member for member in members if member.summary.val_top1 is not None]
    tested = [member for member in members if member.summary.top1 is not None]
    like = _same_images(validated, "val", notes)
    if not like:
        notes.append("these runs were validated on different images; their order means nothing")
    notes += _notes_of_measuring(tested)
    if not _same_images(tested, "test", notes):
        notes.append("these runs were tested on different images; their accuracies cannot be compared")
    ahead = lead(groups, {run.run: run for run in summaries}) if like else None
    if ahead is None and like and len(groups) > 1:
        notes.append("no winner is named: fewer than two of these are finished and have a validation accuracy")
    differences, in_stages = _differences([member.config for member in members])
    return Comparison(
        runs=summaries,
        groups=groups,
        differences=differences,
        in_stages=in_stages,
        lead=ahead,
        notes=tuple(dict.fromkeys(notes)),
    )


def _opened(runs: Sequence[str | Path | Run]) -> list[Run]:
    """The runs of the paths that are some. What else is there, as with runs/*, is said and left out."""
    if len(runs) == 1:
        return [Run.open(runs[0])]
    found: list[Run] = []
    for path in runs:
        folder = path.path if isinstance(path, Run) else user_path(path)
        if is_there(folder) and not (folder / RECIPE).is_file() and not Run(folder).is_there:
            say(f"{printable(folder)} is not a run folder (it has no {RECIPE}), and is left out")
        else:
            found.append(Run.open(path))
    if runs and not found:
        raise PatchlightError("none of these is a run folder; name folders that `patchlight train` made")
    return found


def _once(runs: Sequence[Run]) -> list[Run]:
    """Each folder once. One that is named again is said, and left out."""
    found: dict[Path, Run] = {}
    for run in runs:
        if run.path.resolve() in found:
            say(f"{printable(run.path)} is named twice and counts once")
        found.setdefault(run.path.resolve(), run)
    return list(found.values())


def _read(run: Run) -> _Member | None:
    """The run, or None where it has no accuracy, which is said."""
    config, rows = run.config(), run.epochs()
    if config.train.task != "classify":
        say(f"{printable(run.path)} is a masked autoencoder, which has no accuracy, and is left out")
        return None
    if not run.has(EvalResult) and not rows:
        say(f"{printable(run.path)} has no test result and no epoch, and is left out")
        return None
    if run.has(EvalResult) and not config.eval.test:  # its test images were read later than it was trained
        config = replace(config, eval=replace(config.eval, test=True))
    environment = run.read(Environment)
    return _Member(summarize(run, config, environment, rows), config, environment)


def summarize(run: Run, config: Config, environment: Environment, rows: Sequence[Epoch]) -> ComparedRun:
    """A run in one row. Raises PatchlightError where its result is damaged."""
    result, kept = run.find(EvalResult), kept_epoch(rows, config)
    model, time, val_n = environment.model, environment.time, environment.data.val
    val_top1 = kept.val_top1 if kept is not None else None
    return ComparedRun(
        run=str(run.path),
        model=model.name,
        data=result.data if result else environment.data.source,
        seed=config.train.seed,
        stages=len(config.stages),
        finished=result is not None or time is not None,
        epoch=kept.epoch if kept is not None else None,
        val_n=val_n,
        val_top1=val_top1,
        val_top1_ci95=None if val_top1 is None or not val_n else wilson_interval(_right(val_top1, val_n), val_n),
        n=result.n if result else None,
        top1=result.top1 if result else None,
        top1_ci95=result.top1_ci95 if result else None,
        balanced_accuracy=balanced_accuracy(result.confusion) if result else None,  # older results do not hold it
        params=model.params,
        flops_per_image=model.flops_per_image,
        images_per_s=time.images_per_s if time else images_per_s(rows),
        epoch_s=float(np.mean([row.epoch_s for row in rows])) if rows else None,
        train_wall_s=time.train_wall_s if time else None,
    )


def _right(rate: float, n: int) -> int:
    """How many of n images a rate is; rates were perhaps added up in float32."""
    return min(n, max(0, round(rate * n)))


def _notes_of_runs(groups: Sequence[RunGroup], runs: Sequence[ComparedRun]) -> list[str]:
    """What is odd about single runs and groups, in sentences."""
    notes = []
    for run in runs:
        if not run.finished:
            notes.append(
                f"{run.run} is not finished: its validation is that of epoch {run.epoch} so far, and it is no winner"
            )
        elif run.top1 is None:
            notes.append(f"{run.run} has no test result")
        if run.val_top1 is None:
            reason = "has no validation images" if not run.val_n else "has no validation accuracy"
            notes.append(f"{run.run} {reason}, so it stands at the end")
    for group in groups:
        again = [run for run in group.runs if run not in group.counted]
        if again:
            notes.append(
                f"{group.name}: of the runs with one seed the first counts, and {first_of(again, 3)} "
                f"{'does' if len(again) == 1 else 'do'} not"
            )
    return notes


def _notes_of_measuring(tested: Sequence[_Member]) -> Iterator[str]:
    """What differs in how test images were read, in sentences."""
    if len(words := {member.config.eval.precision for member in tested}) > 1:
        yield f"test accuracies were measured in several precisions (eval.precision): {', '.join(sorted(words))}"
    if len({member.config.eval.mirror for member in tested}) > 1:
        yield "eval.mirror differs between these runs; the test accuracies here are those of images as they are"


def _same_images(members: Sequence[_Member], split: str, notes: list[str]) -> bool:
    """Whether runs were measured on the same images of a split, by their digests.

    A digest is that of pixels. Where it cannot tell (images of another size, records of early versions), settings and
    number decide, and a note says so.
    """
    same, word = True, {"val": "validation", "test": "test"}[split]
    for one, other in itertools.pairwise(members):
        digests = [member.environment.data.digests.get(split) for member in (one, other)]
        counts = [getattr(member.environment.data, split) for member in (one, other)]
        sources = [member.environment.data.source for member in (one, other)]
        if digests[0] == digests[1] is not None:
            continue
        changed = [key for key in config_differences(one.config, other.config) if key.startswith("data.")]
        if counts[0] != counts[1] or sources[0] != sources[1]:
            same = False
        elif None in digests:
            notes.append(f"that the {word} images are the same is known by their source and number alone")
        elif changed and {*changed} <= {*PIXELS}:
            notes.append(
                f"that the {word} images are the same but for {' and '.join(changed)} is known by settings alone"
            )
        else:
            same = False
    return same


def _differences(configs: Sequence[Config]) -> tuple[dict[str, tuple[JSON, ...]], dict[str, tuple[JSON, ...]]]:
    """The settings that differ, with the value of each recipe, and what counts of those that are of a stage."""
    keys = sorted({key for other in configs[1:] for key in config_differences(configs[0], other)})
    values = [config.flat() for config in configs]
    differences = {key: tuple(value.get(key) for value in values) for key in keys}
    of_stages = [[stage.flat() for stage in config.of_stages()] if config.stages else [] for config in configs]
    in_stages = {}
    for key in keys:
        if key.startswith("stages."):
            _, number, setting = key.split(".", 2)
            place = int(number) - 1
            in_stages[key] = tuple(
                (stages[place].get(setting) if place < len(stages) else None) if stages else whole.get(setting)
                for stages, whole in zip(of_stages, values, strict=True)
            )
    return differences, in_stages
