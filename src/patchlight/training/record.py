"""The record of a training: what is trained, on what, where and by which versions (`environment.json`)."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from patchlight.data.images import digest
from patchlight.data.sources import SOURCES
from patchlight.data.splits import Splits
from patchlight.errors import PatchlightError
from patchlight.machine.hardware import describe_machine
from patchlight.models.summary import count
from patchlight.paths import is_there, printable, user_path
from patchlight.progress import say
from patchlight.runs import (
    DataFacts,
    Environment,
    Epoch,
    ModelFacts,
    Process,
    Run,
    Skipped,
    SkippedImage,
    TimeFacts,
    images_per_s,
)
from patchlight.training.setup import Setup
from patchlight.training.state import TrainState
from patchlight.units import counted, percent


def describe_run(
    setup: Setup, command: str, before: Environment | None = None, settings: Sequence[str] = ()
) -> Environment:
    """The record of the run that `command` starts or, where `before` is its record so far, goes on with, perhaps with
    other `settings`, in words, than before.

    Raises PatchlightError where the images are not those that it was started with.
    """
    machine = describe_machine(setup.device)
    process = Process(
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        git_commit=machine.git_commit,
        hardware=machine.hardware,
        threads=torch.get_num_threads(),
        precision=setup.config.train.precision,
        fused_attn=setup.config.model.fused_attn,
        patchlight=machine.patchlight,
        versions=machine.versions,
    )
    data = describe_data(setup.config.data.source, setup.data)
    if before is not None:
        if before.data.digests != data.digests:
            raise PatchlightError(
                f"the images of {data.source} have changed since the run was started; restore them, or start a new run "
                "with --out"
            )
        changed = (*settings, *not_exact(before, process))
        if changed:
            say(
                f"not exact from here on, as this process is not like the one before ({'; '.join(changed)}): the last "
                "digits are not those of a run that was never stopped"
            )
        process = dataclasses.replace(process, not_exact=changed or None)
        return dataclasses.replace(before, resumed=(*(before.resumed or ()), process))
    weights = [stage.class_weights for stage in setup.stages]
    return Environment(
        **{f.name: getattr(process, f.name) for f in dataclasses.fields(process) if f.name != "not_exact"},
        model=describe_model(setup),
        data=data,
        class_weights=tuple(weights) if any(weights) else None,
        command=command,
        not_exact=tuple(settings) or None,
    )


def not_exact(run: Environment, now: Process) -> tuple[str, ...]:
    """What of a process that goes on with a `run` gives other last digits than the one before it would have given."""
    before = run.current
    known = before.versions or run.versions  # those of processes that resumed were not recorded before
    pairs = {
        "threads": (before.threads, now.threads),
        "precision": (before.precision, now.precision),
        "fused attention": (before.fused_attn, now.fused_attn),
        "device": (before.hardware.device, now.hardware.device),
        "GPU": (before.hardware.gpu, now.hardware.gpu),
        "processor": (before.hardware.cpu, now.hardware.cpu),
        "Patchlight": (before.patchlight or run.patchlight, now.patchlight),
        "commit": (before.git_commit, now.git_commit),
        **{name: (known.get(name), now.versions.get(name)) for name in ("torch", "numpy")},
    }
    return tuple(
        f"{what} {new}, not {old}" for what, (old, new) in pairs.items() if None not in (old, new) and old != new
    )


def describe_model(setup: Setup) -> ModelFacts:
    """The model as it is before the first stage, and how many parameters each stage trains."""
    size = count(setup.model, setup.card.img_size)
    params = dict(setup.model.named_parameters())
    trainable = tuple(sum(params[name].numel() for name in stage.trainable) for stage in setup.stages)
    card = setup.card
    return ModelFacts(
        **{
            **size.to_json(),
            "name": card.name,
            "trainable": trainable,
            "weights": card.source,
            "interpolation": card.interpolation,
        }
    )


def describe_data(source: str, data: Splits) -> DataFacts:
    """How many images there are of each split, and their digests."""
    return DataFacts(
        source=source,
        path=source_path(source),
        train=len(data.train),
        train_per_class=dict(zip(data.train.class_names, data.train.class_counts().tolist(), strict=True)),
        val=len(data.val or ()),
        test=len(data.test),
        subset_test=None if data.subset_test is None else len(data.subset_test),
        classes=len(data.train.class_names),
        notes=data.notes,
        digests={name: digest(images) for name, images in data.sets.items()},
    )


def note(run: Run, lines: Iterable[str]) -> None:
    """Say what is to be known of how a stage trains on these images, and keep it with what else was odd about them."""
    said = list(lines)
    for line in said:
        say(line)
    environment = run.find(Environment)
    if environment is not None and (new := [line for line in said if line not in environment.data.notes]):
        data = replace(environment.data, notes=(*environment.data.notes, *new))
        run.write(replace(environment, data=data))


def describe_skipped(data: Splits) -> Skipped | None:
    """The images of the source that could not be read and were left out, if there are any."""
    images = tuple(SkippedImage(**dataclasses.asdict(each)) for each in data.train.skipped)
    return Skipped(images=images) if images else None


def source_path(source: str) -> str | None:
    """The full path of a source that is a file or folder, as text that a record can hold; None of one with a name."""
    path = user_path(source)
    return None if source in SOURCES or not is_there(path) else printable(path.resolve())


def time_of(rows: list[Epoch], state: TrainState, memory_gb: float | None = None) -> TimeFacts:
    """What training took; images/s are those of all epochs together, without validation."""
    return TimeFacts(
        train_wall_s=state.wall_s,
        train_cpu_s=state.cpu_s,
        images_per_s=images_per_s(rows) or 0.0,
        memory_gb=memory_gb or None,
    )


def summary_line(record: Environment) -> str:
    """What is trained on what and where, in a line."""
    model, data, now = record.model, record.data, record.current
    stem = attention = ""
    if model.stem == "conv" and model.stem_flops is not None:
        stem = f", {percent(model.stem_flops / model.flops_per_image)} of them in the convolutional stem"
    if now.fused_attn is not None:
        attention = f", {'fused' if now.fused_attn else 'explicit'} attention"
    subset = f"{data.subset_test:,} subset test, " if data.subset_test is not None else ""
    return (
        f"{model.name}: {model.params:,} parameters, {model.flops_per_image / 1e6:,.0f} MFLOPs/image{stem}; "
        f"{data.train:,} training, {data.val:,} validation, {subset}{data.test:,} test images; "
        f"{now.hardware.device}, {now.precision}, {counted(now.threads, 'thread')}{attention}"
    )
