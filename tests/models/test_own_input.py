"""How pretrained weights want their images: held against the image processors of Hugging Face and timm themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from saved import save_hugging_face, save_timm

from patchlight.commands.export import write_hugging_face, write_timm
from patchlight.config import ModelConfig
from patchlight.data.decode import fit_square
from patchlight.errors import PatchlightError
from patchlight.models import ModelCard, load_backbone
from patchlight.models.backbone import OwnInput, nearest_interpolation
from patchlight.models.loading import own_input
from patchlight.models.summary import count

SALIENCY = Path(__file__).parents[3] / "shared" / "models" / "vit-s14-saliency"
SIZE = 48  # pixels a side that the model takes; the images have 32
# Far enough from black and white for bicubic interpolation to stay inside: Pillow cuts off between its two passes.
IMAGE = np.random.default_rng(0).integers(80, 176, (32, 32, 3), dtype=np.uint8)
WIDE = Image.fromarray(np.random.default_rng(1).integers(80, 176, (61, 97, 3), dtype=np.uint8))
PIXELS = torch.from_numpy(IMAGE).permute(2, 0, 1)[None]


def card_of(name: str) -> ModelCard:
    found = load_backbone(ModelConfig(name=name), img_size=SIZE, num_classes=3)
    own = found.own
    return ModelCard("it", found.spec, tuple("abc"), own.mean, own.std, None, 32, own.interpolation or "bicubic")


def hugging_face(folder: Path, **settings) -> Path:
    """A ViT in a folder, with a processor whose settings are these."""
    save_hugging_face(folder)
    about = {"image_processor_type": "ViTImageProcessor", "size": {"height": SIZE, "width": SIZE}}
    about |= {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], **settings}
    given = {key: value for key, value in about.items() if value is not ...}
    (folder / "preprocessor_config.json").write_text(json.dumps(given))
    return folder


@pytest.mark.parametrize("kind", ["ViTImageProcessor", "ViTImageProcessorPil"])
@pytest.mark.parametrize(
    "settings",
    [
        {"resample": 2},
        {"resample": 3},
        {},  # the processor's own default, bilinear
        {"resample": 3, "rescale_factor": 1 / 127.5},
        {"resample": 2, "do_normalize": False},
        {"resample": 2, "do_rescale": False, "image_mean": [120.0] * 3, "image_std": [60.0] * 3},
        {"resample": 2, "do_normalize": False, "rescale_factor": 1 / 510},
        {"image_mean": ..., "image_std": ...},  # left out: the processor's own default, 0.5
    ],
    ids=str,
)
def test_pixels_are_hugging_faces(kind, settings, tmp_path):
    """To within the rounding to whole pixel values, which ours does not do."""
    folder = hugging_face(tmp_path / "vit", **settings)
    theirs = getattr(transformers, kind).from_pretrained(folder)(Image.fromarray(IMAGE), return_tensors="pt")
    card = card_of(str(folder))
    step = 1 / 255 / min(card.std)
    assert (card.to_input(PIXELS) - theirs["pixel_values"]).abs().max() <= 1.01 * step
    other = ModelCard(
        **{**vars(card), "interpolation": {"bilinear": "bicubic", "bicubic": "bilinear"}[card.interpolation]}
    )
    assert (other.to_input(PIXELS) - theirs["pixel_values"]).abs().max() > 3 * step


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pixels_are_timms(interpolation, tmp_path):
    folder = save_timm(tmp_path / "timm")
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"interpolation": interpolation, "crop_pct": 1.0}
    (folder / "config.json").write_text(json.dumps(config))
    about = timm.data.resolve_data_config({"input_size": (3, SIZE, SIZE)}, pretrained_cfg=config["pretrained_cfg"])
    theirs = timm.data.create_transform(**about)(Image.fromarray(IMAGE))
    card = card_of(f"local-dir:{folder}")
    assert card.interpolation == interpolation
    assert (card.to_input(PIXELS)[0] - theirs).abs().max() <= 1.01 / 255 / min(card.std)


@pytest.mark.parametrize(("kind", "interpolation"), [("ViT", "bilinear"), ("Dinov2", "bicubic"), ("DeiT", "bicubic")])
def test_a_folder_without_a_processor(kind, interpolation, tmp_path):
    """What the processor of its type does by default, which is said."""
    folder = save_hugging_face(tmp_path / "it", kind, **({"mlp_ratio": 2} if kind == "Dinov2" else {}))
    (folder / "preprocessor_config.json").unlink()
    found = load_backbone(ModelConfig(name=str(folder)), img_size=32, num_classes=3)
    assert (found.own.interpolation, found.own.mean) == (interpolation, None)
    assert f"nor how they were resized: {interpolation}, its type's default, is taken" in found.note


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "does not name an interpolation: bilinear, its processor's default"),
        ({"resample": None}, "does not name an interpolation: bilinear, its processor's default"),
        ({"resample": 1}, "resized by 'lanczos', which is not done here: bicubic is taken"),
        ({"resample": 0}, "resized by 'nearest', which is not done here: bilinear is taken"),
        (
            {"resample": 2, "do_center_crop": True, "size": {"shortest_edge": 256}, "crop_size": {"height": 224}},
            "its processor resizes to 256 and cuts out the middle 224; here images are kept whole",
        ),
        (
            {"resample": 2, "do_center_crop": True, "size": 256, "crop_size": 224},
            "its processor resizes to 256 and cuts out the middle 224",
        ),
        (
            {"image_processor_type": "DeiTImageProcessor", "size": ...},
            "its processor resizes to 256 and cuts out the middle 224",  # its own defaults
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875},
            "its processor cuts out the middle 87.5% of an image; here images are kept whole",
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
            "its processor stretches an image that is not square; here its middle is taken",
        ),
        ({}, "its processor stretches an image that is not square; here its middle is taken"),
        ({"resample": 2, "do_flip_channel_order": True}, "turns RGB into BGR, which is not done here"),
    ],
    ids=str,
)
def test_what_is_done_otherwise_is_said(settings, said, tmp_path):
    folder = hugging_face(tmp_path / "vit", **settings)
    assert said in load_backbone(ModelConfig(name=str(folder)), img_size=32, num_classes=3).note


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"offset": True}, r"moves pixels to -1\.\.1"),
        ({"rescale_offset": True, "rescale_factor": 1 / 127.5}, r"moves pixels to -1\.\.1"),  # EfficientNet's word
        ({"resample": 9}, "interpolation '9' that is not known"),
        ({"resample": "best"}, "interpolation 'best' that is not known"),
    ],
    ids=str,
)
def test_a_processor_that_cannot_be_followed_is_refused(settings, said, tmp_path):
    folder = hugging_face(tmp_path / "vit", **settings)
    with pytest.raises(PatchlightError, match=said):
        load_backbone(ModelConfig(name=str(folder)), img_size=32, num_classes=3)


def test_a_processor_that_does_not_normalise(tmp_path):
    """Its class has a mean that it does not take."""
    folder = hugging_face(
        tmp_path / "vit", image_processor_type="MobileViTImageProcessor", image_mean=..., image_std=...
    )
    own = own_input(ModelConfig(name=str(folder)))
    assert (own.mean, own.std) == ((0.0,) * 3, (1.0,) * 3)
    assert "mean" not in own.note


def test_what_timms_file_leaves_out(tmp_path):
    folder = save_timm(tmp_path / "timm")
    config = json.loads((folder / "config.json").read_text())
    for key in ("mean", "std", "crop_pct"):
        del config["pretrained_cfg"][key]
    config["pretrained_cfg"] |= {"input_size": [3, 224, 224], "fixed_input_size": True}
    (folder / "config.json").write_text(json.dumps(config))
    own = own_input(ModelConfig(name=f"local-dir:{folder}"))
    assert (own.mean, own.size) == ((0.485, 0.456, 0.406), 32)  # of model_args, whose weights these are
    assert "it does not name mean and deviation: timm's default, ImageNet's, is taken" in own.note
    assert "keeps the middle 87.5%" in own.note
    config["pretrained_cfg"] |= {"fixed_input_size": False, "input_size": [3, 224, 192]}
    (folder / "config.json").write_text(json.dumps(config))
    assert own_input(ModelConfig(name=f"local-dir:{folder}")).size is None


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, SIZE),
        ({"size": 40}, 40),
        ({"size": {"shortest_edge": 40}}, 40),
        ({"size": {"height": 40, "width": 56}}, 32),  # no square: the model's own
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 40, "width": 40}}, 40),
        ({"size": {"shortest_edge": 56}, "do_center_crop": False, "crop_size": {"height": 40, "width": 40}}, 56),
        ({"image_processor_type": "DeiTImageProcessor", "size": ...}, 224),
        ({"size": {"longest_edge": 56}}, 32),
        ({"size": [40, 40]}, 40),
    ],
    ids=str,
)
def test_the_size_is_what_the_processor_makes(settings, size, tmp_path):
    folder = hugging_face(tmp_path / "vit", **settings)
    assert own_input(ModelConfig(name=str(folder))).size == size


@pytest.mark.parametrize(("mode", "said"), [("squash", "stretches"), ("border", "adds borders to"), ("center", "")])
def test_what_timm_does_with_other_shapes_is_said(mode, said, tmp_path):
    folder = save_timm(tmp_path / "timm")
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"crop_mode": mode, "crop_pct": 0.9}
    (folder / "config.json").write_text(json.dumps(config))
    note = load_backbone(ModelConfig(name=f"local-dir:{folder}"), img_size=32, num_classes=3).note
    assert "keeps the middle 90.0% of an image; here images are kept whole" in note
    assert (f"{said} an image that is not square; here its middle is taken" in note) == bool(said)
    assert ("not square; here its" in note) == bool(said)


def test_an_interpolation_that_is_none():
    with pytest.raises(PatchlightError, match="interpolation 'sinc' that is not known"):
        nearest_interpolation("sinc")


def test_the_input_is_known_without_the_weights(tmp_path):
    """As it is when they are loaded; random weights have none."""
    folders = [str(hugging_face(tmp_path / f"vit{resample}", resample=resample)) for resample in (1, 2, 3)]
    folders += [str(save_hugging_face(tmp_path / "dino", "Dinov2", mlp_ratio=2))]
    (tmp_path / "dino" / "preprocessor_config.json").unlink()
    for kind in ("bilinear", "bicubic", ""):
        folder = save_timm(tmp_path / f"timm-{kind}")
        config = json.loads((folder / "config.json").read_text())
        config["pretrained_cfg"]["interpolation"] = kind
        (folder / "config.json").write_text(json.dumps(config))
        folders.append(f"local-dir:{folder}")
    loaded = [load_backbone(ModelConfig(name=name), img_size=32, num_classes=3).own for name in folders]
    for name in folders:
        (Path(name.removeprefix("local-dir:")) / "model.safetensors").unlink()
    assert [own_input(ModelConfig(name=name)) for name in folders] == loaded
    words = ["bicubic", "bilinear", "bicubic", "bicubic", "bilinear", "bicubic", "bicubic"]
    assert [own.interpolation for own in loaded] == words
    assert [own.size for own in loaded] == [SIZE] * 3 + [32] * 4
    assert {own_input(ModelConfig(name=name, pretrained=False)) for name in folders} == {OwnInput()}
    assert own_input(ModelConfig(name="vit-tiny")) == OwnInput()


def test_an_old_card_is_bicubic():
    card = ModelCard(
        "vit-micro",
        load_backbone(ModelConfig(name="vit-micro"), img_size=8, num_classes=2).spec,
        (),
        (0.5, 0.5, 0.5),
        (0.2, 0.2, 0.2),
    )
    old = {key: value for key, value in card.to_json().items() if "interpolation" not in key}
    assert ModelCard.from_json(old) == card
    with pytest.raises(ValueError, match="its fit_interpolation is 'box'"):
        ModelCard.from_json({**old, "fit_interpolation": "box"})
    with pytest.raises(ValueError, match="its interpolation is 'box'"):
        ModelCard.from_json({**card.to_json(), "interpolation": "box"})


@pytest.mark.parametrize("resample", [2, 3])
def test_an_export_prepares_images_in_the_same_way(resample, tmp_path):
    """The library's own pipeline, from the image to the logits, gives ours; of an image that is not square, too."""
    folder = hugging_face(tmp_path / "vit", resample=resample)
    found, card = load_backbone(ModelConfig(name=str(folder)), img_size=SIZE, num_classes=3), card_of(str(folder))
    model = found.model.eval()
    write_hugging_face(model, card, tmp_path / "out")
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        ours = model(card.to_input(PIXELS))
        theirs = again(**processor(Image.fromarray(IMAGE), return_tensors="pt")).logits
    torch.testing.assert_close(theirs, ours, atol=2e-3, rtol=0)
    square = Image.fromarray(np.array(fit_square(WIDE, SIZE, card.interpolation)))
    assert (np.array(square) != np.array(WIDE.resize((SIZE, SIZE)))).mean() > 0.5
    pixels = processor(WIDE, return_tensors="pt")["pixel_values"]
    expected = card.to_input(torch.from_numpy(np.array(square)).permute(2, 0, 1)[None])
    assert (pixels - expected).abs().max() <= 2.02 / 255 / min(card.std)

    first = save_timm(tmp_path / "timm")
    config = json.loads((first / "config.json").read_text())
    config["pretrained_cfg"] |= {"crop_mode": "squash", "test_input_size": [3, 64, 64], "test_crop_pct": 0.5}
    (first / "config.json").write_text(json.dumps(config))
    small = load_backbone(ModelConfig(name=f"local-dir:{first}"), img_size=SIZE, num_classes=3)
    card = ModelCard(**{**vars(card), "spec": small.spec})
    write_timm(small.model.eval(), card, tmp_path / "theirs")
    again = timm.create_model(f"local-dir:{tmp_path / 'theirs'}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(again))
    with torch.no_grad():
        ours = small.model(card.to_input(PIXELS))
        theirs = again(transform(Image.fromarray(IMAGE))[None])
    torch.testing.assert_close(theirs, ours, atol=5e-3, rtol=0)
    assert (transform(WIDE) - expected[0]).abs().max() <= 2.02 / 255 / min(card.std)
    tested = timm.data.resolve_model_data_config(again, use_test_size=True)
    assert (tested["input_size"], tested["crop_pct"], tested["crop_mode"]) == ((3, SIZE, SIZE), 1.0, "center")


@pytest.mark.skipif(not SALIENCY.is_dir(), reason=f"the weights of {SALIENCY} are not on this machine")
def test_real_weights():
    """A real ViT-S/14 in float16: at any size, with its own pixels, and what that size costs is said."""
    for size in (56, 84):
        found = load_backbone(ModelConfig(name=str(SALIENCY)), img_size=size, num_classes=10)
        assert (found.own.mean, found.own.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        assert (found.own.interpolation, found.own.size) == ("bicubic", 224)
        assert {p.dtype for p in found.model.parameters()} == {torch.float32}
        with torch.no_grad():
            logits = found.model.eval()(torch.zeros(1, 3, size, size))
        assert logits.shape == (1, 10)
        assert logits.isfinite().all()
        ours = count(found.model, size).flops_per_image / 1e9
        said = f"made for 224 pixels a side; of {size} an image costs "
        cost = f"{ours:.3g} GFLOPs" if ours >= 1 else f"{1000 * ours:.3g} MFLOPs"
        assert said + cost in found.note
        assert "times less than of 224 (12.2 GFLOPs)" in found.note
        assert "its processor resizes to 256 and cuts out the middle 224" in found.note
