"""The words of the command line: every verb with its options, and settings apart from them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from patchlight.config import DEFAULT_METHOD, METHOD_NAMES, describe_fields
from patchlight.errors import UsageError, did_you_mean

COUNT = 500  # test images of explain --faithfulness
TAKES_SETTINGS = ("train", "probe", "models", "data")

EXAMPLES = """examples:
  patchlight train quickstart                           a ViT on digits, in about a minute
  patchlight train cifar10-cpu --train.epochs 5         any setting can be changed
  patchlight train cifar10-cpu --data.source my_images  an image folder: my_images/CLASS/*.png
  patchlight predict runs/quickstart photo.jpg          what is on it?
  patchlight compare runs/*                             which run is best, and what differs
"""


class Parser(argparse.ArgumentParser):
    """argparse that answers a mistake with one sentence, and knows its options by name."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.options: list[str] = []
        super().__init__(*args, **settings)

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        action = super().add_argument(*names, **settings)
        self.options += action.option_strings
        return action

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


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


def nearest_argument(word: str, args: argparse.Namespace) -> str:
    """The verb's own options, and the settings where it takes them: `--epochs` is `--train.epochs`."""
    known = list(args.parser.options)
    if args.verb in TAKES_SETTINGS:
        keys = [f"--{info.key}" for info in describe_fields()]
        same_field = [key for key in keys if key.split(".")[1] == word.removeprefix("--").replace("-", "_")]
        if same_field:
            return f"did you mean '{same_field[0]}'?"
        known += keys
    return did_you_mean(word, known)


def build_parser() -> Parser:
    parser = Parser(
        prog="patchlight",
        description="Train, evaluate and look inside Vision Transformers on small-image data sets.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"patchlight {_version()}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND")

    def add(name: str, summary: str, example: str) -> Parser:
        verb = verbs.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            allow_abbrev=False,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.set_defaults(parser=verb)
        return verb

    train = add(
        "train",
        "train by a recipe, evaluate on the test images, write the report",
        "patchlight train cifar10-cpu --data.source my_images --train.epochs 20 --out runs/mine\n\n"
        "`patchlight recipes --fields` lists every --section.field with its meaning",
    )
    train.add_argument("recipe", help="a recipe's name (`patchlight recipes`) or a TOML file")
    train.add_argument("--out", type=Path, help="the run folder (default: runs/NAME)")
    train.add_argument("--resume", action="store_true", help="go on with the run that is there")
    train.add_argument("--overwrite", action="store_true", help="replace the run that is there")
    train.add_argument("--json", action="store_true", help="print the result as one JSON object")
    train.usage = (
        "patchlight train RECIPE [--section.field VALUE ...] [--out DIR] [--resume | --overwrite] [--offline] [--json]"
    )

    evaluate = add(
        "eval",
        "measure a finished run on its own data or another source",
        "patchlight eval runs/quickstart --split test --json",
    )
    evaluate.add_argument("run", type=Path, help="a run folder")
    evaluate.add_argument(
        "--data", metavar="SOURCE", help="another source with the same classes (one without splits is taken whole)"
    )
    evaluate.add_argument(
        "--split",
        choices=["train", "val", "test", "subset_test"],
        default="test",
        help="which images; subset_test are those of data.subset_test_per_class (default: test)",
    )

    predict = add(
        "predict",
        "say what is on image files of any size and mode",
        "patchlight predict runs/quickstart photo.jpg scan.png --top 3",
    )
    predict.add_argument("run", type=Path, help="a run folder")
    predict.add_argument("images", nargs="+", metavar="IMAGE", type=Path, help="image files")
    predict.add_argument("--top", type=int, default=5, metavar="N", help="how many classes to list (default: 5)")
    explain = add(
        "explain",
        "show what the model looked at, or measure how far each map can be believed",
        "patchlight explain runs/quickstart photo.jpg --method all\n"
        "  patchlight explain runs/quickstart --faithfulness\n\nmethods:\n  " + ", ".join(METHOD_NAMES),
    )
    explain.add_argument("run", type=Path, help="a run folder")
    explain.add_argument(
        "images", nargs="*", metavar="IMAGE", type=Path, help="image files (default: the run's samples)"
    )
    explain.add_argument(
        "--method", metavar="NAME", help=f"one of those below, or all (default: {DEFAULT_METHOD}; --faithfulness: all)"
    )
    explain.add_argument(
        "--target",
        metavar="CLASS",
        help="which class to explain: predicted (default), true (of the run's samples), or a class's name or index",
    )
    explain.add_argument(
        "--layers", metavar="N,...", help="layers whose heads are drawn, counted from 1, as in 1,6 (default: the last)"
    )
    explain.add_argument(
        "--faithfulness",
        action="store_true",
        help="compare the methods on the run's test images; writes faithfulness.json and builds the report again",
    )
    explain.add_argument(
        "--count", type=int, metavar="N", help=f"with --faithfulness, how many test images (default: {COUNT})"
    )
    explain.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where figures and arrays go (default: RUN/explain), or faithfulness.json (default: RUN)",
    )
    for verb, default, about in ((evaluate, None, "that of the recipe"), (predict, "auto", "auto")):
        verb.add_argument(
            "--precision",
            choices=["auto", "fp32", "bf16", "fp16"],
            default=default,
            help=f"fp32 gives the same answer on all machines, auto is the fastest here (default: {about})",
        )
    for verb in (evaluate, predict, explain):
        verb.add_argument("--json", action="store_true", help="print one JSON object")
        verb.add_argument(
            "--device",
            choices=["auto", "cpu", "cuda", "mps"],
            default="auto",
            help="where to compute (default: the fastest)",
        )

    probe = add(
        "probe",
        "say how good a model's features are, by a linear probe and nearest neighbours",
        "patchlight probe finetune --model.name google/vit-base-patch16-224 --data.source pets",
    )
    probe.add_argument("recipe", help="a recipe: its data, model and precision are used, its training is not")
    probe.add_argument("--json", action="store_true", help="print one JSON object")
    probe.usage = "patchlight probe RECIPE [--section.field VALUE ...] [--offline] [--json]"

    report = add(
        "report", "rebuild report.html, figures/ and README.md from a run folder", "patchlight report runs/quickstart"
    )
    report.add_argument("run", type=Path, help="a run folder")

    export = add(
        "export",
        "write a run's model in another format, read it back and compare",
        "patchlight export runs/quickstart --format onnx",
    )
    push = add(
        "push",
        "upload a run's model to the Hugging Face hub",
        "hf auth login\n  patchlight push runs/quickstart me/digits --format onnx",
    )
    for verb in (export, push):
        verb.add_argument("run", type=Path, help="a run folder")
        verb.add_argument(
            "--format",
            choices=["safetensors", "timm", "hf", "onnx"],
            default="safetensors" if verb is export else "timm",
            help="safetensors (Patchlight's own) and onnx take every model, timm takes plain ViTs, hf plain ViTs "
            "with a CLS token, both what came from them (default: %(default)s)",
        )
        verb.add_argument("--json", action="store_true", help="print one JSON object")
    export.add_argument("--out", type=Path, metavar="DIR", help="where it goes (default: RUN/export/FORMAT)")
    push.add_argument("repository", metavar="OWNER/NAME", help="the repository, made if it is not there")
    push.add_argument("--private", action="store_true", help="make it a private one")

    compare = add(
        "compare",
        "put runs side by side, and list what differs in their settings",
        "patchlight compare runs/vit-tiny runs/resnet18-cifar10",
    )
    compare.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="run folders")
    compare.add_argument("--json", action="store_true", help="print one JSON object")

    listing = add("recipes", "list the recipes, or print one", "patchlight recipes cifar10-cpu")
    listing.add_argument("recipe", nargs="?", help="print this recipe")
    listing.add_argument("--fields", action="store_true", help="every setting, its default and its meaning")

    models = add(
        "models", "list the models, or describe one layer by layer", "patchlight models vit-tiny --model.patch_size 8"
    )
    models.add_argument(
        "name", nargs="?", help="describe this one: a row of the list, timm/NAME, OWNER/NAME or a run folder"
    )
    models.add_argument(
        "--img-size", type=int, default=32, metavar="PIXELS", help="image size in pixels a side (default: 32)"
    )
    models.add_argument("--classes", type=int, default=10, metavar="N", help="number of classes (default: 10)")
    models.usage = "patchlight models [NAME] [--model.field VALUE ...] [--img-size PIXELS] [--classes N]"

    data = add(
        "data",
        "look at a data source: counts, balance, samples, augmentation, bad and duplicate files",
        "patchlight data my_images --augment.policy randaugment",
    )
    data.add_argument("source", help="digits, planted, cifar10, cifar100, hf:owner/name[:config], or a path")
    data.add_argument(
        "--recipe", default="cifar10-cpu", help="whose data and augmentation settings are used (default: cifar10-cpu)"
    )
    data.add_argument("--out", type=Path, help="where the pictures go (default: previews/NAME)")
    data.add_argument("--overwrite", action="store_true", help="replace pictures that are there")
    data.add_argument("--json", action="store_true", help="print one JSON object")
    data.usage = (
        "patchlight data SOURCE [--section.field VALUE ...] [--recipe RECIPE] [--out DIR] [--overwrite] [--offline] "
        "[--json]"
    )
    for verb in (train, evaluate, explain, probe, data):
        verb.add_argument("--offline", action="store_true", help="take data and weights of a hub from its cache alone")

    doctor = add(
        "doctor",
        "say what this machine is good for, and how many epochs of each recipe fit into a time",
        "patchlight doctor --budget 30m",
    )
    doctor.add_argument(
        "--budget",
        metavar="TIME",
        help="a training time such as 90s, 10m or 1h30m; every recipe that learns labels and needs no hub is tried, "
        "in minutes",
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.add_argument(
        "--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="which to try (default: the fastest)"
    )
    return parser


def _version() -> str:
    import patchlight

    return patchlight.__version__
