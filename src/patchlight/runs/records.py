"""What the JSON files of a run folder hold, as types. Rates are in 0..1, times in seconds.

`environment.json` is an Environment, `skipped.json` a Skipped, `first_batch.json` a BatchFacts, a line of
`metrics.jsonl` an Epoch, `eval.json` an EvalResult, `validation.json` a ValidationResult, `reconstruction.json` a
ReconstructionResult. The arrays are in `arrays.py`, and `faithfulness.json` is in `faithfulness.py`.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import Annotated

from patchlight.machine.hardware import Hardware
from patchlight.runs.codec import Amount, Count, Place, Rate, Record, RecordError, Within
from patchlight.units import counted

Side = Annotated[int, Within(1, 65536, "pixels a side, from 1 to 65536")]

FORMAT = 2  # of a run folder; 1 is that of files without a number, before version 0.2.0


@dataclass(frozen=True, kw_only=True)
class RunFile(Record):
    """A record that is a file of its own, with the number of its format."""

    format: int = FORMAT  # of a file without a number: 1


@dataclass(frozen=True, kw_only=True)
class Weights(Record):
    """Where a model's first weights came from."""

    library: str  # with its version where it is another's: "timm 1.0.31"
    id: str  # a name of the library, or a run's folder
    pretrained: bool = True  # False: only the architecture, with random weights
    revision: str | None = field(default=None, metadata={"brief": True})  # that was asked for
    commit: str | None = field(default=None, metadata={"brief": True})  # of the hub's repository, as it was read
    began_with: Weights | None = field(default=None, metadata={"brief": True})  # those that this run began with


@dataclass(frozen=True, kw_only=True)
class ModelFacts(Record):
    """A model's size. A multiply-add is two FLOPs; the stem is all before the first block."""

    name: str
    params: Count
    trainable: tuple[Count, ...] = field(metadata={"read": lambda value: [value] if isinstance(value, int) else value})
    flops_per_image: Count
    img_size: Side  # pixels a side
    patch_size: Side | None = None  # pixels a side
    stem: str | None = None  # "patch" or "conv"
    stem_flops: Count | None = None
    stem_params: Count | None = None
    tokens: Count | None = None  # with those that are no patches
    weights: Weights | None = None
    interpolation: str | None = field(default=None, metadata={"brief": True})  # by which images are resized to img_size


@dataclass(frozen=True, kw_only=True)
class DataFacts(Record):
    """How many images there are of each split, and the digests that they are known by later."""

    source: str
    train: Count
    val: Count
    test: Count
    classes: Count
    path: str | None = None  # in full, where the source is one
    subset_test: Count | None = field(default=None, metadata={"brief": True})
    train_per_class: dict[str, Count] | None = field(default=None, metadata={"brief": True})  # training images by name
    notes: tuple[str, ...] = ()
    digests: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SkippedImage(Record):
    """An image that could not be read: the source's split, its place in the split from 0, its name and the reason."""

    split: str
    index: Count
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Skipped(RunFile):
    """`skipped.json`, with data.on_bad = "skip": the images that were left out because they could not be read."""

    images: tuple[SkippedImage, ...]


@dataclass(frozen=True, kw_only=True)
class TimeFacts(Record):
    """What training took, validation included; images/s are those of all epochs together, without validation."""

    train_wall_s: Amount
    train_cpu_s: Amount
    images_per_s: Amount
    # The greatest of the process or, on a GPU, of its tensors (10^9 bytes); None where it was not measured.
    memory_gb: Amount | None = field(default=None, metadata={"brief": True})


@dataclass(frozen=True, kw_only=True)
class Process(Record):
    """Where and how one process trained. A run that was resumed has several."""

    started: str  # ISO 8601, UTC
    git_commit: str | None = None
    hardware: Hardware
    threads: Count
    precision: str
    fused_attn: bool | None = None  # None: a network without attention
    patchlight: str | None = field(default=None, metadata={"brief": True})
    versions: dict[str, str | None] = field(default_factory=dict)
    # What of it gives other last digits than the process before would have given, such as "threads 1, not 2"
    not_exact: tuple[str, ...] | None = field(default=None, metadata={"brief": True})


