"""The command line: words in, a command called, text or JSON out.

The commands are the table VERBS in `parser.py`; what a result looks like is in `text.py`.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import patchlight
from patchlight.cli.parser import NOT_OF_CALL, VERBS, build_parser, nearest_argument, split_settings
from patchlight.errors import Interrupted, PatchlightError, Terminated, UsageError, did_you_mean
from patchlight.paths import printable
from patchlight.units import SPACE

if TYPE_CHECKING:
    from patchlight.commands.explain import RunExplanation
    from patchlight.runs import Faithfulness, Run
    from patchlight.runs.study import StudyResult

OK, FAILED, USAGE, SIGNALLED = 0, 1, 2, 128

# What takes less memory, by the command: only what it knows.
LESS_MEMORY = {
    "train": "set a smaller data.memory_limit_mb or data.image_size, or take a smaller model",
    "sweep": "set a smaller data.memory_limit_mb or data.image_size, or use fewer --workers",
    "eval": "set a smaller data.memory_limit_mb, or compute where there is more memory (--device)",
    "predict": "name fewer images at a time, or compute where there is more memory (--device)",
    "explain": "name fewer images or methods at a time, or compute where there is more memory (--device)",
    "probe": "set a smaller eval.batch_size or data.memory_limit_mb",
    "data": "set a smaller data.memory_limit_mb or data.image_size",
}
# What helps against errors of a disk.
DISK_ADVICE = {
    errno.ENOSPC: "free space on that disk and repeat the command, `train` with --resume",
    errno.EDQUOT: "delete files of yours on that disk and repeat the command, `train` with --resume",
    errno.EROFS: "that disk may only be read: choose another place with --out, or have it mounted for writing",
    errno.EIO: "that disk, or the way to it, fails: look into the system's log, and copy what you need to another disk",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 failed, 2 usage, 130 stopped by Ctrl-C, 143 by SIGTERM.

    What a user can mend is one sentence; with --debug or PATCHLIGHT_DEBUG=1 the traceback comes before it. Any other
    exception is a bug of ours: it is not caught here, so Python shows its traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or os.environ.get("PATCHLIGHT_DEBUG", "") not in ("", "0")
    words = [word for word in words if word != "--debug"]  # wherever it stands
    for stream in (sys.stdout, sys.stderr):  # a class or a file may have a name that the terminal cannot write
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _ended_by_sigterm():
            _check_folder()
            return run_command(words)
    except BrokenPipeError:  # the program that reads our output, `head` for example, has ended
        _give_up(sys.stdout)
        return FAILED
    except (PatchlightError, OSError, KeyboardInterrupt, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
            raise
        if debug:
            print_traceback(error)
        message, code = sentence_and_code(error, next((word for word in words if word in VERBS), ""))
        _say_error(message)
        return code
    finally:
        _leave_standard_error()


def _say_error(message: str) -> None:
    """Print it on standard error, where that can be written; the exit code says the rest."""
    if _has_standard_error():
        with contextlib.suppress(OSError):
            print(f"patchlight: {printable(message)}", file=sys.stderr)


def _leave_standard_error() -> None:
    """Where lines are left that standard error does not take any more, give them up: Python would try once more at its
    end, and then end with an exit code of its own.
    """
    if _has_standard_error():
        try:
            sys.stderr.flush()
        except OSError:
            with contextlib.suppress(OSError):  # what stands in for it may be no file of the system
                _give_up(sys.stderr)


def _has_standard_error() -> bool:
    return sys.stderr is not None and not getattr(sys.stderr, "closed", False)


def _give_up(stream: TextIO) -> None:
    """Let what is left to write on a stream go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Inside, SIGTERM ends a command as Ctrl-C does: what it holds is given back, and a sentence is said."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_out_of_memory(error: BaseException) -> bool:
    from patchlight.machine.memory import is_out_of_memory

    return is_out_of_memory(error)


