"""Imports go down only: the table of docs/design.md, held against the code."""

from __future__ import annotations

import ast
from pathlib import Path

SRC = Path(__file__).parents[1] / "src" / "patchlight"

# The longest matching prefix decides.
LEVELS = {
    "errors": 0, "compat": 0,
    "fields": 0, "sections": 0, "config": 0, "runtime": 0, "probe": 0, "progress": 0, "units": 0,
    "libraries": 0, "evaluation.metrics": 0,
    "report.figures": 0, "report.galleries": 0, "report.diagnostics": 0, "report.style": 0,
    "runs": 1, "data": 1, "models": 1,
    "evaluation": 2, "explanation": 2, "training": 2,
    "training.loop": 3, "training.rehearsal": 3,
    "training.hf_trainer": 4, "training.fit": 4,
    "doctor": 4, "report": 4, "preparing": 4,
    "verbs": 5,
    "explaining": 6, "probing": 6, "export": 6,
    "cli_parser": 6, "cli_text": 6, "cli": 7, "__main__": 8,
}  # fmt: skip
NEVER = [
    ("models", "data"),
    ("models", "training"),
    ("explanation", "training"),
    ("explanation", "data"),
    ("report", "training"),
]
NO_TORCH = {
    "errors",
    "fields",
    "sections",
    "config",
    "progress",
    "units",
    "evaluation.metrics",
    "report.figures",
    "report.galleries",
    "report.diagnostics",
    "cli",
    "cli_parser",
    "cli_text",
}


def modules() -> dict[str, Path]:
    names = {}
    for path in SRC.rglob("*.py"):
        parts = path.relative_to(SRC).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def level(name: str) -> int:
    matches = [key for key in LEVELS if name == key or name.startswith(key + ".")]
    assert matches, f"{name} has no place in docs/design.md"
    return LEVELS[max(matches, key=len)]


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


def test_imports_go_down_only():
    known = modules()
    upward = []
    for name, path in known.items():
        if not name:  # the package's own face names its exports in a table
            continue
        for imported, _ in imports(path):
            target = own(imported, known)
            if target is not None and level(target) > level(name):
                upward.append(f"{name} (level {level(name)}) imports {target} (level {level(target)})")
    assert not upward, "\n".join(upward)


def test_rooms_that_never_meet():
    known = modules()
    met = [
        f"{name} imports {target}"
        for name, path in known.items()
        for imported, _ in imports(path)
        if (target := own(imported, known)) is not None
        for a, b in NEVER
        if name.split(".")[0] == a and target.split(".")[0] == b
    ]
    assert not met, "\n".join(met)


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


def test_what_must_start_fast_imports_no_torch():
    known = modules()
    for name in NO_TORCH & known.keys():
        heavy = [i for i, top in imports(known[name]) if top and i.split(".")[0] in {"torch", "sklearn", "datasets"}]
        assert not heavy, f"{name} imports {heavy}"


def test_files_are_short():
    long = {n: c for n, p in modules().items() if (c := len(p.read_text(encoding="utf-8").splitlines())) > 400}
    assert not long, f"these have outgrown one idea: {long}"