@dataclass(frozen=True, kw_only=True)
class Environment(RunFile, Process):
    """`environment.json`: what was trained, on what, where and by which versions."""

    model: ModelFacts
    data: DataFacts
    # Of each stage what an image counts in the loss by its class, in their order; None: all alike.
    class_weights: tuple[tuple[Amount, ...] | None, ...] | None = field(default=None, metadata={"brief": True})
    command: str
    resumed: tuple[Process, ...] | None = field(default=None, metadata={"brief": True})
    time: TimeFacts | None = field(default=None, metadata={"brief": True})  # once training is over

    @property
    def current(self) -> Process:
        """The process that trains now: the last one that resumed the run, or the first."""
        return self.resumed[-1] if self.resumed else self


@dataclass(frozen=True, kw_only=True)
class BatchFacts(RunFile):
    """`first_batch.json`: the first batch as the model is given it, augmented, normalised and mixed."""

    shape: tuple[Place, ...]  # (B, 3, H, W)
    dtype: str
    pixels: tuple[int, int]  # least and greatest after augmentation, of 0..255
    channel_mean: tuple[float, ...]  # that are taken off, of pixels in 0..1
    channel_std: tuple[float, ...]  # that pixels are divided by
    min: float | None  # of the finite values after normalisation and mixing; None where there are none
    max: float | None
    mean: tuple[float | None, ...]  # of each channel, likewise
    std: tuple[float | None, ...]
    not_finite: Count  # values that are nan or infinite
    per_class: dict[str, Count]  # images by their own label, mixed or not
    mixed: Count  # images with pixels of another one
    lam: tuple[float, float, float] | None  # least, mean and greatest share of the own label, mixed with another class
    target_sums: tuple[float, float]  # least and greatest sum of a label's shares; 1 is right
    warnings: tuple[str, ...] = ()  # sentences on what is odd
    errors: tuple[str, ...] = ()  # sentences on what cannot be trained on

    def __post_init__(self) -> None:
        if not any(count > 0 for count in self.per_class.values()):
            raise RecordError("per_class must have an image")
        if len(self.shape) != 4:
            raise RecordError("shape must be of images, channels, height and width")
        if self.mixed > self.shape[0]:
            raise RecordError(f"mixed must be at most {self.shape[0]}, the images of shape")

    @property
    def classes(self) -> int:
        """How many classes have an image in the batch."""
        return sum(count > 0 for count in self.per_class.values())

    @property
    def mixing(self) -> str:
        """How many images are mixed and by which lambda, the share of the own label, in words."""
        if not self.mixed:
            return "no image is mixed"
        words = f"{self.mixed:,} of {self.shape[0]:,} images are mixed"
        if self.lam is None:
            return words
        least, mean, greatest = (f"{share:.2f}" for share in self.lam)
        return (
            f"{words}, lambda {least}" if least == greatest else f"{words}, lambda {least} to {greatest}, mean {mean}"
        )

    def rows(self) -> list[tuple[str, str]]:
        """The batch in pairs of a word and a line, for the terminal and the page."""
        counts = [count for count in self.per_class.values() if count]
        least, most = min(counts), max(counts)
        each = f"{least} to {most} images each" if least < most else f"{counted(most, 'image')} each"
        if len(self.per_class) <= 20:
            each = ", ".join(f"{count} of {name}" for name, count in self.per_class.items())
        finite = f"all but {self.not_finite:,} finite" if self.not_finite else "all finite"
        low, high = (f"{total:.6g}" for total in self.target_sums)
        return [
            ("shape", f"{' x '.join(map(str, self.shape))} {self.dtype}"),
            ("pixels", f"{self.pixels[0]} to {self.pixels[1]} after augmentation"),
            ("normalised by mean", _listed(self.channel_mean)),
            ("and deviation", _listed(self.channel_std)),
            ("values", f"{_listed((self.min, self.max), ' to ')}, {finite}"),
            ("their mean", _listed(self.mean)),
            ("their deviation", _listed(self.std)),
            ("mixing", self.mixing),
            ("labels", f"{self.classes} of {len(self.per_class)} classes: {each}"),
            ("label sums", low if low == high else f"{low} to {high}"),
        ]


def _listed(values: tuple[float | None, ...], between: str = ", ") -> str:
    return between.join("-" if value is None else f"{value:.4f}" for value in values)


