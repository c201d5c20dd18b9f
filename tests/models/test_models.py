"""The table of models, their sizes, saving and loading."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from vits import VITS, images_for

from patchlight.config import RECIPES, ModelConfig, load_recipe, recipe_names
from patchlight.errors import PatchlightError, UsageError
from patchlight.explanation.capture import record_attention
from patchlight.models import MODELS, ModelCard, create_model, load_model, new_spec, pixels_to_input, save_model
from patchlight.models.anatomy import dissect
from patchlight.models.families.huggingface import HuggingFaceClassifier
from patchlight.models.fused import attention_shape, set_fused_attn
from patchlight.models.mae import MaskedAutoencoder
from patchlight.models.summary import count, describe

PARAMETERS = {
    "vit-micro": 311_338,
    "vit-tiny": 2_693_578,
    "vit-small": 6_031_018,
    "vit-base": 25_284_106,
    "deit-tiny": 5_362_762,
    "resnet-micro": 307_274,
    "resnet18": 11_173_962,
}


def vit_parameters(dim: int, depth: int, tokens: int, patch: int, classes: int, ratio: float) -> int:
    """Counted on paper."""
    hidden = int(dim * ratio)
    block = 4 * dim + (3 * dim * dim + 3 * dim) + (dim * dim + dim) + (2 * dim * hidden + hidden + dim)
    return (3 * patch * patch + 1) * dim + dim + tokens * dim + depth * block + 2 * dim + (dim + 1) * classes


@pytest.mark.parametrize("name", MODELS)
def test_every_model_predicts_saves_and_loads(name, tmp_path):
    torch.manual_seed(0)
    model = create_model(name, num_classes=7).eval()
    spec = new_spec(ModelConfig(name=name), img_size=32, num_classes=7)
    card = ModelCard(name, spec, tuple("abcdefg"), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    save_model(tmp_path / "model", model, card)
    again, read = load_model(tmp_path)
    assert read == card
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))
    assert not again.training
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "config.json",
        "manifest.jsonl",
        "model.safetensors",
    ]


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_parameter_counts(name, expected):
    size = count(create_model(name), 32)
    assert size.params == size.trainable == expected


def test_parameter_counts_on_paper():
    assert vit_parameters(192, 6, 65, 4, 10, 4) == PARAMETERS["vit-tiny"]
    assert vit_parameters(288, 6, 65, 4, 10, 4) == PARAMETERS["vit-small"]
    assert vit_parameters(512, 8, 65, 4, 10, 4) == PARAMETERS["vit-base"]
    assert vit_parameters(192, 12, 65, 4, 10, 4) == PARAMETERS["deit-tiny"]


@pytest.mark.parametrize(("patch_size", "tokens"), [(2, 257), (4, 65), (8, 17)])
def test_tokens(patch_size, tokens):
    assert count(create_model("vit-tiny", patch_size=patch_size), 32).tokens == tokens


def test_flops_on_paper():
    """A multiply-add is two: patch embedding; per block qkv, two attention products, projection, MLP; the head."""
    n, d = 65, 192
    block = 2 * n * (3 * d * d + d * d + 8 * d * d) + 4 * n * n * d
    assert count(create_model("vit-tiny"), 32).flops_per_image == 2 * 64 * 48 * d + 6 * block + 2 * d * 10


FLOPS_OF = {  # the same network in three libraries
    "ours": lambda: create_model("vit-tiny"),
    "timm": lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, depth=6, num_classes=10),
    "Hugging Face": lambda: HuggingFaceClassifier(
        transformers.ViTForImageClassification(
            transformers.ViTConfig(
                image_size=32,
                patch_size=4,
                hidden_size=192,
                num_hidden_layers=6,
                num_attention_heads=3,
                intermediate_size=768,
                num_labels=10,
            )
        )
    ),
}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("library", FLOPS_OF)
def test_flops_are_those_on_paper_in_every_library_and_with_either_attention(library, fused):
    model = FLOPS_OF[library]()
    set_fused_attn(model, fused)
    assert count(model, 32).flops_per_image == 365_699_328


def test_a_size_is_json_for_networks_that_call_a_module_stem():
    with torch.device("meta"):
        size = count(timm.create_model("convnext_atto"), 64)
    assert json.loads(json.dumps(size.to_json())) == size.to_json()
    assert (size.stem, size.patch_size, size.tokens) == (None, None, None)


def test_resnet18_is_torchvisions_but_for_the_stem():
    ours, theirs = create_model("resnet18"), torchvision.models.resnet18(num_classes=10)
    theirs.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = torch.nn.Identity()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_describe_counts_every_parameter_once():
    for name in ("vit-tiny", "vit-compact", "resnet18"):
        model = create_model(name)
        rows = describe(model, 32)
        assert sum(row.params for row in rows) == sum(p.numel() for p in model.parameters())
    assert rows[0].shape == "B x 64 x 32 x 32"


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("vit-tinny", {}, "no model 'vit-tinny'; did you mean 'vit-tiny'"),
        ("vit-tiny", {"depht": 3}, "no model argument 'depht'; did you mean 'depth'"),
        ("resnet18", {"patch_size": 4}, "model.patch_size does not apply to resnet18"),
    ],
)
def test_wrong_names(name, overrides, message):
    with pytest.raises(UsageError, match=message):
        create_model(name, **overrides)


def test_pixels_to_input_is_the_textbook_formula():
    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    expected = (pixels.numpy() / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(pixels_to_input(pixels, mean, std).numpy(), expected, atol=1e-5)


class TestDamage:
    """Each damaged file is named in one sentence."""

    @pytest.fixture
    def folder(self, tmp_path):
        spec = new_spec(ModelConfig(name="vit-micro"), img_size=32, num_classes=2)
        card = ModelCard("vit-micro", spec, ("a", "b"), (0.0,) * 3, (1.0,) * 3)
        save_model(tmp_path / "model", create_model("vit-micro", num_classes=2), card)
        return tmp_path / "model"

    def check(self, folder, file):
        with pytest.raises(PatchlightError) as error:
            load_model(folder.parent)
        assert str(folder / file) in str(error.value)
        assert "\n" not in str(error.value)

    def test_missing(self, folder):
        (folder / "model.safetensors").unlink()
        self.check(folder, "model.safetensors")

    def test_truncated(self, folder):
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
        self.check(folder, "model.safetensors")

    def test_of_another_model(self, folder):
        weights = load_file(folder / "model.safetensors")
        save_file({**weights, "head.weight": torch.zeros(3, 96)}, folder / "model.safetensors")
        self.check(folder, "model.safetensors")

    @pytest.mark.parametrize(
        "change",
        [{"name": "vit-huge"}, {"args": {"bogus": 1}}, {"args": [1]}, {"mean": None}],
    )
    def test_config(self, folder, change):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        self.check(folder, "config.json")

    def test_no_json(self, folder):
        (folder / "config.json").write_text("{")
        self.check(folder, "config.json")


def test_the_stems_share():
    found = count(create_model("vit-compact"), 32)
    # Two groups of two 3x3 kernels: 3 to 64 channels on 32 x 32 pixels, 64 on 16 x 16, 64 to 128, 128 on 8 x 8.
    kernels = [(3, 64, 32), (64, 64, 16), (64, 128, 16), (128, 128, 8)]
    assert found.stem_flops == sum(2 * 9 * i * o * side**2 for i, o, side in kernels)
    assert found.stem_params == sum(9 * i * o + 2 * o for i, o, _ in kernels)
    assert count(create_model("resnet18"), 32).stem_flops is None


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).data.source == "cifar10"])
def test_a_recipe_says_how_much_of_it_is_convolution(name):
    config = load_recipe(name)
    if config.model.name not in MODELS:
        pytest.skip("its model is a hub's")
    found = count(create_model(config.model), 32)
    text = (RECIPES / f"{name}.toml").read_text()
    if found.stem != "conv":
        assert "Its stem" not in text
        return
    flops, params = (f"{100 * getattr(found, f'stem_{of}') / getattr(found, whole):.0f} %" for of, whole in SHARES)
    assert f"# Its stem, which is convolution, has {flops} of the FLOPs and {params} of the parameters." in text


SHARES = (("flops", "flops_per_image"), ("params", "params"))


@pytest.mark.parametrize("name", sorted(set(VITS) - {"timm, not square"}))
def test_tokens_are_those_that_attention_sees(name):
    model = VITS[name]().float()
    if isinstance(model, PreTrainedModel):
        model = HuggingFaceClassifier(model)
    images = images_for(name).float()
    with torch.no_grad(), record_attention(anatomy := dissect(model)) as recorded:
        anatomy.logits(images)
    heads, tokens = recorded.attention.shape[2:4]
    found = count(model, 16)
    assert found.tokens in (tokens, None)
    shape = attention_shape(model)
    assert shape in (None, (heads, tokens, 24 // heads))
    if "DINOv2" in name or not name.startswith("Hugging Face"):
        assert found.tokens == tokens
        assert shape is not None


@pytest.mark.parametrize("masked", [False, True])
def test_patches_that_training_leaves_out_are_no_tokens(masked):
    vit = create_model("vit-micro", img_size=16, patch_drop_rate=0.0 if masked else 0.4)
    model = MaskedAutoencoder(vit) if masked else vit
    seen = []
    vit.blocks[0].register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0].shape[1]))
    for training in (True, False):
        model.train(training)(torch.randn(2, 3, 16, 16))
    heads, tokens, width = attention_shape(vit)
    assert attention_shape(model) == (heads, tokens, width)
    assert attention_shape(model, training=True) == (heads, seen[0], width)
    assert seen[0] < tokens
    assert masked or seen[1] == tokens
