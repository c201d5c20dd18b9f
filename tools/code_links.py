"""Holds the links from docs/ to lines of code: the code that a link shows stands on the line that it leads to.

    python tools/code_links.py            says which links are wrong, and the right lines
    python tools/code_links.py --write    writes the right lines into the pages

A link is written [`self.qkv(x)`](../src/patchlight/models/layers.py#L40). The code between the backticks stands on one
line of that file alone, so that where it moved to is never a guess.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[`([^`\n]+)`\]\(([^)\s#]+\.py)#L(\d+)\)")


def links(page: Path) -> list[tuple[str, Path, int]]:
    """The page's links to lines of code: the code, the file and the number of the line."""
    found = LINK.findall(page.read_text(encoding="utf-8"))
    return [(code, (page.parent / file).resolve(), int(line)) for code, file, line in found]


def lines_of(code: str, file: Path) -> list[int]:
    """The lines of the file, counted from 1, on which the code stands."""
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, start=1) if code in line]


def wrong(page: Path) -> list[str]:
    """A sentence for each link of the page that does not lead to its code."""
    sentences = []
    for code, file, line in links(page):
        found, place = lines_of(code, file), f"{page.name}: `{code}`"
        name = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
        if not found:
            sentences.append(f"{place} stands nowhere in {name}; name the code that took its place")
        elif len(found) > 1:
            there = ", ".join(map(str, found))
            sentences.append(f"{place} stands on the lines {there} of {name}; quote more of the line that is meant")
        elif found != [line]:
            sentences.append(
                f"{place} stands on line {found[0]} of {name}, not on {line}; run python tools/code_links.py --write"
            )
    return sentences


def mended(page: Path) -> str:
    """The text of the page with the right line in each link whose code stands on one line of its file."""

    def mend(link: re.Match[str]) -> str:
        code, file, _ = link.groups()
        found = lines_of(code, (page.parent / file).resolve())
        return f"[`{code}`]({file}#L{found[0]})" if len(found) == 1 else link[0]

    return LINK.sub(mend, page.read_text(encoding="utf-8"))


def main(words: list[str]) -> int:
    pages = sorted((ROOT / "docs").glob("*.md"))
    if "--write" in words:
        for page in pages:
            page.write_text(mended(page), encoding="utf-8")
    sentences = [sentence for page in pages for sentence in wrong(page)]
    print("\n".join(sentences) or "every link leads to its code")
    return 1 if sentences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
