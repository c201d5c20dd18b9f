"""Installs the wheel of dist/ into an empty environment outside the tree and trains there.

    .venv/bin/python tools/check_wheel.py      what `make wheel` calls after building

The environment takes the versions that `pip install patchlight` would take today, not those of constraints.txt. It lies
in a temporary folder (5 GB where torch comes with CUDA) and is deleted at the end.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "patchlight"


def expected() -> set[str]:
    """All files of the package, by the names that they have in a wheel."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(PACKAGE.parent).as_posix() for path in files}


def check_contents(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name for name in names if ".dist-info/" not in name}
    missing, strange = sorted(expected() - inside), sorted(inside - expected())
    if missing or strange:
        raise SystemExit(
            f"{wheel.name}: missing are {missing or 'none'}, not of src/patchlight are {strange or 'none'}"
        )
    for pattern in (".toml", ".html", "py.typed"):
        count = sum(name.endswith(pattern) for name in inside)
        if not count:
            raise SystemExit(f"{wheel.name} holds no file that ends in {pattern}")
        print(f"{wheel.name} holds {count} of {pattern}")


def check_training(wheel: Path, version: str) -> None:
    with tempfile.TemporaryDirectory(prefix="patchlight-wheel-") as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        # Nothing of the checkout may help.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

        def call(program: str, *words: str) -> str:
            command = [str(scripts / program), *words]
            done = subprocess.run(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE)
            if done.returncode:
                raise SystemExit(f"{done.stdout}\n{program} {' '.join(words)} ended with code {done.returncode}")
            return done.stdout.strip()

        print(f"Installing {wheel.name} in {folder}, which takes minutes", flush=True)
        call("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel))
        print(call("python", "-m", "pip", "list", "--format", "freeze", "--disable-pip-version-check"))
        said = call("patchlight", "--version")
        if said != f"patchlight {version}":
            raise SystemExit(f"patchlight --version says '{said}', pyproject.toml says {version}")
        print(call("patchlight", "train", "quickstart"))
        report = folder / "runs" / "quickstart" / "report.html"
        if not report.is_file():
            raise SystemExit(f"{report} was not written")
    print(f"{wheel.name} works outside the tree")


def main() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    wheels = sorted((ROOT / "dist").glob("*.whl"))
    if len(wheels) != 1:
        raise SystemExit(f"one wheel is expected in {ROOT / 'dist'}, there are {len(wheels)}; run `make wheel`")
    check_contents(wheels[0])
    check_training(wheels[0], version)


if __name__ == "__main__":
    main()
