"""Installs Patchlight into the Python that runs this file, at the versions that constraints.txt locks.

    .venv/bin/python tools/install.py                  what the package needs
    .venv/bin/python tools/install.py dev              and what an extra of pyproject.toml needs
    .venv/bin/python tools/install.py --oldest dev     the lowest versions that pyproject.toml allows
    .venv/bin/python tools/install.py --newest dev     the newest ones that PyPI has
    .venv/bin/python tools/install.py --versions dev   installs nothing, tells what is there

Where pip refuses a locked version, the nearest older ones are taken, and where that fails too, any that pyproject.toml
allows. Whatever then differs from the lock is told. This file needs pip and Python's own library, nothing else.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LOCK = "constraints.txt"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;#]+)", re.MULTILINE)
WORDS_KEPT = 30


class Attempt(NamedTuple):
    choice: str  # how the versions are chosen, as the end of a sentence
    constraints: str  # the text of a constraints file; empty: none
    options: tuple[str, ...]


def normal(name: str) -> str:
    """A package's name as it is compared: "Jinja2" and "jinja2", "tomli_w" and "tomli-w" are the same."""
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement: str) -> str:
    found = NAME.match(requirement)
    if found is None:
        raise SystemExit(f"pyproject.toml: '{requirement}' does not begin with a package's name")
    return normal(found[0])


def wanted(pyproject: dict[str, Any], extras: list[str]) -> list[str]:
    """The requirements of the package and of its extras, in pyproject's order."""
    project = pyproject["project"]
    known = project.get("optional-dependencies", {})
    unknown = [extra for extra in extras if extra not in known]
    if unknown:
        raise SystemExit(f"pyproject.toml has no extra called '{unknown[0]}'; it has {', '.join(known)}")
    return list(dict.fromkeys([*project["dependencies"], *(line for extra in extras for line in known[extra])]))


def pins(lock: str) -> dict[str, list[str]]:
    """The locked versions of each package: one, or several that are for different Pythons or systems."""
    found: dict[str, list[str]] = {}
    for name, version in PINNED.findall(lock):
        found.setdefault(normal(name), []).append(version)
    return found


def at_most(lock: str) -> str:
    """The lock with <= for ==: pip takes the nearest older version where it cannot have the locked one."""
    return PINNED.sub(r"\1<=\2", lock)


def lowest(requirements: list[str]) -> str:
    """Constraints that hold every requirement at the lower end of its range."""
    lines = []
    for requirement in requirements:
        bound = re.search(r">=\s*([^\s,;]+)", requirement)
        if bound is None:
            raise SystemExit(f"pyproject.toml: '{requirement}' has no lower bound (>=)")
        lines.append(f"{name_of(requirement)}=={bound[1]}\n")
    return "".join(lines)


def same(locked: str, installed: str) -> bool:
    """2.14.1+cpu is a build of 2.14.1; pip takes it for that too."""
    return locked == installed or ("+" not in locked and locked == installed.partition("+")[0])


def differences(locked: dict[str, list[str]], there: dict[str, str]) -> list[str]:
    """A sentence for each package that is there in another version than the locked one, and one for the packages that
    the lock does not know."""
    lines = [
        f"{name} is locked at {' or '.join(locked[name])}, installed is {version}"
        for name, version in sorted(there.items())
        if name in locked and not any(same(one, version) for one in locked[name])
    ]
    strangers = [f"{name} {version}" for name, version in sorted(there.items()) if name not in locked]
    return lines + ([f"not in {LOCK}: {', '.join(strangers)}"] if strangers else [])


def installed() -> dict[str, str]:
    """Every package of this Python and its version, without pip and Patchlight themselves."""
    there = {normal(found.metadata["Name"]): found.version for found in distributions() if found.metadata["Name"]}
    return {name: version for name, version in there.items() if name not in ("pip", "patchlight")}


def versions_line(requirements: list[str], there: dict[str, str]) -> str:
    names = list(dict.fromkeys(name_of(requirement) for requirement in requirements))
    return ", ".join([f"python {platform.python_version()}", *(f"{n} {there.get(n, 'missing')}" for n in names)])


