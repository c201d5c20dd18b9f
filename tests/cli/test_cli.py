"""The command line as a user meets it: one small run, and everything that can be done with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from saved import SAVED
from small import SMALL, small_config

from patchlight.cli.main import main
from patchlight.cli.parser import VERBS, split_settings
from patchlight.commands.evaluate import own_split
from patchlight.commands.predict import predict
from patchlight.config import load_recipe, recipe_names
from patchlight.models import MODELS, load_model
from patchlight.runs import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run; tests read it and change copies."""
    path = tmp_path_factory.mktemp("runs") / "small"
    assert main(["train", "quickstart", *SMALL, "--out", str(path)]) == 0
    return path


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(path: Path, size: tuple[int, int] = (37, 50), mode: str = "RGB") -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_a_run_folder_holds_what_is_promised(run):
    names = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    promised = {
        "config.toml",
        "environment.json",
        "metrics.jsonl",
        "eval.json",
        "samples.npz",
        "report.html",
        "README.md",
        "model/model.safetensors",
        "model/config.json",
    }
    assert promised <= names
    assert any(name.startswith("figures/") and name.endswith(".png") for name in names)
    assert any(re.match(r"checkpoints/step-\d{8}/model\.safetensors", name) for name in names)
    assert not [name for name in names if ".part" in name]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    environment = json.loads((run / "environment.json").read_text())
    assert environment["time"]["train_wall_s"] > 0
    digests = environment["data"].pop("digests")
    assert set(digests) == {"train", "val", "test"}
    assert environment["data"] == {
        "source": "digits",
        "path": None,
        "train": 120,
        "val": 40,
        "test": 60,
        "classes": 10,
        "notes": [],
    }


def test_maps_are_measured_beside_the_page(here):
    words = [*SMALL, "--train.epochs", "1", "--explain.faithfulness", "6", "--out", "run"]
    assert main(["train", "quickstart", *words]) == 0
    found = json.loads((here / "run" / "faithfulness.json").read_text())
    assert found["n"] == 6
    assert [row["method"] for row in found["rows"]] == ["attention", "grad-rollout", "chefer", "random", "centre"]
    assert "On 6 test images" in (here / "run" / "report.html").read_text()


def test_eval_prints_one_json_object_that_agrees_with_training(run, capsys):
    assert main(["eval", str(run), "--json"]) == 0
    out = capsys.readouterr().out
    result = json.loads(out)
    assert out.count("\n") == 1
    needed = ["split", "n", "loss", "top1", "top1_ci95", "top5", "per_class", "confusion", "ece"]
    assert set(needed) <= set(result)
    assert result == json.loads((run / "eval.json").read_text())
    low, high = result["top1_ci95"]
    assert 0 <= low <= result["top1"] <= result["top5"] <= 1
    assert result["top1"] <= high <= 1
    assert sum(map(sum, result["confusion"])) == result["n"] == 60


