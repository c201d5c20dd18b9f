"""`patchlight explain`: what a model looks at in some images, and how far the maps of each method can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from patchlight.analysis.faithfulness import assess, measure_faithfulness
from patchlight.analysis.subject import FEW, PAIRS, Subject, attention_maps, class_pair, token_maps
from patchlight.commands.evaluate import own_split
from patchlight.commands.report import report
from patchlight.config import DEFAULT_METHOD
from patchlight.data.decode import load_image
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.explanation import methods
from patchlight.explanation.methods import METHODS, Explanation, find_method
from patchlight.machine.device import resolve_device
from patchlight.machine.process import tune_process
from patchlight.models import load_classifier
from patchlight.models.anatomy import Anatomy, dissect
from patchlight.runs import Faithfulness, Run, Samples
from patchlight.runs.codec import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_SHOWN = 12  # images of a run when none are named
NOT_ALWAYS = ("layer_likeness.png", "heads-layer*.png")  # figures that not every call draws


@dataclass(frozen=True, kw_only=True)
class ExplainedImage(Record):
    """An image by name, the predicted class with its probability, the true one where it is known, the explained one."""

    image: str
    predicted: str
    probability: float
    true: str | None
    target: str


@dataclass(frozen=True, kw_only=True)
class RunExplanation(Record):
    """What `explain` makes of images of a run: paths of figures by name and of `maps.npz`, and how true maps are."""

    run: str
    target: str
    images: tuple[ExplainedImage, ...]
    figures: dict[str, str]
    arrays: str
    faithfulness: Faithfulness  # on these images


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

    `explain(run, images=(), method=, target=, layers=, out=, device=)` takes a run and image files (without any, the
    run's own samples), and writes figures and `maps.npz` into `out`, RUN/explain where it is not given. `method` is a
    row of METHODS or "all"; `target` is "predicted", "true" (of a run's samples) or a class; `layers` are the indices
    of the blocks whose heads are drawn, the last one where they are not given.

    Raises UsageError for an unknown method, target or layer, PatchlightError for a model that is no ViT.
    """
    if isinstance(model, str | Path | Run):
        return explain_run(model, images, **options)
    return methods.explain(model, images, **options)


def explain_run(
    run: str | Path | Run,
    images: Sequence[str | Path] = (),
    *,
    method: str = DEFAULT_METHOD,
    target: str = "predicted",
    layers: Sequence[int] | None = None,
    out: str | Path | None = None,
    device: str = "auto",
) -> RunExplanation:
    """`explain` of a run."""
    opened = Run.open(run)
    names = list(METHODS) if method == "all" else [method]
    for name in names:
        find_method(name)
    subject, image_names = load_subject(opened, images, device)
    depth = len(subject.anatomy.blocks)
    if layers is not None and not all(0 <= layer < depth for layer in layers):
        raise UsageError(f"the model has the layers 1 to {depth}, not {', '.join(str(i + 1) for i in layers)}")
    targets = targets_of(subject, target)
    explanations = {
        name: methods.explain(subject.anatomy, subject.inputs, method=name, target=targets) for name in names
    }
    maps = {name: explanation.maps.cpu().numpy() for name, explanation in explanations.items()}
    folder = Path(out) if out else opened.path / "explain"
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {name.replace("-", "_"): values for name, values in maps.items()}
    np.savez_compressed(folder / "maps.npz", images=subject.pictures, targets=targets.cpu().numpy(), **arrays)
    return RunExplanation(
        run=str(opened.path),
        target=target,
        images=tuple(describe_images(subject, image_names, targets)),
        figures=write_figures(folder, draw(subject, maps, layers)),
        arrays=str(folder / "maps.npz"),
        faithfulness=assess(subject.anatomy, subject.inputs, subject.black, methods=names),
    )


def faithfulness(
    run: str | Path | Run,
    *,
    method: str = "all",
    count: int = 500,
    device: str = "auto",
    out: str | Path | None = None,
) -> Faithfulness:
    """Measure how true the maps of a method (or of "all") are, on `count` test images of a run, drawn by a fixed seed.

    Written to `faithfulness.json` in `out`, or in the run folder, whose report is then made again. Raises UsageError
    for an unknown method, PatchlightError for a model that is no ViT.
    """
    opened = Run.open(run)
    tune_process(resolve_device(device))
    model, card = load_classifier(opened.path, resolve_device(device))
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
    table = replace(table, run=str(opened.path))
    folder = Run(Path(out)) if out else opened
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.write(table)
    if not out:
        report(opened.path)
    return table


