"""Names of strangers are shown as text: on a terminal, in cards, in figures and on the page, in a real browser, too."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_run import make_run
from source_files import write_folder

from patchlight.cli.main import main
from patchlight.cli.text import result_table
from patchlight.commands.export import model_card
from patchlight.config import config_from_dict
from patchlight.data.listing import Listing, from_arrays
from patchlight.errors import PatchlightError
from patchlight.figures import charts
from patchlight.figures.style import darkened, png, svg
from patchlight.models import ModelCard, ModelSpec
from patchlight.progress import Progress, say, tell
from patchlight.reporting.facts import read_facts
from patchlight.reporting.markdown import as_block, as_code, as_text
from patchlight.reporting.page import build_report
from patchlight.reporting.readme import build_readme
from patchlight.runs import Run
from patchlight.units import on_lines, printable, shortened

OWNED = "document.documentElement.dataset.owned=1"
EVIL = {
    "script": f"<script>{OWNED}</script>",
    "image": f"<img src=x onerror={OWNED}>",
    "attribute": f'"><svg onload="{OWNED}">',
    "template": "{{ 7 * 7 }}{% raw %}",
    "end of script": f"</script><script>{OWNED}</script>",
    "link": f"[x](javascript:{OWNED})",
    "picture": "![x](http://stranger.example/x.png)",
    "address": "http://stranger.example/ www.stranger.example me@stranger.example",
    "signs": "# a | b * c _d_ `e` ~f~ $g$ &lt;h&gt; \\ i :smile: - j",
    "backticks": "``` `` `",
    "escape": "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "return": "cat\rdog",
    "backspace": "cat\b\b\bdog",
    "lines": "cat\n## dog\n```\n\n---\n- x",
    "tab": "cat\tdog",
    "direction": "cat\u202egod\u2066\u200f",
    "hidden": "c\u200ba\ufefft\u00ad",
    "joined": "cat\u200d",
    "surrogate": "caf\udce9",
    "formula": r"$\frac{1}{0$ $$ \alpha",
    "formula of a spreadsheet": "=cmd|' /C calc'!A0",
    "colour": "#5f6770 fill: #d5d9de",
    "long": "very " * 1000 + "long",
    "other scripts": "日本語 नमस्ते עברית 👩\u200d🚀",
    "none": "",
}
ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\u200e\u200f\ufeff\xad]")
OPTIONS = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
FOLDER = "run \x1b[31m`\n```\n# x' <b>"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of strangers, in which all names do harm."""
    names = [printable(name) if name == EVIL["surrogate"] else name for name in EVIL.values()]
    run = make_run(tmp_path / FOLDER, names=names, spread=2.0)
    text = "".join(EVIL[name] for name in ("escape", "lines", "direction", "script", "link"))
    about = dict.fromkeys(("name", "title", "source", "command", "cost", "expect"), text)
    config = config_from_dict({"about": about, "train": {"epochs": 3}})
    (run / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    facts = json.loads((run / "environment.json").read_text())
    facts["data"] |= {"source": EVIL["script"] + EVIL["escape"], "notes": list(names)}
    facts["hardware"]["cpu"] = facts["model"]["name"] = EVIL["image"] + EVIL["direction"]
    (run / "environment.json").write_text(json.dumps(facts))
    return run


@pytest.mark.parametrize("name", EVIL.values(), ids=EVIL)
def test_a_terminal_obeys_no_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"a note on {name}")
    tell(f"a result\nof {name}")
    with Progress(3, f"reading {name}") as progress:
        progress.show(f"now {name}")
    said = capsys.readouterr()
    assert not ACTS.search(said.err + said.out)
    assert len(said.err.splitlines()) == 2  # a name begins no line of its own
    error = str(PatchlightError(f"a fault of {name}"))
    assert not ACTS.search(error)
    assert "\n" not in error
    assert printable(printable(name)) == printable(name)  # shown twice it is the same
    if printable(name) == name:
        assert name in on_lines(name)


