"""`patchlight explain`: what a model looks at in some images, and how far the maps of each method can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from torch import Tensor, nn

from patchlight.analysis.choice import Chosen
from patchlight.analysis.classes import ClassMaps, class_maps
from patchlight.analysis.embeddings import embedding_maps
from patchlight.analysis.faithfulness import QUICK, assess, measure_faithfulness
from patchlight.analysis.subject import Subject
from patchlight.commands.evaluate import own_split, split_of
from patchlight.commands.explain_attention import Looks, draw_attention
from patchlight.commands.explain_figures import draw, draw_classes, draw_embedding, png_files
from patchlight.commands.explain_images import Wanted, check_positive, given_files, load_chosen, load_subject
from patchlight.commands.explain_masks import against_masks, draw_masks, mask_files_of, masks_of
from patchlight.commands.explain_place import ARRAYS, Place, try_folder
from patchlight.commands.explain_record import (
    RunExplanation,
    array_file,
    describe_classes,
    describe_images,
    record_text,
)
from patchlight.commands.explain_target import PREDICTED, also_a_class, class_index, find_target
from patchlight.commands.report import report
from patchlight.errors import PatchlightError
from patchlight.explanation import methods
from patchlight.explanation.methods import METHODS, Explanation, default_method, find_call, methods_for
from patchlight.explanation.removal import WAYS, check_ways
from patchlight.explanation.targets import Wanted as WantedTarget
from patchlight.machine.device import resolve_device
from patchlight.machine.process import tune_process
from patchlight.models.anatomy import Anatomy, VitAnatomy, dissect
from patchlight.paths import user_path
from patchlight.progress import say
from patchlight.runs import Faithfulness, Run
from patchlight.runs.checkpoints import Checkpoint, open_weights


@overload
def explain(
    model: nn.Module | Anatomy,
    images: Tensor,
    *,
    method: str | None = None,
    target: WantedTarget = "predicted",
    normalized: bool | None = None,
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
    method: str | Sequence[str] | None = None,
    target: str | int = "predicted",
    versus: str | int | None = None,
    like: str | Path | None = None,
    layers: Sequence[int] | None = None,
    mass: float | None = None,
    token: str | None = None,
    pair: str | None = None,
    percentile: float = 100.0,
    masks: str | Path | None = None,
    tolerance: float = 0.0,
    out: str | Path | None = None,
    device: str = "auto",
) -> RunExplanation: ...


def explain(model: Any, images: Any = (), **options: Any) -> Explanation | RunExplanation:
    """Where a model sees the evidence for a class: of a bare model, or of a run.

    `explain(model, images, method=, target=)` takes any image classifier or backbone, of Patchlight, timm, Hugging Face
    or torchvision, and normalised images (B, 3, h, w), and returns their maps: see
    `patchlight.explanation.methods.explain`.

    `explain(run, images=(), ...)` takes a run and writes figures, `maps.npz` and `explanation.json` into `out`,
    RUN/explain where it is not given. The images are files; or those of the run's own `split` ("test" where it is not
    given, or "val" of a run that kept its test images unread; "train" or "subset_test")
    of `classes` (names or indices), or with `indices` in the split, counted
    from 0; or without any of these, `count` (12) of the split. Right and wrong predictions are taken in turn, and what
    is drawn is drawn by a fixed seed. `method` is a row of METHODS, with options as in "rollout:heads=max,discard=0.9",
    several of them, or "all"; `target` is "predicted", "true" (of images whose class is known) or a class; with
    `versus`, a class or "second" (the likeliest other one), the maps are of their difference; `like`, an image file,
    makes the likeness to it the target. `layers` are the indices of the blocks whose heads are drawn, the last one
    where they are not given, and `percentile` (50 to 100) cuts the colours of the greatest values. The run may be one
    of its checkpoints, RUN/checkpoints/epoch-050, whose figures go to RUN/explain/epoch-050.

    Raises UsageError for an unknown method, option, target, layer, class, split or index, PatchlightError for a method
    that does not apply to the model, for a folder that cannot be written, and where the split's images are not there or
    have changed. All that can be wrong is said before maps are made, and nothing is written before all are.
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
    method: str | Sequence[str] | None = None,
    target: str | int = "predicted",
    versus: str | int | None = None,
    like: str | Path | None = None,
    layers: Sequence[int] | None = None,
    mass: float | None = None,
    token: str | None = None,
    pair: str | None = None,
    percentile: float = 100.0,
    masks: str | Path | None = None,
    tolerance: float = 0.0,
    out: str | Path | None = None,
    device: str = "auto",
) -> RunExplanation:
    """`explain` of a run."""
    from patchlight.figures.overlays import check_percentile  # not for a bare model, which needs no matplotlib

    opened, checkpoint = open_weights(run)
    words = check_methods(method)
    wanted = Wanted(listed(classes), listed(indices), split, count)
    wanted.check(files=bool(images))
    looks = Looks(layers, mass, token, pair)
    looks.check_words()
    check_percentile(percentile)
    files = given_files(images, masks)
    mask_files = mask_files_of(masks, tolerance, files)
    place = Place.of(
        user_path(out) if out is not None else own_folder(opened, checkpoint),
        (*files.paths, *(mask_files.there if mask_files else ()), *((user_path(like),) if like is not None else ())),
    )
    subject, chosen = load_subject(opened, files, wanted, device, checkpoint)
    anatomy = subject.anatomy
    looks.check(anatomy, anatomy.grid(subject.inputs))
    calls, notes = choose_methods(words, anatomy)
    asked = find_target(subject, target, versus, like)
    found_masks = None if mask_files is None else masks_of(mask_files, subject)
    explanations = {
        call: methods.explain_inputs(anatomy, subject.inputs, method=call, target=asked.target) for call in calls
    }
    of_classes = maps_of_classes(subject, chosen, calls[0])
    embedding = embedding_maps(anatomy, subject.inputs) if isinstance(anatomy, VitAnatomy) else None
    figures = draw(subject, explanations, asked, percentile) | draw_embedding(subject, embedding)
    if isinstance(anatomy, VitAnatomy):
        figures |= draw_attention(anatomy, subject, looks, percentile)
    if found_masks is not None:
        figures |= {"masks": draw_masks(subject, explanations, asked, found_masks, percentile)}
    if of_classes is not None:
        figures |= draw_classes(subject, of_classes, percentile)
    native = {call: found.native.float().cpu().numpy() for call, found in explanations.items()}
    right = None if chosen.labels is None else int((subject.preds == chosen.labels).sum())
    explanation = RunExplanation(
        run=str(opened.path),
        methods=tuple(calls),
        target_kind=asked.kind,
        target=asked.word,
        split=chosen.split,
        chosen=chosen.how,
        right=right,
        wrong=None if right is None else len(subject.preds) - right,
        images=tuple(describe_images(subject, chosen, asked, explanations[calls[0]].strength)),
        notes=(*chosen.notes, *asked.notes, *notes),
        class_method=None if of_classes is None else of_classes.method,
        classes=() if of_classes is None else tuple(describe_classes(subject.card, of_classes)),
        positions=positions_of(anatomy, embedding),
        figures={name: str(place.folder / f"{name}.png") for name in figures},
        arrays=str(place.folder / ARRAYS),
        features={call: found.layer for call, found in explanations.items() if found.layer is not None},
        masks=None
        if masks is None or found_masks is None
        else against_masks(masks, found_masks, tolerance, subject, explanations, asked),
        faithfulness=assess(
            anatomy,
            subject.inputs,
            subject.black,
            methods=calls,
            target=None if asked.is_predicted else asked.target,
            about=asked.about,
            ways=QUICK,
            label="assessing",
        ),
        weights=checkpoint.weights if checkpoint else None,
    )
    arrays = array_file(subject, chosen, native, asked, of_classes)
    place.write(png_files(figures), arrays, record_text(explanation))  # nothing before all is there
    return explanation


