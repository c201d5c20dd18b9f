"""What a study is answered with, as a type: `study.json`. Rates are in 0..1, times in seconds.

A study trains several variants of a recipe, each with several seeds. The page, the tables and the figures are made of
this record alone, without the runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from patchlight.runs.codec import JSON, Amount, Count, Place, Rate, Record
from patchlight.runs.records import RunFile

FINISHED, PRUNED, FAILED, WAITING = "finished", "pruned", "failed", "waiting"  # the states of a run of a study
REUSED = "reused"  # of a note: another study has trained the run


@dataclass(frozen=True, kw_only=True)
class RunNote(RunFile):
    """What a study did with a run: `notes/KEY.json` of the study's folder."""

    state: str  # FINISHED: the study has trained it; WAITING: it has begun to; REUSED, PRUNED or FAILED
    reason: str = ""  # of PRUNED and FAILED, a sentence
    worker: str = ""  # host and process
    deaths: Count = (
        0  # of WAITING: processes that have ended in it without a word since its last epoch, if this one does
    )
    tested: bool = False  # the study has read the run's test images


@dataclass(frozen=True, kw_only=True)
class StudyPoint(Record):
    """A validation of a run: a point of its curve."""

    epoch: Count  # from 1
    step: Count  # optimizer steps so far
    images: Count  # training images seen so far
    wall_s: Amount | None = None  # since the start of training
    val_top1: Rate | None = None


@dataclass(frozen=True, kw_only=True)
class StudyRun(Record):
    """One run of a study: a variant with a seed. Without a validation so far its numbers are None."""

    variant: str
    seed: Count
    key: str  # of its settings, data and version; the name of its folder
    folder: str
    state: str  # FINISHED, PRUNED, FAILED or WAITING
    reason: str | None = field(default=None, metadata={"brief": True})  # of PRUNED and FAILED: a sentence
    reused: bool = False  # it was finished before this study asked for it
    epoch: Count | None = None  # whose weights were kept
    val_top1: Rate | None = None  # of these weights
    val_n: Count | None = None  # validation images
    test_top1: Rate | None = None  # where the test images were read
    test_n: Count | None = None
    test_before: bool = False  # they were read by another study, or at another time, and not for this choice
    val_digest: str | None = field(default=None, metadata={"brief": True})  # of the validation images
    curve: tuple[StudyPoint, ...] = ()
    params: Count | None = None
    train_flops: Amount | None = None  # of forward and backward passes over all images seen: 3 x forward
    train_wall_s: Amount | None = None  # with validation
    memory_gb: Amount | None = None  # the greatest, of the process or on the GPU; None where it was not measured
    machine: str | None = None  # "cpu AMD EPYC ..., bf16, 2 threads"
    git_commit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Difference(Record):
    """A variant's validation accuracy less another's, seed by seed, and a 95 % interval of the mean difference."""

    to: str  # the other variant
    seeds: tuple[Count, ...]  # that both have finished
    each: tuple[float, ...]  # of each of these seeds
    mean: float
    low: float | None = None  # None with one seed, which gives no interval
    high: float | None = None
    words: str = ""  # what the numbers say: "no difference seen with 3 seeds"


@dataclass(frozen=True, kw_only=True)
class StudyVariant(Record):
    """A variant over its seeds. Means are of the finished runs; None where there are none."""

    name: str  # unique in the study
    changes: dict[str, JSON]  # the settings in which it differs from the study's base: {"optim.name": "adamw"}
    point: dict[str, JSON] = field(default_factory=dict)  # its place in the grid, if there is one
    member: str = ""  # its name without the place in the grid: what is one line in a plot over the grid
    n: Count = 0  # seeds that are finished
    pruned: Count = 0
    failed: Count = 0
    val_mean: Rate | None = None
    val_std: Amount | None = None  # sample deviation over seeds; None with fewer than two
    test_mean: Rate | None = None  # over the seeds whose test images were read
    test_std: Amount | None = None
    test_n: Count = 0  # seeds
    params: Count | None = None
    train_flops: Amount | None = None  # mean over seeds, as the next two
    train_wall_s: Amount | None = None
    memory_gb: Amount | None = None
    difference: Difference | None = None  # to the baseline of the study, or of its place in the grid
    gain: Difference | None = None  # of a ladder: to the step before
    note: str = ""  # of its runs that are not finished, and why: "seed 1: pruned, stopped at epoch 3 because ..."


@dataclass(frozen=True, kw_only=True)
class StudyResult(RunFile):
    """`study.json`: a study's plan, its runs and its answer."""

    name: str
    title: str = ""
    question: str = ""
    plan: str  # "each", "ladder" or "leave-one-out"
    recipe: str  # that of the base
    seeds: tuple[Count, ...]
    size: str | None = None  # of the sizes that a study may have: "cpu"
    budget: str  # in words: "each variant trains for 1,000 steps"
    budget_by: str = "epochs"  # what is equal for all: "epochs", "steps", "time" or "flops"
    why: str = ""  # why that is the fair measure
    baseline: str  # a variant, or a member of the grid's every point
    grid: dict[str, tuple[JSON, ...]] = field(default_factory=dict)  # {"data.train_per_class": (50, 250)}
    data: str  # the source
    classes: Place
    measure: str = "val/top1"  # what chose weights and variants
    test: str = "chosen"  # whose test images are read: "chosen", "all" or "none"
    chosen: str | None = None  # the variant with the greatest validation mean; None while runs are waiting
    variants: tuple[StudyVariant, ...]
    runs: tuple[StudyRun, ...]
    answer: tuple[str, ...] = ()  # what the numbers say, in a few sentences
    unread: tuple[str, ...] = ()  # sentences on test images that were to be read and could not be
    notes: tuple[str, ...] = ()  # sentences on what was guessed, left out, mixed or not exact
    command: str
    patchlight: str
    folder: str = ""  # in which it was written; empty where runs are still in other hands
