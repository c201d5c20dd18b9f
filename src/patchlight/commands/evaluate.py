"""`patchlight eval`: the metrics of a finished run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from patchlight.data.images import ImageSet, digest
from patchlight.data.sources import load_source
from patchlight.data.splits import load_splits
from patchlight.errors import PatchlightError
from patchlight.evaluation import evaluate as evaluation
from patchlight.machine.device import resolve_device
from patchlight.machine.process import tune_process
from patchlight.models import ModelCard, load_classifier
from patchlight.progress import say
from patchlight.runs import Environment, EvalResult, Run
from patchlight.runs.checkpoints import open_weights
from patchlight.training.record import source_path


def evaluate(
    run: str | Path | Run,
    *,
    data: str | None = None,
    split: str = "test",
    device: str = "auto",
    precision: str | None = None,
) -> EvalResult:
    """The metrics of a run on a split of its own data, or on `data`, any source with the same classes.

    `split` is "train", "val", "test" or "subset_test"; a source without splits is taken whole. `device` is as
    train.device, `precision` as eval.precision, None for that of the run's recipe. A run that is not finished is
    measured with its best weights so far; a checkpoint, RUN/checkpoints/epoch-050 or RUN/checkpoints/last, with its
    own. Raises PatchlightError where there are no such images, where the run's own images have changed since it was
    trained, and where a class is not one of the model's.
    """
    opened, checkpoint = open_weights(run)
    config = opened.config()
    on = resolve_device(device)
    tune_process(on)
    model, card = load_classifier(checkpoint.path if checkpoint else opened.path, on)
    if checkpoint is not None:
        say(checkpoint.line)
    elif not opened.has(EvalResult):
        say(f"{opened.path} is not finished; these are its best weights so far")
    if data is None or is_own_source(opened, data):
        images = own_split(opened, split)
    else:
        images, split = other_split(data, split, card, config.data.on_bad)
    result, _ = evaluation.evaluate(
        model,
        card,
        images,
        data=data or config.data.source,
        split=split,
        batch_size=config.eval.batch_size,
        precision=precision or config.eval.precision,
        mirror=config.eval.mirror,
    )
    return result if checkpoint is None else dataclasses.replace(result, weights=checkpoint.weights)


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
    config, own = run.config(), run.read(Environment).data
    source = own.source
    if own.path is not None and Path(own.path).exists():
        source = own.path  # in full, so that it does not depend on the folder that the command is given in
    sets = load_splits(dataclasses.replace(config.data, source=source), config.model.img_size).sets
    if split not in sets:
        raise PatchlightError(f"the run has no '{split}' images; it has {', '.join(sets)}")
    images = sets[split]
    if digest(images) != own.digests.get(split):
        raise PatchlightError(
            f"{own.source} has changed since the run, so its '{split}' images are others now and may have been "
            "trained on; restore it, or name a source that the model has not seen with --data"
        )
    return images


def other_split(source: str, split: str, card: ModelCard, on_bad: str = "error") -> tuple[ImageSet, str]:
    """A split of another source with labels in the model's order, and its name.

    A source without splits is taken whole, and the name is then "all". Raises PatchlightError for an unknown split.
    """
    sets = load_source(
        source, image_size=card.fit_size, interpolation=card.fit_interpolation, pixel_max=card.pixel_max, on_bad=on_bad
    )
    for note in next(iter(sets.values())).notes:
        say(note)
    if split not in sets and len(sets) == 1:
        split = "all"
        sets = {split: next(iter(sets.values()))}
    if split not in sets:
        raise PatchlightError(f"{source} has no '{split}' split; it has {', '.join(sets)}")
    return evaluation.align_classes(sets[split], card), split
