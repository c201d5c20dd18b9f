from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path

import pytest

from patchlight.config import (
    SECTIONS,
    AugmentConfig,
    Config,
    TrainConfig,
    apply_overrides,
    config_from_dict,
    describe_fields,
    load_recipe,
    recipe_names,
)
from patchlight.errors import UsageError


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_what_it_is_and_survives_the_round_trip(name, tmp_path):
    config = load_recipe(name)
    about = config.about
    assert about.name == name
    assert all([about.title, about.source, about.command, about.cost, about.expect])
    assert about.command.startswith(f"patchlight train {name}")
    path = tmp_path / "again.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert load_recipe(str(path)) == config


def test_the_readmes_accuracies_are_the_recipes_own():
    text = (Path(__file__).parents[2] / "README.md").read_text()
    table = dict(re.findall(r"^\| `([\w-]+)` \|.*\*\*([\d.]+) %\*\*", text, flags=re.MULTILINE))
    assert len(table) >= 5
    for name, accuracy in table.items():
        assert float(accuracy) == pytest.approx(100 * load_recipe(name).about.top1), name


def test_text_of_every_kind_survives_the_round_trip(tmp_path):
    text = 'quotes " and \\ back, 日本 🙂, a\ttab'
    config = config_from_dict({"about": {"name": "x", "title": text}, "data": {"mean": [0.5, 1, 0.25]}})
    path = tmp_path / "r.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert load_recipe(str(path)) == config
    assert config.data.mean == (0.5, 1.0, 0.25)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"trian": {}}, "unknown section [trian]; did you mean 'train'?"),
        ({"train": {"epoch": 3}}, "unknown field 'train.epoch'; did you mean 'train.epochs'?"),
        ({"train": {"batch_size": "3"}}, "train.batch_size must be a whole number, not '3'"),
        ({"train": {"batch_size": True}}, "train.batch_size must be a whole number, not True"),
        ({"train": {"batch_size": 0}}, "train.batch_size must be at least 1, not 0"),
        ({"train": {"epochs": 0}}, "train.epochs must be above 0 and at most 100000, not 0"),
        ({"train": {"budget": "ten"}}, 'train.budget must be a time such as "90s"'),
        ({"train": {"budget": 10}}, 'train.budget must be a time such as "90s"'),
        ({"train": {"compile": 1}}, "train.compile must be true or false, not 1"),
        ({"optim": {"lr": 0}}, "optim.lr must be above 0, not 0"),
        ({"optim": {"lr": float("nan")}}, "optim.lr must be above 0, not nan"),
        ({"optim": {"name": "adam"}}, "optim.name cannot be 'adam'; did you mean 'adamw'?"),
        ({"data": {"mean": "grey"}}, "data.mean must be a list of numbers, not 'grey'"),
        ({"data": {"mean": [0.5, "x", 0.5]}}, "data.mean must be a list of numbers"),
        ({"model": {"stem_channels": [32.5]}}, "model.stem_channels must be a list of whole numbers"),
        ({"model": {"stem_channels": [float("inf")]}}, "model.stem_channels must be a finite number, not inf"),
        (
            {"train": {"class_weights": "balance"}},
            "or a list of numbers, and cannot be 'balance'; did you mean 'balanced'?",
        ),
        (
            {"train": {"class_weights": "heavy"}},
            "is none, balanced or a list of numbers, and cannot be 'heavy'; known: balanced, none",
        ),
        ({"train": {"track": ["tensorbord"]}}, "train.track cannot have 'tensorbord'; did you mean 'tensorboard'?"),
        ({"train": {"track": ["wandb", "wandb"]}}, "train.track has wandb twice; name it once"),
        (
            {"train": {"track": "wandb"}},
            """train.track must be a list of names, such as ["tensorboard"], not 'wandb'""",
        ),
        ({"train": {"track": [1]}}, "train.track must be a list of names"),
        ({"train": {"class_weights": 3}}, "train.class_weights must be none or balanced, or a list of numbers, not 3"),
        ({"train": {"class_weights": [1, "x"]}}, "must be none or balanced, or a list of numbers, not [1, 'x']"),
        ({"train": {"class_weights": [1, True]}}, "must be none or balanced, or a list of numbers, not [1, True]"),
        ({"train": {"class_weights": [1, -2]}}, "must be a list of numbers that are at least 0, and one is -2"),
        ({"train": {"class_weights": [1, float("nan")]}}, "train.class_weights must be a finite number, not nan"),
        ({"train": {"class_weights": [1, float("inf")]}}, "train.class_weights must be a finite number, not inf"),
        ({"train": {"select": "best_top1"}}, "train.select cannot be 'best_top1'; did you mean 'best"),
        ({"augment": {"erasing_prob": 1.5}}, "augment.erasing_prob must be at least 0 and at most 1, not 1.5"),
        ({"train": 3}, "'train' is a section; write [train]"),
    ],
)
def test_bad_settings_are_one_sentence_with_the_fix(data, message):
    with pytest.raises(UsageError) as error:
        config_from_dict(data, "my.toml")
    assert str(error.value).startswith("my.toml: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_section_checks_itself_however_it_is_built():
    with pytest.raises(UsageError, match="epochs must be above 0"):
        TrainConfig(epochs=-1)
    with pytest.raises(UsageError, match="flip cannot be 'sideways'"):
        AugmentConfig(flip="sideways")
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().epochs = 3


def test_command_line_words_become_typed_values():
    config = apply_overrides(
        Config(),
        {
            "train.epochs": "7",
            "train.compile": "true",
            "optim.lr": "1e-4",
            "data.source": "123",
            "data.mean": "0.1,0.2,0.3",
            "data.image_size": "48",
            "model.name": "vit-base",
        },
    )
    assert (config.train.epochs, config.train.compile, config.optim.lr) == (7, True, 1e-4)
    assert (config.data.source, config.data.mean, config.data.image_size) == ("123", (0.1, 0.2, 0.3), 48)
    assert apply_overrides(config, {"data.image_size": "none"}).data.image_size is None
    assert apply_overrides(config, {"data.image_size": None}).data.image_size is None
    plain = apply_overrides(config, {"train.epochs": 5, "train.compile": False, "model.stem_channels": (8, 16)})
    assert (plain.train.epochs, plain.train.compile, plain.model.stem_channels) == (5.0, False, (8, 16))
    # "none" is a value of some settings.
    assert apply_overrides(config, {"model.pos_embed": "none"}).model.pos_embed == "none"
    assert apply_overrides(config, {"augment.flip": "none"}).augment.flip == "none"


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("none", "none"),
        ("balanced", "balanced"),
        ("1,2,3", (1.0, 2.0, 3.0)),
        ("[1, 2.5, 0]", (1.0, 2.5, 0.0)),
        ("7", (7.0,)),
        ([1, 2], (1.0, 2.0)),
        ((1, 2), (1.0, 2.0)),
    ],
)
def test_a_choice_or_a_list_of_numbers(word, value, tmp_path):
    """On the command line, from Python, as TOML and as JSON."""
    config = apply_overrides(Config(), {"train.class_weights": word})
    assert config.train.class_weights == value
    plain = json.loads(json.dumps(config.to_dict()))
    assert plain["train"]["class_weights"] == (value if isinstance(value, str) else list(value))
    assert config_from_dict(plain) == config
    path = tmp_path / "again.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert load_recipe(str(path)) == config
    staged = apply_overrides(
        config_from_dict({"stages": [{"train": {"epochs": 1}}, {"train": {"epochs": 2}}]}),
        {"stages.2.train.class_weights": word, "stages.2.data.sampler": "balanced"},
    )
    path.write_text(staged.to_toml(), encoding="utf-8")
    assert [each.train.class_weights for each in load_recipe(str(path)).of_stages()] == ["none", value]
    assert [each.data.sampler for each in load_recipe(str(path)).of_stages()] == ["uniform", "balanced"]
    (info,) = (info for info in describe_fields() if info.key == "train.class_weights")
    assert (info.kind, info.allowed, info.default) == ("none|balanced|numbers", "at least 0", "none")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.epoch", "3", "unknown field 'train.epoch'; did you mean 'train.epochs'?"),
        ("trian.epochs", "3", "unknown setting 'trian.epochs'; did you mean 'train.epochs'?"),
        ("train.epochs", "many", "train.epochs must be a number, not 'many'"),
        ("train.epochs", [3], "train.epochs must be a number, not [3]"),
        ("train.class_weights", "1,,2", "is none, balanced or a list of numbers, and cannot be '1,,2'"),
        ("train.class_weights", "balansed", "and cannot be 'balansed'; did you mean 'balanced'?"),
        ("data.mean", "grey", "data.mean must be a list of numbers, not 'grey'"),
        ("train.epochs", "none", "train.epochs must be a number, not 'none'"),
    ],
)
def test_bad_command_line_words(key, value, message):
    with pytest.raises(UsageError) as error:
        apply_overrides(Config(), {key: value})
    assert message in str(error.value)