def refused(words: str) -> bool:
    """Whether pip found no versions that fit, so that others may help; a download that broke off or a full disk is
    another matter."""
    return "No matching distribution found" in words or "ResolutionImpossible" in words


def unreachable(words: str) -> bool:
    """Whether pip could not read an index, so that nobody knows what it would have found there."""
    return "connection broken by" in words


def last_words(words: str) -> str:
    """What pip said of its failure: from its first complaint on, without the rows of downloads before."""
    lines = [line[:300] + " ..." if len(line) > 300 else line for line in words.splitlines() if line.strip()]
    complaints = ("ERROR", "error:", "The conflict is caused by", "WARNING: Retrying")
    first = next((i for i, line in enumerate(lines) if line.lstrip().startswith(complaints)), 0)
    return "\n".join(f"    {line}" for line in lines[first:][-WORDS_KEPT:])


def pip_install(arguments: list[str], environment: dict[str, str]) -> tuple[bool, str]:
    """Whether pip succeeded, and all that it said."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode == 0, done.stdout


def install(requirements: list[str], attempts: list[Attempt], environment: dict[str, str]) -> None:
    """One attempt after the other until pip succeeds. Raises SystemExit, with pip's words, when none did."""
    for number, attempt in enumerate(attempts):
        print(f"Installing {attempt.choice}. The first time takes minutes.", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            arguments = list(attempt.options)
            if attempt.constraints:
                file = Path(folder) / LOCK
                file.write_text(attempt.constraints, encoding="utf-8")
                arguments += ["--constraint", str(file)]
            done, words = pip_install([*arguments, *requirements], environment)
        if done:
            break
        print(f"pip could not do that. It said:\n{last_words(words)}", file=sys.stderr, flush=True)
        if unreachable(words):
            raise SystemExit(
                "The set-up stopped: pip could not reach its index. Try again when it can; other versions than the "
                "locked ones are only taken where the index was reached and does not have those."
            )
        if number + 1 == len(attempts) or not refused(words):
            raise SystemExit("The set-up stopped: pip's own words are above.")
    # The package itself, built with the setuptools that was just installed.
    done, words = pip_install(["--no-build-isolation", "--no-deps", "--editable", "."], environment)
    if not done:
        raise SystemExit(f"Patchlight itself could not be installed. pip said:\n{last_words(words)}")


def plan(mode: str | None, lock: str, requirements: list[str]) -> list[Attempt]:
    if mode == "oldest":
        return [Attempt("the lowest versions that pyproject.toml allows", lowest(requirements), ())]
    if mode == "newest":
        eager = ("--upgrade", "--upgrade-strategy", "eager")
        return [Attempt("the newest versions that pyproject.toml allows", "", eager)]
    # Without a wheel an older version that has one is wanted, not an hour of compiling.
    wheels = ("--only-binary", ":all:")
    return [
        Attempt(f"the versions of {LOCK}", lock, wheels),
        Attempt(f"the nearest older versions where those of {LOCK} cannot be had", at_most(lock), wheels),
        Attempt(f"whatever pyproject.toml allows, without {LOCK}", "", ("--prefer-binary",)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Install Patchlight at the versions of constraints.txt.")
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="an extra of pyproject.toml, such as dev")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--oldest", dest="mode", action="store_const", const="oldest", help="the lowest versions")
    modes.add_argument("--newest", dest="mode", action="store_const", const="newest", help="the newest versions")
    modes.add_argument("--versions", dest="mode", action="store_const", const="versions", help="tell what is there")
    args = parser.parse_args()
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lock = (ROOT / LOCK).read_text(encoding="utf-8")
    requirements = wanted(pyproject, args.extras)
    if args.mode != "versions":
        environment = dict(os.environ)
        if args.mode == "newest":
            # A machine's own caps would not let the newest come.
            environment["PIP_CONFIG_FILE"] = os.devnull
            environment.pop("PIP_CONSTRAINT", None)
        build = pyproject["build-system"]["requires"]
        install([*requirements, *build], plan(args.mode, lock, requirements), environment)
    there = installed()
    print(f"Versions: {versions_line(requirements, there)}")
    told = differences(pins(lock), there) if args.mode not in ("oldest", "newest") else []
    for line in told:
        print(f"Other than locked: {line}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
