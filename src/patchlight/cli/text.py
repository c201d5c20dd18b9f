"""What the commands' results look like as text in a terminal, and as JSON where `to_json()` is not all of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from patchlight.config import About, FieldInfo
from patchlight.units import clock, counted, percent, printable, short, shortened

if TYPE_CHECKING:
    from patchlight.commands.doctor import Checkup, Forecast
    from patchlight.commands.export import ExportResult
    from patchlight.commands.models import ModelDescription
    from patchlight.commands.predict import Answers
    from patchlight.commands.probe import ProbeResult
    from patchlight.commands.push import PushResult
    from patchlight.runs import EvalResult, Run, ValidationResult
    from patchlight.runs.folder import Result


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = (), left: int = 1) -> str:
    """Aligned columns, the first `left` of them to the left and the others to the right. A cell is one line, whatever
    is in it; of a very long one the beginning and the end, but in the last column, behind which nothing stands.
    """
    lines = [
        [*map(shortened, row[:-1]), *map(printable, row[-1:])] for row in ([header] if header else []) + list(rows)
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    aligned = [
        [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def rate(value: float | None) -> str:
    """A number in 0..1 in percent; a dash for None."""
    return "-" if value is None else percent(value, 2)


def interval(bounds: tuple[float, float], between: str = " to ") -> str:
    """An interval of rates in percent, without the sign: 91.20 to 93.40."""
    return f"{100 * bounds[0]:.2f}{between}{100 * bounds[1]:.2f}"


def as_json(result: Any) -> dict[str, Any]:
    """Plain data for JSON."""
    return result.to_json()


def trained_text(run: Run) -> str:
    """The result of a run that was trained, and where to look."""
    report, model = (printable(run.path / name) for name in ("report.html", "model"))
    return f"{result_line(run.result())}\nreport  {report}\nmodel   {model}"


def trained_json(run: Run) -> dict[str, Any]:
    return {"run": str(run.path), **run.result().to_json()}


def result_line(result: Result) -> str:
    """The result in one line."""
    from patchlight.runs import ReconstructionResult, ValidationResult, tells_more

    if isinstance(result, ValidationResult):
        return validation_line(result)

    if isinstance(result, ReconstructionResult):
        if result.val_loss is None:
            return f"kept epoch {result.epoch}, the last; there are no validation images"
        return f"kept epoch {result.epoch}: validation loss {result.val_loss:.4f} of the hidden patches' pixels"
    more = ""
    if result.balanced_accuracy is not None and tells_more(result.confusion):
        more += f"; balanced accuracy {rate(result.balanced_accuracy)}"
    if result.mirrored is not None:
        more += f"; {rate(result.mirrored.top1)} averaged with mirror images"
    if (own := result.subset_test) is not None:
        more += f"; {rate(own.top1)} ({interval(own.top1_ci95)}) of the {own.n:,} test images of the subset"
    if (own := result.without_copies) is not None:
        more += f"; {rate(own.top1)} on the {own.n:,} that look like no training or validation image"
    of = f" of the weights of {result.weights}" if result.weights else ""
    return (
        f"{result.split.replace('_', ' ')} accuracy{of} {rate(result.top1)} "
        f"(95 % interval {interval(result.top1_ci95)}, {counted(result.n, 'image')}){more}"
    )


def validation_line(result: ValidationResult) -> str:
    """What a run ended with that read no test image."""
    unread = "the test images were not read (eval.test = false)"
    if result.top1 is None or result.top1_ci95 is None or result.n is None:
        return f"kept epoch {result.epoch}, the last; there are no validation images, and {unread}"
    bounds = f"95 % interval {interval(result.top1_ci95)}, {counted(result.n, 'image')}"
    return f"validation accuracy {rate(result.top1)} at epoch {result.epoch}, the one kept ({bounds}); {unread}"


def result_table(result: EvalResult) -> str:
    """The result, then precision, recall and F1 of each class."""
    facts = [
        *([] if result.balanced_accuracy is None else [("balanced accuracy", rate(result.balanced_accuracy))]),
        *([("top-5 accuracy", rate(result.top5))] if len(result.per_class) > 5 else []),
        ("loss", f"{result.loss:.4f}"),
        ("calibration error (ECE)", rate(result.ece)),
    ]
    return f"{result_line(result)}\n\n{table(facts)}\n\n{class_table(result)}"


def class_table(result: EvalResult) -> str:
    """A row for each class, and the means over the classes, which older results do not have."""
    counts = [sum(row) for row in result.confusion]
    if result.scores is None or result.macro is None:
        columns = zip(result.per_class.items(), counts, strict=True)
        return table([(name, rate(recall), str(n)) for (name, recall), n in columns], ("class", "recall", "images"))
    scores = [*result.scores.items(), ("mean (macro)", result.macro)]
    rows = [
        (name, rate(each.precision), rate(each.recall), rate(each.f1), f"{n:,}")
        for (name, each), n in zip(scores, [*counts, sum(counts)], strict=True)
    ]
    note = "recall is the accuracy of a class; precision is 0 where a class is never predicted"
    return f"{table(rows, ('class', 'precision', 'recall', 'F1', 'images'))}\n\n{note}"


def probe_table(result: ProbeResult) -> str:
    """A row for each of the two classifiers."""
    rows = [
        (
            about,
            chosen,
            rate(score.val_top1),
            rate(score.top1),
            interval(score.top1_ci95),
            f"{score.seconds:.1f} s",
        )
        for about, chosen, score in (
            ("linear probe", f"C = {result.linear.c:g}", result.linear),
            ("nearest neighbours", f"k = {result.knn.k}", result.knn),
        )
    ]
    header = ("", "chosen", "validation", "test", "95 % interval", "time")
    first = f"{result.features} features of {result.model} on {result.data}, in {result.features_s:.1f} s"
    return f"{first}\n\n{table(rows, header)}"


def prediction_texts(answers: Answers) -> Iterator[str]:
    """The classes of each image below its name, as they come; of a CSV file where it is."""
    if answers.csv:
        yield f"{printable(answers.csv)}: {counted(answers.count, 'image')}"
        return
    for prediction in answers:
        if not prediction.error:  # that is said on standard error
            rows = [("  " + each.name, rate(each.probability)) for each in prediction.classes]
            yield f"{printable(prediction.image)}\n{table(rows)}"


def some_are_bad(answers: Answers) -> bool:
    """Whether an image could not be read."""
    return bool(answers.bad)


def export_text(result: ExportResult) -> str:
    files = ", ".join(result.files)
    where = printable(result.folder or "")
    return f"{where}: {files}\nlogits differ from the run's by {result.max_difference:.1e} at most"


def push_text(result: PushResult) -> str:
    return result.url


def setting_text(value: object) -> str:
    """The value of a setting; a dash where it is not set."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ", ".join(setting_text(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def recipes_text(result: str | list[About] | list[FieldInfo]) -> str:
    """One recipe as it is written, the list of all, or that of all settings."""
    if isinstance(result, str):
        return result.removesuffix("\n")
    fields = [info for info in result if isinstance(info, FieldInfo)]
    return _field_table(fields) if fields else "\n\n".join(_about(each) for each in result if isinstance(each, About))


