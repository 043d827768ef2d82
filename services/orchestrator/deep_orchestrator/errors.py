"""What a client of the REST interface is told when it gets nothing else."""

from __future__ import annotations


class RefusedError(Exception):
    """An HTTP status and, for a person, why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
