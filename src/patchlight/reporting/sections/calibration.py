"""Whether the model is right as often as it says."""

from __future__ import annotations

import functools

from patchlight.figures import charts
from patchlight.reporting.embed import chart
from patchlight.reporting.facts import Facts
from patchlight.reporting.section import Content, Section
from patchlight.runs import EvalResult
from patchlight.units import percent

TEMPLATE = """
<div class="two">
<div>
<p>When it says about <b>{{ says }}</b>, it is right <b>{{ is_right }}</b> of the time
({{ images }} images).</p>
<p>Over all images it claims {{ mean }} on average and is right {{ top1 }} of the time:
{{ verdict }}.</p>
<p class="quiet">The expected calibration error, {{ ece }} points, is the mean distance between confidence and accuracy
over the bins, weighted by their images (Guo et al. 2017). Bins with few images, below, say little.</p>
</div>
<figure>
{{ chart(diagram) }}
<figcaption>Accuracy by stated confidence. Bars below the dashed line: surer than it should be.</figcaption>
</figure>
</div>
"""


def content(facts: Facts) -> Content | None:
    result = facts.result
    if result is None:
        return None
    table = result.reliability
    bins = [
        (count, confidence, accuracy)
        for count, confidence, accuracy in zip(table.count, table.confidence, table.accuracy, strict=True)
        if count and confidence is not None and accuracy is not None
    ]
    if not bins:
        return None
    draw = functools.partial(charts.reliability, table, result.ece)
    mean = sum(count * confidence for count, confidence, _ in bins) / sum(count for count, _, _ in bins)
    # The example is a bin in the middle: nearly sure answers are most of them, and tell least about doubt.
    doubtful = [b for b in bins if b[1] < 0.95 and b[0] >= 5]
    count, confidence, accuracy = max(doubtful or bins, key=lambda b: b[0])
    values = {
        "diagram": chart(draw, f"Reliability diagram; expected calibration error {percent(result.ece, 1)}."),
        "says": percent(confidence),
        "is_right": percent(accuracy),
        "images": f"{count:,}",
        "mean": percent(mean, 1),
        "top1": percent(result.top1, 1),
        "verdict": verdict(mean, result),
        "ece": f"{100 * result.ece:.1f}",
    }
    return Content(values, {"reliability": draw})


def verdict(mean: float, result: EvalResult) -> str:
    """A mean confidence against the accuracy and its interval."""
    low, high = result.top1_ci95
    if low <= mean <= high:
        return "a difference that chance can explain"
    return f"{abs(100 * (mean - result.top1)):.1f} points {'over' if mean > result.top1 else 'under'}confident"


SECTION = Section(
    title="Whether its confidence can be trusted",
    content=content,
    template=TEMPLATE,
    slides={"reliability": "confidence against accuracy"},
)
