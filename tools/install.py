"""Installs Patchlight into the Python that runs this file, at the versions that constraints.txt locks.

    .venv/bin/python tools/install.py                  what the package needs
    .venv/bin/python tools/install.py dev              and what an extra of pyproject.toml needs
    .venv/bin/python tools/install.py --oldest dev     the lowest versions that pyproject.toml allows
    .venv/bin/python tools/install.py --newest dev     the newest ones that PyPI has
    .venv/bin/python tools/install.py --strict dev     the locked files or nothing
    .venv/bin/python tools/install.py --unchecked      the locked versions, whoever built them
    .venv/bin/python tools/install.py --versions dev   installs nothing, tells what is there

The lock holds the sha256 of each file that may be installed, and pip compares them: a swapped file is refused.
Where pip refuses a locked version, the nearest older ones are taken, and where that fails too, any that pyproject.toml
allows. No sha256 is known of those, so they are not checked. Whatever differs from the lock is told.
This file needs pip and Python's own library, nothing else.
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
RECORD = Path(sys.prefix) / "patchlight-set-up.txt"  # how the packages of this environment were chosen and checked
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;#]+)", re.MULTILINE)
VIA = re.compile(r"# via (.*)$", re.MULTILINE)
COMMENT = re.compile(r"[ \t]*#.*$", re.MULTILINE)
HASH = re.compile(r"[ \t]*\\\n[ \t]*--hash=\S+")
WORDS_KEPT = 30


class Attempt(NamedTuple):
    choice: str  # how the versions are chosen, as the end of a sentence
    requirements: str  # the text of a requirements file
    constraints: str  # the text of a constraints file; empty: none
    options: tuple[str, ...]
    checked: bool = False  # whether pip compares each file with a sha256


class Locked(NamedTuple):
    name: str
    lines: str  # as pip reads them: the version, the systems that it is for, the sha256 of its files
    asked_by: frozenset[str]  # the packages that brought it into the lock


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


def entries(lock: str) -> list[Locked]:
    """The packages of the lock, in its order."""
    found = []
    for block in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE):
        if pinned := PINNED.match(block):
            via = VIA.search(block)
            asked_by = frozenset(name_of(word.strip()) for word in via[1].split(",")) if via else frozenset()
            found.append(Locked(normal(pinned[1]), COMMENT.sub("", block).rstrip() + "\n", asked_by))
    return found


def part(lock: str, requirements: list[str]) -> str:
    """The part of the lock that holds the requirements and all that they bring along, with its sha256."""
    packages = entries(lock)
    names = {name_of(requirement) for requirement in requirements}
    missing = sorted(names - {package.name for package in packages})
    if missing:
        raise SystemExit(f"pyproject.toml asks for {', '.join(missing)}, which {LOCK} does not hold: run `make lock`")
    while more := {package.name for package in packages if package.asked_by & names} - names:
        names |= more
    return "".join(package.lines for package in packages if package.name in names)


def unhashed(lock: str) -> str:
    """The lock without sha256: pip cannot compare those of versions that are not pinned."""
    return HASH.sub("", lock)


def at_most(lock: str) -> str:
    """The lock with <= for ==: pip takes the nearest older version where it cannot have the locked one."""
    return PINNED.sub(r"\1<=\2", unhashed(lock))


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
    return "No matching distribution found" in words or "ResolutionImpossible" in words or bool(other_builds(words))


def swapped(words: str) -> bool:
    """Whether pip refused a file as its sha256 is not the expected one."""
    return "DO NOT MATCH THE HASHES" in words


def other_builds(words: str) -> list[str]:
    """The refused files where all of them say by their names that they are other builds: torch-2.14.1+cpu is found as
    2.14.1 and is not the locked file. That is no forgery, but a version which the lock does not have."""
    files = re.findall(r"^ *\S+ from \S*/([^/\s#]+)", words.partition("DO NOT MATCH THE HASHES")[2], re.MULTILINE)
    return files if all("+" in file or "%2b" in file.lower() for file in files) else []


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


def install_packages(attempts: list[Attempt], environment: dict[str, str]) -> Attempt:
    """One attempt after the other until pip succeeds: the one that did. Raises SystemExit, with pip's words, when none
    did and when a file was swapped."""
    for number, attempt in enumerate(attempts):
        print(f"Installing {attempt.choice}. The first time takes minutes.", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            arguments = list(attempt.options)
            for option, text in (("--requirement", attempt.requirements), ("--constraint", attempt.constraints)):
                if text:
                    file = Path(folder) / f"{option.strip('-')}s.txt"
                    file.write_text(text, encoding="utf-8")
                    arguments += [option, str(file)]
            done, words = pip_install(arguments, environment)
        if done:
            return attempt
        print(f"pip could not do that. It said:\n{last_words(words)}", file=sys.stderr, flush=True)
        stop_for_good_reason(words)
        if number + 1 == len(attempts) or not refused(words):
            break
    raise SystemExit("The set-up stopped: pip's own words are above.")


def install_itself(environment: dict[str, str]) -> None:
    """The package itself, built with the setuptools that was just installed."""
    done, words = pip_install(["--no-build-isolation", "--no-deps", "--editable", "."], environment)
    if not done:
        raise SystemExit(f"Patchlight itself could not be installed. pip said:\n{last_words(words)}")


def stop_for_good_reason(words: str) -> None:
    """Raises SystemExit where pip's words say that trying other versions would be wrong."""
    if unreachable(words):
        raise SystemExit(
            "The set-up stopped: pip could not reach its index. Try again when it can; other versions than the "
            "locked ones are only taken where the index was reached and does not have those."
        )
    if swapped(words) and not other_builds(words):
        raise SystemExit(
            f"The set-up stopped: the file that pip names above is not the one whose sha256 stands in {LOCK}; it may "
            "have been forged, and it was not installed. Find out where it comes from. Where that is an index of your "
            "own, which builds its packages itself, add INSTALL=--unchecked to the make command."
        )


