"""Random recipes, settings and command lines, and what each of them must end in. No test of its own."""

from __future__ import annotations

import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchlight.cli.parser import VERBS
from patchlight.config import Config, config_from_dict, describe_fields
from patchlight.paths import printable

SECONDS = 120  # of one case, on a machine that does other things too
MEGABYTES = 600  # that all cases of a test may add to the process at its height
LONGEST = 1500  # characters of a message

FIELDS = describe_fields()
# As TOML and as words of a command line. Some are right for some field, so that cases come far. None is the name of a
# recipe: it would be trained.
ODD = [
    *(
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1e-400",
        "9" * 400,
        "9" * 5000,
        "-9223372036854775809",
        "0",
        "-0.0",
        "-1",
        "1",
        "2.5",
    ),
    *(
        "true",
        "false",
        "none",
        "None",
        "",
        " ",
        "[]",
        "[[]]",
        "[1,2",
        "1,2,3",
        "[nan]",
        "{}",
        "{a=1}",
        "'",
        '"',
        '"""',
        "\\",
    ),
    *(
        "\n",
        "\0",
        "é",
        "\udce9",
        "\u202e",
        "\ufeff",
        "[" * 3000,
        "{a=" * 3000,
        "x" * 5000,
        "1979-05-27",
        "07:32:00",
        "0x10",
    ),
    *(
        "1_000",
        "+5",
        "90s",
        "1h",
        "9" * 400 + "h",
        "no/such",
        "~",
        "~nobody",
        "/dev/null",
        "/proc/self/mem",
        "digits",
        "vit-micro",
    ),
    *(
        "auto",
        "cpu",
        "adamw",
        "cosine",
        "timm/none",
        "http://x/y",
        "-",
        "--",
        "--json",
        "*",
        "**",
        "[a",
        "%s",
        "{0}",
        "$HOME",
    ),
]
odd = st.sampled_from(ODD) | st.text(max_size=12)
number = st.integers() | st.floats() | st.integers(-3, 40) | st.floats(0, 1)
plain: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | number | odd | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(odd, inner, max_size=3),
    max_leaves=6,
)


def fitting(default: Any) -> st.SearchStrategy[Any]:
    """Values of a default's own type, most of which a field takes."""
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int):
        return st.integers(0, 64)
    return st.floats(0, 1) if isinstance(default, float) else st.just(default)


@st.composite
def field(draw: st.DrawFn) -> tuple[str, Any]:
    """A known setting with a value, two times in three one of its own type."""
    info = draw(st.sampled_from(FIELDS))
    choices = [fitting(info.default), st.sampled_from(info.kind.split("|")), plain]
    return info.key, draw(draw(st.sampled_from(choices)))


ODD_KEYS = ["", ".", "train", "train.", ".epochs", "stages.1.optim.lr", "stages.x", f"stages.{'9' * 5000}.a"]
ODD_KEYS += ["a.b", "\0", "é.", "é.\0"]
key = st.sampled_from([*(info.key for info in FIELDS), *ODD_KEYS])
sections = st.lists(field(), max_size=6) | st.lists(st.tuples(key, plain), max_size=3)


def nested(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """{"train.epochs": 3} as {"train": {"epochs": 3}}."""
    data: dict[str, Any] = {}
    for name, value in pairs:
        section, _, inner = name.partition(".")
        holder = data.setdefault(section, {})
        if isinstance(holder, dict) and inner:
            holder[inner] = value
        else:
            data[section] = value
    return data


@st.composite
def recipe_data(draw: st.DrawFn) -> dict[str, Any]:
    data = nested(draw(sections))
    if draw(st.booleans()):
        data["stages"] = draw(st.lists(sections.map(nested), max_size=3) | plain)
    return data


line = st.one_of(
    st.sampled_from(["[", "[[", ""]).flatmap(
        lambda left: st.sampled_from([*(info.key.split(".")[0] for info in FIELDS), "stages", "", "a.b", "é"]).map(
            lambda name: f"{left}{name}{']' * len(left)}"
        )
    ),
    st.tuples(st.sampled_from([info.key.split(".")[1] for info in FIELDS]) | key, odd | number.map(str)).map(
        " = ".join
    ),
    odd,
)


@st.composite
def recipe_text(draw: st.DrawFn) -> str:
    """A recipe that is TOML, often with a line more."""
    known = {key: value for key, value in draw(st.lists(field(), max_size=4)) if is_toml(value)}
    lines = tomli_w.dumps(nested(list(known.items()))).splitlines()
    for extra in draw(st.lists(line, max_size=2)):
        lines.insert(draw(st.integers(0, len(lines))), extra)
    return "\n".join(lines)


def is_toml(value: Any) -> bool:
    try:
        tomli_w.dumps({"a": value}).encode()
    except (TypeError, ValueError):
        return False
    return True


@st.composite
def setting_words(draw: st.DrawFn) -> list[str]:
    """Settings as they stand on a command line, well and badly written."""
    words = []
    for name, value in draw(sections):
        text = str(value) if not isinstance(value, bool) else str(value).lower()
        words += draw(st.sampled_from([[f"--{name}", text], [f"--{name}={text}"], [f"--{name}"], [f"-{name}", text]]))
    return words


def command_words(files: list[str], verbs: list[str]) -> st.SearchStrategy[list[str]]:
    """Command lines of the verbs: their own options and others, files that are there, words that are nothing."""
    options = sorted({name for verb in verbs for each in VERBS[verb].options for name in each.names if name[0] == "-"})

    @st.composite
    def words(draw: st.DrawFn) -> list[str]:
        verb = draw(st.sampled_from(verbs))
        own = [name for each in VERBS[verb].options for name in each.names if name[0] == "-"]
        thing = st.sampled_from(files) | st.sampled_from(files + ODD)
        # Never nothing, as `data` then fetches CIFAR-10.
        given = [draw(thing), *draw(st.lists(thing, max_size=2))]
        for _ in range(draw(st.integers(0, 2))):
            given.append(draw(st.sampled_from(own if own and draw(st.booleans()) else options)))
            given += draw(st.lists(thing | number.map(str), max_size=1))
        if VERBS[verb].settings and draw(st.booleans()):
            given += draw(setting_words())
        return [verb, *given]

    return words()


@contextmanager
def in_time() -> Iterator[None]:
    """Ends what hangs. As a BaseException, so that nothing takes it for an error of its own."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(f"no end after {SECONDS} seconds")

    former = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def height() -> float:
    """Megabytes that the process had at most so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10


def each(strategy: st.SearchStrategy[Any], count: int, check: Callable[[Any], str]) -> Counter[str]:
    """Checks so many cases, each in time and all within memory: how often each answer came."""
    found, before = Counter[str](), height()

    @settings(
        max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def run(case: Any) -> None:
        with in_time():
            found[check(case)] += 1

    run()
    assert height() - before < MEGABYTES
    return found


def one_sentence(message: str, names: str = "") -> None:
    """What a user can do something with; it names the file, where there is one."""
    assert message
    assert names in message
    assert printable(message) == message, "a control character or a byte that is no text"
    assert len(message) <= LONGEST, f"{len(message)} characters: {message[:300]}"


def comes_back(config: Config) -> None:
    """What was understood is written so that it is understood again."""
    assert config_from_dict(config.to_dict()) == config