@dataclass(frozen=True, kw_only=True)
class EarlyStop(Record):
    """That training, or a stage of it, ended with this epoch because validation no longer became better."""

    stage: Place | None = field(default=None, metadata={"brief": True})  # from 1, of a recipe with stages
    epoch: Count  # of the stage, from 1
    epochs: Amount | None  # that the stage was to have; None under a budget
    patience: Count  # epochs without a better validation, the last of which is `epoch`
    measure: str  # what did not become better: "accuracy", "balanced accuracy", "macro F1" or "loss"

    @property
    def in_words(self) -> str:
        """ "stage 2 stopped after epoch 47 of 90: 8 epochs without a better validation accuracy"."""
        stage = "" if self.stage is None else f"stage {self.stage} "
        planned = "" if self.epochs is None else f" of {self.epochs:g}"
        count = counted(self.patience, "epoch")
        return f"{stage}stopped after epoch {self.epoch}{planned}: {count} without a better validation {self.measure}"


@dataclass(frozen=True, kw_only=True)
class Epoch(Record):
    """A line of `metrics.jsonl`. Without validation images, or where there are no labels, a value is None.

    Of mixed images (mixup, CutMix) the training accuracy is the mean share that the predicted class has in the label.
    """

    epoch: Count  # from 1, over all stages
    step: Count  # optimizer steps so far
    lr: Amount  # of the epoch's last step
    train_loss: float | None = field(metadata={"key": "train/loss"})
    train_top1: Rate | None = field(default=None, metadata={"key": "train/top1"})
    train_mixed: bool = field(default=False, metadata={"key": "train/mixed"})  # some images of the epoch were
    val_loss: float | None = field(default=None, metadata={"key": "val/loss"})
    val_loss_smoothed: float | None = field(default=None, metadata={"key": "val/loss_smoothed", "brief": True})
    val_top1: Rate | None = field(default=None, metadata={"key": "val/top1"})
    val_balanced_accuracy: Rate | None = field(default=None, metadata={"key": "val/balanced_accuracy", "brief": True})
    val_macro_f1: Rate | None = field(default=None, metadata={"key": "val/macro_f1", "brief": True})
    skipped_steps: Count | None = field(default=None, metadata={"brief": True})  # of the epoch, of fp16 that overflowed
    images_per_s: Amount
    epoch_s: Amount  # of training, without validation
    best: bool = False  # so far, by validation
    best_by: str | None = field(default=None, metadata={"brief": True})  # which of the above: "val/top1"
    wall_s: Amount | None = None  # since the start
    stage: Place | None = field(default=None, metadata={"brief": True})  # from 1, of a recipe with stages
    early_stop: EarlyStop | None = field(default=None, metadata={"brief": True})  # this epoch was the stage's last


@dataclass(frozen=True, kw_only=True)
class Reliability(Record):
    """Confidence against accuracy in bins of equal width; None in an empty bin (Guo et al. 2017)."""

    edges: tuple[Rate, ...]  # one more than bins
    confidence: tuple[Rate | None, ...]
    accuracy: tuple[Rate | None, ...]
    count: tuple[Count, ...]

    def __post_init__(self) -> None:
        bins = len(self.count)
        if [len(self.edges), len(self.confidence), len(self.accuracy)] != [bins + 1, bins, bins] or not bins:
            raise RecordError(f"reliability must have {bins + 1} edges, and of all else as many values as bins, {bins}")
        if any(low >= high for low, high in itertools.pairwise(self.edges)):
            raise RecordError("edges of reliability must each be greater than the one before")


@dataclass(frozen=True, kw_only=True)
class Mistake(Record):
    """A wrong prediction: which image of the set, its class, the predicted one, and the probability of that."""

    index: Count
    label: Count
    pred: Count
    confidence: Rate


@dataclass(frozen=True, kw_only=True)
class Score(Record):
    """Loss and accuracy with its 95 % interval."""

    n: Count | None = field(default=None, metadata={"brief": True})
    loss: float
    top1: Rate
    top1_ci95: tuple[Rate, Rate]


