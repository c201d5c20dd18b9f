"""What a report is made from: the records of a run folder, read once.

A record that is not there yet (of a run that was interrupted) is None or empty; a damaged one is a PatchlightError
that names its file and the way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from patchlight.config import Config
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
    samples: Samples | None
    subset_samples: SubsetSamples | None
    insight: Insight | None
    snapshots: Snapshots | None
    reconstructions: Reconstructions | None
    copies: NearCopies | None
    faithfulness: Faithfulness | None

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
    """Read a run folder.

    Raises PatchlightError where it is none, where one of its files is not what it should be, and where two of them
    are not of the same images or classes.
    """
    run = Run.open(path)
    result, samples = run.find(EvalResult), run.find(Samples)
    insight = None if samples is None else run.find(Insight)  # it is about the samples
    subset_samples = run.find(SubsetSamples)
    for shown in (samples, subset_samples):
        if shown is not None and result is not None and shown.probs.shape[1] != len(result.per_class):
            classes = len(result.per_class)
            raise run.damaged(type(shown), f"probs are of {shown.probs.shape[1]} classes and eval.json is of {classes}")
    if samples is not None and insight is not None and len(insight.relevance) != len(samples.images):
        count = len(samples.images)
        raise run.damaged(Insight, f"relevance is of {len(insight.relevance)} images and samples.npz has {count}")
    batch, batch_images = run.find(BatchFacts), run.find(FirstBatch)
    if batch is not None and batch_images is not None and batch_images.targets.shape[1] != len(batch.per_class):
        shares, classes = batch_images.targets.shape[1], len(batch.per_class)
        raise run.damaged(FirstBatch, f"targets are of {shares} classes and first_batch.json is of {classes}")
    return Facts(
        run=run,
        config=run.config(),
        environment=run.find(Environment),
        epochs=run.epochs(),
        first_batch=batch,
        batch_images=batch_images,
        result=result,
        samples=samples,
        subset_samples=subset_samples,
        insight=insight,
        snapshots=run.find(Snapshots),
        reconstructions=run.find(Reconstructions),
        copies=run.find(NearCopies),
        faithfulness=run.find(Faithfulness),
    )
