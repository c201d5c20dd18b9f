"""Loss, accuracy and learning rate over the epochs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from patchlight.config import AugmentConfig, Config
from patchlight.figures import charts
from patchlight.reporting.embed import chart
from patchlight.reporting.facts import Facts
from patchlight.reporting.headline import early_stops
from patchlight.reporting.section import Content, Section
from patchlight.runs import Epoch, measure_of
from patchlight.units import SPACE

TEMPLATE = """
{% if charts %}
<figure>
<div class="three">
{% for c in charts %}
<div>{{ chart(c) }}</div>
{% endfor %}
</div>
<figcaption>Over the epochs; the dotted line is epoch {{ kept }}, whose weights were kept.
{% if not validated %}
There were no validation images.
{% elif harder %}
Training images are augmented and so harder than validation images: the training curve may well lie on the worse side.
{% endif %}
{% if mixed %}
Where training images were mixed (mixup, CutMix), a prediction counts as the share that its class has in the mixed
label, so even a perfect model stays below 100{{ space }}%: training accuracy may well lie below validation accuracy.
{% endif %}
{% if smoothed %}
The thin dashed line is the validation loss with the label smoothing of the training loss, for comparing the two.
{% endif %}
{% if validated and other_loss %}
The training loss counts {{ other_loss }}, the validation loss does not, so compare the shapes of the two and not their
heights.
{% endif %}
{% if resampled %}
Training images were drawn so that all classes come equally often, and validation images come as often as they are.
{% endif %}
{% if measure %}
The weights were kept by the {{ measure }} of the validation images.
{% endif %}
{% if stages %}
An upright line is where a stage begins.
{% endif %}
{% for stop in stops %}
{{ stop }}.{% if loop.last %} {{ "Triangles mark" if stops|length > 1 else "The triangle marks" }} it.{% endif %}

{% endfor %}</figcaption>
</figure>
{% else %}
<p class="quiet">No epoch has been recorded yet.</p>
{% endif %}
"""


def content(facts: Facts) -> Content:
    rows, kept = facts.epochs, facts.kept
    panels = [name for name, panel in charts.PANELS.items() if panel.values(rows)]
    if not panels or kept is None:
        return Content({"charts": []})
    drawn = [
        chart(
            functools.partial(charts.curves, rows, kept=kept.epoch, panels=[name]), in_words(rows, charts.PANELS[name])
        )
        for name in panels
    ]
    values = {
        "charts": drawn,
        "kept": kept.epoch,
        "validated": any(row.val_loss is not None for row in rows),
        "harder": any(replace(stage.augment, flip="none") != AugmentConfig() for stage in facts.config.of_stages()),
        "mixed": any(row.train_mixed for row in rows),
        "smoothed": any(row.val_loss_smoothed is not None for row in rows),
        "other_loss": counted_in_training_only(facts.config, rows),
        "resampled": any(stage.data.sampler == "balanced" for stage in facts.config.of_stages()),
        "measure": selecting(facts.config, rows),
        "stages": len({row.stage for row in rows}) > 1,
        "stops": early_stops(facts),
        "space": SPACE,
    }
    return Content(values, {"curves": functools.partial(charts.curves, rows, kept=kept.epoch, panels=panels)})


def counted_in_training_only(config: Config, rows: Sequence[Epoch]) -> str:
    """What the training loss counts and no curve of the validation loss does; older runs have no smoothed one."""
    smoothing = any(stage.train.label_smoothing for stage in config.of_stages())
    drawn = any(row.val_loss_smoothed is not None for row in rows)
    words = ["label smoothing"] if smoothing and not drawn else []
    words += ["class weights"] if any(stage.train.class_weights != "none" for stage in config.of_stages()) else []
    words += ["what the teacher says"] if config.train.teacher else []
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def selecting(config: Config, rows: Sequence[Epoch]) -> str:
    """By what weights were kept, where that is another measure than usual."""
    measure = measure_of(config.train.select)
    return measure.words if config.train.select != "best" and any(row.best_by == measure.key for row in rows) else ""


def in_words(rows: Sequence[Epoch], panel: charts.Panel) -> str:
    """The curves for who cannot see them: where they began and where they ended."""
    ends = []
    for name, column in panel.values(rows).items():
        known = column[column == column]  # without nan
        ends.append(f"{name} from {known[0]:.3g} to {known[-1]:.3g}")
    return f"{panel.title} over {len(rows)} epochs: {', '.join(ends)}."


SECTION = Section(
    title="How it learned",
    content=content,
    template=TEMPLATE,
    slides={"curves": "loss, accuracy and learning rate over the epochs"},
)