def plan(mode: str | None, lock: str, requirements: list[str], build: list[str]) -> list[Attempt]:
    """What to try, one after the other. `build` is what the package is built with, never held at its lowest."""
    asked = "\n".join([*requirements, *build])
    if mode == "oldest":
        return [Attempt("the lowest versions that pyproject.toml allows", asked, lowest(requirements), ())]
    if mode == "newest":
        eager = ("--upgrade", "--upgrade-strategy", "eager")
        return [Attempt("the newest versions that pyproject.toml allows", asked, "", eager)]
    # Without a wheel an older version that has one is wanted, not an hour of compiling.
    wheels = ("--only-binary", ":all:")
    # The lock is complete, so pip need not look for what a package brings along. The ranges are constraints here: a
    # lock that does not fit them any more is refused.
    locked = ("--require-hashes", "--no-deps", *wheels)
    checked = Attempt(
        f"the versions of {LOCK}, each file by its sha256", part(lock, [*requirements, *build]), asked, locked, True
    )
    unchecked = Attempt(f"the versions of {LOCK}, without their sha256", asked, unhashed(lock), wheels)
    looser = [
        Attempt(f"the nearest older versions where those of {LOCK} cannot be had", asked, at_most(lock), wheels),
        Attempt(f"whatever pyproject.toml allows, without {LOCK}", asked, "", ("--prefer-binary",)),
    ]
    return [checked] if mode == "strict" else [unchecked, *looser] if mode == "unchecked" else [checked, *looser]


def record(attempt: Attempt) -> None:
    """One line more in the record, if it is new: what an earlier set-up brought may still be there."""
    line = f"Checked: every file that was fetched has the sha256 that {LOCK} names"
    if not attempt.checked:
        line = f"Not checked: no file was compared with a sha256 of {LOCK}, as these were installed: {attempt.choice}"
    RECORD.write_text("\n".join(dict.fromkeys([*recorded(), line])) + "\n", encoding="utf-8")


def recorded() -> list[str]:
    return RECORD.read_text(encoding="utf-8").splitlines() if RECORD.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description="Install Patchlight at the versions of constraints.txt.")
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="an extra of pyproject.toml, such as dev")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--oldest", dest="mode", action="store_const", const="oldest", help="the lowest versions")
    modes.add_argument("--newest", dest="mode", action="store_const", const="newest", help="the newest versions")
    modes.add_argument("--strict", dest="mode", action="store_const", const="strict", help="the locked files or none")
    modes.add_argument("--unchecked", dest="mode", action="store_const", const="unchecked", help="compare no sha256")
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
        record(install_packages(plan(args.mode, lock, requirements, build), environment))
        install_itself(environment)
    there = installed()
    print(f"Versions: {versions_line(requirements, there)}")
    told = differences(pins(lock), there) if args.mode not in ("oldest", "newest") else []
    for line in told:
        print(f"Other than locked: {line}")
    for line in recorded() or ["Not checked: there is no record of how this environment was made"]:
        print(line)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
