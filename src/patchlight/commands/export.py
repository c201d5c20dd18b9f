"""`patchlight export` and `push`: a run's model in the formats of others, with its preprocessing, labels and a card.

Every export is read back by the library that it is for, and its logits on the run's images are compared with the run's.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from patchlight.errors import PatchlightError, UsageError
from patchlight.machine.process import import_library
from patchlight.models import ModelCard, VisionTransformer, load_model, save_model
from patchlight.models.convert import from_hugging_face, from_timm, to_hugging_face, to_timm
from patchlight.models.families.hub import first_line
from patchlight.models.families.huggingface import HuggingFaceClassifier, quiet
from patchlight.models.reference import public_name
from patchlight.runs import Run, Weights

TOLERANCE = 1e-3  # of the greatest difference between logits, over the greatest logit; more is an error
IMAGES = 8  # that are compared
TAG = "trained with Patchlight's recipe"  # in every card


def export(run: str | Path, format: str, *, out: str | Path | None = None) -> dict[str, Any]:
    """Write the run's model as `format`, a row of FORMATS, into `out` (`RUN/export/FORMAT`).

    Returns `{"format", "folder", "files", "max_difference"}`, the last over the logits of a few images.
    Raises PatchlightError where the format has no such model, or what was written does not answer as the run does.
    """
    opened = Run.open(run)
    model, card = load_model(opened.path)
    folder = Path(out) if out else opened.path / "export" / format
    check_own(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pixels = card.resized(sample_pixels(opened, card)).round().to(torch.uint8)
    with torch.no_grad():
        expected = model(card.to_input(pixels))
    answer = FORMATS[format](model, card, folder)
    (folder / "README.md").write_text(model_card(opened, card, format), encoding="utf-8")
    difference = float((answer(pixels) - expected).abs().max())
    if difference > TOLERANCE * max(1.0, float(expected.abs().max())):
        raise PatchlightError(
            f"the model in {folder} gives other logits than the run, by {difference:.2g}: do not use it, export as "
            "safetensors or onnx, and report this"
        )
    return {
        "format": format,
        "folder": str(folder),
        "files": sorted(path.name for path in folder.iterdir()),
        "max_difference": difference,
    }


def check_own(folder: Path) -> None:
    """Raises UsageError where files lie in the folder that no export has written."""
    if folder.is_dir() and any(folder.iterdir()):
        card = folder / "README.md"
        if not card.is_file() or TAG not in card.read_text(encoding="utf-8", errors="replace"):
            raise UsageError(f"{folder} holds other files; choose an empty folder with --out")


def sample_pixels(run: Run, card: ModelCard) -> Tensor:
    """A few of the run's sample images (B, 3, h, w) uint8; noise where there are none."""
    path = run.path / "samples.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as found:
            if len(found["images"]):
                return torch.from_numpy(found["images"][:IMAGES]).permute(0, 3, 1, 2).contiguous()
    draw = torch.Generator().manual_seed(0)
    return torch.randint(256, (IMAGES, 3, card.img_size, card.img_size), generator=draw, dtype=torch.uint8)


def write_safetensors(model: nn.Module, card: ModelCard, folder: Path) -> Callable[[Tensor], Tensor]:
    """Patchlight's own: `model.safetensors` and `config.json`."""
    save_model(folder, model, card)
    again, read = load_model(folder)
    return torch.no_grad()(lambda pixels: again(read.to_input(pixels)))


def write_timm(model: nn.Module, card: ModelCard, folder: Path) -> Callable[[Tensor], Tensor]:
    """What `timm.create_model("local-dir:FOLDER", pretrained=True)` or, pushed, `hf-hub:OWNER/NAME` reads."""
    timm = import_library("timm")
    theirs: Any
    options: Any
    if isinstance(model, HuggingFaceClassifier):
        theirs, options = to_timm(from_hugging_face(model.hf))
    elif isinstance(model, VisionTransformer):
        theirs, options = to_timm(model)
    else:
        theirs, options = model, card.spec.arguments
        if card.spec.family != "timm":
            raise PatchlightError(f"timm has no {card.name} of this shape; export to safetensors or onnx")
    theirs.pretrained_cfg |= {
        "mean": card.mean,
        "std": card.std,
        "input_size": (3, card.img_size, card.img_size),
        "crop_pct": 1.0,
        "tag": None,
        "license": None,  # they are those of timm's weights of that name, not of these
    }
    theirs = theirs.to(memory_format=torch.contiguous_format)
    timm.models.save_for_hf(
        theirs,
        folder,
        model_config={"label_names": list(card.class_names)},
        model_args=options,
        safe_serialization=True,
    )
    again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return torch.no_grad()(lambda pixels: again(card.to_input(pixels)))


def write_hugging_face(model: nn.Module, card: ModelCard, folder: Path) -> Callable[[Tensor], Tensor]:
    """What `AutoModelForImageClassification.from_pretrained(FOLDER)` and AutoImageProcessor read."""
    transformers = import_library("transformers")
    if isinstance(model, HuggingFaceClassifier):
        theirs: Any = model.hf
        theirs.config.id2label = dict(enumerate(card.class_names))
        theirs.config.label2id = {name: i for i, name in enumerate(card.class_names)}
    elif isinstance(model, VisionTransformer):
        theirs = to_hugging_face(model, card.class_names)
    else:
        theirs = to_hugging_face(from_timm(model), card.class_names)
    with quiet(transformers):
        theirs.save_pretrained(folder)
    size = {"height": card.img_size, "width": card.img_size}
    transformers.ViTImageProcessor(
        size=size,
        image_mean=list(card.mean),
        image_std=list(card.std),
        resample=3,  # bicubic
    ).save_pretrained(folder)
    with quiet(transformers):
        again = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    return torch.no_grad()(lambda pixels: again(pixel_values=card.to_input(pixels)).logits)


