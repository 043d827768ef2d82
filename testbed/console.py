"""Output rules shared by every command: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape

from testbed.errors import DeepError

# A log or a pipe has no edge at which a table would have to be folded.
WIDTH = None if sys.stdout.isatty() else 200

out = Console(soft_wrap=True, highlight=False, width=WIDTH)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def emit(data: Any, as_json: bool, render: Callable[[Any], Any]) -> None:
    """Print ``data`` as JSON, or what ``render`` makes of it (a rich renderable or a string)."""
    if as_json:
        text = json.dumps(data, default=str)
        if out.is_terminal:
            out.print_json(text)
        else:
            # Whoever reads a pipe of a command that goes on (serve) gets the line now.
            print(text, flush=True)
        return
    out.print(render(data))


def report_error(error: DeepError, as_json: bool) -> None:
    """Say what is wrong and what to do next, on stderr, or as one JSON object on stdout."""
    if as_json:
        print(json.dumps({"ok": False, "error": error.as_dict()}))
        return
    err.print(f"[bold red]error:[/] {escape(str(error))}")
    if error.next_step:
        err.print(f"[bold]next:[/] {escape(error.next_step)}")
