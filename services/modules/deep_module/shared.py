"""Where the processes of one module keep what they share."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

VARIABLE = "DEEP_MODEL_DIR"


def folder() -> Path:
    """The folder ``$DEEP_MODEL_DIR``, else one of this process and its children, gone at its end."""
    named = os.environ.get(VARIABLE)
    if named is None:
        named = os.environ[VARIABLE] = tempfile.mkdtemp(prefix="deep-model-")
        atexit.register(shutil.rmtree, named, ignore_errors=True)
    found = Path(named)
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found
