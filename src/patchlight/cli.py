"""The command line: words in, `verbs` called, text or JSON out.

A verb imports what it needs when it runs, so that help and usage errors are instant.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from patchlight.config import (
    DEFAULT_METHOD,
    RECIPES,
    Config,
    MethodName,
    ModelConfig,
    apply_overrides,
    describe_fields,
    load_recipe,
    recipes,
)
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.units import SPACE

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

EXAMPLES = """examples:
  patchlight train quickstart                           a ViT on digits, in about a minute
  patchlight train cifar10-cpu --train.epochs 5         any setting can be changed
  patchlight train cifar10-cpu --data.source my_images  an image folder: my_images/CLASS/*.png
  patchlight predict runs/quickstart photo.jpg          what is on it?
  patchlight compare runs/*                             which run is best, and what differs
"""


class Parser(argparse.ArgumentParser):
    """argparse that answers a mistake with one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 failed, 2 usage, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
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
        raise UsageError(f"unknown argument '{rest[0]}'; {_nearest_argument(rest[0], args)}")
    if settings and args.verb not in TAKES_SETTINGS:
        raise UsageError(f"`patchlight {args.verb}` takes no settings; remove --{next(iter(settings))}")
    args.settings = settings
    VERBS[args.verb](args)
    return OK


def split_settings(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Take `--section.field VALUE`, `--section.field=VALUE` and the lone `--section.switch` (true) out of the words."""
    others: list[str] = []
    settings: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or "." not in key:
            others.append(word)
            continue
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        settings[key] = value
    return others, settings


def _nearest_argument(word: str, args: argparse.Namespace) -> str:
    """The verb's own options, and the settings where it takes them: `--epochs` is `--train.epochs`."""
    known = [option for action in args.parser._actions for option in action.option_strings]
    if args.verb in TAKES_SETTINGS:
        keys = [f"--{info.key}" for info in describe_fields()]
        same_field = [key for key in keys if key.split(".")[1] == word.removeprefix("--").replace("-", "_")]
        if same_field:
            return f"did you mean '{same_field[0]}'?"
        known += keys
    return did_you_mean(word, known)


def build_parser() -> Parser:
    parser = Parser(
        prog="patchlight", description="Train, evaluate and look inside Vision Transformers on small-image data sets.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"patchlight {_version()}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND")

    def add(name: str, summary: str, example: str) -> Parser:
        verb = verbs.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False,
            epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        verb.set_defaults(parser=verb)
        return verb

    train = add("train", "train by a recipe, evaluate on the test images, write the report",
                "patchlight train cifar10-cpu --data.source my_images --train.epochs 20 --out runs/mine\n\n"
                "`patchlight recipes --fields` lists every --section.field with its meaning")  # fmt: skip
    train.add_argument("recipe", help="a recipe's name (`patchlight recipes`) or a TOML file")
    train.add_argument("--out", type=Path, help="the run folder (default: runs/NAME)")
    train.add_argument("--resume", action="store_true", help="go on with the run that is there")
    train.add_argument("--overwrite", action="store_true", help="replace the run that is there")
    train.add_argument("--json", action="store_true", help="print the result as one JSON object")
    train.usage = "patchlight train RECIPE [--section.field VALUE ...] [--out DIR] [--resume | --overwrite] [--json]"

    evaluate = add("eval", "measure a finished run on its own data or another source",
                   "patchlight eval runs/quickstart --split test --json")  # fmt: skip
    evaluate.add_argument("run", type=Path, help="a run folder")
    evaluate.add_argument(
        "--data", metavar="SOURCE", help="another source with the same classes (one without splits is taken whole)"
    )
    evaluate.add_argument(
        "--split", choices=["train", "val", "test", "subset_test"], default="test", help="which images (default: test)"
    )

    predict = add("predict", "say what is on image files of any size and mode",
                  "patchlight predict runs/quickstart photo.jpg scan.png --top 3")  # fmt: skip
    predict.add_argument("run", type=Path, help="a run folder")
    predict.add_argument("images", nargs="+", metavar="IMAGE", type=Path, help="image files")
    predict.add_argument("--top", type=int, default=5, metavar="N", help="so many classes (default: 5)")
    explain = add("explain", "show what the model looked at, or measure how far each map can be believed",
                  "patchlight explain runs/quickstart photo.jpg --method all\n"
                  "  patchlight explain runs/quickstart --faithfulness\n\nmethods:\n  "
                  + ", ".join(get_args(MethodName)))  # fmt: skip
    explain.add_argument("run", type=Path, help="a run folder")
    explain.add_argument(
        "images", nargs="*", metavar="IMAGE", type=Path, help="image files (default: the run's samples)"
    )
    explain.add_argument(
        "--method", metavar="NAME", help=f"one of them, or all (default: {DEFAULT_METHOD}; --faithfulness: all)"
    )
    explain.add_argument("--target", default="predicted", metavar="CLASS", help="predicted (default), true, or a class")
    explain.add_argument("--layers", metavar="N,...", help="draw the heads of these layers, from 1 (default: the last)")
    explain.add_argument("--faithfulness", action="store_true", help="a table of the methods on the run's test images")
    explain.add_argument("--count", type=int, default=500, metavar="N", help="so many test images (default: 500)")
    explain.add_argument("--out", type=Path, metavar="DIR", help="where the pictures go (default: RUN/explain)")
    for verb in (evaluate, predict, explain):
        verb.add_argument("--json", action="store_true", help="print one JSON object")
        verb.add_argument(
            "--device",
            choices=["auto", "cpu", "cuda", "mps"],
            default="auto",
            help="where to compute (default: the fastest)",
        )

    report = add("report", "rebuild report.html and figures/ from a run folder", "patchlight report runs/quickstart")
    report.add_argument("run", type=Path, help="a run folder")

    compare = add("compare", "put runs side by side, and list what differs in their settings",
                  "patchlight compare runs/vit-tiny runs/resnet18-cifar10")  # fmt: skip
    compare.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="run folders")
    compare.add_argument("--json", action="store_true", help="print one JSON object")

    listing = add("recipes", "list the recipes, or print one", "patchlight recipes cifar10-cpu")
    listing.add_argument("recipe", nargs="?", help="print this recipe")
    listing.add_argument("--fields", action="store_true", help="every setting, its default and its meaning")

    models = add("models", "list the models, or describe one layer by layer",
                 "patchlight models vit-tiny --model.patch_size 8")  # fmt: skip
    models.add_argument("name", nargs="?", help="describe this model")
    models.add_argument("--img-size", type=int, default=32, metavar="PIXELS", help="pixels a side (default: 32)")
    models.add_argument("--classes", type=int, default=10, metavar="N", help="(default: 10)")
    models.usage = "patchlight models [NAME] [--model.field VALUE ...] [--img-size PIXELS] [--classes N]"

    data = add("data", "look at a data source: counts, balance, samples, augmentation, bad and duplicate files",
               "patchlight data my_images --augment.policy randaugment")  # fmt: skip
    data.add_argument("source", help="digits, cifar10, cifar100, hf:owner/name, or a path")
    data.add_argument("--recipe", default="cifar10-cpu", help="whose augmentation is shown (default: cifar10-cpu)")
    data.add_argument("--out", type=Path, help="where the pictures go (default: previews/NAME)")
    data.add_argument("--overwrite", action="store_true", help="replace pictures that are there")
    data.add_argument("--json", action="store_true", help="print one JSON object")
    data.usage = (
        "patchlight data SOURCE [--section.field VALUE ...] [--recipe RECIPE] [--out DIR] [--overwrite] [--json]"
    )
    doctor = add("doctor", "say what this machine is good for, and what each recipe would do in a given time",
                 "patchlight doctor --budget 30m")  # fmt: skip
    doctor.add_argument("--budget", metavar="TIME", help="a training time such as 90s, 10m or 1h30m")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.add_argument(
        "--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="which to try (default: the fastest)"
    )
    return parser


def _version() -> str:
    from importlib.metadata import version

    return version("patchlight")


def _print_json(data: Any) -> None:
    print(json.dumps(data, allow_nan=False))


def _print(text: str) -> None:
    print(text.replace(SPACE, " "))


def _train(args: argparse.Namespace) -> None:
    config = load_recipe(args.recipe, args.settings)
    if args.resume and args.overwrite:
        raise UsageError("--resume goes on with a run and --overwrite replaces it; give one of them")
    from patchlight import verbs
    from patchlight.cli_text import result_line

    run = verbs.train(config, out=args.out, resume=args.resume, overwrite=args.overwrite, command=_command(args))
    result = run.read_json("eval.json")
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
    from patchlight import verbs
    from patchlight.cli_text import result_table

    result = verbs.evaluate(args.run, data=args.data, split=args.split, device=args.device)
    _print_json(result) if args.json else _print(result_table(result))


def _predict(args: argparse.Namespace) -> None:
    if args.top < 1:
        raise UsageError(f"--top must be at least 1, not {args.top}")
    from patchlight import verbs
    from patchlight.cli_text import prediction_table

    answers = verbs.predict(args.run, args.images, top=args.top, device=args.device)
    _print_json({"predictions": answers}) if args.json else _print(prediction_table(answers))


def _explain(args: argparse.Namespace) -> None:
    if args.count < 1:
        raise UsageError(f"--count must be at least 1, not {args.count}")
    if args.faithfulness and args.images:
        raise UsageError("--faithfulness is measured on the run's test images; leave out the image files")
    layers = _layers(args.layers)
    from patchlight import explaining
    from patchlight.cli_text import explanation_text, faithfulness_table

    if args.faithfulness:
        result = explaining.faithfulness(
            args.run, method=args.method or "all", count=args.count, device=args.device, out=args.out
        )
        _print_json(result) if args.json else _print(faithfulness_table(result))
        return
    result = explaining.explain_run(
        args.run, args.images, method=args.method or DEFAULT_METHOD, target=args.target, layers=layers, out=args.out,
        device=args.device,
    )  # fmt: skip
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
    from patchlight import verbs

    print(verbs.report(args.run))


def _compare(args: argparse.Namespace) -> None:
    from patchlight import verbs
    from patchlight.cli_text import comparison_table

    result = verbs.compare(args.runs)
    _print_json(result) if args.json else _print(comparison_table(result))


def _recipes(args: argparse.Namespace) -> None:
    from patchlight.cli_text import field_table, recipe_table

    if args.fields:
        _print(field_table(describe_fields()))
    elif args.recipe:
        load_recipe(args.recipe)  # for its errors
        path = Path(args.recipe) if args.recipe.endswith(".toml") else RECIPES / f"{args.recipe}.toml"
        print(path.read_text(encoding="utf-8"), end="")
    else:
        _print(recipe_table(recipes()))


def _models(args: argparse.Namespace) -> None:
    from patchlight import verbs
    from patchlight.cli_text import layer_table, model_table

    for option, value in (("--img-size", args.img_size), ("--classes", args.classes)):
        if value < 1:
            raise UsageError(f"{option} must be at least 1, not {value}")
    if args.name is None:
        _print(model_table(verbs.models(args.img_size, args.classes)))
        return
    config = apply_overrides(Config(model=ModelConfig(name=args.name)), args.settings).model
    _print(layer_table(verbs.describe_model(config, args.img_size, args.classes)))


def _data(args: argparse.Namespace) -> None:
    config = load_recipe(args.recipe, {**args.settings, "data.source": args.source})
    from patchlight import verbs
    from patchlight.cli_text import audit_text

    result = verbs.data(config, out=args.out, overwrite=args.overwrite)
    _print_json(result) if args.json else _print(audit_text(result))


def _doctor(args: argparse.Namespace) -> None:
    from patchlight import verbs
    from patchlight.cli_text import doctor_text

    result = verbs.doctor(args.budget, device=args.device)
    _print_json(result) if args.json else _print(doctor_text(result))


VERBS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": _train,
    "eval": _eval,
    "predict": _predict,
    "explain": _explain,
    "report": _report,
    "compare": _compare,
    "recipes": _recipes,
    "models": _models,
    "data": _data,
    "doctor": _doctor,
}
TAKES_SETTINGS = ("train", "models", "data")
