"""The one exception that reaches a user of the command line."""

from __future__ import annotations

from typing import Any

CHECK_FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130


class DeepError(Exception):
    """Something the user has to know and can act on.

    ``host``, ``found``, ``needed`` and ``next_step`` are the four facts that every message of the
    project carries as far as they are known. ``exit_code`` is 1 where the thing checked failed and
    2 where the usage or the environment is wrong, 130 where Ctrl-C or SIGTERM has ended it.
    """

    def __init__(
        self,
        message: str,
        *,
        host: str | None = None,
        found: str | None = None,
        needed: str | None = None,
        next_step: str | None = None,
        exit_code: int = WRONG_USAGE,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.host = host
        self.found = found
        self.needed = needed
        self.next_step = next_step
        self.exit_code = exit_code

    def __str__(self) -> str:
        facts = [f"{name}: {value}" for name, value in (("found", self.found), ("needed", self.needed)) if value]
        prefix = f"{self.host}: " if self.host else ""
        return f"{prefix}{self.message}" + (f" ({'; '.join(facts)})" if facts else "")

    def as_dict(self) -> dict[str, Any]:
        """The facts as a JSON object; keys without a value are ``None``."""
        return {
            "message": self.message,
            "host": self.host,
            "found": self.found,
            "needed": self.needed,
            "next_step": self.next_step,
        }
