"""What the verbs' plain data look like as text in a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from patchlight.config import About, FieldInfo
from patchlight.units import clock, percent, short

if TYPE_CHECKING:
    from patchlight.data.audit import Audit, DuplicateGroup, SplitCounts


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = (), left: int = 1) -> str:
    """Aligned columns, the first `left` of them to the left and the others to the right."""
    lines = [list(header), *map(list, rows)] if header else [list(row) for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    aligned = [
        [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def share(value: float | None) -> str:
    """In percent; a dash where there is none."""
    return "-" if value is None else percent(value, 2)


def result_line(result: dict[str, Any]) -> str:
    if "top1" not in result:
        if result["val_loss"] is None:
            return f"kept epoch {result['epoch']}, the last; there are no validation images"
        return f"kept epoch {result['epoch']}: validation loss {result['val_loss']:.4f} of the hidden patches' pixels"
    low, high = result["top1_ci95"]
    mirrored = f"; {share(result['mirrored']['top1'])} averaged with mirror images" if "mirrored" in result else ""
    subset = ""
    if "subset_test" in result:
        own = result["subset_test"]
        low_own, high_own = own["top1_ci95"]
        subset = (
            f"; {share(own['top1'])} ({100 * low_own:.2f} to {100 * high_own:.2f}) of the {own['n']:,} test images of "
            "the subset"
        )
    return (
        f"{result['split']} accuracy {share(result['top1'])} "
        f"(95 % interval {100 * low:.2f} to {100 * high:.2f}, {result['n']:,} images){mirrored}{subset}"
    )


def result_table(result: dict[str, Any]) -> str:
    facts = [
        *([("top-5 accuracy", share(result["top5"]))] if len(result["per_class"]) > 5 else []),
        ("loss", f"{result['loss']:.4f}"),
        ("calibration error (ECE)", share(result["ece"])),
    ]
    counts = [sum(row) for row in result["confusion"]]
    classes = [(name, share(rate), str(n)) for (name, rate), n in zip(result["per_class"].items(), counts, strict=True)]
    return f"{result_line(result)}\n\n{table(facts)}\n\n{table(classes, ('class', 'accuracy', 'images'))}"


def probe_table(result: dict[str, Any]) -> str:
    rows = []
    for key, about, choice in (("linear", "linear probe", "C"), ("knn", "nearest neighbours", "k")):
        found = result[key]
        low, high = found["top1_ci95"]
        rows.append(
            (
                about,
                f"{choice} = {found[choice]:g}",
                share(found["val_top1"]),
                share(found["top1"]),
                f"{100 * low:.2f} to {100 * high:.2f}",
                f"{found['seconds']:.1f} s",
            )
        )
    heads = ("", "chosen", "validation", "test", "95 % interval", "time")
    first = f"{result['features']} features of {result['model']} on {result['data']}, in {result['features_s']:.1f} s"
    return f"{first}\n\n{table(rows, heads)}"


def prediction_table(answers: list[dict[str, Any]]) -> str:
    blocks = []
    for answer in answers:
        rows = [("  " + c["class"], share(c["probability"])) for c in answer["classes"]]
        blocks.append(f"{answer['image']}\n{table(rows)}")
    return "\n".join(blocks)


def comparison_table(result: dict[str, Any]) -> str:
    rows = [
        (
            run["run"],
            run["model"],
            f"{100 * run['top1']:.2f}",
            f"{100 * run['top1_ci95'][0]:.2f}-{100 * run['top1_ci95'][1]:.2f}",
            f"{run['n']:,}",
            short(run["params"]),
            short(run["flops_per_image"]),
            f"{run['images_per_s']:,.0f}",
            clock(run["train_wall_s"]),
        )
        for run in result["runs"]
    ]
    header = ("run", "model", "accuracy %", "95 % interval", "n", "params", "FLOPs", "images/s", "time")
    text = table(rows, header, left=2)
    if len({(run["data"], run["n"]) for run in result["runs"]}) > 1:
        text += "\n\nthese runs were tested on different images; their accuracies cannot be compared"
    if result["differences"]:
        shown = [(key, *(_cell(value) for value in values)) for key, values in result["differences"].items()]
        names = [run["run"] for run in result["runs"]]
        text += "\n\n" + table(shown, ("setting", *names), left=1)
    return text


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def recipe_table(abouts: list[About]) -> str:
    blocks = []
    for about in abouts:
        facts = [("what", about.title), ("from", about.source), ("cost", about.cost), ("expect", about.expect)]
        lines = [
            textwrap.fill(text, 100, initial_indent=f"  {word:<8}", subsequent_indent=" " * 10) for word, text in facts
        ]
        blocks.append("\n".join([about.name, *lines]))
    return "\n\n".join(blocks)


def field_table(fields: list[FieldInfo]) -> str:
    rows = []
    for info in fields:
        if isinstance(info.default, tuple):
            default = ", ".join(f"{v:g}" for v in info.default)
        else:
            default = (
                "unset"
                if info.default is None
                else str(info.default).lower()
                if info.kind == "bool"
                else str(info.default)
            )
        allowed = f"{info.kind}, {info.allowed}" if info.allowed else info.kind
        rows.append((info.key, default, f"{info.meaning} ({allowed})"))
    return table(rows, ("setting", "default", "meaning"), left=3)


def model_table(models: list[dict[str, Any]]) -> str:
    rows = [
        (
            m["name"],
            f"{m['params']:,}",
            short(m["flops_per_image"]),
            str(m["tokens"] or "-"),
            str(m["patch_size"] or "-"),
        )
        for m in models
    ]
    return table(rows, ("model", "parameters", "FLOPs/image", "tokens", "patch"))


def layer_table(model: dict[str, Any]) -> str:
    rows = [(row["layer"], row["kind"], row["shape"], f"{row['params']:,}") for row in model["layers"]]
    facts = [
        ("parameters", f"{model['params']:,}"),
        ("trainable", f"{model['trainable']:,}"),
        ("FLOPs per image", f"{model['flops_per_image']:,} (a multiply-add is two)"),
        ("image", f"{model['img_size']}x{model['img_size']}"),
    ]
    if model["stem_flops"] is not None:
        shares = model["stem_flops"] / model["flops_per_image"], model["stem_params"] / model["params"]
        facts.append(("stem", f"{percent(shares[0])} of the FLOPs, {percent(shares[1])} of the parameters"))
    if model["tokens"]:
        side = model["img_size"] // model["patch_size"]
        prefix = model["tokens"] - side * side
        facts.append(
            ("tokens", f"{model['tokens']} = {side} x {side} patches of {model['patch_size']} pixels + {prefix} prefix")
        )
    return f"{table(rows, ('layer', 'kind', 'output', 'parameters'), left=3)}\n\n{table(facts, left=2)}"


def audit_text(audit: Audit) -> str:
    trained = audit.trained_on
    shown: dict[str, SplitCounts] = dict(audit.splits)
    if trained:
        sets = {"train": trained.train, "val": trained.val, "test": trained.test}
        shown = {name: counts for name, counts in sets.items() if counts}
    rows = [(cls, *(str(counts.per_class[cls]) for counts in shown.values())) for cls in audit.classes]
    rows.append(("all", *(f"{counts.images:,}" for counts in shown.values())))
    blocks = [table(rows, ("class", *shown))]
    facts = [
        ("sizes", _counts(audit.sizes)),
        ("modes", _counts(audit.modes)),
        ("bad files", str(len(audit.bad_files))),
        ("duplicates", f"{audit.duplicates.extra} in {audit.duplicates.groups} groups"),
    ]
    if trained:
        batch = trained.batch
        facts += [(name, ", ".join(f"{v:.4f}" for v in getattr(trained, name))) for name in ("mean", "std")]
        facts.append(("a batch", f"{' x '.join(map(str, batch.shape))} {batch.dtype}, {batch.min} to {batch.max}"))
    blocks.append(table(facts, left=2))
    blocks += ["\n".join(f"bad: {bad.name}: {bad.reason}" for bad in audit.bad_files[:20])]
    groups = [group for group in audit.duplicates.listed if group.across_splits or group.label_conflict]
    blocks += ["\n".join(_group(group) for group in groups[:20])]
    blocks += ["\n".join([*audit.notes, *(f"problem: {problem}" for problem in audit.problems)])]
    blocks += ["\n".join(audit.figures) or "no pictures: the source cannot be trained on as it is"]
    return "\n\n".join(block for block in blocks if block)


def _counts(counts: dict[str, int]) -> str:
    most = sorted(counts.items(), key=lambda item: -item[1])
    more = f" and {len(most) - 5} more" if len(most) > 5 else ""
    return ", ".join(f"{name} ({n:,})" for name, n in most[:5]) + more


def _group(group: DuplicateGroup) -> str:
    return "same pixels: " + ", ".join(f"{i.split}/{i.name} ({i.label})" for i in group.images)


def doctor_text(found: dict[str, Any]) -> str:
    hardware, ratio = found["hardware"], found["bf16_speedup"]
    speed = f"{found['precision']} (bf16 is {ratio:.1f} times as fast as fp32 here)" if ratio else found["precision"]
    facts = [
        ("device", hardware["gpu"] or f"{hardware['cpu']}, {hardware['cores']} cores"),
        ("memory", f"{hardware['memory_gb']} GiB"),
        ("precision", speed),
        ("threads", str(found["threads"])),
        ("allocator", found["allocator"]),
        ("torch", found["versions"]["torch"]),
        ("torch.compile", "possible" if found["compiler"] or found["device"] != "cpu" else "needs a C++ compiler"),
    ]
    advice = "\n".join(f"advice: {line}" for line in found["advice"])
    blocks = [table(facts, left=2), advice or "advice: none; nothing here would speed training up"]
    if "recipes" in found:
        rows = [
            (
                row["recipe"],
                f"{row['images_per_s']:,.0f}",
                f"{row['epochs']:.3g}",
                clock(row["own_s"]),
                f"{row['memory_gb']:.1f}",
                share(row["top1"]),
            )
            for row in found["recipes"]
        ]
        header = (
            "recipe",
            "images/s",
            f"epochs in {clock(found['budget_s'])}",
            "time for all of its own",
            "GB",
            "accuracy after these",
        )
        blocks.append(table(rows, header))
        if found["not_tried"]:
            names = ", ".join(found["not_tried"])
            blocks.append(f"not tried, as they begin with weights of a hub: {names}")
        if best := found["best"]:
            enough = "" if best["enough"] else f" ({percent(best['share'])} of the epochs that it wants)"
            blocks.append(
                f"best for CIFAR-10 in this time{enough}: patchlight train {best['recipe']} --train.budget "
                f"{found['budget_s']:g}s"
            )
    return "\n\n".join(block for block in blocks if block)


# The measures that fit a terminal's width; --json has all.
SHOWN_MEASURES = {
    "deletion mean": "deletion",
    "insertion mean": "insertion",
    "deletion tokens": "del. tokens",
    "insertion tokens": "ins. tokens",
    "infidelity": "infidelity",
    "sensitivity": "sensitivity",
    "randomized": "randomized",
    "other class": "other class",
    "pointing": "pointing",
}
LEGEND = (
    "deletion: mean probability while the most important patches are removed first, lower is better; insertion: the "
    "least important first, higher is better; infidelity: share of the logit's falls that the map does not predict, "
    "lower is better (what random reaches, the number of removed patches predicts alone); sensitivity: change of the "
    "map under slight noise, lower is better; randomized: rank correlation with the map of the same network with "
    "random weights, near 0 is good; other class: rank correlation with the map for the least likely class, 1 is blind "
    "to the class. Mean and half of the 95 % interval. A map that is no better than random or centre is not to be "
    "believed."
)


def faithfulness_table(result: dict[str, Any]) -> str:
    """The methods below each other, the controls last."""
    measures = [key for key in SHOWN_MEASURES if key in result["rows"][0]["scores"]]
    rows = [
        (
            row["method"] + ("" if row["by_class"] else " (blind)"),
            *(_with_interval(row["scores"][key]) for key in measures),
            f"{row['ms']:.2f}",
            f"{row['ratio']:.1f}",
        )
        for row in result["rows"]
    ]
    header = ("method", *(SHOWN_MEASURES[key] for key in measures), "ms/image", "forwards")
    legend = "\n".join(textwrap.wrap(LEGEND, 120))
    return f"{result['n']:,} images, for the predicted class\n\n{table(rows, header)}\n\n{legend}"


def _with_interval(score: dict[str, float]) -> str:
    half = max(score["high"] - score["mean"], score["mean"] - score["low"])
    return f"{score['mean']:.2f} ±{half:.2f}".replace("0.", ".")


def explanation_text(result: dict[str, Any]) -> str:
    rows = [
        (image["image"], image["predicted"], share(image["probability"]), image["true"] or "", image["target"])
        for image in result["images"]
    ]
    images = table(rows, ("image", "predicted", "probability", "true", "explained"), left=2)
    files = table([*result["figures"].items(), ("arrays", result["arrays"])], left=2)
    return f"{images}\n\n{faithfulness_table(result['faithfulness'])}\n\n{files}"
