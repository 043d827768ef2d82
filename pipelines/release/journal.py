"""The journal of a store: what is going to be shown is on disk before it is, and that it was done after it.

One JSON object a line, only ever appended. An ``intent`` without a ``done`` after it was cut short: whoever comes next
carries it out, or, where there is nothing yet to be shown, writes that it was ``dropped``. A last line without its end
is one that was not written to its end, and counts for nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from pipelines.release.state import State
from sqa.standard import Strict
from testbed.errors import DeepError
from testbed.files import disk_full_explained, sync_directory

ROOM = "free space there, and run the command again"  # what to do where a store's disk is full
Step = Literal["stage", "promote", "rollback"]


class Record(Strict):
    """One line: which step, and what its stage is going to be, or is."""

    number: Annotated[int, Field(ge=1)]
    what: Literal["intent", "done", "dropped"]
    step: Step
    state: State


class Journal:
    """The journal in the file ``path``; there need not be one yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self) -> list[Record]:
        """Everything that was written whole; raises ``DeepError`` for a line that nobody here has written."""
        found = []
        for number, line in enumerate(self._whole().splitlines(), 1):
            try:
                found.append(Record.model_validate_json(line))
            except ValidationError as broken:
                raise DeepError(
                    f"{self.path}:{number}: not a line of a journal", found=str(broken.errors()[0]["msg"]),
                    next_step="put the journal back from the backup of the store",
                ) from None  # fmt: skip
        return found

    def pending(self) -> Record | None:
        """The intent that was not carried out to its end."""
        records = self.records()
        return records[-1] if records and records[-1].what == "intent" else None

    def append(self, record: Record) -> None:
        """Write a record; it is on disk when this returns."""
        with disk_full_explained(self.path, "the journal of the store", ROOM):
            new = not self.path.exists()
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.ftruncate(handle, len(self._whole()))
                line = f"{record.model_dump_json()}\n".encode()
                while line:  # a disk that becomes full takes a part
                    line = line[os.write(handle, line) :]
                os.fsync(handle)
            finally:
                os.close(handle)
            if new:
                sync_directory(self.path.parent)

    def intend(self, step: Step, state: State) -> Record:
        """Write what is going to be done, and return it."""
        records = self.records()
        record = Record(number=records[-1].number + 1 if records else 1, what="intent", step=step, state=state)
        self.append(record)
        return record

    def done(self, intent: Record) -> None:
        """Write that an intent was carried out."""
        self.append(intent.model_copy(update={"what": "done"}))

    def dropped(self, intent: Record) -> None:
        """Write that an intent will not be carried out."""
        self.append(intent.model_copy(update={"what": "dropped"}))

    def _whole(self) -> bytes:
        content = self.path.read_bytes() if self.path.exists() else b""
        return content[: content.rfind(b"\n") + 1]


def as_json(records: list[Record]) -> list[dict[str, object]]:
    """Records as JSON objects, without what each state consists of."""
    return [json.loads(one.model_dump_json(exclude={"state": {"packages"}})) for one in records]
