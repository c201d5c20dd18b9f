"""`patchlight train`: from a recipe to a finished run folder."""

from __future__ import annotations

import dataclasses
import datetime
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchlight.commands.report import report
from patchlight.config import Config, load_recipe
from patchlight.data.augment import check_augment
from patchlight.data.splits import Splits, load_splits
from patchlight.errors import UsageError
from patchlight.evaluation import evaluate as evaluation
from patchlight.machine.device import resolve_device
from patchlight.machine.hardware import describe_machine
from patchlight.machine.process import cpu_threads, tune_process
from patchlight.models import check_model, load_model
from patchlight.models.reference import folder_of
from patchlight.models.summary import count
from patchlight.progress import say
from patchlight.runs import RESULTS, Run, Score, kept_row
from patchlight.training.fit import check_fit, fit
from patchlight.training.setup import (
    build,
    continued,
    describe_data,
    machine_choices,
    pinned,
    summary_line,
    with_choices,
)
from patchlight.training.state import TrainState


def train(
    recipe: str | Config,
    settings: Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Run:
    """Train by a recipe (a name, a path or a Config), evaluate once on the test images, and write the report.

    `settings` such as {"train.epochs": 5} are laid over the recipe. The run folder is `out`, or `runs/NAME`. An
    existing one needs `resume` or `overwrite`.
    """
    config = load_recipe(recipe, settings)
    if resume and overwrite:
        raise UsageError("--resume goes on with a run and --overwrite replaces it; give one of them")
    path = Path(out) if out else Path("runs") / config.about.name
    # What cannot work is found before data are loaded, as far as it can be.
    Run(path).check_free(config, resume=resume, overwrite=overwrite)
    if overwrite:
        check_not_needed(path, config)
    device = resolve_device(config.train.device)
    check_model(config.model)
    for stage in config.of_stages():
        check_augment(stage.augment)
    if resume and Run(path).finished:
        say(f"{path} is finished; its report is built again")
        report(path)
        return Run.open(path)
    tune_process(device)
    with cpu_threads(config.train.threads) as threads:
        data = load_splits(config.data, config.model.img_size)
        for note in data.notes:
            say(note)
        before = run_record(path) if resume else None
        model, card = build(config if before is None else pinned(config, before), data)
        trained = check_fit(model, card, data, config)
        record = {
            **dataclasses.asdict(describe_machine(device)),
            "threads": threads,
            **machine_choices(config, model, device),
            "model": {
                "name": card.name,
                **count(model, card.img_size).to_json(),
                "trainable": trained,
                "weights": card.source and card.source.to_json(),
            },
            "data": describe_data(config.data.source, data),
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": command_line(recipe, settings or {}, out),
        }
        if before is not None:
            record = continued(before, record)
        run = Run.create(path, config, resume=resume, overwrite=overwrite)
        run.write_json("environment.json", record)
        say(summary_line(record))
        state = fit(model, card, data, with_choices(config, record), run, resume=resume)
        done = {**record, "time": time_of(run, state)}
        if config.train.task == "reconstruct":
            finish_reconstruction(run, done)
        else:
            finish(run, data, config, done)
    return run


def command_line(recipe: str | Config, settings: Mapping[str, Any], out: str | Path | None) -> str:
    """What to type to get this run again, whatever --resume or --overwrite it took this time."""
    words = ["patchlight", "train", recipe if isinstance(recipe, str) else recipe.about.name]
    for key, value in settings.items():
        words += [f"--{key}", str(value)]
    return shlex.join([*words, "--out", str(out)] if out else words)


def run_record(path: Path) -> dict[str, Any] | None:
    """`environment.json` of a run that was started; None where it came no further than its recipe."""
    return Run(path).read_json("environment.json") if (path / "environment.json").is_file() else None


def check_not_needed(path: Path, config: Config) -> None:
    """Raises UsageError where the run would begin with what it is to replace."""
    for field, name in (("train.teacher", config.train.teacher), ("model.name", config.model.name)):
        place = folder_of(name) if name else None
        if place is not None and place.resolve().is_relative_to(path.resolve()):
            raise UsageError(f"{field} is {name}, which --overwrite would delete; choose another folder with --out")


def time_of(run: Run, state: TrainState) -> dict[str, float]:
    """What training took, for the record; images/s are those of all epochs together, without validation."""
    rows = run.metrics()
    seconds = sum(row["epoch_s"] for row in rows)
    pace = sum(row["images_per_s"] * row["epoch_s"] for row in rows) / seconds
    return {"train_wall_s": state.wall_s, "train_cpu_s": state.cpu_s, "images_per_s": pace}


def finish(run: Run, data: Splits, config: Config, environment: dict[str, Any]) -> None:
    """Read the test set, this once, with the selected weights; then write what people open."""
    from patchlight.analysis.insight import collect_insight, measure_faithfulness
    from patchlight.analysis.samples import collect_samples

    model, card = load_model(run.path, resolve_device(config.train.device))
    result, logits = evaluation.evaluate(
        model,
        card,
        data.test,
        data=config.data.source,
        split="test",
        batch_size=config.eval.batch_size,
        precision=config.eval.precision,
        mirror=config.eval.mirror,
    )
    if data.subset_test is not None:
        subset, _ = evaluation.evaluate(
            model,
            card,
            data.subset_test,
            data=config.data.source,
            split="subset_test",
            batch_size=config.eval.batch_size,
            precision=config.eval.precision,
        )
        score = Score(n=subset.n, loss=subset.loss, top1=subset.top1, top1_ci95=subset.top1_ci95)
        result = replace(result, subset_test=score)
    run.write_json("environment.json", environment)
    samples = collect_samples(model, card, data.test, logits, config.eval.gallery)
    run.write_arrays("samples.npz", samples)
    if (insight := collect_insight(model, card, samples)) is not None:
        run.write_arrays("insight.npz", insight)
    if config.explain.faithfulness:
        few = 2 if config.train.debug else config.explain.faithfulness
        if (table := measure_faithfulness(model, card, data.test, config.data.source, count=few)) is not None:
            run.write_json("faithfulness.json", {"run": str(run.path), **table})
    run.write(result)  # last: it marks a run as finished
    report(run.path)


def finish_reconstruction(run: Run, environment: dict[str, Any]) -> None:
    """Nothing is tested: the encoder is a beginning, and what is built on it is measured."""
    run.write_json("environment.json", environment)
    kept = kept_row(run.metrics(), run.config())
    assert kept is not None, "it was trained"
    run.write_json(RESULTS["reconstruct"], {"val_loss": kept["val/loss"], "epoch": kept["epoch"]})
    report(run.path)
