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
from patchlight.analysis.classes import ClassMaps, class_maps
from patchlight.analysis.embeddings import embedding_maps
from patchlight.analysis.faithfulness import assess, measure_faithfulness
from patchlight.analysis.subject import Subject
from patchlight.commands.evaluate import own_split
from patchlight.commands.explain_figures import draw, draw_classes, draw_embedding, write_figures
from patchlight.commands.explain_images import Wanted, check_positive, load_chosen, load_subject
from patchlight.commands.report import report
from patchlight.config import DEFAULT_METHOD
from patchlight.errors import UsageError, did_you_mean
from patchlight.explanation import methods
from patchlight.explanation.methods import METHODS, Explanation, find_method
from patchlight.machine.device import resolve_device
from patchlight.machine.process import tune_process
from patchlight.models import ModelCard
from patchlight.models.anatomy import Anatomy, VitAnatomy, dissect
from patchlight.paths import user_path
from patchlight.runs import Faithfulness, Run
from patchlight.runs.checkpoints import Checkpoint, open_weights
from patchlight.runs.codec import Record

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
    notes: tuple[str, ...] = ()  # on the image files, as what Pillow warned of
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
    classes: str | int | Sequence[str | int] = (),
    indices: int | Sequence[int] = (),
    split: str | None = None,
    count: int | None = None,
    method: str = DEFAULT_METHOD,
    target: str | int = "predicted",
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
        return explain_run(model, [images] if isinstance(images, str | Path) else images, **options)
    return methods.explain(model, images, **options)


def explain_run(
    run: str | Path | Run,
    images: Sequence[str | Path] = (),
    *,
    classes: str | int | Sequence[str | int] = (),
    indices: int | Sequence[int] = (),
    split: str | None = None,
    count: int | None = None,
    method: str = DEFAULT_METHOD,
    target: str | int = "predicted",
    layers: Sequence[int] | None = None,
    out: str | Path | None = None,
    device: str = "auto",
) -> RunExplanation:
    """`explain` of a run."""
    opened, checkpoint = open_weights(run)
    names = list(METHODS) if method == "all" else [method]
    for name in names:
        find_method(name)
    wanted = Wanted(listed(classes), listed(indices), split, count)
    wanted.check(files=bool(images))
    subject, chosen = load_subject(opened, images, wanted, device, checkpoint)
    check_layers(subject.anatomy, layers)
    targets, of_class = targets_of(subject, target)
    explanations = {
        name: methods.explain_inputs(subject.anatomy, subject.inputs, method=name, target=targets) for name in names
    }
    maps = {name: explanation.maps.cpu().numpy() for name, explanation in explanations.items()}
    of_classes, vit = maps_of_classes(subject, chosen, names[0]), subject.anatomy
    embedding = embedding_maps(vit, subject.inputs) if isinstance(vit, VitAnatomy) else None
    figures = draw(subject, maps, layers, of_class) | draw_embedding(subject, embedding)
    if of_classes is not None:
        figures |= draw_classes(subject, of_classes)
    folder = user_path(out) if out is not None else own_folder(opened, checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    write_arrays(folder / "maps.npz", subject, chosen, maps, targets, of_classes)
    right = None if chosen.labels is None else int((subject.preds == chosen.labels).sum())
    explanation = RunExplanation(
        run=str(opened.path),
        target=of_class or "predicted",
        split=chosen.split,
        chosen=chosen.how,
        right=right,
        wrong=None if right is None else len(subject.preds) - right,
        images=tuple(describe_images(subject, chosen, targets)),
        notes=chosen.notes,
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


def check_layers(anatomy: Anatomy, layers: Sequence[int] | None) -> None:
    """Raises UsageError for layers whose heads cannot be drawn."""
    if layers is None:
        return
    if not isinstance(anatomy, VitAnatomy):
        raise UsageError(f"--layers are of attention, and {anatomy.no_attention}; leave it out")
    depth = len(anatomy.blocks)
    if not all(0 <= layer < depth for layer in layers):
        raise UsageError(f"the model has the layers 1 to {depth}, not {', '.join(str(i + 1) for i in layers)}")


def listed(given: Any) -> tuple[Any, ...]:
    """One class or index, or several."""
    return (given,) if isinstance(given, str | int | np.integer) else tuple(given)


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
    RUN/explain/epoch-050. Raises UsageError for an unknown method or no images, PatchlightError for a model that is no
    ViT.
    """
    check_positive(count)
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
    folder = Run(user_path(out) if out is not None else own_folder(opened, checkpoint) if checkpoint else opened.path)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.write(table)
    if folder == opened:
        report(opened.path)
    return table


def targets_of(subject: Subject, target: str | int) -> tuple[Tensor, str]:
    """Class indices (S,) for "predicted", "true", a class's name or its index; and "", "true" or the class's name."""
    preds, names = subject.probs.argmax(dim=1), subject.card.class_names
    if target == "predicted":
        return preds, ""
    if target == "true":
        if subject.labels is None:
            raise UsageError("the true classes of image files are not known; give --target predicted or a class")
        return torch.from_numpy(subject.labels).to(preds), "true"
    try:
        index = choice.class_index(target, names)
    except UsageError:
        if isinstance(target, str):
            known = [*names, "predicted", "true"]
            raise UsageError(f"no class '{target}'; {did_you_mean(target, known)}") from None
        raise
    return torch.full_like(preds, index), names[index]


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
