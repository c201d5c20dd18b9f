"""The row of `patchlight study` in the table of commands."""

from __future__ import annotations

from patchlight.cli.words import Verb, option, path

SEEDS = option("--seeds", metavar="0,1,2", help="random seeds, each of which is a run")

STUDY = Verb(
    "train variants of a recipe with several seeds, and say which differ",
    "patchlight study ladder --dry-run\n  patchlight study ladder\n  patchlight study mine.toml --seeds 0,1,2,3,4\n\n"
    "without a name it lists the studies that come with Patchlight; repeat the command to go on with one that was\n"
    "stopped, or to help with it from another process or machine that shares the folders",
    (
        option("file", nargs="?", metavar="STUDY", help="a study's name or a TOML file (default: list them)"),
        option("--size", metavar="NAME", help="one of the study's sizes, such as cpu or gpu (default: its first)"),
        SEEDS,
        option(
            "--test",
            choices=["chosen", "all", "none"],
            help="whose test images are read at the end (default: of the variant that validation chose)",
        ),
        option("--workers", type=int, metavar="N", help="processes on this machine that share the runs (default: 1)"),
        option(
            "--no-wait", dest="wait", action="store_false", help="end where all runs left are in other workers' hands"
        ),
        option("--dry-run", action="store_true", help="train nothing: say runs, cost and finish time from timed steps"),
        option("--out", type=path, metavar="DIR", help="the study's folder (default: studies/NAME)"),
        option("--runs", type=path, metavar="DIR", help="where run folders are kept and found (default: beside it)"),
    ),
    call="patchlight.commands.study:study_or_list",
    text="patchlight.cli.study_output:any_text",
    json="patchlight.cli.study_output:any_json",
    failed="patchlight.cli.study_output:some_failed",
    settings="section.field",
)
