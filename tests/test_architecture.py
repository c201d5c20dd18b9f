"""The rooms of docs/design.md, held against the code: which room imports which, and that it only goes down."""

from __future__ import annotations

import ast
from pathlib import Path

SRC = Path(__file__).parents[1] / "src" / "patchlight"

# From top to bottom; of each room those below that it imports, at once or later. The last three are files, and
# `patchlight/__init__.py` only names its exports.
TABLE = {
    "cli": "commands studies reporting data runs config machine progress paths errors units",
    "commands": "studies reporting training analysis explanation evaluation models data figures runs config machine "
    "progress paths errors units",
    "studies": "reporting training evaluation models data figures runs config machine progress paths errors units",
    "reporting": "evaluation figures runs config progress paths errors units",
    "training": "analysis evaluation models data runs config machine progress paths errors units",
    "analysis": "explanation evaluation models data runs config machine progress errors",
    "explanation": "models figures config errors units",
    "evaluation": "models data runs machine progress errors",
    "models": "runs config machine progress errors",
    "data": "config machine progress paths errors units",
    "figures": "runs errors units",
    "runs": "config machine progress paths errors units",
    "config": "paths errors",
    "machine": "paths errors",
    "progress": "units",
    "paths": "errors units",
    "errors": "units",
    "units": "",
}
ROOMS = {room: set(below.split()) for room, below in TABLE.items()}
NO_TORCH = (
    *("cli", "studies.answer", "reporting", "figures", "runs", "config", "errors", "units", "progress"),
    *("evaluation.metrics", "evaluation.paired"),
)
HEAVY = {"torch", "torchvision", "timm", "transformers", "sklearn", "datasets"}
LONGEST = 400  # lines of a file


def modules() -> dict[str, Path]:
    names = {}
    for path in SRC.rglob("*.py"):
        parts = path.relative_to(SRC).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name not in ("", "__main__"):
            names[name] = path
    return names


def imports(path: Path) -> list[tuple[str, bool]]:
    """Every module that a file imports, and whether it does so when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) not in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports from the top"
            found += [(node.module or "", id(node) not in inside)]
            found += [(f"{node.module}.{alias.name}", id(node) not in inside) for alias in node.names]
    return found


def own(imported: str, known: dict[str, Path]) -> str | None:
    name = imported.removeprefix("patchlight.")
    return name if imported.startswith("patchlight.") and name in known else None


def room(name: str) -> str:
    return name.partition(".")[0]


def arrows() -> dict[str, set[str]]:
    """Of each room those that it imports, at once or later."""
    known = modules()
    found: dict[str, set[str]] = {room(name): set() for name in known}
    for name, path in known.items():
        targets = {room(target) for imported, _ in imports(path) if (target := own(imported, known))}
        found[room(name)] |= targets - {room(name)}
    return found


def test_the_table_of_arrows_is_the_codes():
    found = arrows()
    assert found.keys() == ROOMS.keys()
    assert found == ROOMS


def test_arrows_go_down_only():
    order = list(ROOMS)
    upward = [(a, b) for a, targets in ROOMS.items() for b in targets if order.index(b) < order.index(a)]
    assert not upward


def test_no_circles():
    known = modules()
    below = {n: {t for i, top in imports(p) if top and (t := own(i, known)) not in (None, n)} for n, p in known.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for target in below[name]:
                visit(target, (*way, name))
            done.add(name)

    for name in known:
        visit(name, ())


def test_what_must_start_fast_imports_nothing_heavy():
    known = modules()
    for name, path in known.items():
        if any(name == place or name.startswith(place + ".") for place in NO_TORCH):
            heavy = [i for i, top in imports(path) if top and i.partition(".")[0] in HEAVY]
            assert not heavy, f"{name} imports {heavy}"


def test_files_are_short():
    long = {n: c for n, p in modules().items() if (c := len(p.read_text(encoding="utf-8").splitlines())) > LONGEST}
    assert not long, f"these have outgrown one idea: {long}"
