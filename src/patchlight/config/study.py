"""A study as typed data: which variants of a recipe are trained with which seeds, for how long, and how they differ.

`study_file.py` reads it. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from patchlight.config.fields import COUNT, EPOCHS, NOT_NEGATIVE, POSITIVE, RATE, Duration, Section

Settings = dict[str, Any]  # {"optim.lr": 0.001}, as on the command line


@dataclass(frozen=True)
class StudyAbout(Section):
    """What a study is for, in words."""

    title: Annotated[str, "one line: what is compared"] = ""
    question: Annotated[str, "the question that it answers"] = ""
    source: Annotated[str, "where its variants come from"] = ""
    cost: Annotated[str, "what it takes, on what"] = ""


@dataclass(frozen=True)
class StudyOptions(Section):
    """What all runs of a study have in common."""

    recipe: Annotated[str, "the base: a recipe's name or a TOML file"] = ""
    plan: Annotated[Literal["each", "ladder", "leave-one-out"], "what the variants are"] = "each"
    seeds: Annotated[tuple[int, ...], "train.seed of the runs of each variant", NOT_NEGATIVE] = (0, 1, 2)
    baseline: Annotated[str | None, "the variant that others are compared with; unset: the first"] = None
    test: Annotated[
        Literal["chosen", "all", "none"],
        "whose test images are read at the end: of the variant that validation chose, of all, or of none",
    ] = "chosen"
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], "where it may run, as train.device"] = "auto"
    workers: Annotated[int, "processes on this machine that share the runs", COUNT] = 1
    lease: Annotated[
        Duration, "another machine's run without a sign of life for so long is taken over, as its worker died"
    ] = Duration("2m")  # noqa: RUF009, it is text
    prune_after: Annotated[
        float, "share of training after which a run that is clearly behind is stopped; 1 stops none", RATE
    ] = 1.0
    prune_behind: Annotated[
        float, "how far behind the best run so far, at the same share of training, is clearly behind", RATE
    ] = 0.1


@dataclass(frozen=True)
class StudyBudget(Section):
    """How long every variant trains: one of these, or what its recipe says."""

    epochs: Annotated[float | None, "passes over the training images", EPOCHS] = None
    steps: Annotated[int | None, "optimizer steps", COUNT] = None
    time: Annotated[Duration | None, "time for training and validation, as 90s, 10m or 1h30m"] = None
    flops: Annotated[float | None, "floating-point operations of all forward and backward passes", POSITIVE] = None
    why: Annotated[str, "why this is a fair measure for the question"] = ""

    @property
    def kind(self) -> str | None:
        """Which of the four is set."""
        return next((name for name in ("epochs", "steps", "time", "flops") if getattr(self, name) is not None), None)

    @property
    def words(self) -> str:
        """ "each run trains for 1,000 steps"."""
        amount = {
            "epochs": lambda: f"{self.epochs:g} epoch{'' if self.epochs == 1 else 's'}",
            "steps": lambda: f"{self.steps:,} step{'' if self.steps == 1 else 's'}",
            "time": lambda: f"{self.time} with validation",
            "flops": lambda: f"{self.flops:.3g} FLOPs",
        }
        return (
            f"each run trains for {amount[self.kind]()}" if self.kind else "each run trains as long as its recipe says"
        )


WHY = {
    "epochs": "All variants see each training image equally often, so what differs is what they learn from it.",
    "steps": "All variants make equally many updates, so what differs is what an update is worth.",
    "time": "All variants have the same time on the same machine, so a cheaper one sees more images.",
    "flops": "All variants compute equally much, so a cheaper one sees more images, on whatever machine.",
    None: "Each recipe trains as its authors meant it, so variants may differ in how long they train.",
}


@dataclass(frozen=True)
class Variant:
    """One way of training in a study: a recipe and the settings that are laid over it."""

    name: str  # unique in the study
    recipe: str
    settings: Settings  # all that is laid over the recipe
    changes: Settings  # those in which it differs from the study's base
    member: str = ""  # its name without its place in the grid
    point: Settings = field(default_factory=dict)  # its place in the grid


@dataclass(frozen=True)
class Study:
    """A study of one size, checked: its variants in order."""

    name: str
    about: StudyAbout
    options: StudyOptions
    budget: StudyBudget
    variants: tuple[Variant, ...]
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    size: str | None = None
    default_size: str | None = None

    @property
    def why(self) -> str:
        return self.budget.why or WHY[self.budget.kind]

    @property
    def baseline(self) -> str:
        """A variant's name or, where there is a grid beside variants, a member's."""
        return self.options.baseline or (self.variants[0].member or self.variants[0].name)
