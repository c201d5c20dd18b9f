from __future__ import annotations

import re

from patchlight import progress
from patchlight.progress import Progress


def test_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with Progress(20, "epoch 1/2", done=5) as bar:
        assert bar.left_s() == float("inf")
        bar.advance(3)
        assert bar.due()
        bar.show("loss 1.234")
        bar.show("loss 1.234", 75.0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"epoch 1/2 8/20  loss 1\.234  0:0\d left\n.*  1:15 left\n", captured.err)


def test_not_every_step_is_worth_a_line():
    with Progress(20, "epoch 1/2") as bar:
        bar.advance()
        assert not bar.due()


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Progress(20, "epoch 1/2") as bar:
        assert bar.terminal
        bar.advance(10)
        bar.show("loss 1.234")
        bar.bar.refresh()
    assert "50%" in capsys.readouterr().err
