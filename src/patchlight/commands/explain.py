"""`patchlight explain`: what a model looks at in some images, and how far the maps of each method can be believed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from patchlight.analysis import choice
from patchlight.analysis.choice import Chosen
from patchlight.analysis.classes import MOST_CLASSES, ClassMaps, class_maps
from patchlight.analysis.embeddings import embedding_maps
from patchlight.analysis.faithfulness import assess, measure_faithfulness
from patchlight.analysis.subject import Subject
from patchlight.commands.evaluate import own_split
from patchlight.commands.explain_figures import draw, draw_classes, draw_embedding, write_figures
from patchlight.commands.report import report
from patchlight.config import DEFAULT_METHOD
from patchlight.data.decode import load_image
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.explanation import methods
from patchlight.explanation.methods import METHODS, Explanation, find_method
from patchlight.machine.device import resolve_device
from patchlight.machine.process import tune_process
from patchlight.models import ModelCard, load_classifier
from patchlight.models.anatomy import Anatomy, dissect
from patchlight.progress import say
from patchlight.runs import Faithfulness, Run, Samples
from patchlight.runs.checkpoints import Checkpoint, open_weights
from patchlight.runs.codec import Record

SPLITS = ("train", "val", "test", "subset_test")
RECORD = "explanation.json"


@dataclass(frozen=True, kw_only=True)
class ExplainedImage(Record):
    """An image by name, and by its index in the split where it is of one; the predicted class with its probability, the
    true one where it is known, the explained one.
    """

    image: str
    index: int | None
    predicted: str
    probability: float
    true: str | None
    target: str


@dataclass(frozen=True, kw_only=True)
class ExplainedClass(Record):
    """Whose images a class's mean map is of. `centre` and `random` are its rank correlations with these controls."""

    name: str
    n: int
    right: int
    centre: float
    random: float


@dataclass(frozen=True, kw_only=True)
class RunExplanation(Record):
    """What `explain` makes of images of a run: paths of figures by name and of `maps.npz`, and how true maps are."""

    run: str
    target: str
    split: str | None  # whose images these are; None for image files and for samples of the report
    chosen: str  # how the images were chosen, in a sentence
    right: int | None  # how many are predicted right; None where the true classes are not known
    wrong: int | None
    images: tuple[ExplainedImage, ...]
    class_method: str | None  # of the maps that `classes` are about
    classes: tuple[ExplainedClass, ...]  # those that were asked for
    positions: str  # whether positions are added to the patch tokens, in a sentence
    figures: dict[str, str]
    arrays: str
    faithfulness: Faithfulness  # on these images, for the predicted class
    # A checkpoint's: "epoch 50"; None: the kept ones.
    weights: str | None = field(default=None, metadata={"brief": True})


@overload
def explain(
    model: nn.Module | Anatomy,
    images: Tensor,
    *,
    method: str = DEFAULT_METHOD,
    target: str | int | Tensor = "predicted",
    **options: Any,
) -> Explanation: ...


@overload
def explain(
    model: str | Path | Run,
    images: Sequence[str | Path] = (),
    *,
    classes: Sequence[str | int] = (),
    indices: Sequence[int] = (),
    split: str | None = None,
    count: int | None = None,
    method: str = DEFAULT_METHOD,
    target: str = "predicted",
    layers: Sequence[int] | None = None,
    out: str | Path | None = None,
    device: str = "auto",
) -> RunExplanation: ...


def explain(model: Any, images: Any = (), **options: Any) -> Explanation | RunExplanation:
    """Where a ViT sees the evidence for a class: of a bare model, or of a run.

    `explain(model, images, method=, target=)` takes a ViT of Patchlight, timm or Hugging Face and normalised images
    (B, 3, h, w), and returns their maps: see `patchlight.explanation.methods.explain`.

    `explain(run, images=(), classes=, indices=, split=, count=, method=, target=, layers=, out=, device=)` takes a run
    and writes figures, `maps.npz` and `explanation.json` into `out`, RUN/explain where it is not given. The images are
    files; or those of the run's own `split` ("test" where it is not given, "train", "val" or "subset_test") of
    `classes` (names or indices), or with `indices` in the split, counted from 0; or without any of these, `count` (12)
    of the split. Right and wrong predictions are taken in turn, and what is drawn is drawn by a fixed seed. `method` is
    a row of METHODS or "all"; `target` is "predicted", "true" (of images whose class is known) or a class; `layers` are
    the indices of the blocks whose heads are drawn, the last one where they are not given. The run may be one of its
    checkpoints, RUN/checkpoints/epoch-050, whose figures go to RUN/explain/epoch-050.

    Raises UsageError for an unknown method, target, layer, class, split or index, PatchlightError for a model that is
    no ViT, and where the split's images are not there or have changed.
    """
    if isinstance(model, str | Path | Run):
        return explain_run(model, images, **options)
    return methods.explain(model, images, **options)


