"""What a row of the table of commands is made of: its options, and what it calls."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchlight.errors import UsageError
from patchlight.paths import user_path


@dataclass(frozen=True)
class Option:
    """The arguments of one call of argparse's `add_argument`."""

    names: tuple[str, ...]
    keywords: dict[str, Any]


def path(text: str) -> Path:
    """A word of the command line as the path that is meant."""
    try:
        return user_path(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def option(*names: str, **keywords: Any) -> Option:
    return Option(names, keywords)


@dataclass(frozen=True)
class Verb:
    """A command. Its functions are given as "module:function".

    `call` gets each option as the argument of the same name, and with `settings` also those that were given, as
    `settings={"train.epochs": "5"}`; it returns the result. `text` and `json` turn that into what is printed, `text`
    perhaps piece by piece. `failed` says of the result, once it is printed, whether the exit code is 1.
    """

    summary: str  # in small letters and without a full stop
    example: str
    options: tuple[Option, ...]
    call: str
    text: str = "builtins:str"
    json: str = "patchlight.cli.text:as_json"
    failed: str | None = None
    settings: str | None = None  # how its help writes the settings that it takes, as "section.field"

    @property
    def usage(self) -> str:
        """The arguments that have no name, the settings, and a word for the options."""
        words = []
        for each in self.options:
            if not each.names[0].startswith("-"):
                word = str(each.keywords.get("metavar", each.names[0])).upper()
                forms = {"?": f"[{word}]", "*": f"[{word} ...]", "+": f"{word} [{word} ...]"}
                words.append(forms.get(each.keywords.get("nargs", ""), word))
        return " ".join([*words, *([f"[--{self.settings} VALUE ...]"] if self.settings else []), "[options]"])