def test_eval_on_other_splits_and_sources(run, here, capsys):
    assert main(["eval", str(run), "--split", "val", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 40
    for name in ("7", "3"):  # a folder with some of the classes, in its own order
        (here / "mine" / name).mkdir(parents=True)
        for i in range(3):
            picture(here / "mine" / name / f"{i}.png")
    assert main(["eval", str(run), "--data", "mine", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["n"] == 6
    assert [sum(row) for row in result["confusion"]] == [0, 0, 0, 3, 0, 0, 0, 3, 0, 0]
    assert result["per_class"]["0"] is None
    assert result["split"] == "all"
    assert main(["eval", str(run)]) == 0
    assert "test accuracy" in capsys.readouterr().out


def test_a_folder_that_changed_after_training_is_not_evaluated_as_if_it_had_not(here, capsys):
    """Its splits are cut anew, so a "test" image may be one that was trained on."""
    draw = np.random.default_rng(1)
    for name in ("cat", "dog"):
        (here / "pets" / name).mkdir(parents=True)
        for i in range(20):
            pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(here / "pets" / name / f"{i}.png")
    words = [
        "train",
        "quickstart",
        "--data.source",
        "pets",
        "--out",
        "runs/pets",
        "--train.debug",
        "--eval.gallery",
        "2",
    ]
    assert main(words) == 0
    assert main(["eval", "runs/pets", "--data", str(here / "pets"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["n"], result["split"]) == (8, "test")  # not all 40: those were trained on
    picture(here / "pets" / "cat" / "00.png", size=(16, 16))  # all others move up a row
    assert main(["eval", "runs/pets"]) == 1
    assert "pets has changed since the run" in capsys.readouterr().err
    (here / "runs" / "pets" / "eval.json").unlink()
    assert main([*words, "--resume"]) == 1
    assert "have changed since the run was started; restore them" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["pets", "~/pets"])
def test_a_run_knows_its_own_images_from_anywhere(here, monkeypatch, capsys, source):
    """However and from wherever they are named: what was trained on is not tested on."""
    monkeypatch.setenv("HOME", str(here))
    draw = np.random.default_rng(2)
    for name in ("cat", "dog"):
        (here / "pets" / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(here / "pets" / name / f"{i}.png")
    run = here / "runs" / "small"
    words = ["--data.source", source, "--out", str(run), "--train.debug", "--eval.gallery", "2"]
    assert main(["train", "quickstart", *words]) == 0
    expected = json.loads((run / "eval.json").read_text())["loss"]
    monkeypatch.chdir(here / "runs")
    for words in ([], ["--data", "../pets"], ["--data", "~/pets"], ["--data", str(here / "pets")]):
        capsys.readouterr()
        assert main(["eval", "small", *words, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert (result["n"], result["split"], result["loss"]) == (8, "test", expected)


def test_new_images_come_the_way_that_the_training_images_came(here, capsys):
    """Fitted to the data's size first, then enlarged to the model's."""
    words = [*SMALL, "--model.img_size", "32", "--train.debug", "--out", "run"]
    assert main(["train", "quickstart", *words]) == 0
    images = own_split(Run.open(here / "run"), "test")
    path = picture(here / "large.png", size=(64, 64))
    small = Image.open(path).resize((16, 16), Image.Resampling.BICUBIC)
    model, card = load_model(here / "run")
    assert (images.image_size, card.img_size, card.fit_size) == ((16, 16), 32, 16)
    pixels = torch.from_numpy(np.asarray(small).transpose(2, 0, 1).copy())[None]
    expected = model(card.to_input(pixels)).softmax(1).max().item()
    answer = predict(here / "run", [path], precision="fp32")[0].classes[0]
    assert answer.probability == pytest.approx(expected, abs=1e-5)


def test_what_the_terminal_cannot_write_is_no_traceback(here):
    """Names of an old archive that are no UTF-8."""
    for name in (b"caf\xe9", b"the"):
        folder = here / "drinks" / os.fsdecode(name)
        folder.mkdir(parents=True)
        for i in range(3):
            picture(folder / f"{i}.png", size=(16, 16))
    command = [sys.executable, "-m", "patchlight", "data", "drinks", "--data.val_fraction", "0"]
    done = subprocess.run(command, capture_output=True, cwd=here, env={**os.environ, "PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr
    assert rb"caf\udce9" in done.stdout


def test_a_run_that_is_needed_is_not_replaced(run, here, capsys):
    shutil.copytree(run, here / "mine")
    (here / "mine" / "export" / "timm").mkdir(parents=True)
    exported = "local-dir:mine/export/timm"
    for field, name in (("train.teacher", "mine"), ("model.name", "mine"), ("model.name", exported)):
        words = ["train", "quickstart", *SMALL, f"--{field}", name, "--overwrite", "--out", "mine"]
        assert main(words) == 2
        assert f"{field} is {name}, which --overwrite would delete" in capsys.readouterr().err
    assert main(["train", "quickstart", *SMALL, "--train.teacher", "mina", "--overwrite", "--out", "mine"]) == 1
    assert (here / "mine" / "eval.json").is_file()  # nothing is lost by a wrong name


def test_a_folder_does_not_stand_for_a_new_model(run, here, capsys):
    shutil.copytree(run, here / "vit-micro")
    words = ["train", "quickstart", *SMALL, "--train.debug", "--out", "new"]
    assert main([*words, "--model.name", "vit-micro"]) == 0
    assert "with the weights of" not in capsys.readouterr().err
    assert json.loads((here / "new" / "environment.json").read_text())["model"]["weights"] is None
    assert main([*words, "--model.name", "./vit-micro", "--overwrite"]) == 0
    assert "vit-micro with the weights of ./vit-micro" in capsys.readouterr().err


def test_eval_refuses_classes_that_the_model_does_not_know(run, here, capsys):
    (here / "mine" / "cat").mkdir(parents=True)
    picture(here / "mine" / "cat" / "a.png")
    assert main(["eval", str(run), "--data", "mine"]) == 1
    assert "the model does not know the classes cat; it was trained for the classes 0, 1" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "RGBA", "CMYK", "1"])
def test_predict_takes_any_mode(run, here, capsys, mode):
    path = picture(here / f"a.{'tif' if mode == 'CMYK' else 'png'}", mode=mode)
    assert main(["predict", str(run), str(path), "--json", "--top", "3"]) == 0
    answer = json.loads(capsys.readouterr().out)["predictions"][0]
    assert answer["image"] == str(path)
    shares = [c["probability"] for c in answer["classes"]]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)


def test_eval_and_predict_in_another_precision(run, here, capsys):
    path = picture(here / "a.png")
    exact = json.loads((run / "eval.json").read_text())
    assert main(["eval", str(run), "--precision", "bf16", "--json"]) == 0
    low = json.loads(capsys.readouterr().out)
    assert (exact["precision"], low["precision"]) == ("fp32", "bf16")
    assert low["loss"] != exact["loss"]
    assert low["loss"] == pytest.approx(exact["loss"], rel=0.05)
    shares = []
    for words in (["--precision", "fp32"], ["--precision", "bf16"], []):
        assert main(["predict", str(run), str(path), "--json", *words]) == 0
        shares.append(json.loads(capsys.readouterr().out)["predictions"][0]["classes"][0]["probability"])
    assert shares[0] != shares[1]
    assert shares[1:] == pytest.approx([shares[0]] * 2, abs=0.05)  # without the option it is the faster one


def test_predict_agrees_with_eval(run, here):
    """The digits written as files get the classes that the evaluation gave them."""
    images = own_split(Run.open(run), "test")
    pixels, _ = images.gather(range(8))
    paths = []
    for i, image in enumerate(pixels):
        paths.append(here / f"{i}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(paths[-1])
    answers = predict(run, paths, top=99, precision="fp32")
    model, card = load_model(run)
    probs = model(card.to_input(pixels)).softmax(1)
    for answer, row in zip(answers, probs, strict=True):
        assert len(answer.classes) == 10
        assert answer.classes[0].name == card.class_names[int(row.argmax())]
        assert answer.classes[0].probability == pytest.approx(row.max().item(), abs=1e-5)


def test_predict_in_words(run, here, capsys):
    assert main(["predict", str(run), str(picture(here / "a.png")), str(picture(here / "b.png"))]) == 0
    out = capsys.readouterr().out
    assert out.count("%") == 10
    assert str(here / "b.png") in out


def test_the_report_is_rebuilt_without_the_model(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    before = (copy / "report.html").read_text()
    shutil.rmtree(copy / "model")
    shutil.rmtree(copy / "checkpoints")
    shutil.rmtree(copy / "figures")
    (copy / "report.html").unlink()
    assert main(["report", str(copy)]) == 0
    assert capsys.readouterr().out.strip() == str(copy / "report.html")
    assert len((copy / "report.html").read_text()) == pytest.approx(len(before), rel=0.05)
    assert list((copy / "figures").glob("*.png"))


def test_a_stem_without_blocks_is_trained_and_reported(tmp_path, capsys):
    stem = ("--model.depth", "0", "--model.stem", "conv", "--model.global_pool", "avg", "--optim.name", "adamw")
    assert main(["train", "quickstart", *SMALL, *stem, "--out", str(tmp_path / "stem")]) == 0
    assert (tmp_path / "stem" / "report.html").is_file()


def test_compare_shows_results_and_what_differs(run, tmp_path, capsys):
    other = tmp_path / "other"
    assert main(["train", "quickstart", *SMALL, "--out", str(other), "--optim.lr", "0.01"]) == 0
    capsys.readouterr()
    assert main(["compare", str(run), str(other), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["run"] for row in result["runs"]] == [str(run), str(other)]
    assert result["differences"] == {"optim.lr": [0.002, 0.01]}
    wanted = {"top1", "top1_ci95", "params", "flops_per_image", "images_per_s", "train_wall_s"}
    assert wanted <= set(result["runs"][0])
    assert main(["compare", str(run), str(other)]) == 0
    out = capsys.readouterr().out
    assert "optim.lr" in out
    assert "95 % interval" in out


def test_an_existing_run_is_safe(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    words = ["train", "quickstart", *SMALL, "--out", str(copy)]
    assert main(words) == 2
    assert "exists; continue it with --resume, replace it with --overwrite" in capsys.readouterr().err
    (copy / "report.html").unlink()
    assert main([*words, "--resume"]) == 0
    assert "is finished; its report is built again" in capsys.readouterr().err
    assert (copy / "report.html").exists()
    (copy / "report.html").unlink()
    (copy / "eval.json").unlink()
    environment = json.loads((copy / "environment.json").read_text())
    environment |= {"precision": "fp32", "fused_attn": not environment["fused_attn"]}  # as if chosen by another probe
    (copy / "environment.json").write_text(json.dumps(environment))
    assert main([*words, "--resume"]) == 0  # as after a kill between training and evaluation
    chosen = {key: environment[key] for key in ("precision", "fused_attn")}
    environment = json.loads((copy / "environment.json").read_text())
    assert len(environment["resumed"]) == 1
    assert {key: environment["resumed"][0][key] for key in chosen} == chosen
    assert environment["started"] == json.loads((run / "environment.json").read_text())["started"]
    assert json.loads((copy / "eval.json").read_text()) == json.loads((run / "eval.json").read_text())
    assert (copy / "report.html").exists()
    assert main([*words, "--resume", "--overwrite"]) == 2
    assert main([*words, "--resume", "--train.seed", "1"]) == 2
    assert "was started with train.seed = 0, not 1" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == str(copy)


def test_a_saved_config_is_a_recipe(run, tmp_path):
    again = tmp_path / "again"
    assert main(["train", str(run / "config.toml"), "--out", str(again)]) == 0
    a, b = (json.loads((path / "eval.json").read_text()) for path in (run, again))
    assert a == b


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_trains_two_steps(name, tmp_path):
    """On digits in place of CIFAR-10, which has the same shape; the models and all other settings are the recipe's,
    but for weights of a hub, in whose place stand small ones of the same format.
    """
    words = [
        "train",
        name,
        "--out",
        str(tmp_path / "run"),
        "--data.source",
        "digits",
        "--train.debug",
        "--train.device",
        "cpu",
        "--data.test_per_class",
        "2",
        "--data.val_per_class",
        "2",
        "--data.train_per_class",
        "6",
        "--train.batch_size",
        "8",
        "--eval.gallery",
        "2",
    ]
    recipe = load_recipe(name)
    if recipe.model.name not in MODELS:
        library = "timm" if recipe.model.name.startswith("timm/") else "huggingface"
        words += ["--model.name", str(SAVED[library](tmp_path / "weights")), "--model.img_size", "32"]
    if recipe.data.subset_test_per_class:
        words += ["--data.subset_test_per_class", "2"]
    assert main(words) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2 * n for n in range(1, 2 * max(1, len(recipe.stages)) + 1)]


def test_an_interrupted_run_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    from patchlight.errors import Interrupted

    def stop(*args, **kwargs):
        raise Interrupted("stopped by SIGINT after 0 epochs and 3 steps")

    monkeypatch.setattr("patchlight.commands.train.fit", stop)
    assert main(["train", "quickstart", *SMALL, "--out", str(tmp_path / "run")]) == 130
    assert "stopped by SIGINT after 0 epochs and 3 steps; the checkpoint is saved" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["trian"], 2, "no command 'trian'; did you mean 'train'?"),
        (["train"], 2, "the following arguments are required: recipe; see `patchlight train --help`"),
        (["train", "quikstart"], 2, "no recipe 'quikstart'; did you mean 'quickstart'?"),
        (["train", "quickstart", "--epochs", "3"], 2, "unknown argument '--epochs'; did you mean '--train.epochs'?"),
        (["train", "quickstart", "--train.epoch", "3"], 2, "unknown field 'train.epoch'; did you mean 'epochs'?"),
        (["train", "quickstart", "--overwrit"], 2, "unknown argument '--overwrit'; did you mean '--overwrite'?"),
        (["train", "quickstart", "--model.name", "vit-tinny"], 2, "no model 'vit-tinny'; did you mean 'vit-tiny'?"),
        (["train", "quickstart", "--model.patch_size", "5"], 2, "patch_size 5 does not divide the image size 32"),
        (["train", "quickstart", "--data.source", "digit"], 2, "did you mean 'digits'?"),
        (["train", "quickstart", "--data.mean", "0.5"], 2, "data.mean and data.std belong together"),
        (["train", "none.toml"], 2, "no file 'none.toml'"),
        (["eval", "nowhere"], 1, "nowhere is not a run folder"),
        (["eval", "nowhere", "--split", "best"], 2, "invalid choice: 'best'"),
        (["eval", "nowhere", "--train.epochs", "3"], 2, "`patchlight eval` takes no settings"),
        (["report", "nowhere"], 1, "nowhere is not a run folder"),
        (["compare", "nowhere"], 1, "nowhere is not a run folder"),
        (["models", "vit-tin"], 2, "no model 'vit-tin'; did you mean 'vit-tiny'?"),
        (["models", "--img-size", "0"], 2, "--img-size must be at least 1, not 0"),
        (["models", "vit-tiny", "--model.img_size", "64"], 2, "does not take --model.img_size; give it as --img-size"),
        (["models", "vit-tiny", "--train.epochs", "3"], 2, "does not take --train.epochs; name a model"),
        (["models", "--model.depth", "3"], 2, "does not take --model.depth; name a model"),
        (["recipes", "quick"], 2, "no recipe 'quick'; did you mean 'quickstart'?"),
        (["data", "nowhere/at/all"], 2, "nowhere/at/all"),
    ],
)
def test_mistakes_get_one_sentence_and_a_code(here, capsys, words, code, message):
    assert main(words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.startswith("patchlight: ")
    assert captured.err.count("\n") == 1
    assert not list(here.iterdir())


def test_bad_images_are_named(run, here, capsys):
    (here / "broken.png").write_bytes(b"not a picture")
    for name in ("broken.png", "missing.png"):
        assert main(["predict", str(run), name]) == 1
        err = capsys.readouterr().err
        assert name in err
        assert err.count("\n") == 1
    assert main(["predict", str(run), "broken.png", "--top", "0"]) == 2


def test_data_shows_a_folder_with_its_faults(here, capsys):
    for name in ("cat", "dog"):
        (here / "pets" / name).mkdir(parents=True)
        for i in range(12):
            picture(here / "pets" / name / f"{i}.png", size=(20 + i, 30))
    (here / "pets" / "dog" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    assert main(["data", "pets", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [Path(bad["name"]).name for bad in result["bad_files"]] == ["broken.jpg"]
    assert result["duplicates"]["label_conflicts"] == 12
    assert result["figures"] == []
    (here / "pets" / "dog" / "broken.jpg").unlink()
    assert main(["data", "pets", "--augment.policy", "randaugment"]) == 0
    captured = capsys.readouterr()
    figures = sorted(Path("previews/pets").glob("*.png"))
    assert [f.name for f in figures] == ["augmentation.png", "class_balance.png", "samples.png"]
    assert all(str(figure) in captured.out for figure in figures)
    assert main(["data", "pets"]) == 2
    assert "replace its pictures with --overwrite" in capsys.readouterr().err
    assert main(["data", "pets", "--overwrite"]) == 0


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


def test_settings_stand_anywhere():
    words, settings = split_settings(
        ["--train.epochs", "5", "quickstart", "--optim.lr=-1", "--train.compile", "--json"]
    )
    assert words == ["quickstart", "--json"]
    assert settings == {"train.epochs": "5", "optim.lr": "-1", "train.compile": "true"}


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_has_an_example_and_loads_nothing_heavy(verb):
    code = (
        "import sys\nfrom patchlight.cli import main\n"
        f"try:\n    main({[verb, '--help'] if verb else ['--help']!r})\n"
        "finally:\n    heavy = {'torch', 'numpy', 'matplotlib'} & set(sys.modules)\n    assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "example" in done.stdout
    assert f"patchlight {verb}".strip() in done.stdout


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "patchlight", "--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert re.fullmatch(r"patchlight \d+\.\d+\.\d+\n", done.stdout)


def test_a_reader_that_leaves_early_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m patchlight recipes --fields | head -n 1", shell=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout.startswith("setting")


def test_the_library_trains_too(tmp_path):
    import patchlight

    run = patchlight.train(small_config(), out=tmp_path / "run")
    assert patchlight.evaluate(run.path).n == 50
    assert set(patchlight.__all__) <= set(dir(patchlight))
    assert all(getattr(patchlight, name) is not None for name in patchlight.__all__)
    with pytest.raises(AttributeError, match="no attribute 'bogus'"):
        _ = patchlight.bogus
