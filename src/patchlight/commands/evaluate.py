"""`patchlight eval`: the metrics of a finished run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchlight.config import GIVEN, SPLIT_NAMES, Config, DataConfig, apply_overrides
from patchlight.data.images import ImageSet, digest, overlap
from patchlight.data.listing import named
from patchlight.data.sources import read_given, read_source
from patchlight.data.splits import given_splits, load_splits
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.evaluation import evaluate as evaluation
from patchlight.machine.device import resolve_device
from patchlight.machine.process import tune_process
from patchlight.models import ModelCard, load_classifier
from patchlight.paths import is_there, printable, user_path
from patchlight.progress import say
from patchlight.runs import Environment, EvalResult, Run, ValidationResult
from patchlight.runs.checkpoints import open_weights
from patchlight.training.record import source_path

MODELS_OWN = ("data.image_size", "data.interpolation", "data.pixel_max")


def evaluate(
    run: str | Path | Run,
    *,
    data: Any = None,
    settings: Mapping[str, Any] | None = None,
    split: str | None = None,
    device: str = "auto",
    precision: str | None = None,
) -> EvalResult:
    """The metrics of a run on a split of its own data, or on `data`, any source with the same classes.

    `data` is a source as data.source takes it, or images as `train` takes them, with {"data.label_column": "breed"} and
    the like as `settings` of how another source is read. A run whose own images were given in Python gets them again.
    `split` is "train", "val", "test" or "subset_test"; None is "test", but "val" of the own images of a run that kept
    its test images unread (eval.test = false), which is said. A source without splits is taken whole. `device` is as
    train.device, `precision` as eval.precision, None for that of the run's recipe. A run that is not finished is
    measured with its best weights so far; a checkpoint, RUN/checkpoints/epoch-050 or RUN/checkpoints/last, with its
    own. Raises PatchlightError where there are no such images, where the run's own images have changed since it was
    trained, and where a class is not one of the model's.
    """
    for key in settings or {}:
        if not key.startswith("data.") or key == "data.source":
            raise UsageError(f"`patchlight eval` does not take --{key}; it takes data.label_column and the like")
        if key in MODELS_OWN:
            raise UsageError(f"{key} is the model's own, as it was trained, and cannot be another; leave it out")
        if data is None:
            raise UsageError(f"{key} is about another source; name one with --data, or leave it out")
    if split is not None and split not in SPLIT_NAMES:
        raise UsageError(f"there is no split '{split}'; {did_you_mean(split, SPLIT_NAMES)}")
    opened, checkpoint = open_weights(run)
    config = opened.config()
    on = resolve_device(device)
    tune_process(on)
    model, card = load_classifier(checkpoint.path if checkpoint else opened.path, on)
    if checkpoint is not None:
        say(checkpoint.line)
    elif not opened.finished:
        say(f"{opened.path} is not finished; these are its best weights so far")
    own_name, words = split_of(opened, split)
    images = own_images(opened, data, own_name)
    copies = None
    if images is None:
        split = split or "test"
        reading = apply_overrides(Config(data=DataConfig(on_bad=config.data.on_bad)), settings or {}).data
        images, split = other_split(data, split, card, reading)
        copies = copies_of_training(opened, images)
    elif settings:
        raise UsageError(f"{next(iter(settings))} is about another source, and {data} is the run's own; leave it out")
    else:
        split = own_name
        if words:
            say(words)
    result, _ = evaluation.evaluate(
        model,
        card,
        images,
        data=data if isinstance(data, str) else config.data.source if data is None else GIVEN,
        split=split,
        batch_size=config.eval.batch_size,
        precision=precision or config.eval.precision,
        mirror=config.eval.mirror,
    )
    weights = None if checkpoint is None else checkpoint.weights
    return dataclasses.replace(result, weights=weights, copies_of_training=copies)


def split_of(run: Run, asked: str | None) -> tuple[str, str | None]:
    """Which of a run's own images are meant, and a sentence to say where its test images were kept unread: without a
    split that is `asked` for they stay so, and its validation images are meant.
    """
    if run.has(EvalResult) or (run.config().eval.test and not run.has(ValidationResult)):
        return asked or "test", None
    kept = "this run kept its test images unread (eval.test = false)"
    if asked is None:
        return "val", f"{kept}, so its validation images are taken; --split test takes its test images"
    return asked, f"{kept}; they are read now, as --split {asked} asks" if "test" in asked else None


def own_images(run: Run, data: Any, split: str) -> ImageSet | None:
    """The run's own images of a split where `data` stand for them, as None, its own source and a source that was moved
    do, else None.

    Raises as `own_split`.
    """
    if data is None or (isinstance(data, str) and is_own_source(run, data)):
        return own_split(run, split)
    config, own = run.config(), run.read(Environment).data
    is_given = not isinstance(data, str)
    is_gone = own.path is not None and not is_there(Path(own.path))
    if (config.data.source != GIVEN) if is_given else not is_gone:
        return None
    try:
        if is_given:
            found = given_splits(data, config.data, config.model.img_size).sets.get(split)
        else:
            moved = dataclasses.replace(config.data, source=data)
            found = load_splits(moved, config.model.img_size).sets.get(split)
    except PatchlightError:  # these are other images, and reading them as such says what is wrong with them
        return None
    return found if found is not None and digest(found) == own.digests.get(split) else None


def is_own_source(run: Run, source: str) -> bool:
    """Whether `source` is the data that the run was trained on, by whatever path it is named.

    Of these only the images that were set aside for testing may be tested on.
    """
    own = run.read(Environment).data
    return source == own.source or (own.path is not None and source_path(source) == own.path)


def own_split(run: Run, split: str) -> ImageSet:
    """The run's own images of a split, divided as for training.

    Raises PatchlightError where the run has no such images, or where they are not the same any more.
    """
    sets, own = own_sets(run), run.read(Environment).data
    if split not in sets:
        raise PatchlightError(f"the run has no '{split}' images; it has {', '.join(sets)}")
    images = sets[split]
    if digest(images) != own.digests.get(split):
        raise PatchlightError(
            f"{own.source} has changed since the run, so its '{split}' images are others now and may have been "
            "trained on; restore it (`patchlight eval` takes images that the model has not seen with --data)"
        )
    return images


def own_sets(run: Run) -> dict[str, ImageSet]:
    """All images of a run as its source has them now, divided as for training. Raises PatchlightError."""
    config, own = run.config(), run.read(Environment).data
    source = own.source
    if own.path is not None and is_there(Path(own.path)):
        source = own.path  # in full, so that it does not depend on the folder that the command is given in
    elif own.path is not None and not is_there(user_path(source)):
        raise PatchlightError(
            f"{run.path} was trained on {printable(own.path)}, which is not there any more; put it back (`patchlight "
            "eval` takes its new place with --data)"
        )
    return load_splits(dataclasses.replace(config.data, source=source), config.model.img_size).sets


def copies_of_training(run: Run, images: ImageSet) -> int | None:
    """How many of another source's images are exact copies of those that a run was trained or selected with, said
    where there are any; None, which is said too, where these are not there any more.
    """
    known = run.read(Environment).data.digests
    try:
        seen = {name: own for name, own in own_sets(run).items() if name in ("train", "val")}
        if any(digest(own) != known.get(name) for name, own in seen.items()):
            raise PatchlightError("the run's own images have changed")
    except PatchlightError as error:
        say(f"not compared with the images that the run was trained on: {error}")
        return None
    copies = len({index for own in seen.values() for _, index in overlap(own, images)})
    if copies:
        say(
            f"images that are exact copies of those that the run was trained or selected with: {copies:,} of "
            f"{len(images):,}; the score flatters the model"
        )
    return copies


def other_split(data: Any, split: str, card: ModelCard, config: DataConfig) -> tuple[ImageSet, str]:
    """A split of another source, or of images that are given, with labels in the model's order, and its name.

    `config` says how it is read but for what the model's card says. A source without splits is taken whole, and the
    name is then "all". Raises PatchlightError for an unknown split.
    """
    config = dataclasses.replace(
        config,
        source=data if isinstance(data, str) else GIVEN,
        image_size=card.fit_size,
        interpolation=card.fit_interpolation,
        pixel_max=card.pixel_max,
    )
    sets = read_source(config, trained=True) if isinstance(data, str) else read_given(data, config, trained=True)
    for note in next(iter(sets.values())).notes:
        say(note)
    if split == "test" and split not in sets and len(sets) == 1:
        split = "all"
        sets = {split: next(iter(sets.values()))}
    if split not in sets:
        raise PatchlightError(
            f"{named(config.source)} has no '{split}' split, but {', '.join(sets)}; choose another with --split, or "
            "leave it out"
        )
    return evaluation.align_classes(sets[split], card), split
