"""A study's files: the page and its tables from made-up studies, whole, escaped, and replaced by the next writing."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from made_study import HOSTILE, STUDIES, crowd, grid, ladder, one_seed, unfinished

from patchlight.cli.study_text import study_text
from patchlight.errors import PatchlightError
from patchlight.reporting.study_page import CONTENTS, ENDINGS, page, write_study
from patchlight.reporting.study_tables import answer_table, numbers_table, runs_table
from patchlight.runs.study import StudyResult


class Read(HTMLParser):
    """A page's tags, addresses, alternative texts and visible words."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.addresses, self.alts, words, self.hidden = [], [], [], [], 0
        self.words = words
        self.feed(html)
        self.text = " ".join(" ".join(words).replace("\N{NO-BREAK SPACE}", " ").split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.hidden += tag == "style"
        found = dict(attrs)
        self.addresses += [found[key] for key in ("src", "href", "srcset") if key in found]
        if tag == "img":
            self.alts.append(found.get("alt"))

    def handle_endtag(self, tag):
        self.hidden -= tag == "style"

    def handle_data(self, data):
        if not self.hidden:
            self.words.append(data)


@pytest.fixture
def undrawn(monkeypatch):
    """Files without pictures, for tests of something else."""
    for name, empty in (("png", b""), ("pdf", b""), ("svg", "<svg xmlns='http://www.w3.org/2000/svg'/>")):
        monkeypatch.setattr(f"patchlight.reporting.study_page.{name}", lambda *_, empty=empty, **__: empty)


def read(study):
    return Read(page(study, []))


def test_all_files_are_written_and_the_record_can_be_read_back(tmp_path):
    study = one_seed()
    assert write_study(tmp_path / "study", study) == tmp_path / "study" / "report.html"
    folder = tmp_path / "study"
    figures = {f"{name}{end}" for name in ("differences", "accuracy_time", "curves") for end in ENDINGS}
    assert {path.name for path in (folder / "figures").iterdir()} == figures
    assert {path.name for path in folder.iterdir()} == {*CONTENTS, "README.md"}
    assert StudyResult.from_json(json.loads((folder / "study.json").read_text(encoding="utf-8"))) == study
    found = Read((folder / "report.html").read_text(encoding="utf-8"))
    assert all(address.startswith("data:image/") for address in found.addresses)
    assert len(found.alts) == 6  # three, light and dark
    for end, begins in zip(ENDINGS, (b"\x89PNG", b"<?xml", b"%PDF"), strict=True):
        assert (folder / "figures" / f"curves{end}").read_bytes().startswith(begins)
    assert all(found.alts)
    assert "script" not in found.tags


def test_the_page_tells_the_answer(undrawn):
    study = ladder()
    text = read(study).text
    for words in (
        "A made-up study",
        "Which of these is the best?",
        "63.5 %",
        "Of 7 variants, 'all' has the best validation accuracy: 63.5 % ± 0.4 (mean and deviation of 3 seeds).",
        "Against sgd: 8.3 points better (7.7 to 9.0; 3 seeds).",
        "Against the step before, + adamw: 1.8 points better (0.7 to 2.8; 3 seeds).",
        "all (chosen)",
        "each variant trains for 8 epochs",
        "each of them sees the same images equally often",
        "21 finished, of 21",
        "optim.name = adamw",
        "runs/k001",
        "patchlight study made",
        "The same for all variants: 2.69 M parameters, 0.8 GB of memory.",
        "The test images are read once, for the chosen variant alone",
    ):
        assert words in text, words
    heads = ["The numbers", "How far to believe it", "What each variant changes", "All runs", "How it was computed"]
    places = [text.index(head) for head in heads]
    assert places == sorted(places)
    assert all(note.replace("\xa0", " ") in text for note in study.notes)


def test_what_is_not_finished_is_told(undrawn):
    text = read(unfinished()).text
    for words in (
        "Not all seeds are finished (6 of 12 runs, 1 stopped early, 2 failed), so there is no answer yet.",
        "6 finished, 1 pruned, 2 failed, 3 waiting, of 12",
        "Seed 2: pruned, stopped at epoch 3 because its validation accuracy was 9 points behind the median.",
        "Seeds 0, 1: failed, the loss was no number at step 12; lower optim.lr.",
        "Seeds 0, 1, 2: waiting.",
        "2 of 3",
        "pruned: stopped at epoch 3",
    ):
        assert words in text, words
    assert "(chosen)" not in text


def test_all_test_results_are_marked_as_such(undrawn):
    text = read(grid()).text
    assert "The test images were read once for every variant, which was asked for; they chose nothing." in text
    assert "By data.train_per_class: 'resnet18' is better than the second at 50, 250, 1,000" in text
    assert "vit, 4500 (chosen)" in text
    assert "data.train_per_class: 50, 250, 1000, 4500" in text
    assert "vit, at each point of the grid" in text
    assert "The test images were read for 8 variants and chose none." in text


def test_foreign_names_are_text_everywhere(tmp_path, undrawn):
    study = crowd()
    write_study(tmp_path, study)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = Read(html)
    assert "script" not in found.tags
    assert "<script>alert(1)</script>" in found.text
    assert not re.search("[\u200b\u202e\u2069]", html)
    assert r"right\u202eleft\u2069 and \u200bhidden" in found.text
    markdown = (tmp_path / "table.md").read_text(encoding="utf-8")
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(answer_table(study).columns) + 1}
    assert r"\<script\>" in markdown
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        plain = list(csv.DictReader(file))
    assert len(plain) == 15
    assert plain[3]["variant"] == "'=HYPERLINK(1)"
    assert float(plain[1]["val_top1_mean"]) == study.variants[1].val_mean  # all digits
    assert [row["chosen"] for row in plain].index("1") == 2
    tex = (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert r"\frac{" not in tex
    assert "<script>" not in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_second_writing_replaces_the_first(tmp_path, undrawn):
    write_study(tmp_path, grid())
    mine = tmp_path / "figures" / "my_own.png"
    mine.write_bytes(b"not of a study")
    assert (tmp_path / "figures" / "over_data.train_per_class.png").exists()
    write_study(tmp_path, one_seed())
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {
        "my_own.png",
        *(f"{n}.{e}" for n in ("differences", "accuracy_time", "curves") for e in ("png", "svg", "pdf")),
    }
    assert "patch-sizes" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_nothing_is_written_where_something_cannot_be_made(tmp_path, undrawn, monkeypatch):
    monkeypatch.setattr("patchlight.reporting.study_page.page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_study(tmp_path / "study", one_seed())
    assert not (tmp_path / "study").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path, undrawn):
    (tmp_path / "study").write_text("a file")
    with pytest.raises(PatchlightError, match=r"cannot write .*study"):
        write_study(tmp_path / "study", one_seed())


def test_columns_without_a_value_are_left_out():
    keys = [column.key for column in answer_table(one_seed()).columns]
    assert keys == ["variant", "seeds", "validation", "difference", "time", "says"]
    assert "gain" in [column.key for column in answer_table(ladder()).columns]
    assert "says" not in [column.key for column in answer_table(ladder(), says=False).columns]


def test_numbers_are_the_records():
    study = grid()
    table = numbers_table(study)
    keys = [column.key for column in table.columns]
    row = dict(zip(keys, table.rows[1], strict=True))
    v = study.variants[1]
    assert (row["variant"], row["member"], row["data.train_per_class"]) == ("resnet18, 50", "resnet18", 50)
    assert (row["difference_to"], row["difference_low"], row["difference_seeds"]) == ("vit, 50", v.difference.low, 3)
    assert (row["test_seeds"], row["train_flops"]) == (3, 6e13)
    assert len(runs_table(study).rows) == 24


@pytest.mark.parametrize("name", list(STUDIES))
def test_a_study_in_a_terminal(name):
    study = STUDIES[name]()
    text = study_text(study, "studies/x/report.html")
    assert "\N{NO-BREAK SPACE}" not in text
    assert text.splitlines()[-1].startswith("report  studies/x/report.html  (")
    for sentence in study.answer:
        assert sentence.replace("\xa0", " ") in text
    assert not re.search("[\u200b\u202e\u2069]", text)


def test_an_answer_without_a_title_is_named_by_its_study(undrawn):
    text = read(replace(one_seed(), title="", question="", why="")).text
    assert text.startswith("patch-sizes · Patchlight study Patchlight study patch-sizes 52.0 %")
    assert HOSTILE[0] not in text