def _about(about: About) -> str:
    facts = [("what", about.title), ("from", about.source), ("cost", about.cost), ("expect", about.expect)]
    lines = [
        textwrap.fill(printable(text), 100, initial_indent=f"  {word:<8}", subsequent_indent=" " * 10)
        for word, text in facts
    ]
    return "\n".join([printable(about.name), *lines])


def _field_table(fields: list[FieldInfo]) -> str:
    rows = []
    for info in fields:
        default = "unset" if info.default is None else setting_text(info.default)
        allowed = f"{info.kind}, {info.allowed}" if info.allowed else info.kind
        rows.append((info.key, default, f"{info.meaning} ({allowed})"))
    return table(rows, ("setting", "default", "meaning"), left=3)


def models_text(result: list[ModelDescription] | ModelDescription) -> str:
    """All models, or one layer by layer."""
    if not isinstance(result, list):
        return _layer_table(result)
    rows = [
        (
            model.name,
            f"{model.size.params:,}",
            short(model.size.flops_per_image),
            str(model.size.tokens or "-"),
            str(model.size.patch_size or "-"),
        )
        for model in result
    ]
    return table(rows, ("model", "parameters", "FLOPs/image", "tokens", "patch"))


def models_json(result: list[ModelDescription] | ModelDescription) -> dict[str, Any]:
    return {"models": [model.to_json() for model in result]} if isinstance(result, list) else result.to_json()


