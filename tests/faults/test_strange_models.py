"""Models that strangers wrote: their cards and files are plain data with bounds, and nothing else is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from fuzz import ROUNDS, damaged_versions
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from saved import save_hugging_face, save_timm
from strangers import as_json, damaged, no_network, tried

import patchlight
from patchlight.config import ModelConfig
from patchlight.errors import PatchlightError
from patchlight.models import ModelCard, load_backbone, load_model, save_model
from patchlight.models.bounds import LARGEST_TENSOR, MOST_STEPS

__all__ = ["no_network"]
SIZES = {
    "ours": {"embed_dim": 12, "depth": 1, "num_heads": 3, "pos_embed": "sincos2d", "mlp_ratio": 1.0},
    "timm": {"depth": 1, "embed_dim": 12, "num_heads": 3},
    "huggingface": {"num_hidden_layers": 1, "hidden_size": 12, "intermediate_size": 12},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A folder of timm, one of Hugging Face, and models of each family that Patchlight saved."""
    root = tmp_path_factory.mktemp("strange")
    Image.new("RGB", (8, 8)).save(root / "image.png")
    found = {"timm-folder": save_timm(root / "timm-folder", **SIZES["timm"])}
    found["huggingface-folder"] = save_hugging_face(root / "huggingface-folder", **SIZES["huggingface"])
    names = {"ours": "vit-micro", "timm": found["timm-folder"], "huggingface": found["huggingface-folder"]}
    for family, name in names.items():
        options = SIZES["ours"] if family == "ours" else {}
        made = load_backbone(ModelConfig(name=str(name), **options), img_size=32, num_classes=3)
        card = ModelCard(str(name), made.spec, ("a", "b", "c"), (0.5,) * 3, (0.2,) * 3, made.source)
        save_model(root / family, made.model, card)
        (root / family / "manifest.jsonl").unlink()  # what a stranger sends has none, or one that fits
        found[family] = root / family
    return found