def check_methods(method: str | Sequence[str] | None) -> list[str]:
    """The methods that were asked for, which are rows of METHODS or "all"; none where the model's default is meant."""
    words = [] if method is None else [method] if isinstance(method, str) else list(method)
    for word in words:
        if word != "all":
            find_call(word)
    return list(dict.fromkeys(words))


def choose_methods(words: Sequence[str], anatomy: Anatomy) -> tuple[list[str], list[str]]:
    """The methods to show, each with its options, and sentences on those that do not apply to the network.

    Raises PatchlightError where none of those that were asked for applies.
    """
    applies = methods_for(anatomy)
    if not words:
        default = default_method(anatomy)
        if isinstance(anatomy, VitAnatomy):
            return [default], []
        note = f"{anatomy.no_attention}; {default} is shown"
        say(note)
        return [default], [note]
    given = list(dict.fromkeys(name for word in words for name in (METHODS if word == "all" else [word])))
    calls = [call for call in given if find_call(call)[0] in applies]
    if not calls:
        methods.check_applies(find_call(given[0])[0], anatomy)
    if len(calls) == len(given):
        return calls, []
    left_out = ", ".join(call for call in given if call not in calls)
    note = f"left out, as they read attention: {left_out}; {anatomy.no_attention}"
    say(note)
    return calls, [note]


