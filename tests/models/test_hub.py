"""Models of timm and Hugging Face: found by their names, read, resampled and saved; errors in a sentence."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import re
import shutil

import pytest
import timm
import torch
import transformers
from saved import save_hugging_face, save_timm
from small import SMALL
from torch import nn

from patchlight.cli.main import main
from patchlight.config import ModelConfig
from patchlight.errors import PatchlightError, UsageError
from patchlight.evaluation.features import without_head
from patchlight.explanation.capture import record_attention
from patchlight.explanation.methods import explain
from patchlight.models import (
    ModelCard,
    check_model,
    create_model,
    load_backbone,
    load_model,
    resize_model,
    save_model,
    structure_of,
    understand,
)
from patchlight.models.adapt import resample_kernel, resample_positions
from patchlight.models.anatomy import VitAnatomy, dissect, dissect_vit
from patchlight.models.families.hub import commit_of, plain_errors
from patchlight.models.fused import attention_shape, set_fused_attn
from patchlight.models.reference import HuggingFaceModel, NewModel, SavedModel, TimmModel
from patchlight.models.summary import count
from patchlight.training.trainable import set_trainable

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    return {
        "timm": save_timm(root / "timm"),
        "huggingface": save_hugging_face(root / "vit"),
        "encoder": save_hugging_face(root / "encoder", classifier=False),
        "mae": save_hugging_face(
            root / "mae",
            "ViTMAE",
            decoder_hidden_size=24,
            decoder_num_attention_heads=3,
            decoder_intermediate_size=48,
            decoder_num_hidden_layers=1,
        ),
        "deit": save_hugging_face(root / "deit", "DeiT"),
        "dinov2": save_hugging_face(root / "dinov2", "Dinov2", mlp_ratio=2),
    }


def load(name, size: int = 32, classes: int = 5, **fields):
    return load_backbone(ModelConfig(name=str(name), **fields), img_size=size, num_classes=classes)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("vit-tiny", NewModel("vit-tiny")),
        (
            "timm/vit_tiny_patch16_224.augreg_in21k",
            TimmModel("timm/vit_tiny_patch16_224.augreg_in21k", "registry", "vit_tiny_patch16_224.augreg_in21k"),
        ),
        (
            "hf-hub:timm/vit_tiny_patch16_224",
            TimmModel("hf-hub:timm/vit_tiny_patch16_224", "hub", "timm/vit_tiny_patch16_224"),
        ),
        ("local-dir:here", TimmModel("local-dir:here", "folder", "here")),
        ("google/vit-base-patch16-224", HuggingFaceModel("google/vit-base-patch16-224")),
    ],
)
def test_a_name_says_where_a_model_comes_from(name, reference):
    assert understand(name) == reference


@pytest.mark.parametrize("name", ["./google/vit", "a/b/c", "~/vit", "vit"])
def test_a_name_that_is_no_models(name):
    with pytest.raises(UsageError, match=f"no model '{name}'"):
        understand(name)


def test_folders_are_told_apart_by_their_config(folders, tmp_path):
    timms, theirs = str(folders["timm"]), str(folders["huggingface"])
    assert understand(timms) == TimmModel(timms, "folder", timms)
    assert understand(theirs) == HuggingFaceModel(theirs)
    save_model(tmp_path / "run" / "model", create_model("vit-micro"), micro_card())
    for folder in (tmp_path / "run", tmp_path / "run" / "model"):
        assert understand(str(folder)) == SavedModel(str(folder), tmp_path / "run" / "model")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"has no config\.json of a model"):
        understand(str(tmp_path))


def test_a_row_of_the_table_wins_over_a_folder_of_its_name(folders, tmp_path, monkeypatch):
    shutil.copytree(folders["huggingface"], tmp_path / "vit-micro")
    monkeypatch.chdir(tmp_path)
    assert understand("vit-micro") == NewModel("vit-micro")
    check_model(ModelConfig(name="vit-micro", stem="conv"))
    assert understand("./vit-micro") == HuggingFaceModel("./vit-micro")


def micro_card() -> ModelCard:
    return ModelCard("vit-micro", load_spec("vit-micro", 10), tuple("abcdefghij"), (0.5,) * 3, (0.2,) * 3)


@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_timm_weights_are_timms(folders, prefix):
    found = load(f"{prefix}{folders['timm']}")
    original = timm.create_model(f"local-dir:{folders['timm']}", pretrained=True).eval()
    assert found.model.head.out_features == 5
    model = found.model.eval()
    torch.testing.assert_close(model.forward_features(IMAGES), original.forward_features(IMAGES))
    assert (found.own.mean, found.own.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    kept = "here images are kept whole, or the middle of one that is not square"
    assert found.note == f"its own preprocessing keeps the middle 90.0% of an image; {kept}"
    assert found.source.library == f"timm {timm.__version__}"


@pytest.mark.parametrize("kind", ["huggingface", "deit", "dinov2"])
def test_hugging_face_weights_are_theirs(folders, kind):
    found = load(folders[kind])
    original = transformers.AutoModelForImageClassification.from_pretrained(folders[kind]).eval()
    inner = found.model.hf.eval()
    for key, value in original.state_dict().items():
        if "classifier" not in key:
            torch.testing.assert_close(inner.state_dict()[key], value)
    assert found.model.eval()(IMAGES).shape == (2, 5)
    assert (found.own.mean, found.own.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert isinstance(dissect(found.model), VitAnatomy)


@pytest.mark.parametrize("kind", ["encoder", "mae"])
def test_an_encoder_gets_a_head(folders, kind):
    found = load(folders[kind])
    cls = transformers.ViTModel if kind == "encoder" else transformers.ViTMAEModel
    original = cls.from_pretrained(folders[kind])
    theirs = {key.removeprefix("vit."): value for key, value in original.state_dict().items()}
    ours = {key.removeprefix("hf.vit."): value for key, value in found.model.state_dict().items()}
    for key in ("layers.1.mlp.fc1.weight", "embeddings.cls_token", "layernorm.bias"):
        torch.testing.assert_close(ours[key], theirs[key])
    assert found.model(IMAGES).shape == (2, 5)


@pytest.mark.parametrize("kind", ["timm", "huggingface"])
def test_another_size_and_patch(folders, kind):
    found = load(folders[kind], size=48, patch_size=8)
    assert found.note.startswith(
        "positions resampled from 8x8 to 6x6 patches, patch kernels from 4 to 8 pixels a side; "
    )
    assert re.search(r"made for 32 pixels a side; of 48 an image costs [\d.]+ MFLOPs$", found.note)  # of another patch
    assert found.model.eval()(torch.zeros(2, 3, 48, 48)).shape == (2, 5)
    state = found.model.state_dict()
    position, kernel = (
        ("pos_embed", "patch_embed.proj.weight")
        if kind == "timm"
        else ("hf.vit.embeddings.position_embeddings", "hf.vit.embeddings.patch_embeddings.projection.weight")
    )
    before = load(folders[kind]).model.state_dict()
    torch.testing.assert_close(state[position], resample_positions(before[position], (6, 6), 1))
    torch.testing.assert_close(state[kernel], resample_kernel(before[kernel], (8, 8)), atol=1e-5, rtol=1e-4)


def test_resampling_is_timms():
    table = torch.randn(1, 2 + 49, 8)
    theirs = timm.layers.resample_abs_pos_embed(table, [4, 5], num_prefix_tokens=2)
    torch.testing.assert_close(resample_positions(table, (4, 5), 2), theirs)
    kernel = torch.randn(6, 3, 16, 16)
    for size in (8, 32):
        torch.testing.assert_close(
            resample_kernel(kernel, (size, size)),
            timm.layers.resample_patch_embed(kernel, [size, size]),
            atol=1e-4,
            rtol=1e-3,
        )


def test_a_resampled_kernel_says_the_same_of_resized_patches():
    """Of patches made larger exactly: the products are what they were."""
    kernel, patches = torch.randn(4, 3, 4, 4), torch.randn(5, 3, 4, 4)
    larger = torch.nn.functional.interpolate(patches, size=(8, 8), mode="bicubic", antialias=True)
    before = patches.flatten(1) @ kernel.flatten(1).T
    after = larger.flatten(1) @ resample_kernel(kernel, (8, 8)).flatten(1).T
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["timm", "huggingface", "dinov2"])
def test_a_saved_model_is_read_without_its_origin(folders, tmp_path, kind):
    copy = tmp_path / "copy"
    shutil.copytree(folders[kind], copy)
    found = load(copy, drop_path_rate=0.1) if kind == "timm" else load(copy, attn_drop_rate=0.1)
    card = ModelCard(str(copy), found.spec, tuple("abcde"), (0.5,) * 3, (0.5,) * 3, found.source)
    save_model(tmp_path / "saved", found.model, card)
    shutil.rmtree(copy)
    again, read = load_model(tmp_path / "saved")
    assert (read.name, read.mean, read.source) == (card.name, card.mean, card.source)
    torch.testing.assert_close(again(IMAGES), found.model.eval()(IMAGES))
    from_there = load(tmp_path / "saved")  # and is itself a place to start from
    assert from_there.source.id == str(tmp_path / "saved")
    larger, _ = resize_model(again, read, 64)
    assert larger.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


def test_a_run_of_ours_is_a_backbone(tmp_path):
    model = create_model("vit-micro", num_classes=3)
    card = ModelCard("vit-micro", load_spec("vit-micro", 3), ("a", "b", "c"), (0.5,) * 3, (0.2,) * 3)
    save_model(tmp_path / "model", model, card)
    other = load(tmp_path, classes=5)
    assert other.own.mean == (0.5,) * 3
    assert "a new head" in other.note
    torch.testing.assert_close(other.model.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)
    same = load_backbone(ModelConfig(name=str(tmp_path)), img_size=32, num_classes=3, class_names=("a", "b", "c"))
    torch.testing.assert_close(same.model.eval()(IMAGES), model.eval()(IMAGES))
    assert "its head kept" in same.note
    wider = load(tmp_path, size=64)
    assert "resampled for 64" in wider.note
    with pytest.raises(PatchlightError, match=r"leave that part of the model as it was"):
        load(tmp_path, embed_dim=48)


def load_spec(name: str, classes: int):
    return load_backbone(ModelConfig(name=name), img_size=32, num_classes=classes).spec


def test_without_weights(folders):
    torch.manual_seed(1)
    found = load(folders["huggingface"], pretrained=False)
    assert found.own.mean is None
    assert not torch.equal(
        found.model.state_dict()["hf.vit.layers.0.mlp.fc1.weight"],
        load(folders["huggingface"]).model.state_dict()["hf.vit.layers.0.mlp.fc1.weight"],
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/vit_smal_patch8_224", "timm has no model 'vit_smal_patch8_224'; did you mean 'vit_small_patch8_224'"),
        ("timm/vit_small_patch8_224.augreg", "timm has no weights 'augreg' of vit_small_patch8_224; known: dino"),
        ("vit-tyni", "no model 'vit-tyni'; did you mean 'vit-tiny'"),
        ("vit_small_patch16_224", "no model 'vit_small_patch16_224' of Patchlight, but timm has it: timm/vit_small"),
    ],
)
def test_a_wrong_name_is_told_before_anything_is_loaded(name, message):
    with pytest.raises(UsageError, match=message):
        check_model(ModelConfig(name=name))


def test_a_field_of_ours_that_is_not_theirs(folders):
    with pytest.raises(UsageError, match=r"model.stem does not apply"):
        check_model(ModelConfig(name=str(folders["timm"]), stem="conv"))
    with pytest.raises(UsageError, match=r"model.drop_path_rate does not apply"):
        load(folders["huggingface"], drop_path_rate=0.1)


def damaged(folder, tmp_path, what):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (weights,) = copy.glob("*.safetensors")
    if what == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif what == "malformed":
        weights.write_bytes(b"{" * 100)
    elif what == "pickle":
        weights.write_bytes(pickle.dumps({"head.weight": [1.0]}))
    elif what == "no weights":
        for path in copy.glob("*.safetensors"):
            path.unlink()
        (copy / "pytorch_model.bin").unlink(missing_ok=True)
    elif what == "no config":
        (copy / "config.json").unlink()
    elif what == "broken config":
        (copy / "config.json").write_text("{")
    elif what == "other shape":
        config = json.loads((copy / "config.json").read_text())
        if "architecture" in config:
            config["model_args"]["embed_dim"] = 48
        else:
            config["hidden_size"] = 48
        (copy / "config.json").write_text(json.dumps(config))
    elif what == "other head":
        config = json.loads((copy / "config.json").read_text())
        if "architecture" in config:
            for part in (config, config["pretrained_cfg"], config["model_args"]):
                part["num_classes"] = 9
        else:
            config |= {"id2label": {str(i): f"LABEL_{i}" for i in range(9)}}
            config["label2id"] = {name: int(i) for i, name in config["id2label"].items()}
        (copy / "config.json").write_text(json.dumps(config))
    elif what == "unknown type":
        config = json.loads((copy / "config.json").read_text())
        config |= {"architecture": "vit_huge_unknown"} if "architecture" in config else {"model_type": "vit_unknown"}
        (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize("kind", ["timm", "huggingface"])
@pytest.mark.parametrize(
    "what",
    [
        "truncated",
        "malformed",
        "pickle",
        "no weights",
        "no config",
        "broken config",
        "other shape",
        "other head",
        "unknown type",
    ],
)
def test_damage_is_told_in_a_sentence(folders, tmp_path, kind, what):
    folder = damaged(folders[kind], tmp_path, what)
    name = f"local-dir:{folder}" if kind == "timm" else str(folder)
    with pytest.raises(PatchlightError, match=TOLD[what]) as error:
        load(name)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


TOLD = {
    "truncated": "damaged or no safetensors",
    "malformed": "its weights are missing, damaged or another model's",
    "pickle": "its weights are missing, damaged or another model's",
    "no weights": "its weights are missing, damaged or another model's",
    "no config": r"config\.json",
    "broken config": r"config\.json cannot be read as JSON",
    "other shape": r"do not fit its config\.json: size mismatch|its config\.json belongs to other weights",
    "other head": r"do not fit its config\.json: size mismatch|its config\.json belongs to other weights",
    "unknown type": "'architecture' is 'vit_huge_unknown'; it must be|'model_type' is 'vit_unknown', which this",
}


@pytest.mark.parametrize("kind", ["timm", "huggingface"])
@pytest.mark.parametrize("error", [TypeError, KeyError, ValueError, RuntimeError, AttributeError])
def test_our_own_bugs_keep_their_traceback(folders, monkeypatch, kind, error):
    """What goes wrong outside a library's call is not told as damage of the model."""

    def bug(*args, **options):
        raise error("a bug")

    monkeypatch.setattr(f"patchlight.models.families.{kind.replace(' ', '')}.pretrained.commit_of", bug)
    with pytest.raises(error, match="a bug"):
        load(folders[kind])


