"""A layout of Hugging Face that Patchlight has never seen: one function and one row make it a model like any other."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from patchlight import explain, record_attention
from patchlight.config import LoraConfig, ModelConfig, OptimConfig
from patchlight.errors import PatchlightError
from patchlight.evaluation.features import name_of_head, without_head
from patchlight.explanation.methods import METHODS
from patchlight.models import ModelCard, load_backbone, load_model, resize_model, save_model, structure_of
from patchlight.models.adapt import resample_positions
from patchlight.models.anatomy import VitAnatomy, dissect, dissect_vit
from patchlight.models.families.huggingface.layouts import LAYOUTS
from patchlight.models.families.huggingface.vit import VitParts, vit_structure
from patchlight.models.families.names import Names
from patchlight.models.fused import attention_shape, set_fused_attn
from patchlight.models.lora import add_lora
from patchlight.models.structure import AttentionLayer, Structure, Tap
from patchlight.models.summary import count
from patchlight.training.optim import build_optimizers
from patchlight.training.trainable import set_trainable

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class ToyConfig(PretrainedConfig):
    model_type = "toy"

    def __init__(self, image_size: int = 16, patch_size: int = 4, width: int = 12, **more) -> None:
        self.image_size, self.patch_size, self.width = image_size, patch_size, width
        super().__init__(**more)


class Mixer(nn.Module):
    """Attention of two heads, always explicit."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ask, self.answer, self.tell = (nn.Linear(width, width) for _ in range(3))
        self.thin = nn.Dropout(0.0)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (2, -1)).transpose(1, 2) for part in (self.ask, self.answer, self.tell))
        weights = self.thin((q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1))
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Step(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.mixer = nn.LayerNorm(width), Mixer(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mixer(self.scale(x))


class Toy(PreTrainedModel):
    """A ViT with a mean, none of whose parts has a name that anyone uses."""

    config_class = ToyConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        side = config.image_size // config.patch_size
        self.cutter = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        self.start = nn.Parameter(torch.zeros(1, 1, config.width))
        self.places = nn.Parameter(torch.randn(1, 1 + side * side, config.width))
        self.steps = nn.ModuleList(Step(config.width) for _ in range(3))
        self.finish = nn.LayerNorm(config.width)
        self.verdict = nn.Linear(config.width, config.num_labels)
        self.post_init()

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        x = self.cutter(pixel_values).flatten(2).transpose(1, 2)
        x = torch.cat([self.start.expand(len(x), -1, -1), x], dim=1) + self.places
        for step in self.steps:
            x = step(x)
        return ImageClassifierOutput(logits=self.decode(x))

    def decode(self, x: Tensor) -> Tensor:
        return self.verdict(self.finish(x)[:, 0])


def toy(model: nn.Module) -> Structure | None:
    """The layout: which part is which."""
    net = getattr(model, "hf", model)
    if not isinstance(net, Toy):
        return None
    mixers, names = [step.mixer for step in net.steps], Names(net)
    parts = VitParts(
        embeddings=(net.cutter, net.start, net.places),
        patch_embed=net.cutter,
        patch_kernel=net.cutter.weight,
        patch_size=(net.config.patch_size, net.config.patch_size),
        tokens=(net.start,),
        num_prefix_tokens=1,
        positions=net.places,
        position_prefix=1,
        blocks=tuple(net.steps),
        attentions=tuple(
            AttentionLayer(
                name=names.of(mixer),
                module=mixer,
                num_heads=2,
                weights=Tap(mixer.thin, lambda x: x),
                values=mixer.tell,
                finish=lambda mixed, tokens, mixer=mixer: mixer.out(mixed),
            )
            for mixer in mixers
        ),
        explicit_attention=contextlib.nullcontext,
        first_norms=tuple(step.scale for step in net.steps),
        last_norms=(net.finish,),
        heads=(net.verdict,),
        pooling="token",
        decode=net.decode,
    )
    return vit_structure(model, parts)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A saved toy with seven classes, of which the library knows, and so does the table of layouts."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING as CLASSIFIERS

    AutoConfig.register("toy", ToyConfig, exist_ok=True)
    AutoModelForImageClassification.register(ToyConfig, Toy, exist_ok=True)
    assert ToyConfig in CLASSIFIERS
    rows = dict(LAYOUTS)
    LAYOUTS.clear()
    LAYOUTS.update({"toy": toy, **rows})
    torch.manual_seed(0)
    Toy(ToyConfig(num_labels=7)).save_pretrained(tmp_path / "toy")
    yield tmp_path / "toy"
    del LAYOUTS["toy"]
    assert rows == LAYOUTS


def load(folder, size: int = 16, **fields):
    return load_backbone(ModelConfig(name=str(folder), **fields), img_size=size, num_classes=5)


def test_it_is_loaded_resampled_saved_and_resized(folder, tmp_path):
    original = Toy.from_pretrained(folder)
    larger = load(folder, size=32, patch_size=8)
    assert larger.model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert "patch kernels from 4 to 8" in larger.note
    wide = load(folder, size=32)
    assert wide.note.startswith("positions resampled from 4x4 to 8x8 patches")
    torch.testing.assert_close(wide.model.hf.places, resample_positions(original.places, (8, 8), 1))
    torch.testing.assert_close(wide.model.hf.steps[2].mixer.ask.weight, original.steps[2].mixer.ask.weight)
    card = ModelCard("toy", wide.spec, tuple("abcde"), (0.5,) * 3, (0.5,) * 3, wide.source)
    save_model(tmp_path / "saved", wide.model, card)
    again, read = load_model(tmp_path / "saved")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(again(images), wide.model.eval()(images))
    small, _ = resize_model(again, read, 16)
    assert small(IMAGES).shape == (2, 5)


def test_what_is_trained_decayed_and_counted(folder):
    model = load(folder).model
    structure = structure_of(model)
    depths = structure.depths()
    assert depths["hf.places"] == depths["hf.cutter.weight"] == 0
    assert (depths["hf.steps.1.mixer.ask.weight"], depths["hf.finish.weight"]) == (2, 3)
    assert depths["hf.verdict.bias"] == 4
    assert structure.no_decay == {"hf.start", "hf.places"}

    def trained(what: str) -> set[str]:
        set_trainable(model, what, list(depths))
        return {name for name, p in model.named_parameters() if p.requires_grad}

    assert trained("head") == {"hf.verdict.weight", "hf.verdict.bias"}
    assert {name.rpartition(".")[0] for name in trained("last 1") if "steps" not in name} == {"hf.finish", "hf.verdict"}
    assert trained("all") == set(depths)
    matrices, rest = build_optimizers(model, OptimConfig(name="muon", layer_decay=0.5))
    assert sum(len(group["params"]) for group in matrices.param_groups) == 3 * 4
    assert {group["lr_scale"] for group in rest.param_groups} == {1.0, 0.5, 0.25, 0.125, 0.0625}
    size = count(model, 16)
    assert (size.patch_size, size.tokens, size.stem_params) == (4, 17, 12 * 48 + 12)
    assert size.stem_flops == 2 * 16 * 48 * 12
    assert attention_shape(model) == (2, 17, 6)
    set_fused_attn(model, True)  # it has one kind only
    assert name_of_head(model) == "hf.verdict"
    with without_head(model):
        assert model(IMAGES).shape == (2, 12)
    assert add_lora(model, LoraConfig(rank=2), 16) == 3 * 4


def test_it_learns(folder):
    model = load(folder).model
    labels = torch.tensor([0, 3])
    (optimizer,) = build_optimizers(model, OptimConfig(lr=0.01))
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(IMAGES), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("method", METHODS)
def test_it_is_explained(folder, method):
    maps = explain(load(folder).model.eval(), IMAGES, method=method).maps
    assert maps.shape == (2, 4, 4)
    assert maps.isfinite().all()


def test_its_attention_is_recorded(folder):
    model = load(folder).model.eval()
    with record_attention(model, values=True) as recorded:
        logits = model(IMAGES)
    assert recorded.attention.shape == (2, 3, 2, 17, 17)
    torch.testing.assert_close(recorded.attention.sum(-1), torch.ones(2, 3, 2, 17))
    assert recorded.values.shape == (2, 3, 2, 17, 6)
    assert recorded.names[1] == "steps.1.mixer"
    torch.testing.assert_close(dissect(model).logits(IMAGES), logits)


def test_without_its_row_it_is_a_network_like_any_other(folder):
    """Its levels are found, it has maps that need no attention, and those that do say what is missing."""
    row = LAYOUTS.pop("toy")
    try:
        model = load(folder, pretrained=False).model
        assert not isinstance(dissect(model), VitAnatomy)
        assert len(structure_of(model).levels) == 3
        with pytest.raises(PatchlightError, match="Toy is no Vision Transformer whose attention can be seen"):
            dissect_vit(model)
        assert explain(model.eval(), IMAGES).method == "gradcam"
    finally:
        LAYOUTS["toy"] = row
