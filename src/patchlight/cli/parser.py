"""The words of the command line. VERBS is the table of all commands: a command is a row here and a file in `commands/`.

Nothing heavy is imported here: a row names its functions as "module:function", and they are imported when the command
runs, so that help and usage errors are instant. What a row is made of is in `words.py`.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from typing import NoReturn

from patchlight.cli.explain_words import MAPS, OF_A_SPLIT, SUBSET, USUAL
from patchlight.cli.study_words import SEEDS, STUDY
from patchlight.cli.words import Option, Verb, option, path
from patchlight.config import METHOD_NAMES, SPLIT_NAMES, describe_fields
from patchlight.errors import UsageError, did_you_mean

EXAMPLES = """examples:
  patchlight train quickstart                           a ViT on digits, in about a minute
  patchlight train cifar10-cpu --train.epochs 5         any setting can be changed
  patchlight train cifar10-cpu --data.source my_images  an image folder: my_images/CLASS/*.png
  patchlight predict runs/quickstart photo.jpg          what is on it?
  patchlight compare runs/*                             which run is best, and what differs
"""


DEBUG = option("--debug", action="store_true", help="show the traceback of an error (also: PATCHLIGHT_DEBUG=1)")
JSON = option("--json", action="store_true", help="print one JSON object")
OFFLINE = option("--offline", action="store_true", help="take data and weights of a hub from its cache alone")
NOT_OF_CALL = ("version", "verb", "debug", "json", "offline")  # what the command line keeps to itself

RUN = option("run", type=path, help="a run folder")
WEIGHTS = option("run", type=path, help="a run folder, or a checkpoint in it: RUN/checkpoints/epoch-050, or .../last")
DEVICE = option(
    "--device",
    choices=["auto", "cpu", "cuda", "mps"],
    default="auto",
    help="where to compute (default: auto, the fastest of this machine)",
)


IMAGES = "image files, folders of them (with all below), or patterns such as 'photos/*.jpg'"


def precision(default: str | None, about: str) -> Option:
    return option(
        "--precision",
        choices=["auto", "fp32", "bf16", "fp16"],
        default=default,
        help=f"fp32 gives the same answer on all machines, auto is the fastest here (default: {about})",
    )


def export_format(default: str) -> Option:
    return option(
        "--format",
        metavar="NAME",
        default=default,
        help="safetensors (Patchlight's own) and onnx take every model; timm takes plain ViTs and models of timm; hf "
        "takes plain ViTs with a CLS token and models of Hugging Face (default: %(default)s)",
    )


VERBS = {
    "train": Verb(
        "train by a recipe, evaluate on the test images, write the report",
        "patchlight train cifar10-cpu --data.source my_images --train.epochs 20 --out runs/mine\n\n"
        "`patchlight recipes --fields` lists every --section.field with its meaning",
        (
            option("recipe", help="a recipe's name (`patchlight recipes`) or a TOML file"),
            option("--out", type=path, metavar="DIR", help="the run folder (default: runs/NAME)"),
            option("--resume", action="store_true", help="go on with the run that is in this folder"),
            option("--overwrite", action="store_true", help="replace the run that is in this folder"),
            SEEDS,
            OFFLINE,
            JSON,
        ),
        call="patchlight.cli.main:train_or_seeds",
        text="patchlight.cli.study_output:any_text",
        json="patchlight.cli.study_output:any_json",
        failed="patchlight.cli.study_output:some_failed",
        settings="section.field",
    ),
    "sweep": Verb(
        "try settings of a recipe at random and near good ones, and keep the best",
        "patchlight sweep quickstart optim.lr=1e-4..1e-2:log train.batch_size=32,64,128 model.depth=2..6\n"
        "  patchlight sweep cifar10-cpu augment.mixup_alpha=0..0.4:0.1 optim.name=adamw,muon --time 8h --workers 2\n\n"
        "a range is LOW..HIGH, LOW..HIGH:log, LOW..HIGH:STEP, or values with commas between them; the same command\n"
        "goes on with a sweep, also in further processes and on machines that share the folder or the --storage;\n"
        "the test images are not read",
        (
            option("recipe", help="a recipe's name (`patchlight recipes`) or a TOML file"),
            option("ranges", nargs="+", metavar="FIELD=RANGE", help="a setting and what to try of it"),
            option("--trials", type=int, metavar="N", help="how many trials (default: 30; of a grid all)"),
            option("--time", metavar="TIME", help="such as 90s, 10m or 8h: no trial trains any longer than until then"),
            option(
                "--sampler",
                metavar="NAME",
                default="tpe",
                help="how settings are chosen: tpe (near good ones, after ten at random), random, or grid (all "
                "combinations, in a random order) (default: tpe)",
            ),
            option(
                "--pruner",
                metavar="NAME",
                default="median",
                help="how a trial that is clearly behind is ended: median, hyperband or none (default: median)",
            ),
            option("--seed", type=int, default=0, metavar="N", help="random seed of the choice (default: 0)"),
            option("--out", type=path, metavar="DIR", help="the sweep's folder (default: runs/NAME-sweep)"),
            option(
                "--storage",
                metavar="FILE|URL",
                help="where trials are kept: a file, or a database as postgresql://USER:PASSWORD@HOST/NAME (default: "
                "DIR/sweep.journal)",
            ),
            option("--workers", type=int, default=1, metavar="N", help="processes on this machine (default: 1)"),
            option("--retry-failed", action="store_true", help="try those trials again that have failed"),
            OFFLINE,
            JSON,
        ),
        call="patchlight.commands.sweep:sweep",
        text="patchlight.cli.sweep_text:sweep_text",
        failed="patchlight.cli.sweep_text:none_is_finished",
        settings="section.field",
    ),
    "eval": Verb(
        "measure a finished run on its own data or another source",
        "patchlight eval runs/quickstart --split test --json\n"
        "  patchlight eval runs/pets --data more.csv --data.label_column breed",
        (
            WEIGHTS,
            option(
                "--data",
                metavar="SOURCE",
                help="another source with the same classes (one without splits is taken whole)",
            ),
            option("--split", choices=SPLIT_NAMES, help=f"which images; {SUBSET} ({USUAL})"),
            precision(None, "that of the recipe"),
            DEVICE,
            OFFLINE,
            JSON,
        ),
        call="patchlight.commands.evaluate:evaluate",
        text="patchlight.cli.text:result_table",
        settings="data.field",
    ),
    "predict": Verb(
        "say what is on image files of any size and mode",
        "patchlight predict runs/quickstart photo.jpg scan.png --top 3\n"
        "  patchlight predict runs/quickstart photos --csv answers.csv\n\n"
        "the exit code is 1 where an image cannot be read; the others are answered",
        (
            WEIGHTS,
            option("images", nargs="+", metavar="IMAGE", type=path, help=IMAGES),
            option("--top", type=int, default=5, metavar="N", help="how many classes to list (default: 5)"),
            option(
                "--csv",
                type=path,
                metavar="FILE",
                help="write a row for each image into this file, also for those that cannot be read (column error)",
            ),
            precision("auto", "auto"),
            DEVICE,
            JSON,
        ),
        call="patchlight.commands.predict:predict_files",
        text="patchlight.cli.text:prediction_texts",
        failed="patchlight.cli.text:some_are_bad",
    ),
    "explain": Verb(
        "show what the model looked at, or measure how far each map can be believed",
        "patchlight explain runs/quickstart photo.jpg --method all\n"
        "  patchlight explain runs/quickstart --class 3 --class 8\n"
        "  patchlight explain runs/quickstart --faithfulness\n\nmethods:\n  " + ", ".join(METHOD_NAMES),
        (
            WEIGHTS,
            option("images", nargs="*", metavar="IMAGE", type=path, help=f"{IMAGES} (default: test images of the run)"),
            *OF_A_SPLIT,
            *MAPS,
            option(
                "--out",
                type=path,
                metavar="DIR",
                help="where figures and arrays go (default: RUN/explain), or faithfulness.json (default: RUN)",
            ),
            DEVICE,
            OFFLINE,
            JSON,
        ),
        call="patchlight.cli.main:explain_or_measure",
        text="patchlight.cli.explain_text:explanation_text",
    ),
    "probe": Verb(
        "measure how good a model's features are, by a linear probe and nearest neighbours",
        "patchlight probe finetune --model.name google/vit-base-patch16-224 --data.source pets",
        (
            option("recipe", help="a recipe: its data, model and precision are used, its training is not"),
            OFFLINE,
            JSON,
        ),
        call="patchlight.commands.probe:probe",
        text="patchlight.cli.text:probe_table",
        settings="section.field",
    ),
    "report": Verb(
        "rebuild report.html, figures/ and README.md from a run folder",
        "patchlight report runs/quickstart",
        (RUN,),
        call="patchlight.commands.report:report",
    ),
    "export": Verb(
        "write a run's model in another format, read it back and compare",
        "patchlight export runs/quickstart --format onnx",
        (
            WEIGHTS,
            export_format("safetensors"),
            option("--out", type=path, metavar="DIR", help="where it goes (default: RUN/export/FORMAT)"),
            JSON,
        ),
        call="patchlight.commands.export:export",
        text="patchlight.cli.text:export_text",
    ),
    "push": Verb(
        "upload a run's model to the Hugging Face hub",
        "hf auth login\n  patchlight push runs/quickstart me/digits --format onnx",
        (
            WEIGHTS,
            option("repository", metavar="OWNER/NAME", help="the repository, made if it is not there"),
            export_format("timm"),
            option("--private", action="store_true", help="make it a private one"),
            JSON,
        ),
        call="patchlight.commands.push:push",
        text="patchlight.cli.text:push_text",
    ),
    "compare": Verb(
        "put runs side by side by validation accuracy, seeds together, and list what differs in their settings",
        "patchlight compare runs/vit-tiny runs/resnet18-cifar10\n  patchlight compare runs/* --format md > runs.md",
        (
            option("runs", nargs="+", metavar="RUN", type=path, help="run folders"),
            option("--each", action="store_true", help="a row for each run, also of those that differ only by seed"),
            option(
                "--format",
                metavar="NAME",
                default="text",
                help="text, md (Markdown), csv, latex (for pdflatex, with booktabs) or json (default: text)",
            ),
            option("--json", dest="format", action="store_const", const="json", help="as --format json"),
        ),
        call="patchlight.cli.compare_text:compared",
        text="patchlight.cli.compare_text:comparison_text",
    ),
    "study": replace(STUDY, options=(*STUDY.options, OFFLINE, JSON)),
    "recipes": Verb(
        "list the recipes, or print one",
        "patchlight recipes cifar10-cpu",
        (
            option("recipe", nargs="?", help="print this recipe"),
            option("--fields", action="store_true", help="list every setting, its default and its meaning"),
        ),
        call="patchlight.commands.recipes:list_recipes",
        text="patchlight.cli.text:recipes_text",
    ),
    "models": Verb(
        "list the models, or describe one layer by layer",
        "patchlight models vit-tiny --model.patch_size 8",
        (
            option(
                "name", nargs="?", help="describe this one: a row of the list, timm/NAME, OWNER/NAME or a run folder"
            ),
            option(
                "--img-size",
                type=int,
                metavar="PIXELS",
                help="pixels a side (default: the size that pretrained weights were made for, else 32)",
            ),
            option("--classes", type=int, default=10, metavar="N", help="number of classes (default: 10)"),
            JSON,
        ),
        call="patchlight.commands.models:list_models",
        text="patchlight.cli.text:models_text",
        json="patchlight.cli.text:models_json",
        settings="model.field",
    ),
    "data": Verb(
        "look at a data source: splits, balance, samples, augmentation, a batch, bad and duplicate files",
        "patchlight data my_images --augment.policy randaugment\n  patchlight data --recipe vit-small8-two-stage\n\n"
        "the exit code is 1 where there are problems",
        (
            option(
                "source",
                nargs="?",
                help="digits, planted, cifar10, cifar100, hf:owner/name[:config], or a path (default: the recipe's)",
            ),
            option(
                "--recipe",
                help="whose splits, augmentation, mixing and normalisation are shown (default: cifar10-cpu)",
            ),
            option("--out", type=path, metavar="DIR", help="where the pictures go (default: previews/NAME)"),
            option("--overwrite", action="store_true", help="replace pictures that are there"),
            OFFLINE,
            JSON,
        ),
        call="patchlight.commands.audit:audit",
        text="patchlight.cli.data_text:data_text",
        failed="patchlight.cli.data_text:has_problems",
        settings="section.field",
    ),
    "doctor": Verb(
        "say what this machine is good for, and how many epochs of each recipe fit into a time",
        "patchlight doctor --budget 30m",
        (
            option(
                "--budget",
                metavar="TIME",
                help="a training time such as 90s, 10m or 1h30m; every recipe that learns labels and needs no hub is "
                "tried, which takes minutes",
            ),
            DEVICE,
            JSON,
        ),
        call="patchlight.commands.doctor:doctor",
        text="patchlight.cli.text:doctor_text",
    ),
}


class Parser(argparse.ArgumentParser):
    """argparse that answers a mistake with one sentence."""

    def error(self, message: str) -> NoReturn:
        if missing := re.fullmatch(r"argument (--[\w-]+): expected one argument", message):
            message += f" (one that begins with '-' is written {missing[1]}=VALUE)"
        raise UsageError(f"{message}; see `{self.prog} --help`")


def build_parser(given: str) -> Parser:
    """The parser of all commands, with the options of the one that is `given`: those of all would take time."""
    parser = Parser(
        prog="patchlight",
        description="Train, evaluate and look inside Vision Transformers on small-image data sets.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    commands = parser.add_subparsers(dest="verb", metavar="COMMAND")
    for name, verb in VERBS.items():
        command = commands.add_parser(
            name,
            help=verb.summary,
            usage=f"patchlight {name} {verb.usage}",
            description=verb.summary[0].upper() + verb.summary[1:] + ".",
            allow_abbrev=False,
            epilog=f"example:\n  {verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for each in (*verb.options, DEBUG) if name == given else ():
            command.add_argument(*each.names, **each.keywords)
    return parser


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


def nearest_argument(word: str, verb: Verb) -> str:
    """The end of an error message: the command's option or setting that `word` may have meant.

    `--epochs` is `--train.epochs`.
    """
    known = [name for each in (*verb.options, DEBUG) for name in each.names if name.startswith("-")]
    if verb.settings:
        keys = [f"--{info.key}" for info in describe_fields()]
        same_field = [key for key in keys if key.split(".")[1] == word.removeprefix("--").replace("-", "_")]
        if same_field:
            return f"did you mean '{same_field[0]}'?"
        known += keys
    return did_you_mean(word, [*known, "--help"])
