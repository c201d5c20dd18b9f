"""Runs that differ only by their seed, as one row: what is recorded of a run and of such a group, and the grouping."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from patchlight.errors import first_of
from patchlight.runs.codec import Record

SEED = "train.seed"
LONGEST = 60  # characters of a group's name that lists what differs between its folders


@dataclass(frozen=True, kw_only=True)
class ComparedRun(Record):
    """What a run reached on validation and test images, and what its model and its training cost.

    Rates are in 0..1, intervals Wilson's at 95 %. What is not known is None: the numbers of a test that did not take
    place, of validation where there are no such images, of training before its first epoch.
    """

    run: str  # its folder
    model: str
    data: str
    seed: int
    stages: int  # of training; 0: the recipe has none
    finished: bool  # its training is over
    epoch: int | None  # whose weights were kept, from 1
    val_n: int  # validation images
    val_top1: float | None  # of the kept weights
    val_top1_ci95: tuple[float, float] | None
    n: int | None  # test images
    top1: float | None
    top1_ci95: tuple[float, float] | None
    balanced_accuracy: float | None  # mean accuracy of the classes that have test images
    params: int
    flops_per_image: int
    images_per_s: float | None  # of training
    epoch_s: float | None  # seconds of training of an epoch, without validation: mean over the epochs
    train_wall_s: float | None


@dataclass(frozen=True, kw_only=True)
class RunGroup(Record):
    """Runs of one recipe on the same images, which differ only by `train.seed`; perhaps one run alone.

    Of each seed one run counts. Deviations are those of a sample (n - 1), None with fewer than two seeds. An interval
    is Wilson's, of a group of one seed alone. Costs are means over the seeds.
    """

    name: str
    runs: tuple[str, ...]  # folders, all of them
    counted: tuple[str, ...]  # of these the one of each seed that counts, in the order of `seeds`
    seeds: tuple[int, ...]
    finished: bool
    model: str
    data: str
    val_n: int  # images
    val_mean: float | None
    val_std: float | None
    val_ci95: tuple[float, float] | None
    test_n: int | None  # images
    test_seeds: int  # of how many seeds the test images were read
    test_mean: float | None
    test_std: float | None
    test_ci95: tuple[float, float] | None
    balanced_accuracy: float | None
    params: int
    flops_per_image: int
    images_per_s: float | None
    epoch_s: float | None
    train_wall_s: float | None


def grouped(runs: Sequence[ComparedRun], keys: Sequence[str]) -> tuple[RunGroup, ...]:
    """The groups of runs with equal keys, best validation mean first; those without validation are at the end."""
    members: dict[str, list[ComparedRun]] = {}
    for run, key in zip(runs, keys, strict=True):
        members.setdefault(key, []).append(run)
    names = _names([[run.run for run in each] for each in members.values()])
    groups = [_group(name, each) for name, each in zip(names, members.values(), strict=True)]
    return tuple(sorted(groups, key=lambda group: float("inf") if group.val_mean is None else -group.val_mean))


def _group(name: str, members: Sequence[ComparedRun]) -> RunGroup:
    of_seed: dict[int, ComparedRun] = {}
    for run in members:
        of_seed.setdefault(run.seed, run)
    seeds = tuple(sorted(of_seed))
    runs = [of_seed[seed] for seed in seeds]
    first = runs[0]
    tested = [run for run in runs if run.top1 is not None]
    return RunGroup(
        name=name,
        runs=tuple(run.run for run in sorted(members, key=lambda run: run.seed)),
        counted=tuple(run.run for run in runs),
        seeds=seeds,
        finished=all(run.finished for run in runs),
        model=first.model,
        data=first.data,
        val_n=first.val_n,
        val_mean=_mean([run.val_top1 for run in runs]),
        val_std=_deviation([run.val_top1 for run in runs]),
        val_ci95=first.val_top1_ci95 if len(runs) == 1 else None,
        test_n=tested[0].n if tested else None,
        test_seeds=len(tested),
        test_mean=_mean([run.top1 for run in tested]),
        test_std=_deviation([run.top1 for run in tested]),
        test_ci95=tested[0].top1_ci95 if len(tested) == 1 else None,
        balanced_accuracy=_mean([run.balanced_accuracy for run in tested]),
        params=first.params,
        flops_per_image=first.flops_per_image,
        images_per_s=_mean([run.images_per_s for run in runs]),
        epoch_s=_mean([run.epoch_s for run in runs]),
        train_wall_s=_mean([run.train_wall_s for run in runs]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one is not known: the mean of the others would be that of other seeds than the row says."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _deviation(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 and len(known) == len(values) else None


def _names(groups: Sequence[Sequence[str]]) -> list[str]:
    """A name for each group of folders: runs/vit-s{0,1,2}, as a shell writes them; else the first and how many more."""
    return [_braces(folders) or first_of(folders, 1) for folders in groups]


def _braces(folders: Sequence[str]) -> str | None:
    """One folder as it is; several in one word, where that is short and its braces mean one thing only."""
    if len(folders) == 1:
        return folders[0]
    front = _beginning(folders)
    rest = [folder[len(front) :] for folder in folders]
    back = _beginning([each[::-1] for each in rest])[::-1]
    middle = [each[: len(each) - len(back)] for each in rest]
    name = f"{front}{{{','.join(middle)}}}{back}"
    plain = front.rpartition("/")[2] and not any(sign in folder for folder in folders for sign in "{},")
    return name if plain and len(name) <= LONGEST else None


def _beginning(texts: Sequence[str]) -> str:
    """The signs that all texts begin with."""
    alike = itertools.takewhile(lambda signs: len({*signs}) == 1, zip(*texts, strict=False))
    return "".join(signs[0] for signs in alike)
