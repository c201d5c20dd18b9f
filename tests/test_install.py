"""The set-up of `make demo` and `make test`: which versions are tried, when looser ones are, and what is told of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tools import install

ROOT = Path(__file__).parents[1]
LOCK = """\
# how it was made
jinja2==3.1.6             # via torch
colorama==0.4.6 ; sys_platform == 'win32'  # via pytest
tomli-w==1.2.0
torch==2.14.1
numpy==2.4.6 ; python_full_version < '3.12'
numpy==2.5.0 ; python_full_version >= '3.12'
"""


@pytest.fixture(scope="module")
def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def pip(monkeypatch):
    """pip's place: answers in turn what a test puts there, and keeps what it was asked."""

    class Pip:
        def __init__(self):
            self.answers, self.asked = [], []

        def __call__(self, arguments, environment):
            constraints = ""
            if "--constraint" in arguments:
                constraints = Path(arguments[arguments.index("--constraint") + 1]).read_text(encoding="utf-8")
            self.asked.append((arguments, constraints))
            return self.answers.pop(0)

    pip = Pip()
    monkeypatch.setattr(install, "pip_install", pip)
    return pip


REFUSED = (False, "Collecting torch\nERROR: No matching distribution found for torch==2.14.1\n")
DONE = (True, "")


def test_a_lock_is_read_whatever_stands_behind_a_version():
    assert install.pins(LOCK) == {
        "jinja2": ["3.1.6"],
        "colorama": ["0.4.6"],
        "tomli-w": ["1.2.0"],
        "torch": ["2.14.1"],
        "numpy": ["2.4.6", "2.5.0"],
    }


def test_the_nearest_older_versions_keep_the_markers():
    loose = install.at_most(LOCK)
    assert "colorama<=0.4.6 ; sys_platform == 'win32'" in loose
    assert "torch<=2.14.1\n" in loose
    assert "python_full_version < '3.12'" in loose
    assert loose.count("<=") == 6
    assert not re.search(r"^\S+==", loose, re.MULTILINE)


def test_the_lower_ends_of_ranges():
    assert install.lowest(["torch>=2.11,<3", "Tomli_W>=1.1", "numpy <3, >= 2.0 ; python_version > '3'"]) == (
        "torch==2.11\ntomli-w==1.1\nnumpy==2.0\n"
    )
    with pytest.raises(SystemExit, match=r"'torch<3' has no lower bound"):
        install.lowest(["torch<3"])


def test_what_is_wanted_with_extras(pyproject):
    base, dev = install.wanted(pyproject, []), install.wanted(pyproject, ["dev"])
    assert dev[: len(base)] == base == pyproject["project"]["dependencies"]
    assert set(dev) - set(base) == set(pyproject["project"]["optional-dependencies"]["dev"])
    assert len(set(install.wanted(pyproject, ["dev", "bench"]))) == len(install.wanted(pyproject, ["dev", "bench"]))
    with pytest.raises(SystemExit, match="no extra called 'devel'"):
        install.wanted(pyproject, ["devel"])


def test_differences_from_the_lock_are_told():
    there = {"jinja2": "3.1.6", "torch": "2.13.0", "numpy": "2.5.0", "ipython": "9.0"}
    assert install.differences(install.pins(LOCK), there) == [
        "torch is locked at 2.14.1, installed is 2.13.0",
        "not in constraints.txt: ipython 9.0",
    ]
    there = {"torch": "2.14.1+cpu", "numpy": "2.3.0"}
    assert install.differences(install.pins(LOCK), there) == [
        "numpy is locked at 2.4.6 or 2.5.0, installed is 2.3.0",
    ]


def test_versions_stand_on_one_line():
    line = install.versions_line(["torch>=2", "Tomli_W>=1"], {"torch": "2.14.1"})
    assert re.fullmatch(r"python 3\.\d+\.\d+\S*, torch 2\.14\.1, tomli-w missing", line)


def test_the_lock_is_enough_where_pip_takes_it(pip, capsys):
    pip.answers = [DONE, DONE]
    install.install(["torch>=2.11,<3"], install.plan(None, LOCK, []), {})
    (first, constraints), (second, _) = pip.asked
    assert constraints == LOCK
    assert first[-1] == "torch>=2.11,<3"
    assert second == ["--no-build-isolation", "--no-deps", "--editable", "."]
    assert capsys.readouterr().err == ""


def test_refused_versions_give_way_to_older_ones_and_then_to_any(pip, capsys):
    pip.answers = [REFUSED, (False, "ERROR: ResolutionImpossible: for help visit https://pip.pypa.io"), DONE, DONE]
    install.install(["torch>=2.11,<3"], install.plan(None, LOCK, []), {})
    assert [constraints for _, constraints in pip.asked] == [LOCK, install.at_most(LOCK), "", ""]
    said = capsys.readouterr()
    assert "No matching distribution found for torch==2.14.1" in said.err
    assert "Collecting" not in said.err
    assert "without constraints.txt" in said.out


def test_pips_last_words_are_kept_when_nothing_fits(pip, capsys):
    pip.answers = [REFUSED] * 3
    with pytest.raises(SystemExit, match="The set-up stopped") as stopped:
        install.install([], install.plan(None, LOCK, []), {})
    assert stopped.value.code not in (0, None)
    assert capsys.readouterr().err.count("No matching distribution") == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("WARNING: Retrying after connection broken by X\nERROR: No matching distribution found", "could not reach"),
        ("ERROR: Could not install packages due to an OSError: No space left on device", "pip's own words"),
    ],
)
def test_other_versions_are_not_tried_for_other_reasons(pip, words, sentence):
    pip.answers = [(False, words)]
    with pytest.raises(SystemExit, match=sentence):
        install.install([], install.plan(None, LOCK, []), {})
    assert len(pip.asked) == 1


def test_the_ends_of_the_ranges_have_no_way_round(pip):
    for mode in ("oldest", "newest"):
        pip.answers = [REFUSED]
        with pytest.raises(SystemExit, match="The set-up stopped"):
            install.install([], install.plan(mode, LOCK, ["torch>=2.11,<3"]), {})


def test_the_lock_holds_what_pyproject_asks_for(pyproject):
    extras = pyproject["project"]["optional-dependencies"]
    locked = install.pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    for line in [*install.wanted(pyproject, list(extras)), *pyproject["build-system"]["requires"]]:
        for version in locked.get(install.name_of(line), ["none"]):
            fits = version != "none" and Requirement(line).specifier.contains(version)
            assert fits, f"{line} in pyproject.toml, {version} in constraints.txt: run `make lock`"


def test_a_package_has_one_range_in_all_extras(pyproject):
    ranges: dict[str, set[str]] = {}
    for line in install.wanted(pyproject, list(pyproject["project"]["optional-dependencies"])):
        ranges.setdefault(install.name_of(line), set()).add(line)
    assert [lines for lines in ranges.values() if len(lines) > 1] == []


def test_locked_versions_are_whole_releases():
    locked = install.pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    odd = [(name, v) for name, versions in locked.items() for v in versions if Version(v).is_prerelease]
    assert odd == []