def _check_folder() -> None:
    """Raises UsageError where the current folder was deleted: torch cannot even be loaded there."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current folder does not exist any more; go to another one (cd)") from None


def run_command(words: list[str]) -> int:
    """Parse the words, call the command's function, print its result and return the exit code.

    Raises UsageError for words that are no command, option or setting, and what the function raises.
    """
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        raise UsageError(f"no command '{words[0]}'; {did_you_mean(words[0], VERBS)}")
    words, settings = split_settings(words)
    parser = build_parser(words[0] if words else "")
    args, rest = parser.parse_known_args(words)
    if args.version:
        print(f"patchlight {patchlight.__version__}")
        return OK
    if args.verb is None:
        parser.print_help()
        return OK
    verb = VERBS[args.verb]
    if rest:
        raise UsageError(f"unknown argument '{rest[0]}'; {nearest_argument(rest[0], verb)}")
    if settings and not verb.settings:
        raise UsageError(f"`patchlight {args.verb}` takes no settings; remove --{next(iter(settings))}")
    if getattr(args, "offline", False):
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's library is imported, which is later
    options = {name: value for name, value in vars(args).items() if name not in NOT_OF_CALL}
    if verb.settings:
        options["settings"] = settings
    result = load(verb.call)(**options)
    if getattr(args, "json", False):
        print(json.dumps(load(verb.json)(result), allow_nan=False))
    else:
        from patchlight.progress import tell

        text = load(verb.text)(result)
        for piece in [text] if isinstance(text, str) else text:
            tell(piece.replace(SPACE, " "))
    return FAILED if verb.failed and load(verb.failed)(result) else OK


def load(name: str) -> Callable[..., Any]:
    """The function that "module:function" names."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def sentence_and_code(error: BaseException, verb: str = "") -> tuple[str, int]:
    """What an error is for the user of a command, and the exit code."""
    if isinstance(error, Interrupted):
        return str(error), SIGNALLED + error.number
    if isinstance(error, KeyboardInterrupt):
        number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        return str(error) or f"stopped by {number.name}; repeat the command", SIGNALLED + number
    if isinstance(error, MemoryError | RuntimeError):
        reason = str(error).strip().partition("\n")[0]
        advice = LESS_MEMORY.get(verb, "end other programs, or repeat the command where there is more memory")
        return f"out of memory ({reason or type(error).__name__}); {advice}", FAILED
    if isinstance(error, OSError):  # a full disk, a folder that may not be written
        reason = error.strerror or str(error) or type(error).__name__
        if error.errno in DISK_ADVICE:
            reason += f"; {DISK_ADVICE[error.errno]}"
        return (f"{error.filename}: {reason}" if error.filename else reason), FAILED
    return str(error), USAGE if isinstance(error, UsageError) else FAILED


def print_traceback(error: BaseException) -> None:
    """The traceback, with the errors that this one was raised in place of (`raise ... from None` hides them)."""
    import traceback

    inner: BaseException | None = error
    while inner is not None:
        inner.__suppress_context__ = False
        inner = inner.__cause__ or inner.__context__
    traceback.print_exception(error)


def train_or_seeds(
    recipe: str,
    *,
    settings: dict[str, str],
    seeds: str | None,
    out: Path | None,
    resume: bool,
    overwrite: bool,
) -> Run | StudyResult:
    """`patchlight train`, which with --seeds trains several runs."""
    if seeds is None:
        from patchlight.commands.train import train

        return train(recipe, settings, out=out, resume=resume, overwrite=overwrite)
    if overwrite:
        raise UsageError(
            "--overwrite is not for --seeds: runs are found by their settings; to train one again, delete its folder"
        )
    from patchlight.commands.study import train_seeds

    return train_seeds(recipe, settings, seeds, out=out)


def explain_or_measure(
    run: Path,
    images: list[Path],
    *,
    method: list[str] | None,
    target: str | None,
    versus: str | None,
    like: Path | None,
    percentile: float | None,
    masks: Path | None,
    tolerance: float | None,
    mass: float | None,
    token: str | None,
    pair: str | None,
    layers: str | None,
    classes: list[str] | None,
    indices: list[int] | None,
    split: str | None,
    faithfulness: bool,
    ways: str | None,
    count: int | None,
    out: Path | None,
    device: str,
) -> RunExplanation | Faithfulness:
    """`patchlight explain`, which with --faithfulness measures the methods instead."""
    if faithfulness:
        left_out: dict[str, Any] = {"the image files": images, "--versus": versus, "--like": like}
        left_out |= {"--layers": layers, "--percentile": percentile, "--masks": masks, "--tolerance": tolerance}
        left_out |= {"--mass": mass, "--token": token, "--pair": pair}
        for what, given in (left_out | {"--class": classes, "--index": indices}).items():
            if given not in (None, []):
                raise UsageError(f"--faithfulness measures maps of a class on images that it draws; leave out {what}")
    elif ways is not None:
        raise UsageError("--ways is for --faithfulness; leave it out, or add --faithfulness")
    numbers = layer_numbers(layers)
    from patchlight.commands import explain

    chosen: dict[str, Any] = {} if count is None else {"count": count}
    chosen |= {} if ways is None else {"ways": ways}
    if faithfulness:
        return explain.faithfulness(
            run,
            method=method or "all",
            target="predicted" if target is None else target,
            split=split,
            device=device,
            out=out,
            **chosen,
        )
    return explain.explain(
        run,
        images,
        classes=classes or (),
        indices=indices or (),
        split=split,
        count=count,
        method=method,
        target="predicted" if target is None else target,
        versus=versus,
        like=like,
        layers=numbers,
        mass=mass,
        token=token,
        pair=pair,
        percentile=100.0 if percentile is None else percentile,
        masks=masks,
        tolerance=tolerance or 0.0,
        out=out,
        device=device,
    )


def layer_numbers(text: str | None) -> list[int] | None:
    """ "1,3" as people count, as indices from 0."""
    if text is None:
        return None
    try:
        layers = [int(word) - 1 for word in text.split(",")]
    except ValueError:
        layers = [-1]
    if min(layers) < 0:
        raise UsageError(f"--layers are numbers from 1, as in 1,6, not '{text}'")
    return layers
