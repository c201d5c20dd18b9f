"""On what, with which versions and when the run was trained."""

from __future__ import annotations

from patchlight.reporting.facts import Facts
from patchlight.reporting.headline import hardware
from patchlight.reporting.section import Content, Section
from patchlight.runs import Process

TEMPLATE = """
<table>
<tbody>
{% for word, value in rows %}
<tr><th scope="row">{{ word }}</th><td>{{ value }}</td></tr>
{% endfor %}
</tbody>
</table>
"""


def _how(process: Process) -> str:
    """When, and whether the run is still, bit for bit, one that was never stopped."""
    return f"{process.started}; " + (f"not exact: {'; '.join(process.not_exact)}" if process.not_exact else "exact")


def content(facts: Facts) -> Content | None:
    environment = facts.environment
    if environment is None:
        return None
    rows = [
        ("Patchlight", environment.patchlight),
        ("Started", environment.started),
        ("Git commit", environment.git_commit),
        ("Threads", environment.threads),
        ("Hardware", ", ".join(hardware(environment))),
        *environment.versions.items(),
        *(("Resumed", _how(process)) for process in environment.resumed or ()),
    ]
    return Content({"rows": [(word, value) for word, value in rows if value]})


SECTION = Section(title="Environment", content=content, template=TEMPLATE)
