"""The images that `patchlight explain` takes: files, or those of the run's own that were asked for; and the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from patchlight.analysis import choice
from patchlight.analysis.choice import Chosen
from patchlight.analysis.classes import MOST_CLASSES
from patchlight.analysis.subject import Subject
from patchlight.commands.evaluate import own_split, split_of
from patchlight.config import SPLIT_NAMES
from patchlight.data.files import ImageFiles, each_once, find_images, read_images
from patchlight.data.masks import masks_among
from patchlight.data.remarks import Remarks
from patchlight.errors import PatchlightError, UsageError, did_you_mean, first_of
from patchlight.machine.device import resolve_device
from patchlight.machine.process import tune_process
from patchlight.models import ModelCard, load_classifier
from patchlight.models.anatomy import dissect
from patchlight.paths import printable
from patchlight.progress import say
from patchlight.runs import Run, Samples
from patchlight.runs.checkpoints import Checkpoint

EVERY = "all"  # --class: every class that has images


def load_chosen(run: Run, checkpoint: Checkpoint | None, device: str) -> tuple[nn.Module, ModelCard]:
    """The classifier with a checkpoint's weights, which is said, or with those that the run keeps."""
    if checkpoint is not None:
        say(checkpoint.line)
    return load_classifier(checkpoint.path if checkpoint else run.path, resolve_device(device))


@dataclass(frozen=True)
class Wanted:
    """Which images of the run's own were asked for, as the command line gives them."""

    classes: tuple[str | int, ...] = ()
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
        if self.split is not None and self.split not in SPLIT_NAMES:
            raise UsageError(f"no split '{self.split}'; {did_you_mean(self.split, SPLIT_NAMES)}")
        if self.count is not None:
            check_positive(self.count)


def check_positive(count: int) -> None:
    """Raises UsageError where it is not."""
    if count < 1:
        raise UsageError(f"--count must be at least 1, not {count}")


def given_files(words: Sequence[str | Path], masks: str | Path | None) -> ImageFiles:
    """The image files of words, each once, and without those that are masks of others in the folder `masks`.

    Raises what `find_images` does, PatchlightError for a folder of masks that is none, and UsageError for more files
    than are shown at once.
    """
    files = each_once(find_images(words))
    if files.paths and masks is not None and (left := masks_among(masks, files.paths)):
        note = f"left out, being masks of other images by their names: {len(left):,}, such as {printable(left[0])}"
        masked = set(left)
        files = ImageFiles(tuple(path for path in files.paths if path not in masked), (*files.notes, note))
    choice.check_count("the call names", len(files.paths))
    return files


def load_subject(
    run: Run, given: ImageFiles, wanted: Wanted, device: str, checkpoint: Checkpoint | None
) -> tuple[Subject, Chosen]:
    """The images, files or the run's own, with what the model predicts for them, and how they were chosen."""
    tune_process(resolve_device(device))
    model, card = load_chosen(run, checkpoint, device)
    anatomy = dissect(model)
    if given.paths:
        chosen = read_files(given, card)
        for note in chosen.notes:
            say(note)
    else:
        chosen = own_images(run, model, card, wanted)
    return Subject.of(anatomy, card, chosen.pixels, chosen.labels), chosen


def read_files(given: ImageFiles, card: ModelCard) -> Chosen:
    """The image files that were given. Raises PatchlightError where some cannot be read, naming the first."""
    remarks = Remarks()
    images, bad = list[Tensor](), list[PatchlightError]()
    for read in read_images(given.paths, card.fit_size, card.fit_interpolation, card.pixel_max, remarks):
        (bad if isinstance(read, PatchlightError) else images).append(read)  # type: ignore[arg-type]
    if bad:
        more = f"; {len(bad)} of {len(given.paths)} images cannot be read" if len(bad) > 1 else ""
        raise PatchlightError(f"{bad[0]}{more}")
    return Chosen(
        torch.stack(images),
        tuple(printable(path) for path in given.paths),
        "the image files that were given",
        notes=(*given.notes, *remarks.sentences(card.pixel_max, trained=True)),
        paths=tuple(given.paths),
    )


def own_images(run: Run, model: nn.Module, card: ModelCard, wanted: Wanted) -> Chosen:
    """Images of the run's own split. Where nothing was named and the test images are not there any more, those of the
    report are taken, and it is said.
    """
    every = wanted.classes == (EVERY,) and EVERY not in card.class_names
    words = range(len(card.class_names)) if every else wanted.classes
    classes = [choice.class_index(word, card.class_names) for word in words]
    if not every:
        check_classes(len(set(classes)), "classes are")
    split, unread = split_of(run, wanted.split)
    if unread:
        say(unread)
    try:
        images = own_split(run, split)
    except PatchlightError as error:
        samples = run.find(Samples)
        if wanted.classes or wanted.indices or split != "test" or samples is None:
            raise
        say(f"the run's test images cannot be used, so samples of its report are: {error}")
        choice.check_count("--count asks for", wanted.count or 0)
        return choice.choose_samples(samples, wanted.count, f"the test images cannot be used ({error})")
    if wanted.indices:
        return choice.choose_by_index(images, split, wanted.indices)
    if not every:
        chosen = choice.choose_by_class(model, card, images, split, classes, wanted.count)
        if EVERY not in wanted.classes:
            return chosen
        note = f"--class {EVERY} means the class of that name; to see every class, name each"
        say(note)
        return replace(chosen, notes=(*chosen.notes, note))
    counts = images.class_counts().tolist()
    there = [label for label in classes if counts[label]]
    check_classes(len(there), "classes that have images are")
    chosen = choice.choose_by_class(model, card, images, split, there, wanted.count)
    missing = [f"'{name}'" for label, name in enumerate(card.class_names) if not counts[label]]
    return replace(chosen, how=f"{chosen.how}; no '{split}' image is of {first_of(missing, 12)}") if missing else chosen


def check_classes(count: int, words: str) -> None:
    """Raises UsageError for more than are shown at once."""
    if count > MOST_CLASSES:
        raise UsageError(f"{count} {words} too many to be shown side by side; name {MOST_CLASSES} at most")