def test_scripts_and_emoji_keep_their_joiners() -> None:
    for name in ("👩\u200d🚀", "क्\u200dष", "日本語 é ü"):
        assert printable(name) == name
    assert printable("cat\u200d") == r"cat\u200d"
    assert printable("\u200cc\u200da") == r"\u200cc\u200da"
    assert len(shortened("x" * 10**6)) < 200


def test_results_are_tables_whatever_classes_are_called(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = result_table(Run.open(run).result())
    tell(text)
    out = capsys.readouterr().out
    assert not ACTS.search(out)
    plain = make_run(run.parent / "plain", names=[str(i) for i in range(len(EVIL))], spread=2.0)
    assert len(out.splitlines()) == len(result_table(Run.open(plain).result()).splitlines())  # a row for each class
    assert max(map(len, out.splitlines())) < 250


def test_classes_that_would_be_shown_alike_are_refused() -> None:
    pixels, labels = np.zeros((2, 3, 8, 8), np.uint8), np.array([0, 1])
    with pytest.raises(PatchlightError, match=r"two classes are both shown as 'a\\x1b'; rename one"):
        Listing({"train": from_arrays(pixels, labels, "x")}, ("a\x1b", "a\\x1b"))


def test_names_of_files_and_folders_in_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = [name for name in EVIL.values() if "/" not in name and 0 < len(os.fsencode(name)) < 200]
    root = write_folder(tmp_path / "set \x1b[31m\n\u202e", named, per_class=2)
    (root / named[0] / "bad\x1b[2J\n.png").write_bytes(b"no image")
    assert main(["data", str(root)]) == 1
    said = capsys.readouterr()
    assert not ACTS.search(said.out + said.err)
    assert r"bad\x1b[2J\n.png" in said.out
    assert main(["data", str(root) + "\x1b[31m"]) == 2
    said = capsys.readouterr()
    assert not ACTS.search(said.err)
    assert len(said.err.splitlines()) == 1


class Rendered(HTMLParser):
    """The text and the tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.text, self.within, self.asked = list[str](), "", "", list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.within = tag
        self.asked += [value or "" for name, value in attrs if name in ("src", "href") or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        if self.within not in ("script", "style"):
            self.text += data


def markdown(text: str) -> Rendered:
    """As the hub and GitHub render it, raw HTML included."""
    markdown_it = pytest.importorskip("markdown_it")
    return Rendered(
        markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)
    )


@pytest.mark.parametrize("name", EVIL.values(), ids=EVIL)
def test_markdown_shows_a_name_as_it_is(name: str) -> None:
    line = " ".join(printable(name).split())
    shown = markdown(f"# x {as_text(name)} y\n\n| a | b |\n|---|---|\n| {as_text(name)} | c |\n")
    assert set(shown.tags) == {"h1", "table", "thead", "tbody", "tr", "th", "td"}
    assert shown.text.count(line) >= 2
    code = markdown(f"x {as_code(name)} y")
    assert code.tags == ["p", "code"]
    assert " ".join(code.text.split()) == " ".join(f"x {line} y".split())
    block = markdown("\n".join(as_block([f"echo {name}", "ls"], "sh")))
    assert block.tags == ["pre", "code"]
    assert block.text.rstrip("\n").splitlines() == [f"echo {printable(name)}", "ls"]
    assert "http:" not in as_text(EVIL["address"])  # which a page of GitHub would make a link
    assert "www." not in as_text(EVIL["address"])


def test_the_card_of_a_run_shows_names_as_they_are(run: Path) -> None:
    text = build_readme(run).read_text(encoding="utf-8")
    shown = markdown(text)
    assert not ACTS.search(text)
    assert set(shown.tags) <= {*"h1 h2 p strong table thead tbody tr th td pre code ul li".split()}
    for name in ("script", "link", "image"):
        assert EVIL[name] in shown.text
    assert shown.tags.count("h1") == 1
    assert shown.tags.count("pre") == 1


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_commands_of_a_card_name_the_folder_that_is_meant(run: Path) -> None:
    word = read_facts(run).folder
    assert "\n" not in word
    assert not ACTS.search(word)
    said = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert os.fsdecode(said.stdout) == str(run)


def test_the_card_of_an_export_shows_names_as_they_are(run: Path) -> None:
    yaml = pytest.importorskip("yaml")
    names = tuple(EVIL.values())[:20]
    spec = ModelSpec.from_json("vit-micro", OPTIONS | {"num_classes": len(names)})
    card = ModelCard(EVIL["script"], spec, names, (0.5,) * 3, (0.5,) * 3)
    text = model_card(Run.open(run), card, "safetensors")
    assert not ACTS.search(text)
    _, front, rest = text.split("---\n", 2)
    assert yaml.safe_load(front)["model-index"][0]["name"] == printable(Run.open(run).config().about.name)
    shown = markdown(rest)
    assert set(shown.tags) <= {"h1", "p", "strong", "code"}
    assert EVIL["script"] in shown.text
    assert EVIL["link"] in shown.text
    text.encode("utf-8")


@pytest.mark.parametrize("name", EVIL.values(), ids=EVIL)
def test_figures_show_names_as_they_are(name: str) -> None:
    rates = {name: 0.5, "b": 0.25}
    figure = charts.per_class([charts.ClassRates("test", rates, [(0, 1)] * 2, 0.4)])
    for document in (svg(figure, "light"), darkened(svg(figure, "light"))):
        tags, text = Rendered(document).tags, html.unescape(re.sub("<[^>]*>", " ", document))
        assert set(tags) <= {
            *"svg metadata rdf:rdf cc:work dc:type dc:format defs style g path use text tspan clippath rect".split()
        }
        begin = " ".join(printable(name).split())[:8].strip()
        assert begin in text
        assert not ACTS.search(text)
    assert png(figure, "light", dpi=40)


def chromium() -> str:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
    )
    if not found:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    return found


def in_browser(page: Path, home: Path) -> str:
    """The page as a browser has it when its scripts have run."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={home}"]
    options += ["--virtual-time-budget=4000", "--allow-file-access-from-files", "--dump-dom"]
    done = subprocess.run([chromium(), *options, page.as_uri()], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.faults
def test_the_page_shows_names_as_they_are_in_a_browser(run: Path, tmp_path: Path) -> None:
    page = shutil.copy(build_report(run), tmp_path / "report.html")
    dom = in_browser(Path(page), tmp_path / "home")
    shown = Rendered(dom)
    assert "data-owned" not in dom
    assert not ACTS.search(shown.text)
    assert re.search(r"Patch in row \d+, column \d+", shown.text)  # the page's own script has run
    assert all(address.startswith("data:image/") for address in shown.asked)
    for name in ("script", "image", "template", "link", "picture", "formula", "formula of a spreadsheet"):
        assert EVIL[name] in shown.text, name
    for name in ("escape", "direction", "hidden"):
        assert printable(EVIL[name]) in shown.text, name
    # That the test can fail: without escaping the browser does run it.
    (tmp_path / "bad.html").write_text(f"<!doctype html><p>{EVIL['script']}</p>{EVIL['image']}")
    assert "data-owned" in in_browser(tmp_path / "bad.html", tmp_path / "home")


def test_the_page_escapes_every_name(run: Path, no_charts: None) -> None:
    page = Rendered(build_report(run).read_text(encoding="utf-8"))
    assert page.tags.count("script") == 2  # its own
    assert not ACTS.search(page.text)
    assert all(address.startswith("data:image/") for address in page.asked)
    assert EVIL["script"] in page.text
    assert r"\x1b[31m" in page.text
