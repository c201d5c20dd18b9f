"""The command line: words in, `verbs` called, text or JSON out.

A verb imports what it needs when it runs, so that help and usage errors are instant.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from patchlight.cli.parser import COUNT, TAKES_SETTINGS, build_parser, nearest_argument, split_settings
from patchlight.config import (
    DEFAULT_METHOD,
    RECIPES,
    Config,
    ModelConfig,
    apply_overrides,
    describe_fields,
    load_recipe,
    recipes,
)
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.units import SPACE

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 failed, 2 usage, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # a class or a file may be called what the terminal cannot write
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(words)
    except UsageError as error:
        return _complain(error, USAGE)
    except PatchlightError as error:
        if type(error).__name__ == "Interrupted":
            return _complain(
                f"{error}; the checkpoint is saved: repeat the command with --resume to go on", INTERRUPTED
            )
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output, `head` say, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:  # a full disk, a folder that may not be written
        return _complain(f"{error.filename or 'a file'}: {error.strerror or error}", FAILED)


def _complain(message: object, code: int) -> int:
    print(f"patchlight: {message}", file=sys.stderr)
    return code


def _run(words: list[str]) -> int:
    parser = build_parser()
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        raise UsageError(f"no command '{words[0]}'; {did_you_mean(words[0], VERBS)}")
    words, settings = split_settings(words)
    args, rest = parser.parse_known_args(words)
    if args.verb is None:
        parser.print_help()
        return OK
    if rest:
        raise UsageError(f"unknown argument '{rest[0]}'; {nearest_argument(rest[0], args)}")
    if settings and args.verb not in TAKES_SETTINGS:
        raise UsageError(f"`patchlight {args.verb}` takes no settings; remove --{next(iter(settings))}")
    args.settings = settings
    if getattr(args, "offline", False):
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's library is imported, which is later
    VERBS[args.verb](args)
    return OK


def _print_json(data: Any) -> None:
    print(json.dumps(data, allow_nan=False))


def _print(text: str) -> None:
    print(text.replace(SPACE, " "))


def _train(args: argparse.Namespace) -> None:
    config = load_recipe(args.recipe, args.settings)
    if args.resume and args.overwrite:
        raise UsageError("--resume goes on with a run and --overwrite replaces it; give one of them")
    from patchlight.cli.text import result_line
    from patchlight.commands.train import train

    run = train(config, out=args.out, resume=args.resume, overwrite=args.overwrite, command=_command(args))
    result = run.result()
    if args.json:
        _print_json({"run": str(run.path), **result})
    else:
        _print(result_line(result))
        print(f"report  {run.path / 'report.html'}\nmodel   {run.path / 'model'}")


def _command(args: argparse.Namespace) -> str:
    """What to type to get this run again, whatever --resume or --overwrite it took this time."""
    words = ["patchlight", "train", args.recipe]
    for key, value in args.settings.items():
        words += [f"--{key}", value]
    return shlex.join([*words, "--out", str(args.out)] if args.out else words)


def _eval(args: argparse.Namespace) -> None:
    from patchlight.cli.text import result_table
    from patchlight.commands.evaluate import evaluate

    result = evaluate(args.run, data=args.data, split=args.split, device=args.device, precision=args.precision)
    _print_json(result) if args.json else _print(result_table(result))


def _predict(args: argparse.Namespace) -> None:
    if args.top < 1:
        raise UsageError(f"--top must be at least 1, not {args.top}")
    from patchlight.cli.text import prediction_table
    from patchlight.commands.predict import predict

    answers = predict(args.run, args.images, top=args.top, device=args.device, precision=args.precision)
    _print_json({"predictions": answers}) if args.json else _print(prediction_table(answers))


def _explain(args: argparse.Namespace) -> None:
    if args.count is not None and args.count < 1:
        raise UsageError(f"--count must be at least 1, not {args.count}")
    if args.faithfulness:
        for given, what in ((args.images, "the image files"), (args.target, "--target"), (args.layers, "--layers")):
            if given:
                raise UsageError(
                    f"--faithfulness is for the predicted class of the run's test images; leave out {what}"
                )
    elif args.count is not None:
        raise UsageError("--count is the number of test images of --faithfulness; add that, or leave it out")
    layers = _layers(args.layers)
    from patchlight.cli.text import explanation_text, faithfulness_table
    from patchlight.commands import explain

    if args.faithfulness:
        result = explain.faithfulness(
            args.run, method=args.method or "all", count=args.count or COUNT, device=args.device, out=args.out
        )
        _print_json(result) if args.json else _print(faithfulness_table(result))
        return
    result = explain.explain_run(
        args.run,
        args.images,
        method=args.method or DEFAULT_METHOD,
        target=args.target or "predicted",
        layers=layers,
        out=args.out,
        device=args.device,
    )
    _print_json(result) if args.json else _print(explanation_text(result))


def _layers(text: str | None) -> list[int] | None:
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


def _report(args: argparse.Namespace) -> None:
    from patchlight.commands.report import report

    print(report(args.run))


def _probe(args: argparse.Namespace) -> None:
    config = load_recipe(args.recipe, args.settings)
    from patchlight.cli.text import probe_table
    from patchlight.commands.probe import probe

    result = probe(config)
    _print_json(result) if args.json else _print(probe_table(result))


def _export(args: argparse.Namespace) -> None:
    from patchlight.commands.export import export

    result = export(args.run, args.format, out=args.out)
    if args.json:
        _print_json(result)
    else:
        print(f"{result['folder']}: {', '.join(result['files'])}")
        print(f"logits differ from the run's by {result['max_difference']:.1e} at most")


def _push(args: argparse.Namespace) -> None:
    from patchlight.commands.export import push

    result = push(args.run, args.repository, format=args.format, private=args.private)
    _print_json(result) if args.json else print(result["url"])


def _compare(args: argparse.Namespace) -> None:
    from patchlight.cli.text import comparison_table
    from patchlight.commands.compare import compare

    result = compare(args.runs)
    _print_json(result) if args.json else _print(comparison_table(result))


def _recipes(args: argparse.Namespace) -> None:
    from patchlight.cli.text import field_table, recipe_table

    if args.fields:
        _print(field_table(describe_fields()))
    elif args.recipe:
        load_recipe(args.recipe)  # for its errors
        path = Path(args.recipe) if args.recipe.endswith(".toml") else RECIPES / f"{args.recipe}.toml"
        print(path.read_text(encoding="utf-8"), end="")
    else:
        _print(recipe_table(recipes()))


def _models(args: argparse.Namespace) -> None:
    from patchlight.cli.text import layer_table, model_table
    from patchlight.commands.models import describe_model, models

    for option, value in (("--img-size", args.img_size), ("--classes", args.classes)):
        if value < 1:
            raise UsageError(f"{option} must be at least 1, not {value}")
    for key in args.settings:
        if args.name is None or not key.startswith("model.") or key == "model.img_size":
            fix = (
                "give it as --img-size" if key == "model.img_size" else "name a model, and change its model.field alone"
            )
            raise UsageError(f"`patchlight models` does not take --{key}; {fix}")
    if args.name is None:
        _print(model_table(models(args.img_size, args.classes)))
        return
    config = apply_overrides(Config(model=ModelConfig(name=args.name)), args.settings).model
    _print(layer_table(describe_model(config, args.img_size, args.classes)))


def _data(args: argparse.Namespace) -> None:
    config = load_recipe(args.recipe, {**args.settings, "data.source": args.source})
    from patchlight.cli.text import audit_text
    from patchlight.commands.audit import data

    result = data(config, out=args.out, overwrite=args.overwrite)
    _print_json(result.to_json()) if args.json else _print(audit_text(result))


def _doctor(args: argparse.Namespace) -> None:
    from patchlight.cli.text import doctor_text
    from patchlight.commands.doctor import doctor

    result = doctor(args.budget, device=args.device)
    _print_json(result) if args.json else _print(doctor_text(result))


VERBS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": _train,
    "eval": _eval,
    "predict": _predict,
    "explain": _explain,
    "probe": _probe,
    "report": _report,
    "export": _export,
    "push": _push,
    "compare": _compare,
    "recipes": _recipes,
    "models": _models,
    "data": _data,
    "doctor": _doctor,
}