def test_unknown_and_broken_recipes(tmp_path):
    with pytest.raises(UsageError, match="no recipe 'quikstart'; did you mean 'quickstart'"):
        load_recipe("quikstart")
    with pytest.raises(UsageError, match="no file"):
        load_recipe(str(tmp_path / "none.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_text("[train\nepochs = 3")
    with pytest.raises(UsageError, match=r"broken\.toml is not valid TOML"):
        load_recipe(str(broken))


def test_every_field_is_explained_in_the_order_of_the_sections():
    infos = describe_fields()
    assert all(info.meaning for info in infos)
    assert len({info.key for info in infos}) == len(infos) == sum(len(dataclasses.fields(s)) for s in SECTIONS.values())
    assert {f.name: f.default_factory for f in dataclasses.fields(Config) if f.name != "stages"} == SECTIONS


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("1m30s", 90)]
)
def test_a_duration_is_read_as_people_write_it(text, seconds):
    config = load_recipe("quickstart", {"train.budget": text})
    assert config.train.budget is not None
    assert config.train.budget.seconds == seconds
    assert config_from_dict(tomllib.loads(config.to_toml())).train.budget == text


@pytest.mark.parametrize("settings", [{"train.debug": "true"}, {"train.debug": True}], ids=["words", "Python"])
def test_debugging_is_two_epochs_unless_they_are_given_with_it(settings, tmp_path):
    assert load_recipe("vit-tiny", settings).train.epochs == 2
    three = load_recipe("vit-tiny", {**settings, "train.epochs": "3"})
    assert three.train.epochs == 3
    path = tmp_path / "config.toml"
    path.write_text(three.to_toml(), encoding="utf-8")  # what a run folder holds says the true number
    assert load_recipe(str(path)) == three
    assert load_recipe(str(path), settings) == three  # it was on before
    assert load_recipe(str(path), {"train.epochs": "5"}).train.epochs == 5
    assert load_recipe("vit-tiny", {"train.debug": "false"}).train.epochs == 100


def test_debugging_in_a_recipe_of_its_own(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text("[train]\ndebug = true\nepochs = 7\n", encoding="utf-8")
    assert load_recipe(str(path)).train.epochs == 7
    path.write_text("[train]\ndebug = true\n", encoding="utf-8")
    assert load_recipe(str(path)).train.epochs == 2
    assert load_recipe(str(path), {"train.epochs": "3"}).train.epochs == 3


def test_debugging_of_stages():
    def epochs(**settings):
        config = load_recipe("vit-small8-two-stage", {"train.debug": "true", **settings})
        assert config_from_dict(config.to_dict()) == config
        return [stage.train.epochs for stage in config.of_stages()]

    assert epochs() == [2, 2]
    assert epochs(**{"stages.2.train.epochs": "3"}) == [2, 3]
    shared = config_from_dict({"stages": [{"train": {"epochs": 30}}, {"optim": {"lr": 1e-4}}]})
    for settings, expected in (({}, [2, 2]), ({"train.epochs": 4}, [2, 4])):
        config = apply_overrides(shared, {"train.debug": True, **settings})
        assert [stage.train.epochs for stage in config.of_stages()] == expected


HUGE = "1" + "0" * 400


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("train.epochs", ["nan", "inf", "-inf", HUGE, "9" * 6000, "1e999"]),
        ("optim.lr", ["nan", "inf", HUGE]),
        ("data.val_fraction", ["nan", "inf", "-inf"]),
        ("optim.grad_clip", ["nan", "inf", HUGE]),
        ("train.batch_size", ["nan", "inf", HUGE, "9" * 6000, "9223372036854775808"]),
        ("data.mean", ["nan,0,0", "inf,0,0", f"{HUGE},0,0", f"{'9' * 6000},0,0"]),
        ("model.stem_channels", ["nan", f"{HUGE}", "[" * 3000]),
        ("train.budget", ["nan", f"{HUGE}h", f"{'9' * 6000}s"]),
    ],
)
def test_numbers_that_are_none_are_named(key, words):
    for word in words:
        for value in (word, as_python(word)):
            with pytest.raises(UsageError, match=rf"command line: {key} (must|cannot) be ") as error:
                apply_overrides(Config(), {key: value})
            assert "\n" not in str(error.value)
            assert len(str(error.value)) < 300


