"""`python -m benchmarks [NAME...]`: measure, each benchmark in a fresh process, and keep the results as JSON."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from benchmarks.catalogue import CATALOGUE
from benchmarks.options import Options
from benchmarks.record import measure, write
from patchlight.machine.device import resolve_device


def parse(words: list[str]) -> argparse.Namespace:
    rows = "\n".join(f"  {name:10} {row.about}" for name, row in CATALOGUE.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{__doc__}\n\nbenchmarks:\n{rows}",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all without a name")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works; numbers mean nothing")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--out", type=Path, help="folder of the JSON files (docs/benchmarks; quick: runs/benchmarks)")
    parser.add_argument("--rounds", type=int, help="turns of each contender, or seeds of what trains")
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="of what trains: the budget of each plan; of `full`: of all"
    )
    parser.add_argument(
        "--source", default="digits", help="of what trains, and of `startup`: as data.source of a recipe"
    )
    parser.add_argument(
        "--recipe",
        action="append",
        default=[],
        metavar="NAME",
        help="of `accuracy`, `ablation`, `breakdown` and `full`: ours; may be given several times",
    )
    parser.add_argument("--model", default="", help="of `transfer`: pretrained weights, as model.name of a recipe")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="of `pretraining`, `transfer` and `full`: leave the runs there; the same command goes on with them",
    )
    args = parser.parse_args(words)
    for name in args.names:
        if name not in CATALOGUE:
            parser.error(f"no benchmark '{name}'; known are {', '.join(CATALOGUE)}")
    args.out = args.out or Path("runs/benchmarks" if args.quick else "docs/benchmarks")
    return args


def each_alone(names: list[str], args: argparse.Namespace) -> int:
    """Every benchmark in a process of its own: memory settings and warm caches of one must not help the next."""
    settings = ["--device", args.device, "--out", str(args.out), "--minutes", f"{args.minutes:g}"]
    settings += ["--source", args.source, *(word for recipe in args.recipe for word in ("--recipe", recipe))]
    settings += ["--keep", str(args.keep)] if args.keep else []
    settings += ["--model", args.model] if args.model else []
    settings += ["--quick"] if args.quick else []
    settings += ["--rounds", str(args.rounds)] if args.rounds else []
    failed = []
    for name in names:
        if subprocess.run([sys.executable, "-m", "benchmarks", name, *settings]).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def main(words: list[str]) -> int:
    args = parse(words)
    names = args.names or list(CATALOGUE)
    if len(names) > 1:
        return each_alone(names, args)
    options = Options(
        quick=args.quick,
        device=resolve_device(args.device),
        rounds=args.rounds,
        minutes=args.minutes,
        source=args.source,
        model=args.model,
        recipes=tuple(args.recipe),
        keep=args.keep.resolve() if args.keep else None,
    )
    print(f"{names[0]}: {CATALOGUE[names[0]].about} ...", file=sys.stderr)
    command = f"python -m benchmarks {shlex.join(words)}"
    record = measure(names[0], options, command)
    print(f"{write(args.out, record)}: {record['seconds']:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