def load_subject(run: Run, files: Sequence[str | Path], device: str) -> tuple[Subject, list[str]]:
    """The images with what the model predicts for them, and their names."""
    tune_process(resolve_device(device))
    model, card = load_classifier(run.path, resolve_device(device))
    anatomy = dissect(model)
    if files:
        pixels = torch.stack([load_image(path, card.fit_size) for path in files])
        return Subject.of(anatomy, card, pixels, None), [str(path) for path in files]
    pixels, labels = own_samples(run)
    return Subject.of(anatomy, card, pixels, labels), [f"sample {i}" for i in range(len(pixels))]


def own_samples(run: Run) -> tuple[Tensor, np.ndarray]:
    """Of the samples that the run's report shows, mistakes first and then right answers: pixels and labels."""
    samples = run.find(Samples)
    if samples is None:
        raise PatchlightError(
            f"{run.path / 'samples.npz'} is missing; name image files, or finish the run with `{run.resume_command}`"
        )
    wrong, right = np.flatnonzero(samples.kind == "wrong"), np.flatnonzero(samples.kind == "right")
    count = min(MOST_SHOWN // 2, len(wrong))
    chosen = np.concatenate([wrong[:count], right[: MOST_SHOWN - count]])
    return torch.from_numpy(samples.images[chosen]).permute(0, 3, 1, 2).contiguous(), samples.labels[chosen]


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


def describe_images(subject: Subject, image_names: Sequence[str], targets: Tensor) -> list[ExplainedImage]:
    classes = subject.card.class_names
    return [
        ExplainedImage(
            image=name,
            predicted=classes[pred],
            probability=float(subject.probs[i, pred]),
            true=None if subject.labels is None else classes[subject.labels[i]],
            target=classes[int(targets[i])],
        )
        for i, (name, pred) in enumerate(zip(image_names, subject.preds, strict=True))
    ]


def draw(subject: Subject, maps: Mapping[str, np.ndarray], layers: Sequence[int] | None) -> dict[str, Figure]:
    """Every figure by its name; `maps` (S, r, c) by method, `layers` as in `explain`."""
    from patchlight.figures import boards, inside  # not for a bare model, which needs no matplotlib

    names, first = subject.card.class_names, next(iter(maps))
    preds, probs = [names[pred] for pred in subject.preds], subject.probs.amax(dim=1).tolist()
    true = preds if subject.labels is None else [names[label] for label in subject.labels]
    pictures, captions = subject.pictures, boards.answer_captions(preds, probs, true)
    title = "What the model looked at" if len(maps) > 1 else METHODS[first].about.capitalize()
    rows = {name + ("" if METHODS[name].by_class else " (blind)"): values for name, values in maps.items()}
    tokens, attention, pair = token_maps(subject), attention_maps(subject, layers), class_pair(subject, first)
    depth = tokens.lens.shape[1]
    figures = {
        "maps": boards.maps_board(pictures, captions, rows, title),
        "patches": boards.tokens_board(pictures, captions, tokens.first, tokens.last, tokens.norms, depth),
        "lens": inside.logit_lens(tokens.lens, [caption.split("\n")[0] for caption in captions]),
    }
    if tokens.similarity is not None:
        figures["layer_likeness"] = inside.layer_similarity(tokens.similarity)
    few, few_captions = pictures[:FEW], captions[:FEW]
    for layer, heads in attention.heads.items():
        figures[f"heads-layer{layer + 1}"] = boards.heads_board(few, few_captions, heads, layer, depth)
    figures["layers"] = boards.layers_board(few, few_captions, attention.layers)
    figures["rollout"] = boards.rollout_board(few, few_captions, attention.rollout)
    both = boards.pair_captions([[names[c] for c in classes] for classes in pair.classes], pair.probs)
    return figures | {"versus": boards.pair_board(pictures[:PAIRS], both, pair.maps, pair.method)}


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> dict[str, str]:
    """Write each figure as NAME.png and return the paths by name."""
    from patchlight.figures import style

    for old in (path for pattern in NOT_ALWAYS for path in folder.glob(pattern)):
        old.unlink()  # of other images, or of other layers
    paths = {name: folder / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        paths[name].write_bytes(style.png(figure, "light"))
    return {name: str(path) for name, path in paths.items()}