class Packed(nn.Module):
    """uint8 pixels (B, 3, img_size, img_size) -> logits (B, K): normalisation inside."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(card.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(card.std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model((pixels.float() / 255 - self.mean) / self.std)


def write_onnx(model: nn.Module, card: ModelCard, folder: Path) -> Callable[[Tensor], Tensor]:
    """`model.onnx`: "pixels" uint8 (batch, 3, size, size) -> "logits" (batch, K), any batch; labels in its metadata."""
    onnx, runtime = import_library("onnx", "export"), import_library("onnxruntime", "export")
    import_library("onnxscript", "export")
    path = folder / "model.onnx"
    pixels = torch.zeros(2, 3, card.img_size, card.img_size, dtype=torch.uint8)
    packed = Packed(model, card).eval().requires_grad_(False)
    torch.onnx.export(
        packed,
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
            "producer": "patchlight",
        },
    )
    onnx.save(written, path)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def answer(pixels: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"pixels": pixels.numpy()})[0])

    return answer


Writer = Callable[[nn.Module, ModelCard, Path], Callable[[Tensor], Tensor]]
# name: what writes it, and gives back how the written model answers uint8 pixels of its size with logits.
FORMATS: dict[str, Writer] = {
    "safetensors": write_safetensors,
    "timm": write_timm,
    "hf": write_hugging_face,
    "onnx": write_onnx,
}
LIBRARIES = {"safetensors": "patchlight", "timm": "timm", "hf": "transformers", "onnx": "onnx"}


def model_card(run: Run, card: ModelCard, format: str) -> str:
    """README.md with the hub's metadata and the result that was measured."""
    from huggingface_hub import EvalResult, ModelCardData

    config = run.config()
    purpose = "image-classification" if card.class_names else "image-feature-extraction"
    facts: dict[str, Any] = {"tags": ["vision-transformer", "patchlight"], "pipeline_tag": purpose}
    if (run.path / "eval.json").is_file():
        result, where = run.read_json("eval.json"), run.read_json("environment.json")["data"]["path"]
        data = Path(where).name if where else result["data"]  # a path says more of this machine than of the images
        facts["eval_results"] = [
            EvalResult(
                task_type="image-classification",
                dataset_type=data,
                dataset_name=data,
                dataset_split=result["split"],
                metric_type="accuracy",
                metric_value=round(result["top1"], 4),
            )
        ]
        low, high = result["top1_ci95"]
        score = (
            f"Accuracy on {result['n']:,} {result['split']} images of `{data}`: "
            f"**{100 * result['top1']:.2f} %** (95 % interval {100 * low:.2f} to {100 * high:.2f}), read once."
        )
    elif card.class_names:
        score = "It was not measured on test images."
    else:
        score = "It learned without labels, so its head says nothing; give it a new one."
    began = weights_begun_with(card)
    if origin := next((source for source in began if source.commit), None):
        name = origin.id.removeprefix("hf-hub:")
        facts["base_model"] = name if "/" in name else f"timm/{name}"
    about = ModelCardData(library_name=LIBRARIES[format], model_name=config.about.name, **facts)
    classes = " Classes: " + ", ".join(card.class_names[:20]) + (" ..." if len(card.class_names) > 20 else "") + "."
    weights = "".join(f" It began with the weights of `{public_name(source.id)}`." for source in began[:1])
    fitted = ""
    if card.fit_size != card.img_size:
        fitted = (
            f" It was trained on images of {card.fit_size} x {card.fit_size} pixels, enlarged: make yours so first."
        )
    return (
        f"---\n{about.to_yaml()}\n---\n\n# {config.about.name}\n\n"
        f"{public_name(card.name)}, {TAG} `{config.about.name}`.{weights} {score}\n\n"
        f"Input: RGB images of {card.img_size} x {card.img_size} pixels, in 0..1, less {_numbers(card.mean)}, over "
        f"{_numbers(card.std)}.{fitted}{classes if card.class_names else ''}\n"
    )


def weights_begun_with(card: ModelCard) -> list[Weights]:
    """Where a model's first weights came from, and those of that model before it; nothing where they were drawn."""
    sources, source = [], card.source
    while source and source.pretrained:
        sources.append(source)
        source = source.began_with
    return sources


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def push(run: str | Path, repository: str, *, format: str = "timm", private: bool = False) -> dict[str, Any]:
    """Export the run's model and upload it to `OWNER/NAME` of the Hugging Face hub; its address.

    Raises PatchlightError where the hub refuses, as without a login.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalTokenNotFoundError

    if repository.count("/") != 1:
        raise UsageError(f"a repository is OWNER/NAME, not '{repository}'")
    with tempfile.TemporaryDirectory() as folder:
        result = export(run, format, out=folder)
        try:
            api = HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Patchlight's export")
        except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError) as error:
            reason = f"the hub refused {repository}: {first_line(error)}; `hf auth login` logs in"
            raise PatchlightError(reason) from None
        except (OSError, HTTPError) as error:
            raise PatchlightError(f"the hub cannot be reached: {first_line(error)}; try again with a network") from None
    return {**result, "folder": None, "url": f"https://huggingface.co/{repository}"}
