"""Damaged TOML files and random words of a command line: a recipe or a PatchlightError of one line, nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fuzz import ROUNDS, mutated
from words import ODD_KEYS

from patchlight.config import RECIPES, Config, apply_overrides, config_from_dict, describe_fields, load_recipe
from patchlight.errors import PatchlightError

VALUES = [
    *("nan", "-inf", "1e999", "9" * 400, "9" * 5000, "-1", "0", "1.5", "true", "none", "None", "", " ", "[]", "[[]]"),
    *("[1,2,3]", "1,2,3", "1,,2", "{}", "{a=1}", "'", '"', "\\", "\n", "\0", "é", "\udce9", "[" * 2000, "1979-05-27"),
    *("0x10", "1_000", "+5", "1e-400", "90s", "1h", "9" * 400 + "h", "../..", "~", "cifar10", "x" * 5000, "\ufeff1"),
]
PLAIN = [None, True, -1, 10**400, 10**6000, float("nan"), [], [None], [[1]], {}, {"a": 1}, b"x", 1j, object(), "\udce9"]


@ROUNDS
def test_damaged_recipes(seed: int, times: int, tmp_path: Path) -> None:
    recipes = [path.read_bytes() for path in sorted(RECIPES.glob("*.toml"))]
    path, refused = tmp_path / "damaged.toml", list[str]()
    for data in mutated(recipes, 300 * times, seed):
        path.write_bytes(data)
        try:
            load_recipe(str(path))
        except PatchlightError as error:
            refused.append(str(error))
    assert 100 * times < len(refused) < 300 * times
    assert all("\n" not in message and "damaged.toml" in message for message in refused)


@ROUNDS
def test_random_words(seed: int, times: int) -> None:
    draw = np.random.default_rng(seed)
    keys = [*(info.key for info in describe_fields()), *ODD_KEYS]
    refused = list[str]()
    for _ in range(300 * times):
        values = VALUES if draw.random() < 0.7 else PLAIN
        key, value = keys[draw.integers(len(keys))], values[draw.integers(len(values))]
        try:
            made = apply_overrides(Config(), {key: value})
        except PatchlightError as error:
            refused.append(str(error))
        else:
            assert config_from_dict(made.to_dict()) == made
    assert len(refused) > 100 * times
    assert not [message for message in refused if "\n" in message]


@ROUNDS
def test_random_data(seed: int, times: int) -> None:
    """As a TOML file of another form would give it."""
    draw = np.random.default_rng(seed)
    keys = [info.key.split(".") for info in describe_fields()]
    things, refused = [*VALUES, *PLAIN], list[str]()
    for _ in range(100 * times):
        section, name = keys[draw.integers(len(keys))]
        thing = things[draw.integers(len(things))]
        for data in ({section: thing}, {section: {name: thing}}, {"stages": thing}, {"stages": [{section: thing}]}):
            try:
                config_from_dict(data)
            except PatchlightError as error:
                refused.append(str(error))
    assert len(refused) > 100 * times
    assert not [message for message in refused if "\n" in message]
