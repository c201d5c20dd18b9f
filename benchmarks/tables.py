"""Results into documents: `python -m benchmarks.tables` puts each JSON file's table between its markers.

The table of `docs/benchmarks/step.json` stands between `<!-- bench:step -->` and `<!-- /bench:step -->`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.catalogue import CATALOGUE


class MarkersMissing(Exception):
    """A document has no place for a table. Its text says which markers to add."""


def render(record: dict[str, Any]) -> str:
    """The benchmark's table, and below it on what it was measured."""
    return f"{CATALOGUE[record['benchmark']].table(record['result'])}\n\n{caption(record)}"


def caption(record: dict[str, Any]) -> str:
    environment = record["environment"]
    hardware, versions = environment["hardware"], environment["versions"]
    where = hardware["gpu"] or f"{hardware['cpu']}, {record['threads']} threads"
    known = [f"{name} {number}" for name, number in versions.items() if number and name in SHOWN]
    commit = (environment["git_commit"] or "an installed wheel")[:9]
    load = record["load_average"]["before"]
    where += f", load {load:.1f} before" if load > BUSY else ""
    parts = [where, ", ".join(known), f"commit {commit}", record["date"][:10], f"`{record['command']}`"]
    if record["missing"]:
        parts.append(f"not installed: {', '.join(record['missing'])}")
    return f"{'; '.join(parts)}."


BUSY = 0.5  # the load average of a machine that does something else, too
SHOWN = ("torch", "torchvision", "timm", "transformers", "vit-pytorch", "kornia")


def place(document: str, name: str, text: str) -> str:
    """The document with `text` between the markers of `name`, in place of what stood there.

    Raises MarkersMissing where they are not there once each and in order.
    """
    opening, closing = markers(name)
    before, found, rest = document.partition(opening)
    _, ended, after = rest.partition(closing)
    if not found or not ended or opening in rest or closing in before + after:
        raise MarkersMissing(f"write {opening} and {closing} once each, in this order")
    return f"{before}{opening}\n{text}\n{closing}{after}"


def markers(name: str) -> tuple[str, str]:
    return f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"


def place_all(document: str, folder: Path) -> str:
    """The document with the table of every result in `folder`. Raises MarkersMissing, naming all that are."""
    errors = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["quick"]:
            raise ValueError(f"{path} is of a --quick run, whose numbers mean nothing; delete it")
        try:
            document = place(document, path.stem, render(record))
        except MarkersMissing as error:
            errors.append(f"for {path.name}: {error}")
    if errors:
        raise MarkersMissing("; ".join(errors))
    return document


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--from", dest="folder", type=Path, default=Path("docs/benchmarks"), help="the JSON files")
    parser.add_argument("--into", type=Path, default=Path("docs/results.md"), help="the document with markers")
    parser.add_argument("--print", action="store_true", help="only show the tables, of quick runs too")
    args = parser.parse_args()
    paths = sorted(args.folder.glob("*.json"))
    if not paths:
        print(f"no results in {args.folder}; measure with `python -m benchmarks`", file=sys.stderr)
        return 1
    if args.print:
        for path in paths:
            print(f"## {path.stem}\n\n{render(json.loads(path.read_text(encoding='utf-8')))}\n")
        return 0
    try:
        document = place_all(args.into.read_text(encoding="utf-8"), args.folder)
    except (MarkersMissing, ValueError) as error:
        print(f"{args.into} is unchanged: {error}", file=sys.stderr)
        return 1
    args.into.write_text(document, encoding="utf-8")
    print(f"{args.into}: {len(paths)} tables")
    return 0


if __name__ == "__main__":
    sys.exit(main())
