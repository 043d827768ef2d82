"""Files that are either whole or absent, whatever kills the program that writes them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomic(path: Path, text: str, mode: int = 0o644) -> bool:
    """Put ``text`` into ``path`` in one step; returns whether that changed anything.

    The content is on disk before the name appears, and ``mode`` holds from the first byte on.
    """
    if path.is_file() and path.read_text(encoding="utf-8") == text and path.stat().st_mode & 0o7777 == mode:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as sink:
            os.fchmod(sink.fileno(), mode)
            sink.write(text)
            sink.flush()
            os.fsync(sink.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True
