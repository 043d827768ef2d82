"""A connection to nowhere: every command succeeds at once, so that only the controller's own work is measured."""

from __future__ import annotations

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: nothing
short_description: answers every module with an unchanged result, without a network or a process
description:
  - For measuring what a play costs on the controller, see benchmarks/testbed.py.
author: deep-testbed maintainers
options: {}
"""

UNCHANGED = b'{"changed": false, "rc": 0, "stdout": "", "stdout_lines": [], "content": "", "stat": {"exists": false}}'


class Connection(ConnectionBase):
    """Answers ``UNCHANGED`` to everything."""

    transport = "nothing"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Pretend that ``cmd`` ran and printed ``UNCHANGED``."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return 0, UNCHANGED, b""

    def put_file(self, in_path: str, out_path: str) -> None:
        """Pretend that the file was sent."""

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Pretend that the file was fetched."""

    def close(self) -> None:
        """Nothing is open."""
        self._connected = False
