"""Listening sockets of a host against what is declared for it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PROCESS = re.compile(r'\("(?P<name>[^"]+)",pid=')
# From the narrowest to the widest: a socket may be narrower than declared, never wider.
WIDTHS = ("loopback", "host", "any")


@dataclass(frozen=True)
class Listener:
    """One socket: ``width`` is loopback (127.0.0.0/8, ::1), host (one address of the host) or any (all addresses)."""

    protocol: str
    address: str
    port: int
    process: str

    @property
    def width(self) -> str:
        """How far the socket can be reached."""
        # ss shows a socket of both families that is bound to no address as *.
        address = ipaddress.ip_address("::" if self.address == "*" else self.address)
        if address.is_unspecified:
            return "any"
        return "loopback" if address.is_loopback else "host"

    def __str__(self) -> str:
        return f"{self.process or 'unknown process'} on {self.protocol} {self.address}:{self.port}"


def parse(output: str) -> list[Listener]:
    """The sockets in the output of ``ss -Hltnup``; an unreadable line is an error, not one socket fewer."""
    return [_parse_line(line) for line in output.splitlines() if line.strip()]


def _parse_line(line: str) -> Listener:
    fields = line.split()
    if len(fields) < 6:
        raise ValueError(f"not a line of ss: {line!r}")
    address, _, port = fields[4].rpartition(":")
    process = PROCESS.search(line)
    bare = address.partition("%")[0].strip("[]").partition("%")[0]
    return Listener(fields[0], bare, int(port), process["name"] if process else "")


def undeclared(found: Sequence[Listener], declared: Sequence[Mapping[str, Any]]) -> list[Listener]:
    """Sockets that no declaration covers, in the order of the host."""
    return [one for one in found if not any(covers(entry, one) for entry in declared)]


def covers(entry: Mapping[str, Any], listener: Listener) -> bool:
    """Whether a declaration ``{port, protocol, width, process?}`` allows a socket.

    ``port: any`` is for programs that choose their own, and is honoured on loopback only. ``port`` and ``process``
    may be lists; without a process any may hold the port (one that the kernel holds, such as vxlan, has none).
    """
    width = entry.get("width", "loopback")
    ports = entry["port"] if isinstance(entry["port"], list) else [entry["port"]]
    port_agrees = listener.width == "loopback" if ports == ["any"] else listener.port in map(int, ports)
    processes = entry.get("process", [])
    named = [processes] if isinstance(processes, str) else processes
    return (
        port_agrees
        and entry.get("protocol", "tcp") == listener.protocol
        and WIDTHS.index(listener.width) <= WIDTHS.index(width)
        and (not named or listener.process in named)
    )