def positions_of(anatomy: Anatomy, embedding: Any) -> str | None:
    if not isinstance(anatomy, VitAnatomy):
        return None
    return "the tokens before the first block cannot be seen" if embedding is None else embedding.about


def listed(given: Any) -> tuple[Any, ...]:
    """One class or index, or several."""
    return (given,) if isinstance(given, str | int | np.integer) else tuple(given)


def own_folder(run: Run, checkpoint: Checkpoint | None) -> Path:
    """Where figures go: RUN/explain or, of a checkpoint, which training may delete, RUN/explain/epoch-050."""
    return run.path / "explain" / (checkpoint.path.name if checkpoint else "")


def faithfulness(
    run: str | Path | Run,
    *,
    method: str | Sequence[str] = "all",
    target: str | int = "predicted",
    ways: str | Sequence[str] = (),
    split: str | None = None,
    count: int = 500,
    device: str = "auto",
    out: str | Path | None = None,
) -> Faithfulness:
    """Measure how true the maps of a method (or of "all") are, on `count` test images of a run, drawn by a fixed seed,
    for the predicted class or a `target`, a class's name or index. `ways` are those of
    `explanation.removal.WAYS` in which patches are taken away ("mean,tokens"); none is all that the network has.
    `split` is another of the run's splits; a run that kept its test images unread (eval.test = false) is measured on
    its validation images where none is named, which is said.

    Written to `faithfulness.json` in `out`, or in the run folder, whose report is then made again; of a checkpoint in
    RUN/explain/epoch-050. Raises UsageError for an unknown method or no images, PatchlightError where no
    method that was asked for applies to the model.
    """
    check_positive(count)
    opened, checkpoint = open_weights(run)
    words = check_methods(method)
    folder = Run(user_path(out) if out is not None else own_folder(opened, checkpoint) if checkpoint else opened.path)
    try_folder(folder.path)
    tune_process(resolve_device(device))
    model, card = load_chosen(opened, checkpoint, device)
    anatomy = dissect(model)
    calls, _ = choose_methods(words, anatomy)
    names = [name.strip() for name in ways.split(",")] if isinstance(ways, str) else list(ways)
    chosen = check_ways(names, anatomy) if names else WAYS
    of_class = None if target == PREDICTED else class_index(target, card.class_names, PREDICTED)
    if note := also_a_class("--target", target, card.class_names, PREDICTED):
        say(note)
    name, words_of_split = split_of(opened, split)
    images = own_split(opened, name)
    if words_of_split:
        say(words_of_split)
    table = measure_faithfulness(
        model,
        card,
        images,
        opened.config().data.source,
        methods=calls,
        count=count,
        label="assessing",
        target=of_class,
        ways=chosen,
    )
    if table is None:
        raise PatchlightError(
            f"the model sees images of {card.img_size} pixels as one patch, so no maps can be compared"
        )
    table = replace(
        table, split=None if name == "test" else name, run=str(checkpoint.path if checkpoint else opened.path)
    )
    folder.write(table)
    if folder == opened:
        report(opened.path)
    return table


def maps_of_classes(subject: Subject, chosen: Chosen, method: str) -> ClassMaps | None:
    """Of the classes that were asked for, by `method` or, where that is blind to classes, by the default one."""
    if chosen.pool is None or not chosen.classes:
        return None
    by_class = method if find_call(method)[1].by_class else default_method(subject.anatomy)
    return class_maps(subject.anatomy, subject.card, chosen.pool, chosen.classes, by_class)
