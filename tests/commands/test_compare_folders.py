"""`patchlight compare` of what lies in runs/: which folders are runs, which are of one recipe, and many."""

from __future__ import annotations

import pytest
from compared import made

import patchlight
from patchlight.cli.main import main
from patchlight.errors import PatchlightError
from patchlight.runs import ValidationResult


def test_what_is_no_run_folder_is_left_out_among_several(here, capsys):
    for name, val in (("a", 0.7), ("b", 0.8)):
        made(here / name, val, optim={"lr": val})
    (here / "mlruns" / "0").mkdir(parents=True)
    (here / "sweep").mkdir()
    (here / "sweep" / "best.toml").write_text("")
    (here / "notes.md").write_text("")
    assert main(["compare", "a", "b", "mlruns", "sweep", "notes.md"]) == 0
    said = capsys.readouterr().err
    for name in ("mlruns", "sweep", "notes.md"):
        assert f"{name} is not a run folder (it has no config.toml), and is left out" in said
    with pytest.raises(PatchlightError, match="nowhere is not a run folder"):
        patchlight.compare(["a", "b", "nowhere"])
    with pytest.raises(PatchlightError, match="mlruns is not a run folder"):
        patchlight.compare(["mlruns"])
    with pytest.raises(PatchlightError, match="none of these is a run folder"):
        patchlight.compare(["mlruns", "sweep"])


def test_a_damaged_run_among_several_is_an_error(here):
    made(here / "a", 0.7)
    (made(here / "b", 0.8).path / "config.toml").unlink()
    with pytest.raises(PatchlightError, match=r"config\.toml is missing"):
        patchlight.compare(["a", "b"])


def test_what_trains_makes_a_group(here, capsys):
    """One seed was trained without the test images and read them later; another was measured otherwise."""
    made(here / "a-s0", 0.7, 0.6, seed=0)
    later = made(here / "a-s1", 0.8, 0.7, seed=1, eval={"test": False})
    later.write(ValidationResult(epoch=1, n=200, top1=0.8, top1_ci95=(0.7, 0.9), loss=1.0))
    made(here / "a-s2", 0.75, 0.65, seed=2, eval={"precision": "bf16", "mirror": True}, train={"threads": 2})
    made(here / "b", 0.6, 0.5, optim={"lr": 0.5})
    found = patchlight.compare(["a-s0", "a-s1", "a-s2", "b"])
    assert [group.name for group in found.groups] == ["a-s{0,1,2}", "b"]
    assert found.groups[0].test_mean == pytest.approx(0.65)
    assert set(found.differences) == {
        *("optim.lr", "train.seed"),
        *("eval.precision", "eval.mirror", "train.threads"),
    }
    assert any("eval.precision" in note for note in found.notes)
    assert any("eval.mirror" in note for note in found.notes)
    capsys.readouterr()
    assert main(["compare", "a-s0", "a-s1", "a-s2"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert rows["eval.precision"].split()[1:] == ["fp32,", "bf16"]


@pytest.mark.parametrize(("count", "tables"), [(1, 2), (2, 2), (7, 1)])
def test_many_runs_fit_on_a_page_of_latex(here, capsys, count, tables):
    """The settings of nine runs: runs as rows, or no table where that is as wide."""
    for number in range(9):
        optim = {"lr": 0.1 + number / 100, "weight_decay": number / 100, "grad_clip": float(1 + number)}
        train = {"epochs": 10 + number, "batch_size": 8 + number, "label_smoothing": number / 100}
        every = [("optim", key, value) for key, value in optim.items()]
        every += [("train", key, value) for key, value in train.items()] + [("schedule", "warmup_epochs", number)]
        sections: dict[str, dict] = {}
        for section, key, value in every[:count]:
            sections.setdefault(section, {})[key] = value
        made(here / f"run-{number}", 0.5 + number / 100, **sections)
    assert main(["compare", *(f"run-{number}" for number in range(9)), "--format", "latex"]) == 0
    out = capsys.readouterr().out
    assert out.count("begin{table}") == tables
    if tables == 1:
        assert "7 settings differ, too many for a page; --format csv lists them" in out.replace("{}", "")
    else:
        assert out.count("run-8 &") == 2
        assert out.split("begin{tabular}")[2].startswith("{" + "l" + "r" * count) or "run & optim.lr" in out
