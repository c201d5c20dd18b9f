"""`patchlight explain`: figures of what a run's model looked at, and a table of how far each method can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchlight.analysis.assess import assess
from patchlight.analysis.insight import measure_faithfulness
from patchlight.commands.evaluate import own_split
from patchlight.commands.report import report
from patchlight.config import DEFAULT_METHOD
from patchlight.data.decode import load_image
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.explanation.methods import METHODS, explain, find_method
from patchlight.machine.device import resolve_device
from patchlight.machine.process import tune_process
from patchlight.models import load_classifier
from patchlight.models.anatomy import dissect
from patchlight.reporting.map_figures import Subject, write_figures
from patchlight.runs import Run

MOST_SHOWN = 12  # images of a run when none are named


def explain_run(
    run: str | Path,
    images: Sequence[str | Path] = (),
    *,
    method: str = DEFAULT_METHOD,
    target: str = "predicted",
    layers: Sequence[int] | None = None,
    out: str | Path | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Explain image files, or without any the run's own samples, and write figures and `maps.npz` into `out`.

    `method` is a row of METHODS or "all"; `target` "predicted", "true" (of a run's samples), or a class; `layers` are
    the blocks whose heads are drawn (the last). Returns JSON-ready `{"run", "target", "images": [...], "figures",
    "arrays", "faithfulness"}`; the last is `assess`'s table on these images.
    """
    subject = load_subject(Run.open(run), images, device)
    methods = list(METHODS) if method == "all" else [method]
    for name in methods:
        find_method(name)
    depth = len(subject.anatomy.blocks)
    if layers is not None and not all(0 <= layer < depth for layer in layers):
        raise UsageError(f"the model has the layers 1 to {depth}, not {', '.join(str(i + 1) for i in layers)}")
    targets = targets_of(subject, target)
    found = {name: explain(subject.anatomy, subject.inputs, method=name, target=targets) for name in methods}
    folder = Path(out) if out else Path(run) / "explain"
    folder.mkdir(parents=True, exist_ok=True)
    arrays = folder / "maps.npz"
    np.savez_compressed(
        arrays,
        images=subject.pictures,
        targets=targets.cpu(),
        **{  # type: ignore[arg-type]
            name.replace("-", "_"): one.maps.cpu().numpy() for name, one in found.items()
        },
    )
    return {
        "run": str(run),
        "target": target,
        "images": describe_images(subject, targets),
        "figures": write_figures(folder, subject, found, layers),
        "arrays": str(arrays),
        "faithfulness": assess(subject.anatomy, subject.inputs, subject.black, methods=methods),
    }


def faithfulness(
    run: str | Path, *, method: str = "all", count: int = 500, device: str = "auto", out: str | Path | None = None
) -> dict[str, Any]:
    """`assess` of the methods on `count` test images of a run, drawn by a fixed seed.

    Written to `faithfulness.json` in the run folder, or in `out`.
    """
    opened = Run.open(run)
    tune_process(resolve_device(device))
    model, card = load_classifier(run, resolve_device(device))
    dissect(model)  # which says what is missing of a model without maps
    found = measure_faithfulness(
        model,
        card,
        own_split(opened, "test"),
        opened.config().data.source,
        methods=list(METHODS) if method == "all" else [method],
        count=count,
        label="assessing",
    )
    assert found is not None
    result = {"run": str(run), **found}
    target = Run(Path(out)) if out else opened
    target.path.mkdir(parents=True, exist_ok=True)
    target.write_json("faithfulness.json", result)
    if not out:
        report(run)
    return result


def load_subject(run: Run, files: Sequence[str | Path], device: str) -> Subject:
    tune_process(resolve_device(device))
    model, card = load_classifier(run.path, resolve_device(device))
    anatomy = dissect(model)
    labels = None
    if files:
        pixels = torch.stack([load_image(path, card.fit_size) for path in files])
        names = [str(path) for path in files]
    else:
        pixels, labels = own_samples(run)
        names = [f"sample {i}" for i in range(len(pixels))]
    inputs = card.to_input(pixels.to(next(model.parameters()).device))
    with torch.no_grad():
        probs = anatomy.logits(inputs).float().softmax(dim=1)
    return Subject(anatomy, card, pixels, labels, names, inputs, probs)


def own_samples(run: Run) -> tuple[Tensor, np.ndarray]:
    """Of the samples that the run's report shows, mistakes and right answers in turn."""
    path = run.path / "samples.npz"
    try:
        with np.load(path, allow_pickle=False) as found:
            images, labels, kind = found["images"], found["labels"], found["kind"]
    except (OSError, ValueError, KeyError):
        raise PatchlightError(
            f"{path} is missing or damaged; name image files, or finish the run with `patchlight train ... --resume`"
        ) from None
    wrong, right = np.flatnonzero(kind == "wrong"), np.flatnonzero(kind == "right")
    half = MOST_SHOWN // 2
    count = min(half, len(wrong))
    chosen = np.concatenate([wrong[:count], right[: MOST_SHOWN - count]])
    return torch.from_numpy(images[chosen]).permute(0, 3, 1, 2).contiguous(), labels[chosen]


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
    if target in names:
        return torch.full_like(preds, names.index(target))
    if target.isdigit() and int(target) < len(names):
        return torch.full_like(preds, int(target))
    raise UsageError(f"no class '{target}'; {did_you_mean(target, [*names, 'predicted', 'true'])}")


def describe_images(subject: Subject, targets: Tensor) -> list[dict[str, Any]]:
    names = subject.card.class_names
    return [
        {
            "image": name,
            "predicted": names[pred],
            "probability": float(subject.probs[i, pred]),
            "true": None if subject.labels is None else names[subject.labels[i]],
            "target": names[int(targets[i])],
        }
        for i, (name, pred) in enumerate(zip(subject.names, subject.preds, strict=True))
    ]
