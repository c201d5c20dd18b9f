"""What a report is made from: the records of a run folder, read once.

A record that is not there yet (of a run that was interrupted) is None or empty, and so are damaged pictures; a damaged
result is a PatchlightError that names its file and the way out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from patchlight.config import Config
from patchlight.errors import PatchlightError
from patchlight.figures.overlays import WHOLE, Shares
from patchlight.figures.style import cut
from patchlight.paths import shell_word
from patchlight.reporting.embed import Picture, picture
from patchlight.runs import (
    BatchFacts,
    Environment,
    Epoch,
    EvalResult,
    Faithfulness,
    FirstBatch,
    Insight,
    Metrics,
    NearCopies,
    Reconstructions,
    Run,
    Samples,
    Snapshots,
    SubsetSamples,
    ValidationResult,
    kept_epoch,
)
from patchlight.runs.arrays import Arrays
from patchlight.runs.folder import FILES
from patchlight.runs.records import RunFile
from patchlight.units import percent

Shown = TypeVar("Shown", bound="Arrays | RunFile")
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

    @property
    def said(self) -> str:
        """The prediction in words, and below what is true where that is something else."""
        said = f"predicted {self.pred}, {self.confidence}"
        return said if self.kind == "right" else f"{said}\ntrue: {self.true}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """A run as its folder tells it."""

    run: Run
    config: Config
    environment: Environment | None
    epochs: list[Epoch]
    first_batch: BatchFacts | None
    batch_images: FirstBatch | None
    result: EvalResult | None
    validated: ValidationResult | None  # of a run that was to read no test image and has none read yet
    samples: Samples | None
    subset_samples: SubsetSamples | None
    insight: Insight | None
    snapshots: Snapshots | None
    reconstructions: Reconstructions | None
    copies: NearCopies | None
    faithfulness: Faithfulness | None
    left_out: tuple[str, ...] = ()  # sentences on files that are damaged

    @property
    def name(self) -> str:
        """The run's own name: its folder's. Several runs may have one recipe."""
        return self.run.path.resolve().name

    @property
    def folder(self) -> str:
        """The run folder as a word of a command."""
        return shell_word(self.run.path)

    @property
    def recipe_file(self) -> str:
        """The run's recipe as a word of a command."""
        return shell_word(self.run.path / "config.toml")

    @property
    def finetune_command(self) -> str:
        """What trains a classifier from the encoder of this run, at the encoder's own image size."""
        return f"patchlight train finetune --model.name {self.folder}"

    @property
    def kept(self) -> Epoch | None:
        """The epoch whose weights were kept; None before the first."""
        return kept_epoch(self.epochs, self.config)

    @property
    def has_conv_stem(self) -> bool:
        return self.environment is not None and self.environment.model.stem == "conv"

    def covered(self, grid: tuple[int, ...]) -> Shares:
        """The share of the images' height and width that a grid (r, c) of patches covers, as `figures.overlays` takes
        it. All of it where the run does not tell, or tells of a model with another grid.
        """
        model = self.environment.model if self.environment is not None else None
        if model is None or model.patch_size is None:
            return WHOLE
        down, across = (n * model.patch_size for n in grid)
        fits = all(abs(pixels - model.img_size) < model.patch_size for pixels in (down, across))
        return (down / model.img_size, across / model.img_size) if fits else WHOLE

    @property
    def class_names(self) -> list[str]:
        """From the test result; numbers where there is none."""
        if self.result is not None:
            return self.result.class_names
        return [str(i) for i in range(self.samples.probs.shape[1])] if self.samples is not None else []

    @property
    def subset(self) -> Metrics | None:
        """The result on the subset's own test images; None, too, of an older run, which has a Score."""
        subset = self.result.subset_test if self.result is not None else None
        return subset if isinstance(subset, Metrics) else None

    @cached_property
    def tiles(self) -> list[Tile]:
        """Every sample."""
        return _tiles(self.samples, self.class_names)

    @cached_property
    def subset_tiles(self) -> list[Tile]:
        """Every sample of the subset's own test images."""
        return _tiles(self.subset_samples, self.class_names)


def _tiles(samples: Samples | None, names: list[str]) -> list[Tile]:
    if samples is None:
        return []
    tiles = []
    for i, (image, label, probs) in enumerate(zip(samples.images, samples.labels.tolist(), samples.probs, strict=True)):
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
    """Read a run folder. Damaged pictures and tables beside the result are left out, and told in `left_out`.

    Raises PatchlightError where it is none, or where its recipe, environment, epochs or result are not what they should
    be.
    """
    run, left_out = Run.open(path), list[str]()
    result = run.find(EvalResult)
    classes = None if result is None else len(result.per_class)

    def shown(kind: type[Shown], misfit: Callable[[Shown], str] = lambda found: "") -> Shown | None:
        """The record, where it is there, sound, and of the images and classes of the others."""
        try:
            found = run.find(kind)
            if found is None and run.was_written(kind):
                raise PatchlightError(f"{run.path / FILES[kind]} is missing")
            if found is not None and (wrong := misfit(found)):
                raise run.damaged(kind, wrong)
            return found
        except PatchlightError as error:
            left_out.append(f"left out: {error}")
            return None

    def of_other_classes(samples: Samples) -> str:
        own = samples.probs.shape[1]
        return f"probs are of {own} classes and eval.json is of {classes}" if classes and own != classes else ""

    samples, subset_samples = shown(Samples, of_other_classes), shown(SubsetSamples, of_other_classes)
    batch = shown(BatchFacts)
    insight = batch_images = None
    if samples is not None:  # which it is about
        count = len(samples.images)

        def of_other_images(found: Insight) -> str:
            own = len(found.relevance)
            return f"relevance is of {own} images and samples.npz has {count}" if own != count else ""

        insight = shown(Insight, of_other_images)
    if batch is not None:
        names = len(batch.per_class)

        def of_other_targets(found: FirstBatch) -> str:
            own = found.targets.shape[1]
            return f"targets are of {own} classes and first_batch.json is of {names}" if own != names else ""

        batch_images = shown(FirstBatch, of_other_targets)
    return Facts(
        run=run,
        config=run.config(),
        environment=run.find(Environment),
        epochs=run.epochs(),
        first_batch=batch,
        batch_images=batch_images,
        result=result,
        validated=run.find(ValidationResult) if result is None else None,
        samples=samples,
        subset_samples=subset_samples,
        insight=insight,
        snapshots=shown(Snapshots),
        reconstructions=shown(Reconstructions),
        copies=shown(NearCopies),
        faithfulness=shown(Faithfulness),
        left_out=tuple(left_out),
    )
