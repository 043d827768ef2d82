"""A connection to nowhere: every module ends at once, unchanged, so that only the controller's work is measured."""

from __future__ import annotations

import json

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: nothing
short_description: answers every module with an unchanged result, without a network or a process
description:
  - For measuring what a play costs on the controller, see benchmarks/testbed.py.
author: deep-testbed maintainers
options: {}
"""

UNCHANGED = {"changed": False, "rc": 0, "stdout": "", "stdout_lines": []}
# What roles/common reads of a host that lacks nothing.
FACTS = {
    "os_family": "Debian",
    "distribution": "Debian",
    "distribution_version": "12",
    "distribution_major_version": "12",
    "architecture": "x86_64",
    "memtotal_mb": 8192,
    "service_mgr": "systemd",
}
OWN_FACTS = {
    "capabilities": ["sys_resource", "sys_time"],
    "kernel_modules": True,
    "bridge_netfilter": True,
    "disk_free_mb": {"/var/lib": 65536},
    "packages": ["ca-certificates", "chrony", "openssl", "procps"],
}


class Connection(ConnectionBase):
    """Answers the module that gathers facts with those, and all others with ``UNCHANGED``."""

    transport = "nothing"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Pretend that ``cmd`` ran the module in ``in_data``."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        answer: dict[str, object] = dict(UNCHANGED)
        if in_data and b"modules.host_facts" in in_data:
            own = {**OWN_FACTS, "addresses": [self._play_context.remote_addr]}
            answer["ansible_facts"] = {**FACTS, "deephdc": own}
        return 0, json.dumps(answer).encode(), b""

    def put_file(self, in_path: str, out_path: str) -> None:
        """Pretend that the file was sent."""

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Pretend that the file was fetched."""

    def close(self) -> None:
        """Nothing is open."""
        self._connected = False
