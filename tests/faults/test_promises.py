"""docs/reliability.md lists each promise with the names of its tests, and these are all tests of this folder."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
LIST = HERE.parents[1] / "docs" / "reliability.md"


def test_every_promise_has_a_test_and_every_test_a_promise() -> None:
    rows = [line for line in LIST.read_text(encoding="utf-8").splitlines() if re.match(r"\| (?!promise )", line)]
    named = {row: set(re.findall(r"`(test_\w+\.py::test_\w+)`", row)) for row in rows}
    assert [row for row, tests in named.items() if not tests] == []
    there = {
        f"{file.name}::{node.name}"
        for file in HERE.glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert set().union(*named.values()) == there
