from __future__ import annotations

import pytest

from patchlight.units import SPACE, clock, counted, duration, percent, short


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (912.4, "912"),
        (1797, "1,797"),
        (12345, "12.3 k"),
        (2691594, "2.69 M"),
        (999960, "1 M"),
        (1.2e9, "1.2 G"),
        (3.14159, "3.14"),
        (0, "0"),
    ],
)
def test_short(value, text):
    assert short(value).replace(SPACE, " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.23, "1.2 s"), (59.4, "59 s"), (61.2, "1 min 1 s"), (3599.7, "1 h 0 min"), (7300, "2 h 1 min")],
)
def test_duration(seconds, text):
    assert duration(seconds).replace(SPACE, " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "0:05"), (59.6, "1:00"), (750, "12:30"), (10929, "3:02:09"), (float("inf"), "?")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("rate", "digits", "text"),
    [
        (0.914, 0, "91 %"),
        (1, 0, "100 %"),
        (0, 1, "0.0 %"),
        (0.9999, 0, ">99 %"),
        (0.9999, 1, ">99.9 %"),
        (0.001, 0, "<1 %"),
    ],
)
def test_percent(rate, digits, text):
    assert percent(rate, digits).replace(SPACE, " ") == text


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 images"), (1, "1 image"), (1797, "1,797 images"), (1.0, "1 image"), (2.5, "2.5 images")],
)
def test_counted(number, words):
    assert counted(number, "image") == words
    assert counted(number, "class", "classes") == words.replace("image", "class").replace("classs", "classes")
