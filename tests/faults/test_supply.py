"""What the set-up installs: the real pip, with an index of tiny wheels that lie in a folder."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from tools import install


class Index:
    """Wheels that pip finds, the lock that was made of them, and the folder that pip installs into."""

    def __init__(self, folder: Path) -> None:
        self.wheels, self.target, self.lock = folder / "wheels", folder / "installed", ""
        self.wheels.mkdir()
        # Nothing of this machine's settings, indexes and caches may help.
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
        self.environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1"}
        self.environment |= {"PIP_FIND_LINKS": str(self.wheels), "PIP_TARGET": str(self.target)}

    def add(self, name: str, version: str, needs: str = "", body: str = "") -> Path:
        """A wheel of one module; the same arguments make the same bytes."""
        path = self.wheels / f"{name}-{version}-py3-none-any.whl"
        info = f"{name}-{version}.dist-info"
        needed = f"Requires-Dist: {needs}\n" if needs else ""
        files = {
            f"{name}.py": f"VERSION = {version!r}\n{body}",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        rows = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
        with zipfile.ZipFile(path, "w") as archive:
            for file, text in (files | {f"{info}/RECORD": rows}).items():
                archive.writestr(zipfile.ZipInfo(file), text)
        return path

    def hold(self, name: str, version: str, via: str, needs: str = "") -> None:
        """A wheel that is there and in the lock."""
        digest = hashlib.sha256(self.add(name, version, needs).read_bytes()).hexdigest()
        self.lock += (
            f"{name}=={version} \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{digest}\n    # via {via}\n"
        )

    def install(self, *requirements: str, mode: str | None = None) -> install.Attempt:
        attempts = install.plan(mode, self.lock, list(requirements), [])
        return install.install_packages(attempts, self.environment)

    def there(self) -> dict[str, str]:
        """The modules that were installed, and their text."""
        return {path.stem: path.read_text() for path in self.target.glob("*.py")}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index(tmp_path)
    made.hold("drawer", "2.1", "patchlight (pyproject.toml)", needs="handle>=1")
    made.hold("handle", "1.4", "drawer")
    made.hold("hammer", "3.0", "patchlight (pyproject.toml)")
    return made


def test_the_locked_files_are_installed_and_nothing_else(index):
    index.add("handle", "1.5")  # newer, and not in the lock
    assert index.install("drawer>=2").checked
    assert {name: text.split("'")[1] for name, text in index.there().items()} == {"drawer": "2.1", "handle": "1.4"}


@pytest.mark.parametrize("name", ["drawer", "handle"])
@pytest.mark.parametrize("mode", [None, "strict"])
def test_a_swapped_wheel_is_refused(index, capsys, name, mode):
    version = {"drawer": "2.1", "handle": "1.4"}[name]
    index.add(name, version, needs="handle>=1" if name == "drawer" else "", body="import os; os.getcwd()\n")
    with pytest.raises(SystemExit, match=r"not the one whose sha256 stands in constraints\.txt.*INSTALL=--unchecked"):
        index.install("drawer>=2", mode=mode)
    assert index.there() == {}
    said = capsys.readouterr()
    assert f"{name}=={version}" in said.err
    assert said.out.count("Installing") == 1  # no other versions were tried


def test_a_wheel_with_one_changed_byte_is_refused(index):
    path = index.wheels / "handle-1.4-py3-none-any.whl"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(SystemExit, match="may have been forged"):
        index.install("drawer>=2")
    assert index.there() == {}


def test_an_index_of_ones_own_is_taken_when_told_so(index):
    index.add("handle", "1.4", body="MINE = True\n")
    assert not index.install("drawer>=2", mode="unchecked").checked
    assert "MINE" in index.there()["handle"]


def test_a_capped_pip_takes_the_nearest_older_version_and_it_is_said(index, tmp_path, capsys, monkeypatch):
    index.add("drawer", "2.0", needs="handle>=1")
    caps = tmp_path / "caps.txt"
    caps.write_text("drawer<2.1\n")
    index.environment["PIP_CONSTRAINT"] = str(caps)
    attempt = index.install("drawer>=2")
    assert not attempt.checked
    assert "VERSION = '2.0'" in index.there()["drawer"]
    monkeypatch.setattr(install, "RECORD", tmp_path / "record.txt")
    install.record(attempt)
    assert len(install.recorded()) == 1
    assert install.recorded()[0].startswith("Not checked: no file was compared with a sha256 of constraints.txt")
    install.record(attempt._replace(checked=True))
    install.record(attempt)
    assert [line.split(":")[0] for line in install.recorded()] == ["Not checked", "Checked"]


def test_another_build_of_the_locked_version_is_another_version(index):
    """As torch-2.14.1+cpu is where an index has only builds for CPUs."""
    (index.wheels / "drawer-2.1-py3-none-any.whl").unlink()
    index.add("drawer", "2.1+cpu", needs="handle>=1")
    with pytest.raises(SystemExit, match="pip's own words"):
        index.install("drawer>=2", mode="strict")
    assert not index.install("drawer>=2").checked
    assert "VERSION = '2.1+cpu'" in index.there()["drawer"]


def test_a_lock_that_fits_no_more_is_not_followed(index):
    index.add("drawer", "3.0")
    assert not index.install("drawer>=3").checked
    assert "VERSION = '3.0'" in index.there()["drawer"]
    with pytest.raises(SystemExit, match=r"asks for saw, which constraints\.txt does not hold: run `make lock`"):
        index.install("saw>=1")
