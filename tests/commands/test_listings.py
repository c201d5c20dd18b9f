"""`patchlight recipes` and `patchlight models`."""

from __future__ import annotations

import json

from saved import save_hugging_face

from patchlight.cli.main import main
from patchlight.config import recipe_names
from patchlight.models import MODELS


def test_lists(capsys):
    assert main(["recipes"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in recipe_names())
    assert main(["recipes", "quickstart"]) == 0
    assert "[about]" in capsys.readouterr().out
    assert main(["recipes", "--fields"]) == 0
    assert "train.batch_size" in capsys.readouterr().out
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in MODELS)
    assert main(["models", "vit-tiny", "--model.patch_size", "8", "--img-size", "64"]) == 0
    assert "65 = 8 x 8 patches of 8 pixels + 1 prefix" in capsys.readouterr().out


def test_models_as_json(capsys):
    assert main(["models", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [model["name"] for model in models] == list(MODELS)
    assert main(["models", "vit-tiny", "--json"]) == 0
    model = json.loads(capsys.readouterr().out)
    assert {key: model[key] for key in models[0]} in models
    assert model["layers"][-1] == {"layer": "head", "kind": "Linear", "shape": "B x 10", "params": 1930}


def test_pretrained_weights_are_described_at_their_own_size(tmp_path, capsys):
    folder = str(save_hugging_face(tmp_path / "vit", image_size=48))
    for words, size in (([], 48), (["--img-size", "24"], 24), (["--model.pretrained", "false"], 32)):
        assert main(["models", folder, *words, "--json"]) == 0
        model = json.loads(capsys.readouterr().out)
        assert (model["img_size"], model["tokens"]) == (size, (size // 4) ** 2 + 1)
