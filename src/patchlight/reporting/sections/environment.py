"""On what, with which versions and when the run was trained."""

from __future__ import annotations

from patchlight.reporting.facts import Facts
from patchlight.reporting.headline import hardware
from patchlight.reporting.section import Content, Section

TEMPLATE = """
<table>
<tbody>
{% for word, value in rows %}
<tr><th scope="row">{{ word }}</th><td>{{ value }}</td></tr>
{% endfor %}
</tbody>
</table>
"""


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
    ]
    return Content({"rows": [(word, value) for word, value in rows if value]})


SECTION = Section(title="Environment", content=content, template=TEMPLATE)
