"""`patchlight export`: a run's model in the formats of other libraries, with preprocessing, labels and a model card.

Every export is read back by the library that it is for, and its logits on a few images are compared with the run's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from patchlight.data.decode import FILTERS
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.machine.process import import_library
from patchlight.models import ModelCard, load_model
from patchlight.models.convert import as_hugging_face, as_timm
from patchlight.models.families.huggingface import quiet
from patchlight.models.reference import public_name
from patchlight.models.saved import system_errors, write_model
from patchlight.paths import user_path
from patchlight.progress import say
from patchlight.reporting.markdown import as_code, as_text
from patchlight.runs import Environment, EvalResult, Run, Samples, Weights
from patchlight.runs.checkpoints import Checkpoint, open_weights
from patchlight.runs.codec import Record
from patchlight.units import counted, printable, shortened

if TYPE_CHECKING:
    from huggingface_hub import EvalResult as HubResult

TOLERANCE = 1e-3  # largest difference between logits, over the largest logit; more is an error
IMAGES = 8  # that are compared
TAG = "trained with Patchlight's recipe"  # in every model card; by it an export knows a folder as its own


@dataclass(frozen=True, kw_only=True)
class ExportResult(Record):
    """What was written, and how far its logits are from the run's."""

    format: str
    folder: str | None
    files: tuple[str, ...]
    max_difference: float  # of logits, on a few images
    weights: str | None = field(
        default=None, metadata={"brief": True}
    )  # a checkpoint's: "epoch 50"; None: the kept ones


