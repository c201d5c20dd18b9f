"""`study.json`: what it holds comes back as it was, and what no file can hold is an error that names the field."""

from __future__ import annotations

import json

import pytest
from made_study import STUDIES

from patchlight.runs.codec import RecordError
from patchlight.runs.study import StudyResult, StudyVariant


@pytest.mark.parametrize("name", list(STUDIES))
def test_a_study_comes_back_as_it_was(name):
    study = STUDIES[name]()
    assert StudyResult.from_json(json.loads(json.dumps(study.to_json()))) == study


def test_a_setting_may_be_any_value():
    values = {"a": None, "b": True, "c": [1, 2.5, ["x"]], "d": {"e": "f"}, "g": "text"}
    plain = {"name": "x", "changes": values}
    assert StudyVariant.from_json(plain).changes == values


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("\ud800", "changes.a must be text in UTF-8"),
        (["\ud800"], r"changes.a\[0\] must be text in UTF-8"),
        ({"b": 2**70}, "changes.a.b must be a whole number of at most"),
    ],
)
def test_a_setting_that_no_file_can_hold_is_named(value, message):
    with pytest.raises(RecordError, match=message):
        StudyVariant.from_json({"name": "x", "changes": {"a": value}})
