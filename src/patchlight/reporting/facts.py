"""What a report is made from: the records of a run folder, read once.

A record that is not there yet (of a run that was interrupted) is None or empty; a damaged one is a PatchlightError
that names its file and the way out.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from patchlight.config import Config
from patchlight.figures.style import cut
from patchlight.reporting.embed import Picture, picture
from patchlight.runs import (
    Environment,
    Epoch,
    EvalResult,
    Faithfulness,
    Insight,
    Reconstructions,
    Run,
    Samples,
    Snapshots,
    kept_epoch,
)
from patchlight.units import percent

NAME = 36  # signs of a class name under a picture


@dataclass(frozen=True)
class Tile:
    """A sample as the page shows it: the picture, the predicted and the true class, and the probabilities of both."""

    index: int  # among the samples
    kind: str  # "wrong" or "right"
    image: Picture
    pred: str
    confidence: str
    true: str
    true_confidence: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """A run as its folder tells it."""

    run: Run
    config: Config
    environment: Environment | None
    epochs: list[Epoch]
    result: EvalResult | None
    samples: Samples | None
    insight: Insight | None
    snapshots: Snapshots | None
    reconstructions: Reconstructions | None
    faithfulness: Faithfulness | None

    @property
    def name(self) -> str:
        """The run's own name: its folder's. Several runs may have one recipe."""
        return self.run.path.resolve().name

    @property
    def folder(self) -> str:
        """The run folder as a word of a command."""
        return shlex.quote(str(self.run.path))

    @property
    def recipe_file(self) -> str:
        """The run's recipe as a word of a command."""
        return shlex.quote(str(self.run.path / "config.toml"))

    @property
    def finetune_command(self) -> str:
        """What trains a classifier from the encoder of this run, at the encoder's own image size."""
        size = self.environment.model.img_size if self.environment else self.config.model.img_size
        return f"patchlight train finetune --model.name {self.folder} --model.img_size {size}"

    @property
    def kept(self) -> Epoch | None:
        """The epoch whose weights were kept; None before the first."""
        return kept_epoch(self.epochs, self.config)

    @property
    def has_conv_stem(self) -> bool:
        return self.environment is not None and self.environment.model.stem == "conv"

    @property
    def class_names(self) -> list[str]:
        """From the test result; numbers where there is none."""
        if self.result is not None:
            return self.result.class_names
        return [str(i) for i in range(self.samples.probs.shape[1])] if self.samples is not None else []

    @cached_property
    def tiles(self) -> list[Tile]:
        """Every sample."""
        if self.samples is None:
            return []
        names, tiles = self.class_names, []
        rows = zip(self.samples.images, self.samples.labels.tolist(), self.samples.probs, strict=True)
        for i, (image, label, probs) in enumerate(rows):
            pred = int(probs.argmax())
            tiles.append(
                Tile(
                    index=i,
                    kind="right" if pred == label else "wrong",
                    image=picture(image),
                    pred=cut(names[pred], NAME),
                    confidence=percent(float(probs[pred])),
                    true=cut(names[label], NAME),
                    true_confidence=percent(float(probs[label])),
                )
            )
        return tiles


def read_facts(path: Path) -> Facts:
    """Read a run folder.

    Raises PatchlightError where it is none, where one of its files is not what it should be, and where two of them
    are not of the same images or classes.
    """
    run = Run.open(path)
    result, samples = run.find(EvalResult), run.find(Samples)
    insight = None if samples is None else run.find(Insight)  # it is about the samples
    if samples is not None and result is not None and samples.probs.shape[1] != len(result.per_class):
        classes = len(result.per_class)
        raise run.damaged(Samples, f"probs are of {samples.probs.shape[1]} classes and eval.json is of {classes}")
    if samples is not None and insight is not None and len(insight.relevance) != len(samples.images):
        count = len(samples.images)
        raise run.damaged(Insight, f"relevance is of {len(insight.relevance)} images and samples.npz has {count}")
    return Facts(
        run=run,
        config=run.config(),
        environment=run.find(Environment),
        epochs=run.epochs(),
        result=result,
        samples=samples,
        insight=insight,
        snapshots=run.find(Snapshots),
        reconstructions=run.find(Reconstructions),
        faithfulness=run.find(Faithfulness),
    )
