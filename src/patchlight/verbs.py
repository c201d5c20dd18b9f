"""What the command line can do, as functions: each takes plain values, and returns plain data or a Run.

What draws is imported where it is used: matplotlib takes longer to import than a training to begin.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from patchlight import runtime
from patchlight.config import Config, ModelConfig, load_recipe
from patchlight.data.audit import audit_source
from patchlight.data.augment import check_augment
from patchlight.data.decode import load_image
from patchlight.data.images import ImageSet, digest
from patchlight.data.sources import load_source
from patchlight.data.splits import Splits, load_splits
from patchlight.doctor import best, examine, forecast, not_tried
from patchlight.errors import PatchlightError, UsageError
from patchlight.evaluation import evaluate as evaluation
from patchlight.fields import Duration, checked
from patchlight.models import (
    MODELS,
    ModelCard,
    check_model,
    create_model,
    is_model_folder,
    load_classifier,
    load_model,
)  # fmt: skip
from patchlight.models.summary import count, describe
from patchlight.preparing import (
    build,
    continued,
    describe_data,
    machine_choices,
    pinned,
    source_path,
    summary_line,
    with_choices,
)  # fmt: skip
from patchlight.progress import say
from patchlight.runs import RESULTS, Run, config_differences, kept_row
from patchlight.training.fit import check_fit, fit
from patchlight.training.state import TrainState

PREDICT_BATCH = 256  # image files decoded and classified together


def train(
    recipe: str | Config,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
) -> Run:
    """Train by a recipe (a name, a path or a Config), evaluate once on the test images, and write the report.

    The run folder is `out`, or `runs/NAME`. An existing one needs `resume` or `overwrite`.
    """
    config = recipe if isinstance(recipe, Config) else load_recipe(recipe)
    path = Path(out) if out else Path("runs") / config.about.name
    # What cannot work is found before data are loaded, as far as it can be.
    Run(path).check_free(config, resume=resume, overwrite=overwrite)
    if overwrite:
        check_not_needed(path, config)
    device = runtime.resolve_device(config.train.device)
    check_model(config.model)
    for stage in config.of_stages():
        check_augment(stage.augment)
    if resume and Run(path).finished:
        say(f"{path} is finished; its report is built again")
        report(path)
        return Run.open(path)
    runtime.tune_process(device)
    with runtime.threads(config.train.threads) as threads:
        data = load_splits(config.data, config.model.img_size)
        for note in data.notes:
            say(note)
        before = run_record(path) if resume else None
        model, card = build(config if before is None else pinned(config, before), data)
        trained = check_fit(model, card, data, config)
        record = {
            **runtime.describe(device),
            "threads": threads,
            **machine_choices(config, model, device),
            "model": {"name": card.name, **count(model, card.img_size), "trainable": trained, "weights": card.source},
            "data": describe_data(config.data.source, data),
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": command or f"patchlight train {config.about.name}",
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


def run_record(path: Path) -> dict[str, Any] | None:
    """`environment.json` of a run that was started; None where it came no further than its recipe."""
    return Run(path).read_json("environment.json") if (path / "environment.json").is_file() else None


def check_not_needed(path: Path, config: Config) -> None:
    """Raises UsageError where the run would begin with what it is to replace."""
    for field, name in (("train.teacher", config.train.teacher), ("model.name", config.model.name)):
        place = Path((name or "").removeprefix("local-dir:"))
        if name is not None and place.exists() and place.resolve().is_relative_to(path.resolve()):
            raise UsageError(f"{field} is {name}, which --overwrite would delete; choose another folder with --out")


def time_of(run: Run, state: TrainState) -> dict[str, float]:
    """What training took, for the record; images/s are those of all epochs together, without validation."""
    rows = run.metrics()
    seconds = sum(row["epoch_s"] for row in rows)
    pace = sum(row["images_per_s"] * row["epoch_s"] for row in rows) / seconds
    return {"train_wall_s": state.wall_s, "train_cpu_s": state.cpu_s, "images_per_s": pace}


def finish(run: Run, data: Splits, config: Config, environment: dict[str, Any]) -> None:
    """Read the test set, this once, with the selected weights; then write what people open."""
    from patchlight.report.insight import collect_insight, measure_faithfulness
    from patchlight.report.samples import collect_samples

    model, card = load_model(run.path, runtime.resolve_device(config.train.device))
    metrics, logits = evaluation.evaluate(
        model, card, data.test, split="test", batch_size=config.eval.batch_size, precision=config.eval.precision,
        mirror=config.eval.mirror,
    )  # fmt: skip
    if data.subset_test is not None:
        subset, _ = evaluation.evaluate(
            model, card, data.subset_test, split="subset_test", batch_size=config.eval.batch_size,
            precision=config.eval.precision,
        )  # fmt: skip
        metrics["subset_test"] = {key: subset[key] for key in ("n", "loss", "top1", "top1_ci95")}
    run.write_json("environment.json", environment)
    samples = collect_samples(model, card, data.test, logits, config.eval.gallery)
    run.write_arrays("samples.npz", samples)
    if (insight := collect_insight(model, card, samples)) is not None:
        run.write_arrays("insight.npz", insight)
    if config.explain.faithfulness:
        few = 2 if config.train.debug else config.explain.faithfulness
        if (table := measure_faithfulness(model, card, data.test, config.data.source, count=few)) is not None:
            run.write_json("faithfulness.json", {"run": str(run.path), **table})
    run.write_json(RESULTS["classify"], {"data": config.data.source, **metrics})  # last: it marks a run as finished
    report(run.path)


def finish_reconstruction(run: Run, environment: dict[str, Any]) -> None:
    """Nothing is tested: the encoder is a beginning, and what is built on it is measured."""
    run.write_json("environment.json", environment)
    kept = kept_row(run.metrics(), run.config())
    assert kept is not None, "it was trained"
    run.write_json(RESULTS["reconstruct"], {"val_loss": kept["val/loss"], "epoch": kept["epoch"]})
    report(run.path)


def evaluate(
    run: str | Path, *, data: str | None = None, split: str = "test", device: str = "auto",
    precision: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The metrics of a finished run on a split of its own data, or of any source with the same classes.

    `precision` is as eval.precision, and that of the run's recipe where it is None.
    """
    opened = Run.open(run)
    config = opened.config()
    on = runtime.resolve_device(device)
    runtime.tune_process(on)
    model, card = load_classifier(run, on)
    if not (opened.path / "eval.json").is_file():
        say(f"{opened.path} is not finished; these are its best weights so far")
    if data is None or is_own_source(opened, data):
        images = own_split(opened, split)
    else:
        images, split = other_split(data, split, card)
    metrics, _ = evaluation.evaluate(
        model, card, images, split=split, batch_size=config.eval.batch_size,
        precision=precision or config.eval.precision, mirror=config.eval.mirror,
    )  # fmt: skip
    return {"data": data or config.data.source, **metrics}


