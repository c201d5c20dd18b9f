"""The names that a recipe may use, held against the tables whose rows they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

import pytest
import torch

from patchlight.config import config_from_dict, describe_fields, load_recipe
from patchlight.config.fields import kind_of
from patchlight.config.names import (
    DEFAULT_METHOD,
    METHOD_NAMES,
    OPTIMIZER_NAMES,
    POLICY_NAMES,
    SAMPLER_NAMES,
    SCHEDULE_NAMES,
    SELECT_NAMES,
    SPLIT_NAMES,
    TASK_NAMES,
    TRACKER_NAMES,
    Names,
)
from patchlight.config.sections import Precision
from patchlight.data.augment import augment
from patchlight.data.policies import POLICIES
from patchlight.data.sampling import SAMPLERS
from patchlight.data.splits import Splits
from patchlight.errors import UsageError
from patchlight.explanation.methods import METHODS
from patchlight.machine.device import DTYPES
from patchlight.runs import MEASURES
from patchlight.training.optim import OPTIMIZERS
from patchlight.training.schedule import SHAPES
from patchlight.training.tasks import TASKS
from patchlight.training.trackers import TRACKERS

TABLES: list[tuple[str, Names, Mapping[str, Any], set[str]]] = [
    ("augment.policy", POLICY_NAMES, POLICIES, {"none"}),
    ("data.sampler", SAMPLER_NAMES, SAMPLERS, set()),
    ("train.select", SELECT_NAMES, MEASURES, {"last"}),
    ("optim.name", OPTIMIZER_NAMES, OPTIMIZERS, set()),
    ("schedule.name", SCHEDULE_NAMES, SHAPES, {"onecycle"} - SHAPES.keys()),
    ("train.task", TASK_NAMES, TASKS, set()),
    ("explain.method", METHOD_NAMES, METHODS, set()),
]


@pytest.mark.parametrize(("setting", "names", "table", "without_row"), TABLES, ids=lambda value: str(value)[:20])
def test_a_tables_rows_are_the_names_of_its_setting(setting, names, table, without_row):
    assert sorted(names) == sorted({*table} | without_row)
    info = next(info for info in describe_fields() if info.key == setting)
    assert info.kind == "|".join(names)
    assert info.default in names


def test_every_list_of_names_is_held_against_its_table():
    listed = {info.key: info.kind for info in describe_fields()}
    kinds = {"|".join(names) for _, names, _, _ in TABLES}
    assert {setting for setting, _, _, _ in TABLES} <= {key for key, kind in listed.items() if kind in kinds}
    assert DEFAULT_METHOD in METHODS
    assert (*SPLIT_NAMES, "notes") == tuple(field.name for field in dataclasses.fields(Splits))
    assert get_args(Precision) == ("auto", *DTYPES)
    assert kind_of(Precision).choices == get_args(Precision)
    assert list(TRACKERS) == TRACKER_NAMES
    assert listed["train.track"] == f"list of {'|'.join(TRACKERS)}"


@pytest.mark.parametrize(("setting", "names"), [table[:2] for table in TABLES], ids=lambda value: str(value)[:20])
def test_a_name_that_is_appended_may_be_used_in_a_recipe(setting, names):
    with pytest.raises(UsageError, match="cannot be 'mine'"):
        load_recipe("quickstart", {setting: "mine"})
    names.append("mine")
    try:
        section, name = setting.split(".")
        assert getattr(getattr(load_recipe("quickstart", {setting: "mine"}), section), name) == "mine"
    finally:
        names.remove("mine")


def test_a_name_and_a_row_are_all_that_a_policy_takes(monkeypatch):
    """From outside the package: the recipe knows the name at once, and training runs the row."""
    monkeypatch.setitem(POLICIES, "negative", lambda images, config, generator: 255 - images)
    with pytest.raises(UsageError, match="policy cannot be 'negative'"):
        config_from_dict({"augment": {"policy": "negative"}})
    POLICY_NAMES.append("negative")
    try:
        config = load_recipe("quickstart", {"augment.policy": "negative", "augment.crop_padding": 0})
    finally:
        POLICY_NAMES.remove("negative")
    images = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
    made = augment(images, torch.tensor([0]), config.augment, seed=0, epoch=0, generator=torch.Generator())
    assert torch.equal(made, 255 - images)