def export(run: str | Path | Run, format: str = "safetensors", *, out: str | Path | None = None) -> ExportResult:
    """Write the run's model as `format`, a row of FORMATS, into the folder `out` (`RUN/export/FORMAT`).

    The run may be one of its checkpoints, RUN/checkpoints/epoch-050, which goes to `RUN/export/epoch-050/FORMAT`.
    Raises UsageError for an unknown format and for a folder with other files, and PatchlightError where the format
    has no such model, or the written model gives other logits than the run's.
    """
    if format not in FORMATS:
        raise UsageError(f"no format '{format}'; {did_you_mean(format, FORMATS)}")
    opened, checkpoint = open_weights(run)
    if checkpoint is not None:
        say(checkpoint.line)
    model, card = load_model(checkpoint.path if checkpoint else opened.path)
    own = opened.path / "export" / (checkpoint.path.name if checkpoint else "")
    folder = user_path(out) if out is not None else own / format
    check_own(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pixels = card.resized(sample_pixels(opened, card)).round().to(torch.uint8)
    with torch.no_grad():
        expected = model(card.to_input(pixels))
    with system_errors(folder):
        answer = FORMATS[format].write(model, card, folder)
    (folder / "README.md").write_text(model_card(opened, card, format, checkpoint), encoding="utf-8")
    difference = float((answer(pixels) - expected).abs().max())
    if difference > TOLERANCE * max(1.0, float(expected.abs().max())):
        raise PatchlightError(
            f"the model in {folder} gives other logits than the run, by {difference:.2g}: do not use it, export as "
            "safetensors or onnx, and report this"
        )
    return ExportResult(
        format=format,
        folder=str(folder),
        files=tuple(sorted(path.name for path in folder.iterdir())),
        max_difference=difference,
        weights=checkpoint.weights if checkpoint else None,
    )


def check_own(folder: Path) -> None:
    """Raises UsageError where files lie in the folder that no export has written."""
    if folder.is_dir() and any(folder.iterdir()):
        card = folder / "README.md"
        if not card.is_file() or TAG not in card.read_text(encoding="utf-8", errors="replace"):
            raise UsageError(f"{folder} holds other files; choose an empty folder with --out")


def sample_pixels(run: Run, card: ModelCard) -> Tensor:
    """A few of the run's sample images (B, 3, h, w) uint8; noise where there are none, or they are damaged."""
    samples = run.shown(Samples)
    if samples is not None and len(samples.images):
        return torch.from_numpy(samples.images[:IMAGES]).permute(0, 3, 1, 2).contiguous()
    draw = torch.Generator().manual_seed(0)
    return torch.randint(256, (IMAGES, 3, card.img_size, card.img_size), generator=draw, dtype=torch.uint8)


# The written model, read back: uint8 pixels (B, 3, img_size, img_size) -> logits (B, K).
Answer = Callable[[Tensor], Tensor]


def write_safetensors(model: nn.Module, card: ModelCard, folder: Path) -> Answer:
    """Patchlight's own: `model.safetensors` and `config.json`."""
    write_model(folder, model, card)
    again, read = load_model(folder)
    return torch.no_grad()(lambda pixels: again(read.to_input(pixels)))


def write_timm(model: nn.Module, card: ModelCard, folder: Path) -> Answer:
    """What `timm.create_model("local-dir:FOLDER", pretrained=True)` or, pushed, `hf-hub:OWNER/NAME` reads."""
    timm = import_library("timm")
    theirs: Any
    theirs, arguments = as_timm(model, card)
    # Without what the first weights wanted in tests: another size, another cut-out.
    kept = {key: value for key, value in theirs.pretrained_cfg.items() if not key.startswith("test_")}
    theirs.pretrained_cfg = kept | {
        "mean": card.mean,
        "std": card.std,
        "input_size": (3, card.img_size, card.img_size),
        "crop_pct": 1.0,
        "crop_mode": "center",
        "interpolation": card.interpolation,
        "tag": None,
        "license": None,  # timm's tag and license are of its own weights, not of these
    }
    theirs = theirs.to(memory_format=torch.contiguous_format)
    timm.models.save_for_hf(
        theirs,
        folder,
        model_config={"label_names": list(card.class_names)},
        model_args=arguments,
        safe_serialization=True,
    )
    again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return torch.no_grad()(lambda pixels: again(card.to_input(pixels)))


def write_hugging_face(model: nn.Module, card: ModelCard, folder: Path) -> Answer:
    """What `AutoModelForImageClassification.from_pretrained(FOLDER)` and AutoImageProcessor read."""
    transformers = import_library("transformers")
    theirs: Any = as_hugging_face(model, card)
    with quiet(transformers):
        theirs.save_pretrained(folder)
    transformers.BitImageProcessor(  # a ViT's own would stretch
        size={"shortest_edge": card.img_size},
        do_center_crop=True,  # of the middle of an image that is not square, as `predict` does it
        crop_size={"height": card.img_size, "width": card.img_size},
        image_mean=list(card.mean),
        image_std=list(card.std),
        resample=int(FILTERS[card.interpolation]),
    ).save_pretrained(folder)
    with quiet(transformers):
        again = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    return torch.no_grad()(lambda pixels: again(pixel_values=card.to_input(pixels)).logits)


class WithNormalisation(nn.Module):
    """uint8 pixels (B, 3, img_size, img_size) -> logits (B, K): the model with normalisation before it."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(card.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(card.std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model((pixels.float() / 255 - self.mean) / self.std)


def write_onnx(model: nn.Module, card: ModelCard, folder: Path) -> Answer:
    """`model.onnx`: "pixels" uint8 (batch, 3, size, size) -> "logits" (batch, K), any batch; labels in its metadata."""
    onnx, runtime = import_library("onnx", "export"), import_library("onnxruntime", "export")
    import_library("onnxscript", "export")
    path = folder / "model.onnx"
    pixels = torch.zeros(2, 3, card.img_size, card.img_size, dtype=torch.uint8)
    torch.onnx.export(
        WithNormalisation(model, card).eval().requires_grad_(False),
        (pixels,),
        str(path),
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_shapes={"pixels": {0: torch.export.Dim("batch", min=1)}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    written = onnx.load(path)
    onnx.helper.set_model_props(
        written,
        {
            "labels": json.dumps(list(card.class_names)),
            "img_size": str(card.img_size),
            "interpolation": card.interpolation,
            "producer": "patchlight",
        },
    )
    onnx.save(written, path)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def answer(pixels: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"pixels": pixels.numpy()})[0])

    return answer


@dataclass(frozen=True)
class Format:
    """A format to export to: its function writes the model into a folder and returns the written model, read back."""

    library: str  # that reads it, by the hub's name
    write: Callable[[nn.Module, ModelCard, Path], Answer]


FORMATS = {
    "safetensors": Format("patchlight", write_safetensors),
    "timm": Format("timm", write_timm),
    "hf": Format("transformers", write_hugging_face),
    "onnx": Format("onnx", write_onnx),
}


def model_card(run: Run, card: ModelCard, format: str, checkpoint: Checkpoint | None = None) -> str:
    """README.md for the hub: its metadata, what the model is, what it scored and how it is fed."""
    from huggingface_hub import ModelCardData

    name = printable(run.config().about.name)
    metadata: dict[str, Any] = {"tags": ["vision-transformer", "patchlight"]}
    metadata["pipeline_tag"] = "image-classification" if card.class_names else "image-feature-extraction"
    result = None if checkpoint else run.find(EvalResult)  # which is of the weights that the run kept
    if result is not None:
        path = run.read(Environment).data.path
        data = printable(
            Path(path).name if path else result.data
        )  # the whole path would say more of this machine than of the data
        metadata["eval_results"] = [hub_result(result, data)]
        low, high = result.top1_ci95
        score = (
            f"Accuracy on {as_text(counted(result.n, f'{result.split} image'))} of {as_code(data)}: "
            f"**{100 * result.top1:.2f} %** (95 % interval {100 * low:.2f} to {100 * high:.2f}), read once."
        )
    elif card.class_names:
        score = "It was not measured on test images."
        score = f"These are the run's weights of {as_text(checkpoint.weights)}. {score}" if checkpoint else score
    else:
        score = "It was trained without labels, so its head is untrained; give it a new one."
    origins = origins_of_weights(card)
    on_hub = next((origin for origin in origins if origin.commit), None)
    if on_hub is not None:
        model = on_hub.id.removeprefix("hf-hub:")
        metadata["base_model"] = model if "/" in model else f"timm/{model}"
    about = ModelCardData(library_name=FORMATS[format].library, model_name=name, **metadata)
    weights = f" Training began with the weights of {as_code(public_name(origins[0].id))}." if origins else ""
    return (
        f"---\n{about.to_yaml()}\n---\n\n# {as_text(name)}\n\n"
        f"{as_text(public_name(card.name))}, {TAG} {as_code(name)}.{weights} {score}\n\n{input_of(card)}\n"
    )


def hub_result(result: EvalResult, data: str) -> HubResult:
    """The accuracy in the form of the hub's metadata."""
    from huggingface_hub import EvalResult as HubResult

    return HubResult(
        task_type="image-classification",
        dataset_type=data,
        dataset_name=data,
        dataset_split=result.split,
        metric_type="accuracy",
        metric_value=round(result.top1, 4),
    )


def input_of(card: ModelCard) -> str:
    """What the model is fed and which classes it knows, in sentences."""
    size = f"{card.img_size} x {card.img_size}"
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (card.mean, card.std))
    text = f"Input: RGB images of {size} pixels, in 0..1, minus ({mean}), divided by ({std})."
    text += (
        f" Images of another size are resized by {card.interpolation} interpolation with antialiasing; of one that is "
        "not square the middle is taken."
    )
    if card.fit_size != card.img_size:
        how = "" if card.fit_interpolation == card.interpolation else f", by {card.fit_interpolation} interpolation"
        text += (
            f" It was trained on images of {card.fit_size} x {card.fit_size} pixels, enlarged: resize yours to that "
            f"first{how}."
        )
    if card.class_names:
        more = ", ..." if len(card.class_names) > 20 else ""
        text += f" Classes: {', '.join(as_text(shortened(each)) for each in card.class_names[:20])}{more}."
    return text


def origins_of_weights(card: ModelCard) -> list[Weights]:
    """Where the model's first weights came from, then where those came from, and so on; random weights end the list."""
    origins, source = [], card.source
    while source and source.pretrained:
        origins.append(source)
        source = source.began_with
    return origins