def is_own_source(run: Run, source: str) -> bool:
    """The run's own data, however they are named: their test images are then those that were set aside, no others."""
    own = run.read_json("environment.json")["data"]
    return source == own["source"] or (own["path"] is not None and source_path(source) == own["path"])


def own_split(run: Run, split: str) -> ImageSet:
    """train, val or test, cut as for training.

    Raises PatchlightError where the run has no such images, or where they are not the same any more.
    """
    config, own = run.config(), run.read_json("environment.json")["data"]
    moved = own["path"] is None or not Path(own["path"]).exists()
    source = own["source"] if moved else own["path"]  # which holds wherever the command is given
    images = getattr(load_splits(dataclasses.replace(config.data, source=source), config.model.img_size), split)
    if images is None:
        raise PatchlightError(f"the run has no '{split}' images; use --split train or --split test")
    if digest(images) != own["digests"][split]:
        raise PatchlightError(
            f"{own['source']} has changed since the run, so its '{split}' images are others now and may have been "
            "trained on; restore it, or name a source that the model has not seen with --data"
        )
    return images


def other_split(source: str, split: str, card: ModelCard) -> tuple[ImageSet, str]:
    """A split of another source with labels in the model's order, and its name. One without splits is taken whole."""
    sets = load_source(source, image_size=card.fit_size)
    if split not in sets and len(sets) == 1:
        split = "all"
        sets = {split: next(iter(sets.values()))}
    if split not in sets:
        raise PatchlightError(f"{source} has no '{split}' split; it has {', '.join(sets)}")
    return evaluation.align_classes(sets[split], card), split