@dataclass(frozen=True, kw_only=True)
class ClassScores(Record):
    """How a class is recognised, or the mean over classes, as scikit-learn has it with `zero_division=0`.

    All are None for a class that has no images and is never predicted; the recall, for one without images.
    """

    precision: Rate | None  # of the images that were taken for the class, how many are of it; 0 where there are none
    recall: Rate | None  # of the class's images, how many were recognised: its accuracy
    f1: Rate | None  # the harmonic mean of both


@dataclass(frozen=True, kw_only=True)
class Metrics(Record):
    """What a model's predictions on labelled images are worth."""

    n: Place
    loss: float  # mean cross entropy in nats
    top1: Rate
    top1_ci95: tuple[Rate, Rate]  # Wilson's
    top5: Rate  # or of as many classes as there are
    balanced_accuracy: Rate | None = field(default=None, metadata={"brief": True})  # mean of per_class
    macro: ClassScores | None = field(default=None, metadata={"brief": True})  # mean over the classes that occur
    per_class: dict[str, Rate | None]  # accuracy by name; None for a class without images
    scores: dict[str, ClassScores] | None = field(default=None, metadata={"brief": True})  # by name
    confusion: tuple[tuple[Count, ...], ...]  # rows are true classes
    ece: Rate  # expected calibration error
    reliability: Reliability
    mistakes: tuple[Mistake, ...] = ()  # the most confident ones

    def __post_init__(self) -> None:
        classes = len(self.per_class)
        if not classes:
            raise RecordError("per_class must have a class")
        if len(self.confusion) != classes or any(len(row) != classes or min(row) < 0 for row in self.confusion):
            raise RecordError(f"confusion must be {classes} x {classes} counts, as there are so many classes")
        if self.scores is not None and self.scores.keys() != self.per_class.keys():
            raise RecordError("scores must be of the classes of per_class")
        for each in self.mistakes:
            if not (0 <= each.label < classes and 0 <= each.pred < classes):
                raise RecordError(
                    f"mistakes must have a label and a pred in 0..{classes - 1}, as there are so many classes"
                )

    @property
    def class_names(self) -> list[str]:
        return list(self.per_class)


@dataclass(frozen=True, kw_only=True)
class EvalResult(RunFile, Metrics):
    """`eval.json`: the metrics of a split, what it is a split of, and how they were computed.

    `subset_test` are those of the subset's own test images (`data.subset_test_per_class`), beside the full set's.
    """

    data: str
    split: str
    precision: str = "fp32"
    mirrored: Score | None = field(default=None, metadata={"brief": True})  # averaged with mirror images
    subset_test: Metrics | Score | None = field(default=None, metadata={"brief": True})  # a Score in older folders
    # On the test images that look like no image that was trained or selected with; None where all do, or none does.
    without_copies: Score | None = field(default=None, metadata={"brief": True})
    # Of another source: its images that were trained or selected with, pixel for pixel; None where that is not known.
    copies_of_training: Count | None = field(default=None, metadata={"brief": True})
    # Of a checkpoint: "epoch 50"; None: those that the run keeps.
    weights: str | None = field(default=None, metadata={"brief": True})
    # What a page lacks as the network could not be explained, and why; None where it lacks nothing.
    unexplained: tuple[str, ...] | None = field(default=None, metadata={"brief": True})

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.subset_test, Metrics) and self.subset_test.class_names != self.class_names:
            raise RecordError("subset_test must be of the classes of the test images")

    @property
    def metrics(self) -> Metrics:
        """The metrics alone."""
        return Metrics(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Metrics)})


@dataclass(frozen=True, kw_only=True)
class ValidationResult(RunFile):
    """`validation.json`: what training ended with where no test image is read (`eval.test = false`).

    It is the validation that chose the weights, so it flatters them a little. Without validation images all but the
    epoch is None.
    """

    epoch: Count  # whose weights were kept
    n: Count | None  # validation images
    top1: Rate | None
    top1_ci95: tuple[Rate, Rate] | None
    loss: float | None


@dataclass(frozen=True, kw_only=True)
class ReconstructionResult(RunFile):
    """`reconstruction.json`: what masked autoencoding ended with."""

    val_loss: Amount | None  # mean square of the hidden patches' pixels, normalised patch by patch
    epoch: Count  # whose weights were kept
