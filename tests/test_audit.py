"""What `make audit` says of pip-audit's answers, which are written here as pip-audit 2.10.1 writes them."""

from __future__ import annotations

from tools import audit

GOOD = {"name": "six", "version": "1.17.0", "vulns": []}
WEAK = {
    "name": "jinja2",
    "version": "3.1.2",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1.3"], "aliases": [], "description": ""}],
}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.14.1)"}


def test_no_package_looked_up_is_not_taken_for_no_weakness():
    for answer in (None, {"dependencies": []}, {"dependencies": [SKIPPED]}):
        lines, code = audit.verdict(answer)
        assert code == audit.UNKNOWN
        assert lines == [lines[0]]
        assert "No package was looked up" in lines[0]


def test_weak_packages_and_those_that_nobody_knows_are_named():
    lines, code = audit.verdict({"dependencies": [GOOD, WEAK, SKIPPED]})
    assert lines == [
        "jinja2 3.1.2: PYSEC-1, mended in 3.1.3",
        "2 of 3 packages were looked up; 1 of them have known weaknesses",
        "Not looked up, as the service does not know them: torch",
    ]
    assert code == audit.WEAK
    assert audit.verdict({"dependencies": [GOOD, SKIPPED]})[1] == audit.UNKNOWN
    assert audit.verdict({"dependencies": [GOOD]}) == (
        ["1 of 1 packages were looked up; 0 of them have known weaknesses"],
        audit.CLEAN,
    )
