"""The set-up of `make demo` and `make test`: which versions are tried, when looser ones are, and what is told of it."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tools import install

ROOT = Path(__file__).parents[1]
LOCK = """\
# how it was made
jinja2==3.1.6 \\
    --hash=sha256:11 \\
    --hash=sha256:22
    # via torch, patchlight (pyproject.toml)
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:33
    # via pytest
tomli-w==1.2.0
torch==2.14.1             # via patchlight (pyproject.toml)
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
            def text(option):
                return Path(arguments[arguments.index(option) + 1]).read_text() if option in arguments else ""

            self.asked.append((text("--requirement"), text("--constraint")))
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
    assert "torch<=2.14.1 " in loose
    assert "python_full_version < '3.12'" in loose
    assert loose.count("<=") == 6
    assert "hash" not in loose
    assert "\\" not in loose
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


def test_the_part_of_the_lock_that_is_wanted():
    assert install.part(LOCK, ["torch>=2"]) == (
        "jinja2==3.1.6 \\\n    --hash=sha256:11 \\\n    --hash=sha256:22\ntorch==2.14.1\n"
    )
    assert install.part(LOCK, ["NumPy"]).count("numpy==") == 2  # both, with their markers
    with pytest.raises(SystemExit, match=r"asks for pytest, x, which constraints.txt does not hold: run `make lock`"):
        install.part(LOCK, ["torch", "x>=1", "pytest"])


def test_refused_versions_give_way_to_older_ones_and_then_to_any(pip, capsys):
    pip.answers = [REFUSED, (False, "ERROR: ResolutionImpossible: for help visit https://pip.pypa.io"), DONE]
    assert not install.install_packages(install.plan(None, LOCK, ["torch>=2.11,<3"], ["tomli-w"]), {}).checked
    asked = "torch>=2.11,<3\ntomli-w"
    first = install.part(LOCK, ["torch", "tomli-w"])
    assert pip.asked == [(first, asked), (asked, install.at_most(LOCK)), (asked, "")]
    said = capsys.readouterr()
    assert "No matching distribution found for torch==2.14.1" in said.err
    assert "Collecting" not in said.err
    assert "without constraints.txt" in said.out


def test_pips_last_words_are_kept_when_nothing_fits(pip, capsys):
    pip.answers = [REFUSED] * 3
    with pytest.raises(SystemExit, match="The set-up stopped") as stopped:
        install.install_packages(install.plan(None, LOCK, [], []), {})
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
        install.install_packages(install.plan(None, LOCK, [], []), {})
    assert len(pip.asked) == 1


def test_the_ends_of_the_ranges_have_no_way_round(pip):
    for mode in ("oldest", "newest", "strict"):
        pip.answers = [REFUSED]
        with pytest.raises(SystemExit, match="The set-up stopped"):
            install.install_packages(install.plan(mode, LOCK, ["torch>=2.11,<3"], []), {})
        assert pip.answers == []


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


# Have no whole release that W&B's and MLflow's clients would take: they ask for these by their exact versions.
ONLY_PRERELEASES = {
    *("cwevals", "opentelemetry-exporter-http-transport", "opentelemetry-exporter-otlp-common"),
    "opentelemetry-semantic-conventions",
}


def test_locked_versions_are_whole_releases():
    locked = install.pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    odd = {name for name, versions in locked.items() for v in versions if Version(v).is_prerelease}
    assert odd == ONLY_PRERELEASES


def test_every_package_of_the_lock_has_its_sha256():
    locked = install.entries((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert len(locked) > 100
    bare = [each.name for each in locked if not re.search(r"--hash=sha256:[0-9a-f]{64}\n", each.lines)]
    assert bare == [], "run `make lock`"


def test_what_is_installed_brings_along_nothing_that_the_lock_would_leave_out(pyproject):
    """pip does not look for more where files are compared, so a part of the lock must be whole."""
    lock = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    names = {install.normal(found.metadata["Name"]): found for found in distributions()}
    for extras in ([], ["dev"]):
        wanted = [*install.wanted(pyproject, extras), *pyproject["build-system"]["requires"]]
        part = install.pins(install.part(lock, wanted))
        needs = [Requirement(line) for name in part if name in names for line in names[name].requires or []]
        left = {need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})}
        assert {install.normal(name) for name in left} - set(part) == set()
        assert set(part) & set(names)