def as_python(word: str) -> object:
    """The number that a word is, where it is one, as Python users give it."""
    if word.lstrip("-") in ("nan", "inf", "1e999"):
        return float(word)
    return 10**6000 if word.isdecimal() and len(word) > 4300 else int(word) if word.isdecimal() else word


def test_files_that_are_no_recipe_are_one_sentence(tmp_path):
    marked = tmp_path / "marked.toml"
    marked.write_bytes(b"\xef\xbb\xbf[train]\nepochs = 3\n")  # as editors on Windows save it
    assert load_recipe(str(marked)).train.epochs == 3
    (tmp_path / "folder.toml").mkdir()
    contents = {
        "old.toml": ("[about]\ntitle = 'café'".encode("latin-1"), "is not text in UTF-8"),
        "wide.toml": ("[train]".encode("utf-16"), "is not text in UTF-8"),
        "deep.toml": (b"a = " + b"[" * 20000, "nested too deep"),
        "long.toml": (b"[train]\nepochs = " + b"9" * 6000, "is not valid TOML"),
        "nan.toml": (b"[train]\nepochs = nan", "nan.toml: train.epochs must be above 0 and at most 100000, not nan"),
        "huge.toml": (b"[optim]\nlr = 1" + b"0" * 400, "huge.toml: optim.lr must be between"),
        "zero.toml": (b'[data]\nsource = "a\\ud800"', "is not valid TOML"),
    }
    for name, (data, message) in contents.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError, match=message) as error:
            load_recipe(str(tmp_path / name))
        assert "\n" not in str(error.value)
    for name, message in (("folder.toml", "is a folder"), ("none.toml", "no file"), ("a\0.toml", "zero byte")):
        with pytest.raises(UsageError, match=message):
            load_recipe(str(tmp_path / name))
    with pytest.raises(UsageError, match="no recipe ''"):
        load_recipe("")


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("tensorboard", ("tensorboard",)),
        ("wandb,tensorboard", ("wandb", "tensorboard")),
        ("wandb, mlflow", ("wandb", "mlflow")),
        ('["mlflow"]', ("mlflow",)),
        (["mlflow"], ("mlflow",)),
        ("none", ()),
        ("", ()),
    ],
)
def test_a_list_of_names(word, names, tmp_path):
    config = apply_overrides(Config(), {"train.track": word})
    assert config.train.track == names
    (tmp_path / "saved.toml").write_text(config.to_toml(), encoding="utf-8")
    assert load_recipe(str(tmp_path / "saved.toml")).train.track == names
    assert apply_overrides(config, {"train.track": "none"}).train.track == ()
    (info,) = (info for info in describe_fields() if info.key == "train.track")
    assert (info.kind, info.allowed, info.default) == ("list of tensorboard|wandb|mlflow", "", ())