def predict(
    run: str | Path, images: Sequence[str | Path], *, top: int = 5, device: str = "auto", precision: str = "auto"
) -> list[dict[str, Any]]:
    """For each image file, of any size and mode: `{"image", "classes": [{"class", "probability"}]}`, best first.

    `precision` is as eval.precision; the fastest here is exact enough for an answer (docs/results.md).
    """
    on = runtime.resolve_device(device)
    runtime.tune_process(on)
    model, card = load_classifier(run, on)
    precision = evaluation.choose_speed(model, precision, PREDICT_BATCH)
    answers = []
    for start in range(0, len(images), PREDICT_BATCH):
        paths = images[start : start + PREDICT_BATCH]
        pixels = torch.stack([load_image(path, card.fit_size) for path in paths]).to(on)
        with torch.inference_mode(), runtime.autocast(precision, on):
            probs = model(card.to_input(pixels)).float().softmax(dim=1)
        best = probs.topk(min(top, len(card.class_names)))
        for path, values, places in zip(paths, best.values.tolist(), best.indices.tolist(), strict=True):
            classes = [{"class": card.class_names[i], "probability": p} for p, i in zip(values, places, strict=True)]
            answers.append({"image": str(path), "classes": classes})
    return answers


def report(run: str | Path) -> Path:
    """Rebuild `report.html`, `figures/` and `README.md` from the run folder alone."""
    from patchlight.report.html import build_readme, build_report

    path = build_report(Run.open(run).path)
    build_readme(Path(run))
    return path


def compare(runs: Sequence[str | Path]) -> dict[str, Any]:
    """`{"runs": [...], "differences": {setting: [value of each run]}}`."""
    opened = [Run.open(run) for run in runs]
    unfinished = [run for run in opened if not (run.path / "eval.json").is_file()]
    opened = [run for run in opened if run not in unfinished]
    for run in unfinished:
        say(f"{run.path} has no test result and is left out")
    if not opened:
        raise PatchlightError("none of these runs has a test result; finish one with `patchlight train ... --resume`")
    rows = [_summary(run) for run in opened]
    configs = [run.config() for run in opened]
    keys = {key for other in configs[1:] for key in config_differences(configs[0], other)}
    values = [config.flat() for config in configs]
    differences = {key: [value.get(key) for value in values] for key in sorted(keys)}
    return {"runs": rows, "differences": differences}


def _summary(run: Run) -> dict[str, Any]:
    metrics, environment = run.read_json("eval.json"), run.read_json("environment.json")
    model, time = environment["model"], environment["time"]
    return {
        "run": str(run.path), "model": model["name"], "data": metrics["data"], "n": metrics["n"],
        "top1": metrics["top1"], "top1_ci95": metrics["top1_ci95"],
        "params": model["params"], "flops_per_image": model["flops_per_image"],
        "images_per_s": time["images_per_s"], "train_wall_s": time["train_wall_s"],
    }  # fmt: skip


def doctor(budget: str | None = None, *, device: str = "auto") -> dict[str, Any]:
    """The machine; with a `budget` such as "30m" also what each recipe would do in it, and the `best` for CIFAR-10."""
    seconds = checked(budget, Duration, "--budget").seconds if budget is not None else None
    found = examine(runtime.resolve_device(device))
    if seconds is None:
        return found
    runtime.tune_process(runtime.resolve_device(device))
    rows = []
    for row in forecast(seconds, device):
        say(f"tried {row['recipe']}: {row['images_per_s']:,.0f} images/s")
        rows.append(row)
    return {**found, "budget_s": seconds, "recipes": rows, "best": best(rows), "not_tried": not_tried()}


def models(img_size: int = 32, num_classes: int = 10) -> list[dict[str, Any]]:
    """Every model with its size."""
    return [
        {"name": name, **count(create_model(name, img_size=img_size, num_classes=num_classes), img_size)}
        for name in MODELS
    ]


def describe_model(config: ModelConfig, img_size: int = 32, num_classes: int = 10) -> dict[str, Any]:
    """One model's size and its layers."""
    if not is_model_folder(config.name):
        config = dataclasses.replace(config, pretrained=False)  # its shape is asked for, which needs no weights
    model = create_model(config, img_size=img_size, num_classes=num_classes)
    return {"name": config.name, **count(model, img_size), "layers": describe(model, img_size)}


def data(config: Config, *, out: str | Path | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Audit the recipe's data source and write three pictures, whose paths stand under `figures`."""
    from patchlight.report.data_figures import write_data_figures

    source = config.data.source
    folder = Path(out) if out else Path("previews") / re.sub(r"[^A-Za-z0-9]+", "-", source).strip("-")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} exists; replace its pictures with --overwrite, or choose another place with --out")
    result = audit_source(source, config.data, config.model.img_size)
    paths = []
    if result["trained_on"] is not None:
        paths = write_data_figures(folder, load_splits(config.data, config.model.img_size), config.augment)
    return {**result, "figures": [str(path) for path in paths]}