def test_errors_that_no_library_raises_are_not_told_plainly():
    with pytest.raises(ZeroDivisionError), plain_errors("a model"):
        _ = 1 / 0


@pytest.mark.parametrize("kind", ["timm", "huggingface"])
def test_a_pickle_with_code_is_not_run(folders, tmp_path, kind):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    copy = damaged(folders[kind], tmp_path, "no weights")
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps({"classifier.bias": Evil()}, protocol=2))
    with pytest.raises(PatchlightError):
        load(f"local-dir:{copy}" if kind == "timm" else copy)
    assert not (tmp_path / "ran").exists()


def test_a_model_that_is_no_classifier(tmp_path):
    transformers.BertConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(PatchlightError, match=r"of the type 'bert', of which there is no image classifier"):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["timm", "huggingface", "dinov2", "ours"])
def test_attention_fused_or_not_is_the_same(folders, kind):
    model = create_model("vit-micro") if kind == "ours" else load(folders[kind]).model
    model.eval()
    heads, tokens, _ = attention_shape(model)
    assert (heads, tokens) == (3, 65)
    found = []
    for fused in (True, False):
        set_fused_attn(model, fused)
        with record_attention(dissect_vit(model)) as recorded:
            model(IMAGES)
        assert recorded.attention.shape[2:] == (heads, tokens, tokens)
        found.append(model(IMAGES))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
    assert attention_shape(create_model("resnet18")) is None


