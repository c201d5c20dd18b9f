"""Asks for known weaknesses (CVEs) of the packages that constraints.txt locks.

    .venv-audit/bin/python tools/audit.py          asks PyPI; what `make audit` calls
    .venv-audit/bin/python tools/audit.py osv      asks osv.dev

The exit code is 0 where every package was looked up and none is known to be weak, 1 where one is, and 2 where not all
could be looked up: pip-audit says "No known vulnerabilities found" even where its service knew none of the packages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CLEAN, WEAK, UNKNOWN = 0, 1, 2


def ask(service: str) -> dict[str, Any] | None:
    """pip-audit's answer, or None where it had none: its last words have then been printed."""
    # The lock has sha256 and is complete, so nothing is installed or resolved.
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    command += ["--vulnerability-service", service, "--format", "json", "--requirement", "constraints.txt"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        words = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing"]
        print(f"pip-audit said: {words[-1][:500]}", file=sys.stderr)
        return None


def verdict(answer: dict[str, Any] | None) -> tuple[list[str], int]:
    """What to print and the exit code."""
    packages = answer["dependencies"] if answer else []
    weak = [package for package in packages if package.get("vulns")]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    lines = [
        f"{package['name']} {package['version']}: {each['id']}, "
        f"mended in {', '.join(each['fix_versions']) or 'no version'}"
        for package in weak
        for each in package["vulns"]
    ]
    looked_up = len(packages) - len(unknown)
    if not looked_up:
        return [
            "No package was looked up: the data of known weaknesses cannot be reached from here. Try again on another "
            "network, or with the other service: make audit SERVICE=osv"
        ], UNKNOWN
    lines.append(f"{looked_up} of {len(packages)} packages were looked up; {len(weak)} of them have known weaknesses")
    if unknown:
        lines.append(f"Not looked up, as the service does not know them: {', '.join(unknown)}")
    return lines, WEAK if weak else UNKNOWN if unknown else CLEAN


def main() -> int:
    service = sys.argv[1] if len(sys.argv) > 1 else "pypi"
    lines, code = verdict(ask(service))
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