def explain_run(
    run: str | Path | Run,
    images: Sequence[str | Path] = (),
    *,
    classes: Sequence[str | int] = (),
    indices: Sequence[int] = (),
    split: str | None = None,
    count: int | None = None,
    method: str = DEFAULT_METHOD,
    target: str = "predicted",
    layers: Sequence[int] | None = None,
    out: str | Path | None = None,
    device: str = "auto",
) -> RunExplanation:
    """`explain` of a run."""
    opened, checkpoint = open_weights(run)
    names = list(METHODS) if method == "all" else [method]
    for name in names:
        find_method(name)
    wanted = Wanted(tuple(map(str, classes)), tuple(indices), split, count)
    wanted.check(files=bool(images))
    subject, chosen = load_subject(opened, images, wanted, device, checkpoint)
    depth = len(subject.anatomy.blocks)
    if layers is not None and not all(0 <= layer < depth for layer in layers):
        raise UsageError(f"the model has the layers 1 to {depth}, not {', '.join(str(i + 1) for i in layers)}")
    targets = targets_of(subject, target)
    explanations = {
        name: methods.explain(subject.anatomy, subject.inputs, method=name, target=targets) for name in names
    }
    maps = {name: explanation.maps.cpu().numpy() for name, explanation in explanations.items()}
    of_classes, embedding = maps_of_classes(subject, chosen, names[0]), embedding_maps(subject.anatomy, subject.inputs)
    figures = draw(subject, maps, layers, target) | draw_embedding(subject, embedding)
    if of_classes is not None:
        figures |= draw_classes(subject, of_classes)
    folder = Path(out) if out else own_folder(opened, checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    write_arrays(folder / "maps.npz", subject, chosen, maps, targets, of_classes)
    right = None if chosen.labels is None else int((subject.preds == chosen.labels).sum())
    explanation = RunExplanation(
        run=str(opened.path),
        target=target,
        split=chosen.split,
        chosen=chosen.how,
        right=right,
        wrong=None if right is None else len(subject.preds) - right,
        images=tuple(describe_images(subject, chosen, targets)),
        class_method=None if of_classes is None else of_classes.method,
        classes=() if of_classes is None else tuple(describe_classes(subject.card, of_classes)),
        positions="the tokens before the first block cannot be seen" if embedding is None else embedding.about,
        figures=write_figures(folder, figures),
        arrays=str(folder / "maps.npz"),
        faithfulness=assess(subject.anatomy, subject.inputs, subject.black, methods=names),
        weights=checkpoint.weights if checkpoint else None,
    )
    (folder / RECORD).write_text(json.dumps(explanation.to_json(), indent=1) + "\n", encoding="utf-8")
    return explanation


def own_folder(run: Run, checkpoint: Checkpoint | None) -> Path:
    """Where figures go: RUN/explain or, of a checkpoint, which training may delete, RUN/explain/epoch-050."""
    return run.path / "explain" / (checkpoint.path.name if checkpoint else "")


def faithfulness(
    run: str | Path | Run,
    *,
    method: str = "all",
    count: int = 500,
    device: str = "auto",
    out: str | Path | None = None,
) -> Faithfulness:
    """Measure how true the maps of a method (or of "all") are, on `count` test images of a run, drawn by a fixed seed.

    Written to `faithfulness.json` in `out`, or in the run folder, whose report is then made again; of a checkpoint in
    RUN/explain/epoch-050. Raises UsageError
    for an unknown method, PatchlightError for a model that is no ViT.
    """
    opened, checkpoint = open_weights(run)
    tune_process(resolve_device(device))
    model, card = load_chosen(opened, checkpoint, device)
    dissect(model)  # which says what is missing of a model without maps
    table = measure_faithfulness(
        model,
        card,
        own_split(opened, "test"),
        opened.config().data.source,
        methods=list(METHODS) if method == "all" else [method],
        count=count,
        label="assessing",
    )
    assert table is not None
    table = replace(table, run=str(checkpoint.path if checkpoint else opened.path))
    folder = Run(Path(out) if out else own_folder(opened, checkpoint) if checkpoint else opened.path)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.write(table)
    if folder == opened:
        report(opened.path)
    return table


def load_chosen(run: Run, checkpoint: Checkpoint | None, device: str) -> tuple[nn.Module, ModelCard]:
    """The classifier with a checkpoint's weights, which is said, or with those that the run keeps."""
    if checkpoint is not None:
        say(checkpoint.line)
    return load_classifier(checkpoint.path if checkpoint else run.path, resolve_device(device))


@dataclass(frozen=True)
class Wanted:
    """Which images of the run's own were asked for, as the command line gives them."""

    classes: tuple[str, ...] = ()
    indices: tuple[int, ...] = ()
    split: str | None = None
    count: int | None = None

    def check(self, files: bool) -> None:
        """Raises UsageError for what cannot go together."""
        given = {"--class": self.classes, "--index": self.indices, "--split": self.split, "--count": self.count}
        words = [word for word, value in given.items() if value not in ((), None)]
        if files and words:
            raise UsageError(f"{words[0]} is for images of the run's own; leave it out, or the image files")
        if self.indices and (self.classes or self.count is not None):
            raise UsageError(f"--index says which images; leave out {'--class' if self.classes else '--count'}")
        if self.split is not None and self.split not in SPLITS:
            raise UsageError(f"no split '{self.split}'; {did_you_mean(self.split, SPLITS)}")
        if self.count is not None and self.count < 1:
            raise UsageError(f"--count must be at least 1, not {self.count}")


def load_subject(
    run: Run, files: Sequence[str | Path], wanted: Wanted, device: str, checkpoint: Checkpoint | None
) -> tuple[Subject, Chosen]:
    """The images with what the model predicts for them, and how they were chosen."""
    tune_process(resolve_device(device))
    model, card = load_chosen(run, checkpoint, device)
    anatomy = dissect(model)
    if files:
        pixels = torch.stack([load_image(path, card.fit_size, card.fit_interpolation) for path in files])
        chosen = Chosen(pixels, tuple(str(path) for path in files), "the image files that were given")
    else:
        chosen = own_images(run, model, card, wanted)
    return Subject.of(anatomy, card, chosen.pixels, chosen.labels), chosen


def own_images(run: Run, model: nn.Module, card: ModelCard, wanted: Wanted) -> Chosen:
    """Images of the run's own split. Where nothing was named and the test images are not there any more, those of the
    report are taken, and it is said.
    """
    every = wanted.classes == ("all",) and "all" not in card.class_names
    words = [str(label) for label in range(len(card.class_names))] if every else wanted.classes
    classes = [choice.class_index(word, card.class_names) for word in words]
    if len(classes) > MOST_CLASSES:
        raise UsageError(f"{len(classes)} classes are too many to be shown side by side; name {MOST_CLASSES} at most")
    split = wanted.split or "test"
    try:
        images = own_split(run, split)
    except PatchlightError as error:
        samples = run.find(Samples)
        if wanted.classes or wanted.indices or split != "test" or samples is None:
            raise
        say(f"the run's test images cannot be used, so samples of its report are: {error}")
        return choice.choose_samples(samples, wanted.count, f"the test images cannot be used ({error})")
    if wanted.indices:
        return choice.choose_by_index(images, split, wanted.indices)
    return choice.choose_by_class(model, card, images, split, classes, wanted.count)


def targets_of(subject: Subject, target: str) -> Tensor:
    """Class indices (S,) for "predicted", "true", a class's name or its index."""
    preds = subject.probs.argmax(dim=1)
    names = subject.card.class_names
    if target == "predicted":
        return preds
    if target == "true":
        if subject.labels is None:
            raise UsageError("the true classes of image files are not known; give --target predicted or a class")
        return torch.from_numpy(subject.labels).to(preds)
    if target in names or (target.isdigit() and int(target) < len(names)):
        return torch.full_like(preds, choice.class_index(target, names))
    raise UsageError(f"no class '{target}'; {did_you_mean(target, [*names, 'predicted', 'true'])}")


def describe_images(subject: Subject, chosen: Chosen, targets: Tensor) -> list[ExplainedImage]:
    classes = subject.card.class_names
    return [
        ExplainedImage(
            image=name,
            index=None if chosen.indices is None else int(chosen.indices[i]),
            predicted=classes[pred],
            probability=float(subject.probs[i, pred]),
            true=None if subject.labels is None else classes[subject.labels[i]],
            target=classes[int(targets[i])],
        )
        for i, (name, pred) in enumerate(zip(chosen.names, subject.preds, strict=True))
    ]


def maps_of_classes(subject: Subject, chosen: Chosen, method: str) -> ClassMaps | None:
    """Of the classes that were asked for, by `method` or, where that is blind to classes, by the default one."""
    if chosen.pool is None or not chosen.classes:
        return None
    by_class = method if METHODS[method].by_class else DEFAULT_METHOD
    return class_maps(subject.anatomy, subject.card, chosen.pool, chosen.classes, by_class)


def describe_classes(card: ModelCard, found: ClassMaps) -> list[ExplainedClass]:
    return [
        ExplainedClass(
            name=card.class_names[label],
            n=int(found.counts[i]),
            right=int(found.right[i]),
            centre=float(found.controls["centre"][i]),
            random=float(found.controls["random"][i]),
        )
        for i, label in enumerate(found.classes)
    ]


def write_arrays(
    path: Path,
    subject: Subject,
    chosen: Chosen,
    maps: Mapping[str, np.ndarray],
    targets: Tensor,
    of_classes: ClassMaps | None,
) -> None:
    """`maps.npz`; docs/explanations.md tells its arrays."""
    arrays: dict[str, Any] = {name.replace("-", "_"): values for name, values in maps.items()}
    arrays |= {} if chosen.indices is None else {"indices": chosen.indices}
    if of_classes is not None:
        arrays |= {"class_labels": np.array(of_classes.classes), "class_counts": of_classes.counts}
        arrays |= {"class_means": of_classes.mean, "class_spreads": of_classes.spread}
    np.savez_compressed(path, images=subject.pictures, targets=targets.cpu().numpy(), **arrays)
