"""Options of a method as words: `rollout:heads=max,discard=0.9`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from patchlight.errors import UsageError, did_you_mean


def options_of(run: Callable[..., Any]) -> dict[str, Any]:
    """The options of a method's function with their defaults: its keyword-only arguments."""
    parameters = inspect.signature(run).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def check_options(method: str, given: Mapping[str, Any], run: Callable[..., Any]) -> dict[str, Any]:
    """The given options, each of its default's type; a whole number may stand for a real one.

    Raises UsageError for an option that the method does not have, and for a value of another type.
    """
    known = options_of(run)
    return {name: _checked(method, name, value, known) for name, value in given.items()}


def _checked(method: str, name: str, value: Any, known: Mapping[str, Any]) -> Any:
    if name not in known:
        has = did_you_mean(name, known) if known else "it has none"
        raise UsageError(f"{method} has no option '{name}'; {has}")
    kind = type(known[name])
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind is float and whole:
        return float(value)
    if not isinstance(value, kind) or (kind is int and not whole):
        words = {int: "a whole number", float: "a number", str: "a word"}
        raise UsageError(f"{method}:{name} is {words[kind]}, as {known[name]}, not {value!r}")
    return value


def read_call(word: str) -> tuple[str, dict[str, str]]:
    """ "rollout:heads=max,discard=0.9" -> the method's name, and its options as they were written.

    Raises UsageError for a part that is no NAME=VALUE, or a name that is given twice.
    """
    name, colon, rest = word.partition(":")
    options: dict[str, str] = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not key or not equals or not value:
            raise UsageError(f"an option of a method is NAME=VALUE, as in rollout:heads=max,discard=0.9, not '{part}'")
        if key in options:
            raise UsageError(f"'{word}' gives {key} twice; leave one out")
        options[key] = value
    return name.strip(), options


def typed_options(method: str, written: Mapping[str, str], run: Callable[..., Any]) -> dict[str, Any]:
    """Options as they were written, each made the type of its default. Raises UsageError as `check_options` does."""
    known, typed = options_of(run), dict[str, Any]()
    for name, text in written.items():
        kind = type(known.get(name, ""))
        try:
            typed[name] = kind(text) if kind in (int, float) else text
        except ValueError:
            typed[name] = text  # `check_options` says what it should be
    return check_options(method, typed, run)


def call_text(method: str, options: Mapping[str, Any]) -> str:
    """As it is written on the command line: "rollout:heads=max,discard=0.9"."""
    words = ",".join(f"{name}={value}" for name, value in options.items())
    return f"{method}:{words}" if words else method