def _layer_table(model: ModelDescription) -> str:
    size = model.size
    rows = [(layer.layer, layer.kind, layer.shape, f"{layer.params:,}") for layer in model.layers or ()]
    facts = [
        ("parameters", f"{size.params:,}"),
        ("trainable", f"{size.trainable:,}"),
        ("FLOPs per image", f"{size.flops_per_image:,} (a multiply-add is two)"),
        ("image", f"{size.img_size}x{size.img_size}"),
    ]
    if size.stem_flops is not None and size.stem_params is not None:
        parts = size.stem_flops / size.flops_per_image, size.stem_params / size.params
        facts.append(("stem", f"{percent(parts[0])} of the FLOPs, {percent(parts[1])} of the parameters"))
    if size.tokens and size.patch_size:
        side = size.img_size // size.patch_size
        prefix = size.tokens - side * side
        facts.append(
            ("tokens", f"{size.tokens} = {side} x {side} patches of {size.patch_size} pixels + {prefix} prefix")
        )
    return f"{table(rows, ('layer', 'kind', 'output', 'parameters'), left=3)}\n\n{table(facts, left=2)}"


def doctor_text(checkup: Checkup) -> str:
    """The machine and advice, then what each recipe would do in the budget."""
    hardware, speedup, precision = checkup.hardware, checkup.bf16_speedup, checkup.precision
    facts = [
        ("device", hardware.gpu or f"{hardware.cpu}, {hardware.cores} cores"),
        ("memory", f"{hardware.memory_gb} GiB"),
        ("precision", f"{precision} (bf16 is {speedup:.1f} times as fast as fp32 here)" if speedup else precision),
        ("threads", str(checkup.threads)),
        ("allocator", checkup.allocator),
        ("torch", str(checkup.versions["torch"])),
        ("torch.compile", "possible" if checkup.compiler or checkup.device != "cpu" else "needs a C++ compiler"),
    ]
    advice = "\n".join(f"advice: {sentence}" for sentence in checkup.advice)
    blocks = [table(facts, left=2), advice or "advice: none; nothing here would speed training up"]
    if checkup.recipes is not None and checkup.budget_s is not None:
        blocks.append(_forecast_table(checkup.recipes, checkup.budget_s))
        if checkup.not_tried:
            blocks.append(f"not tried, as they begin with weights of a hub: {', '.join(checkup.not_tried)}")
        if best := checkup.best:
            enough = "" if best.enough else f" ({percent(best.share)} of the epochs that it wants)"
            command = f"patchlight train {best.recipe} --train.budget {checkup.budget_s:g}s"
            blocks.append(f"best for CIFAR-10 in this time{enough}: {command}")
    return "\n\n".join(blocks)


def _forecast_table(forecasts: Sequence[Forecast], budget_s: float) -> str:
    rows = [
        (
            each.recipe,
            f"{each.images_per_s:,.0f}",
            f"{each.epochs:.3g}",
            clock(each.own_s),
            f"{each.memory_gb:.1f}",
            rate(each.top1),
        )
        for each in forecasts
    ]
    epochs = f"epochs in {clock(budget_s)}"
    return table(rows, ("recipe", "images/s", epochs, "time for all of its own", "GB", "accuracy after these"))