@pytest.mark.parametrize("architecture", ["swin_tiny_patch4_window7_224", "pvt_v2_b0"])
def test_hierarchical_transformers_come_through_the_same_door(architecture):
    options = {"pretrained": False}
    found = load(f"timm/{architecture}", size=64, **options)
    assert found.model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert not isinstance(dissect(found.model), VitAnatomy)


SMALL_HIERARCHIES = {
    "swin_tiny_patch4_window7_224": {
        "img_size": 32,
        "patch_size": 2,
        "window_size": 4,
        "embed_dim": 12,
        "depths": (1, 1),
        "num_heads": (2, 2),
    },
    "pvt_v2_b0": {
        "depths": (1, 1, 1, 1),
        "embed_dims": (8, 16, 16, 16),
        "num_heads": (1, 1, 2, 2),
        "mlp_ratios": (2, 2, 2, 2),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", SMALL_HIERARCHIES)
def test_hierarchical_transformers_train_and_report(tmp_path, architecture, capsys):
    folder = save_timm(tmp_path / "hub", architecture, **SMALL_HIERARCHIES[architecture])
    run = tmp_path / "run"
    words = ["train", "finetune", "--data.source", "digits", *SMALL[:8], "--model.name", f"local-dir:{folder}"]
    words += ["--model.img_size", "32", "--train.debug", "--train.device", "cpu", "--out", str(run)]
    assert main(words) == 0
    page = (run / "report.html").read_text()
    assert "Which classes it knows" in page
    assert "this model is not" in page
    assert main(["eval", str(run)]) == 0
    assert main(["export", str(run), "--format", "timm", "--out", str(tmp_path / "out")]) == 0
    assert main(["explain", str(run), "--count", "2"]) == 0  # it has no attention to see
    assert "gradcam is shown" in capsys.readouterr().err


def saved_run(folder, found, name="vit"):
    card = ModelCard(name, found.spec, tuple("abcde"), (0.5,) * 3, (0.5,) * 3, found.source)
    save_model(folder / "model", found.model, card)
    return folder


def test_fields_are_laid_over_a_run_of_a_hub_model(folders, tmp_path):
    """As over the hub's own, and by the words of the library that the run's model is of."""
    run = saved_run(tmp_path / "timm", load(folders["timm"]))
    found = load(run, drop_path_rate=0.25, drop_rate=0.5, patch_size=8, grad_checkpointing=True)
    assert found.model.head_drop.p == 0.5
    assert found.model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.25)
    assert found.model.patch_embed.patch_size == (8, 8)
    assert found.model.grad_checkpointing
    run = saved_run(tmp_path / "huggingface", load(folders["huggingface"]))
    found = load(run, attn_drop_rate=0.25, grad_checkpointing=True)
    assert found.model.hf.config.attention_probs_dropout_prob == 0.25
    assert structure_of(found.model).checkpoints_gradients
    for field in ({"drop_rate": 0.1}, {"drop_path_rate": 0.1}):
        with pytest.raises(UsageError, match=rf"model.{next(iter(field))} does not apply"):
            load(run, **field)
    for field in ({"pretrained": False}, {"revision": "main"}):
        with pytest.raises(UsageError, match=rf"model.{next(iter(field))}"):
            load(run, **field)


@pytest.mark.parametrize("kind", ["timm", "huggingface"])
def test_checkpointing_outlives_another_size(folders, kind):
    found = load(folders[kind], grad_checkpointing=True)
    card = ModelCard("vit", found.spec, tuple("abcde"), (0.5,) * 3, (0.5,) * 3, found.source)
    larger, _ = resize_model(found.model, card, 64)
    assert structure_of(larger).checkpoints_gradients
    plain, _ = resize_model(load(folders[kind]).model, card, 64)
    assert not structure_of(plain).checkpoints_gradients


def test_checkpointing_of_a_hierarchy_outlives_another_size(tmp_path):
    """timm's PVT and Swin have the switch in their levels."""
    folder = save_timm(tmp_path, "pvt_v2_b0", **SMALL_HIERARCHIES["pvt_v2_b0"])
    found = load(f"local-dir:{folder}", grad_checkpointing=True)
    card = ModelCard("pvt", found.spec, tuple("abcde"), (0.5,) * 3, (0.5,) * 3, found.source)
    larger, _ = resize_model(found.model, card, 64)
    assert [stage.grad_checkpointing for stage in larger.stages] == [True] * 4


@pytest.mark.parametrize("architecture", ["cait_xxs24_224", "vit_tiny_patch16_224"])
def test_tables_of_positions_with_and_without_tokens(tmp_path, architecture):
    """CaiT has a CLS token and no position for it."""
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3}
    found = load(f"local-dir:{save_timm(tmp_path, architecture, **options)}")
    card = ModelCard("vit", found.spec, tuple("abcde"), (0.5,) * 3, (0.5,) * 3, found.source)
    larger, _ = resize_model(found.model, card, 64)
    prefix = 0 if architecture.startswith("cait") else 1
    assert larger.pos_embed.shape[1] == 64 + prefix
    assert larger(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    torch.testing.assert_close(larger.pos_embed[:, :prefix], found.model.pos_embed[:, :prefix])


def test_weights_for_one_channel_see_colours(tmp_path):
    torch.manual_seed(0)
    folder = save_timm(tmp_path, in_chans=1)
    about = json.loads((folder / "config.json").read_text())
    about["pretrained_cfg"] |= {"mean": [0.3], "std": [0.4], "input_size": [1, 32, 32]}
    (folder / "config.json").write_text(json.dumps(about))
    found = load(f"local-dir:{folder}")
    assert (found.own.mean, found.own.std) == ((0.3,) * 3, (0.4,) * 3)
    grey = IMAGES[:, :1].expand(-1, 3, -1, -1)
    own = timm.create_model(f"local-dir:{folder}", pretrained=True).patch_embed
    torch.testing.assert_close(found.model.patch_embed(grey), own(grey[:, :1]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["timm", "huggingface"])
def test_a_folder_has_no_revision(folders, kind):
    with pytest.raises(UsageError, match=r"model.revision is of weights on a hub, and .* has none"):
        load(folders[kind], revision="v1")


@pytest.mark.parametrize("field", [{"num_heads": 6}, {"pos_embed": "sincos1d"}])
def test_weights_that_would_mean_something_else(tmp_path, field):
    name, options = "vit-micro", {"pos_embed": "sincos2d"}
    spec = load_backbone(ModelConfig(name=name, **options), img_size=32, num_classes=5).spec
    model = create_model(name, num_classes=5, **options)
    save_model(tmp_path / "model", model, ModelCard(name, spec, tuple("abcde"), (0.5,) * 3, (0.2,) * 3))
    key, value = next(iter(field.items()))
    with pytest.raises(UsageError, match=rf"model.{key} is {value}, but the weights of .* were trained with"):
        load(tmp_path, **field)


@pytest.mark.parametrize("kind", ["sincos1d", "sincos2d"])
def test_fixed_positions_are_resampled_too(tmp_path, kind):
    """At another size patches stand where they stood, and at the first size again nothing is left of it."""
    name = "vit-micro"
    config = ModelConfig(name=name, pos_embed=kind)
    first = load_backbone(config, img_size=32, num_classes=5)
    card = ModelCard(name, first.spec, tuple("abcde"), (0.5,) * 3, (0.2,) * 3)
    save_model(tmp_path / "model", first.model, card)
    larger = load(tmp_path, size=64)
    expected = resample_positions(first.model.pos_embed, (16, 16), 1)
    torch.testing.assert_close(larger.model.pos_embed, expected)
    by_stage, resized = resize_model(first.model, card, 64)
    torch.testing.assert_close(by_stage.pos_embed, expected)
    save_model(tmp_path / "again" / "model", by_stage, resized)
    read, _ = load_model(tmp_path / "again")
    torch.testing.assert_close(read.pos_embed, expected)
    back, card = resize_model(read, resized, 32)
    torch.testing.assert_close(back.pos_embed, first.model.pos_embed)
    assert card.spec == first.spec


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_trained_in_full(folders, tmp_path, dtype):
    model = transformers.ViTForImageClassification.from_pretrained(folders["huggingface"], dtype=getattr(torch, dtype))
    model.save_pretrained(tmp_path / "half")
    shutil.copy(folders["huggingface"] / "preprocessor_config.json", tmp_path / "half")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == dtype
    found = load(tmp_path / "half")
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}
    again, _ = load_model(saved_run(tmp_path / "run", found))
    assert {p.dtype for p in again.parameters()} == {torch.float32}


class Named(nn.Module):
    """A network with parameters of these names."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        for name in names:
            *path, last = name.split(".")
            part: nn.Module = self
            for word in path:
                if not hasattr(part, word):
                    part.add_module(word, nn.Module())
                part = part.get_submodule(word)
            part.register_parameter(last, nn.Parameter(torch.zeros(1)))


def test_a_head_is_its_last_linear_map():
    names = ["head.weight", "fc.bias", "head.fc.bias", "classifier.1.weight", "head_dist.weight"]
    before = ["head.norm.weight", "head.pre_logits.fc.weight", "norm.weight", "heads_up.weight", "fc_norm.bias"]
    assert structure_of(Named([*names, *before])).heads == set(names)


ODD = {  # of timm: what its `patch_embed` is, and whether its attention can be seen
    "cait_xxs24_224": ("one convolution", False),
    "vit_tiny_r_s16_p8_224": ("a network and a convolution", True),
    "pit_ti_224": ("a convolution of another name", False),
    "mvitv2_tiny": ("an overlapping convolution", False),
    "crossvit_9_240": ("two branches", False),
}


@pytest.mark.parametrize("architecture", ODD)
def test_transformers_with_another_patch_embedding(tmp_path, architecture):
    """They are counted, resized and told apart; none ends a training with an error."""
    torch.manual_seed(0)
    size = 240 if architecture == "crossvit_9_240" else 224
    found = load(f"timm/{architecture}", size=size, pretrained=False)
    with torch.device("meta"):
        facts = count(timm.create_model(architecture), size)
    assert facts.params > 1e6
    assert isinstance(dissect(found.model), VitAnatomy) == ODD[architecture][1]
    assert structure_of(found.model).depths()
    if ODD[architecture][1]:
        maps = explain(found.model, torch.randn(1, 3, size, size), method="attention").maps
        assert maps.shape == (1, 7, 7)


VISION = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
TEXT = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "vocab_size": 10,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALL_FAMILIES = {
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "Swin": {"image_size": 32, "embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
    "PvtV2": {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]},
    "ConvNext": {"image_size": 32, "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "patch_size": 4},
    "CLIP": {"vision_config": VISION, "text_config": TEXT},
    "Siglip": {"vision_config": VISION, "text_config": TEXT},
}


def save_family(folder, family, **options):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(num_labels=7, **SMALL_FAMILIES[family] | options)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        getattr(transformers, f"{family}ForImageClassification")(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", SMALL_FAMILIES)
def test_levels_of_other_classifiers(tmp_path, family):
    """For rates that fall towards the image, and for "last N": stem, levels or blocks, head."""
    model = load(save_family(tmp_path, family)).model
    structure = structure_of(model)
    found = structure.depths()
    levels = 4 if family == "PvtV2" else 2
    assert set(found.values()) | {0} == set(range(levels + 2))  # each level of PVT has an embedding of its own
    assert {name for name, depth in found.items() if depth == levels + 1} & structure.heads == {
        "hf.classifier.weight" if family != "ResNet" else "hf.classifier.1.weight",
        "hf.classifier.bias" if family != "ResNet" else "hf.classifier.1.bias",
    }
    assert {name for name, _ in model.named_parameters() if "position" in name} <= structure.no_decay
    set_trainable(model, "last 1", list(found))
    assert [p.requires_grad for p in model.parameters()] == [depth >= levels for depth in found.values()]
    with without_head(model):
        assert model(IMAGES).ndim >= 2


def test_pixels_that_a_model_cannot_take_are_told_before_a_run_is_replaced(tmp_path, capsys):
    folder = save_family(tmp_path / "weights", "CLIP")
    words = ["train", "finetune", "--data.source", "digits", *SMALL[:8], "--model.name", str(folder)]
    words += ["--train.debug", "--train.device", "cpu", "--out", str(tmp_path / "run"), "--overwrite"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("")
    assert main([*words, "--model.img_size", "64"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the model does not take RGB images of 64 x 64 pixels (" in error
    assert "set model.img_size to its own size" in error
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "config.toml"]


@pytest.mark.parametrize("family", SMALL_FAMILIES)
def test_other_classifiers_of_hugging_face_train(tmp_path, no_charts, family):
    save_family(tmp_path / "weights", family)
    words = ["train", "finetune", "--data.source", "digits", *SMALL[:8], "--model.name", str(tmp_path / "weights")]
    words += ["--model.img_size", "32", "--train.debug", "--train.device", "cpu", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    assert "accuracy" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "pytorch_model.bin"])
def test_the_commit_is_known_by_whatever_was_read(tmp_path, monkeypatch, file):
    """Of a registry name timm reads the weights alone, without the repository's config."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert commit_of("owner/name", None) is None
    folder = tmp_path / "models--owner--name"
    for path, text in ((folder / "snapshots" / "abc123" / file, ""), (folder / "refs" / "main", "abc123")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert commit_of("owner/name@main", None) == "abc123"


@pytest.mark.parametrize(
    ("about", "mean", "std"),
    [
        (None, None, None),
        ({"do_normalize": True}, (0.5,) * 3, (0.5,) * 3),  # that processor's default, which is said
        ({"do_normalize": False}, (0.0,) * 3, (1.0,) * 3),
        ({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}, (0.5,) * 3, (0.25,) * 3),
    ],
)
def test_weights_that_do_not_say_their_normalisation(folders, tmp_path, about, mean, std):
    shutil.copytree(folders["huggingface"], tmp_path / "weights")
    (tmp_path / "weights" / "preprocessor_config.json").unlink()
    default = {"image_processor_type": "ViTImageProcessor", "do_normalize": True}
    if about is not None:
        about = {"image_processor_type": "ViTImageProcessor", **about}
        (tmp_path / "weights" / "preprocessor_config.json").write_text(json.dumps(about))
    found = load(tmp_path / "weights")
    assert (found.own.mean, found.own.std) == (mean, std)
    assert ("the weights do not say how their pixels were normalised" in found.note) == (mean is None)
    assert ("does not name a mean: 0.5, ..., its processor's default" in found.note) == (about == default)


def test_a_damaged_preprocessor_is_not_a_missing_one(folders, tmp_path):
    shutil.copytree(folders["huggingface"], tmp_path / "weights")
    (tmp_path / "weights" / "preprocessor_config.json").write_text("{")
    with pytest.raises(PatchlightError, match=r"preprocessor_config.json of .* cannot be read"):
        load(tmp_path / "weights")


def test_a_pretrained_model_is_described_without_its_weights(capsys):
    assert main(["models", "timm/vit_tiny_patch16_224.augreg_in21k", "--img-size", "224"]) == 0
    assert "5,526,346" in capsys.readouterr().out


def test_a_mistyped_run_is_not_looked_for_on_a_hub(folders, tmp_path, monkeypatch):
    saved_run(tmp_path / "runs" / "mae-cifar10", load(folders["timm"]))
    monkeypatch.chdir(tmp_path)
    check_model(ModelConfig(name="runs/mae-cifar10"))
    with pytest.raises(UsageError, match="no run or model at runs/mae-cifar1; did you mean 'runs/mae-cifar10'"):
        check_model(ModelConfig(name="runs/mae-cifar1"))
    check_model(ModelConfig(name="google/vit-base-patch16-224"))  # of a hub
