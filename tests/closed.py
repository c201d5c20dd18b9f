"""Runs commands of Patchlight in a process that may not use the network, and tells what they asked.

    python tests/closed.py '[["recipes"], ["doctor"]]'

The last line of the output is JSON: the exit code of each command, what Python code asked of the network ("asked"), and
whether the kernel counted anything while they ran ("counted", lines that changed), which also sees code that is not
Python's. The latter means something only where nobody else uses the network: below `unshare --net`.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

ASKED: list[str] = []
# Audit events of the standard library: https://docs.python.org/3/library/audit_events.html
NETWORK = (
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostby",
    "socket.getnameinfo",
    "socket.send",
    "socket.bind",
)
NETWORK += ("http.", "urllib.", "ftplib.", "smtplib.", "imaplib.", "poplib.", "nntplib.", "telnetlib.")


class Closed(BaseException):
    """No `except Exception` swallows this, and nobody tries again."""


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Every use of the network from Python passes here; nothing can take this hook away again."""
    if not event.startswith(NETWORK):
        return
    if isinstance(arguments[0], socket.socket):
        if arguments[0].family == socket.AF_UNIX:
            return  # processes of this machine talk so
        arguments = arguments[1:]
    ASKED.append(f"{event} {arguments!r}")
    raise Closed(ASKED[-1])


def counters() -> list[str]:
    """The kernel's counters of this network namespace, a line for each protocol."""
    return [
        line
        for name in ("snmp", "snmp6", "netstat")
        if (file := Path("/proc/net") / name).exists()
        for line in file.read_text().splitlines()
    ]


def main() -> None:
    sys.addaudithook(refuse)
    before = counters()
    from patchlight.cli.main import main as patchlight

    codes: list[int | None] = []
    for command in json.loads(sys.argv[1]):
        try:
            codes.append(patchlight(command))
        except Closed:
            codes.append(None)
    counted = [line for line in counters() if line not in before]
    print("\n" + json.dumps({"codes": codes, "asked": ASKED, "counted": counted}))


if __name__ == "__main__":
    main()
