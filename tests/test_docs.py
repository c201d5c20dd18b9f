"""Pages say what is so: links lead somewhere, from outside the repository too, and marked code runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tools import code_links

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HERE = re.compile(
    r"https://(?:github\.com|raw\.githubusercontent\.com)/patchlight/patchlight/(?:blob/)?main/([^#)\s]+)"
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CHECKED = re.compile(r"<!-- check: python -->\n```python\n(.*?)```", re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The ids that GitHub gives the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        if found := HERE.match(link):
            assert (ROOT / found[1]).exists(), link
        elif not link.startswith("http"):
            assert page.name != "README.md" or not target, f"{link} leads nowhere outside the repository"
            place = (page.parent / target).resolve() if target else page
            assert place.exists(), link
            assert not anchor or place.suffix == ".py" or anchor in anchors(place), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_to_code_shows_the_code_of_its_line(page):
    lines = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if ".py#" in link]
    assert len(code_links.links(page)) == len(lines), "a link to a line shows its code: [`code`](file.py#L1)"
    assert code_links.wrong(page) == []


def without_code(text: str) -> tuple[int, list[str]]:
    """How many formulas a page has, and those with no link to code between them and the next heading."""
    text = re.sub(r"^```python\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)  # a comment there is no heading
    count, bare = 0, []
    for section in re.split(r"^#+ .*$", text, flags=re.MULTILINE):
        formulas = list(re.finditer(r"^```math\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
        count += len(formulas)
        bare += [found[1].strip() for found in formulas if not code_links.LINK.search(section, found.end())]
    return count, bare


def test_every_formula_of_the_learning_path_has_its_code():
    page = ROOT / "docs" / "learn.md"
    count, bare = without_code(page.read_text(encoding="utf-8"))
    assert bare == []
    assert count >= 19
    assert len(code_links.links(page)) >= 40


def test_a_formula_without_code_is_found():
    formula, link, python = "```math\n%s\n```\n", "[`head(x)`](vit.py#L1)\n", "```python\n# a comment\n```\n"
    page = "# One\n" + link + formula % "a" + "## Two\n" + formula % "b" + formula % "c" + python + link + formula % "d"
    assert without_code(page) == (4, ["a", "d"])


def test_a_link_to_code_that_moved_is_found_and_mended(tmp_path, monkeypatch):
    monkeypatch.setattr(code_links, "ROOT", tmp_path)
    (tmp_path / "vit.py").write_text("import torch\nx = norm(x)\ny = head(x)\nx = norm(x) + 1\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text("[`head(x)`](vit.py#L1), [`tail(x)`](vit.py#L2), [`norm(x)`](vit.py#L2)", encoding="utf-8")
    moved, gone, twice = code_links.wrong(page)
    assert "`head(x)` stands on line 3 of vit.py, not on 1; run python tools/code_links.py --write" in moved
    assert "`tail(x)` stands nowhere in vit.py" in gone
    assert "`norm(x)` stands on the lines 2, 4 of vit.py" in twice
    assert code_links.mended(page) == "[`head(x)`](vit.py#L3), [`tail(x)`](vit.py#L2), [`norm(x)`](vit.py#L2)"


def test_the_learning_path_counts_right():
    """Its blocks one after the other: formulas by hand beside the network's own numbers."""
    blocks = CHECKED.findall((ROOT / "docs" / "learn.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 8
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for block in blocks:
        assert "assert" in block
        exec(compile(block, "learn.md", "exec"), names)


@pytest.mark.slow
def test_the_python_page_runs(tmp_path, monkeypatch, no_charts):
    """Its blocks one after the other, as the page says."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    blocks = CHECKED.findall((ROOT / "docs" / "python.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 4
    small = '"train.epochs": 0.2, "explain.faithfulness": 0, "eval.gallery": 2, "data.test_per_class": 5'
    names: dict[str, object] = {}
    for block in blocks:
        code = block.replace('"train.epochs": 5', small).replace('method="all"', 'method="chefer"')
        exec(compile(code, "python.md", "exec"), names)
    assert (tmp_path / "map.png").is_file()
    assert (tmp_path / "runs" / "mine" / "explain" / "maps.png").is_file()