def changed(folder: Path, target: Path, changes: dict[str, object]) -> Path:
    """A copy whose config.json has other values: {"args.depth": 3} is that of the key depth in args."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    data = json.loads((folder / "config.json").read_text())
    for path, value in changes.items():
        *way, last = path.split(".")
        part = data
        for key in way:
            part = part[key]
        part[last] = value
    (target / "config.json").write_text(json.dumps(data))
    return target


LOADS = {  # what timm and transformers would follow
    "timm": {
        "args.options.pretrained": True,
        "args.options.checkpoint_path": "/etc/passwd",
        "args.options.cache_dir": "/tmp",
        "args.options.pretrained_cfg": {"url": "http://127.0.0.1:9/x"},
        "args.options.pretrained_cfg_overlay": {"file": "/etc/passwd"},
        "args.options.features_only": True,
        "args.options.scriptable": True,
        "args.options.hybrid_backbone": "resnet18",
        "args.architecture": "hf-hub:timm/vit_tiny_patch16_224",
        "args.options.num_classes": 3,
    },
    "huggingface": {
        "args.config.quantization_config": {"quant_method": "bitsandbytes"},
        "args.config.attn_implementation": "kernels-community/flash-attn",
        "args.config._attn_implementation": "flash_attention_2",
        "args.config.use_timm_backbone": True,
        "args.config.backbone": "resnet18",
        "args.config.use_pretrained_backbone": True,
        "args.config.backbone_config": {"model_type": "resnet"},
        "args.config.transformers_weights": "../other.safetensors",
        "args.config.fusion_config": {"patch_embeddings": True},
        "args.config.model_type": "timm_wrapper",
        "args.config.hidden_act": "../../code.py",
        "args.config.dtype": "load",
    },
}
HUGE = {
    "ours": {
        "args.depth": 60_000,
        "args.embed_dim": 60_000,
        "args.reg_tokens": 65_536,
        "args.pos_grid": [60_000, 60_000],
        "args.img_size": 16_384,
        "args.mlp_ratio": 1e12,
        "mean": [0.5, float("nan"), 0.5],
        "std": [0.0, 0.2, 0.2],
        "class_names": "abc",
        "args.patch_size": 0,
        "args.num_classes": 10**9,
    },
    "timm": {
        "args.options.depth": 60_000,
        "args.options.embed_dim": 10**9,
        "args.options.mlp_ratio": 1e12,
        "args.options.img_size": 60_000,
        "std": [1e-300, 0.2, 0.2],
        "args.options.depth ": 1,
    },
    "huggingface": {
        "args.config.num_hidden_layers": 60_000,
        "args.config.num_hidden_layers ": 10**9,
        "args.config.intermediate_size": 10**9,
        "args.config.image_size": 16_384,
        "std": [float("inf"), 0.2, 0.2],
    },
}
CARDS = [(family, key, value) for table in (LOADS, HUGE) for family in table for key, value in table[family].items()]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("family", "key", "value"), CARDS, ids=[f"{family}-{key}" for family, key, _ in CARDS])
def test_a_card_that_loads_something_or_needs_too_much_is_refused(folders, tmp_path, family, key, value):
    folder = changed(folders[family], tmp_path / "model", {key.strip(): value} if "depth " not in key else {key: value})
    with pytest.raises(PatchlightError) as error:
        load_model(folder)
    assert str(error.value).startswith(str(folder))
    assert str(error.value).isprintable()


FOLDERS = {
    "timm-folder": {
        "model_args.pretrained": True,
        "model_args.checkpoint_path": "/etc/passwd",
        "architecture": "local-dir:/",
        "model_args.depth": 60_000,
        "model_args.embed_dim": 60_000,
        "pretrained_cfg.std": [0, 0, 0],
        "pretrained_cfg.mean": "grey",
        "pretrained_cfg.input_size": [3, 10**9, 10**9],
        "pretrained_cfg.num_classes": 2**40,
        "model_args.num_classes": 2**40,
    },
    "huggingface-folder": {
        "quantization_config": {"quant_method": "bitsandbytes"},
        "attn_implementation": "kernels-community/flash-attn",
        "transformers_weights": "../other.safetensors",
        "num_hidden_layers": 60_000,
        "hidden_size": 60_000,
        "image_size": 16_384,
        "intermediate_size": 60_000,
    },
}
PLACES = [(family, key, value) for family in FOLDERS for key, value in FOLDERS[family].items()]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("family", "key", "value"), PLACES, ids=[f"{family}-{key}" for family, key, _ in PLACES])
def test_a_folder_that_loads_something_or_needs_too_much_is_refused(folders, tmp_path, family, key, value):
    folder = changed(folders[family], tmp_path / "weights", {key: value})
    with pytest.raises(PatchlightError) as error:
        load_backbone(ModelConfig(name=str(folder)), img_size=32, num_classes=5)
    assert str(folder) in str(error.value)
    assert str(error.value).isprintable()


ADDRESSES = {"url": "http://127.0.0.1:9/x", "hf_hub_id": "owner/name", "file": "/etc/passwd", "custom_load": True}


@pytest.mark.usefixtures("no_network")
def test_what_is_left_beside_a_networks_description_is_never_followed(folders, tmp_path):
    """Addresses in timm's config, and code and names of repositories in Hugging Face's."""
    timms = changed(folders["timm-folder"], tmp_path / "timm", {f"pretrained_cfg.{k}": v for k, v in ADDRESSES.items()})
    code = {"AutoModelForImageClassification": "owner/code--model.Evil", "AutoConfig": "configuration.Evil"}
    leftovers = {"auto_map": code, "_name_or_path": "owner/name", "of_no_version": {"a": "/etc/passwd"}}
    theirs = changed(folders["huggingface-folder"], tmp_path / "hf", leftovers)
    for folder, original in ((timms, folders["timm-folder"]), (theirs, folders["huggingface-folder"])):
        found, known = (
            load_backbone(ModelConfig(name=str(name)), img_size=32, num_classes=5).model.state_dict()
            for name in (folder, original)
        )
        assert all(
            torch.equal(found[key], known[key]) for key in known if "classifier" not in key and "head" not in key
        )
    note = load_backbone(ModelConfig(name=str(theirs)), img_size=32, num_classes=5).note
    assert note.endswith("of its config.json, auto_map, of_no_version is not used, as such a model has no such setting")
    card = changed(folders["huggingface"], tmp_path / "card", {f"args.config.{k}": v for k, v in leftovers.items()})
    images = torch.zeros(1, 3, 32, 32)
    assert torch.equal(load_model(card)[0](images), load_model(folders["huggingface"])[0](images))


@pytest.mark.usefixtures("no_network")
def test_an_adapter_and_an_index_that_point_elsewhere_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders["huggingface-folder"], tmp_path / "adapter")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/name", "peft_type": "LORA"}')
    with pytest.raises(PatchlightError, match=r"has an adapter_config\.json, .* merge"):
        load_backbone(ModelConfig(name=str(folder)), img_size=32, num_classes=5)
    folder = shutil.copytree(folders["huggingface-folder"], tmp_path / "shards")
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    keys = load_file(tmp_path / "elsewhere.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(keys, "../elsewhere.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(PatchlightError, match="must name files of its own folder alone"):
        load_backbone(ModelConfig(name=str(folder)), img_size=32, num_classes=5)


def test_weights_are_held_against_the_card_before_anything_is_built(folders, tmp_path, monkeypatch):
    """By their header alone: names, shapes and types."""

    def build(*_: object) -> None:
        raise AssertionError("it was built")

    folder = shutil.copytree(folders["ours"], tmp_path / "model")
    path, whole = folder / "model.safetensors", load_file(folders["ours"] / "model.safetensors")
    monkeypatch.setattr("patchlight.models.saved.load_file", build)
    for tensors, message in (
        ({k: v for k, v in whole.items() if k != "norm.bias"}, "it lacks 'norm.bias' of the model"),
        ({**whole, "more": torch.zeros(2)}, "it has 'more', which the model of its config.json does not have"),
        ({**whole, "norm.bias": torch.zeros(7)}, "'norm.bias' is 7 in it and 12 in the model"),
        ({**whole, "norm.bias": torch.zeros(12, dtype=torch.int64)}, "'norm.bias' is of the type I64 in it"),
    ):
        save_file(tensors, path)
        with pytest.raises(PatchlightError, match=message):
            load_model(folder)


def test_the_limits_are_told(folders, tmp_path):
    deep = changed(folders["huggingface"], tmp_path / "deep", {"args.config.num_hidden_layers": 60_000})
    with pytest.raises(PatchlightError, match=f"more than {MOST_STEPS:,} calls of torch"):
        load_model(deep)
    wide = changed(folders["ours"], tmp_path / "wide", {"args.pos_grid": [60_000, 60_000]})
    with pytest.raises(PatchlightError, match=f"the limit is {LARGEST_TENSOR // 2**30} GiB"):
        load_model(wide)


def predict(folder: Path) -> None:
    """With one image."""
    assert patchlight.predict(folder, folder.parent / "image.png", device="cpu")[0].error is None


KEYS = ("library", "pretrained", "checkpoint_path", "depth", "img_size", "num_classes", "auto_map", "dtype", "layers")


@pytest.mark.usefixtures("no_network")
@ROUNDS
def test_damaged_cards_are_read_or_refused(folders, tmp_path, seed, times):
    wholes = []
    shutil.copy(folders["ours"].parent / "image.png", tmp_path)
    for family in SIZES:
        shutil.copytree(folders[family], tmp_path / family)
        wholes.append((family, json.loads((folders[family] / "config.json").read_text())))

    def use(case):
        family, card = case[0], case[1]
        (tmp_path / family / "config.json").write_text(as_json(card))
        predict(tmp_path / family)

    cards = damaged([whole for _, whole in wholes], KEYS)
    cases = cards.map(lambda card: (_family(card), card))
    found = tried(cases, 120 * times, seed, use)
    assert found["refused"] > 60
    assert found["taken"] > 5


def _family(card: object) -> str:
    args = card.get("args") if isinstance(card, dict) else None
    library = args.get("library") if isinstance(args, dict) else None
    return library if library in ("timm", "huggingface") else "ours"


@pytest.mark.usefixtures("no_network")
@ROUNDS
@pytest.mark.parametrize("kind", ["timm-folder", "huggingface-folder"])
def test_damaged_folders_of_libraries_are_read_or_refused(folders, tmp_path, kind, seed, times):
    folder = shutil.copytree(folders[kind], tmp_path / "weights")
    files = [path.name for path in sorted(folder.glob("*config.json"))]
    wholes = [[file, json.loads((folder / file).read_text())] for file in files]

    def use(case):
        for name, whole in wholes:
            (folder / name).write_text(as_json(case[1] if name == case[0] else whole))
        load_backbone(ModelConfig(name=str(folder)), img_size=32, num_classes=5)

    for name, whole in wholes:
        cases = damaged([whole], KEYS).map(lambda data, name=name: (name, data))
        assert tried(cases, 25 * times, seed, use)["refused"] > 5


@pytest.mark.usefixtures("no_network")
@ROUNDS
@pytest.mark.parametrize("family", list(SIZES))
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_damaged_bytes_of_models_are_read_or_refused(folders, tmp_path, family, file, seed, times):
    folder = shutil.copytree(folders[family], tmp_path / "model")
    shutil.copy(folders["ours"].parent / "image.png", tmp_path)
    versions = damaged_versions((folders[family] / file).read_bytes(), 15 * times, seed, front=2000)

    def use(number):
        (folder / file).write_bytes(versions[number])
        predict(folder)

    assert tried(st.integers(0, len(versions) - 1), len(versions), seed, use)["refused"]
