"""The command line ``deep``: one sub-command per room of the project."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from docker.errors import DockerException

from testbed.cli import artifacts, login, site, testbed
from testbed.console import report_error
from testbed.errors import CHECK_FAILED, DeepError
from testbed.host import machine_name

app = typer.Typer(name="deep", no_args_is_help=True, help="Testbeds, sites and artefacts of the DEEP stack.")
app.add_typer(login.app)
app.add_typer(testbed.app, name="testbed")
app.add_typer(site.app, name="site")
app.add_typer(artifacts.app, name="artifacts")


def main() -> None:
    """Entry point: every expected failure becomes a message, or one JSON object, and an exit code."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # dockerd and iptables, which a user's PATH may lack
    words = sys.argv[1:]
    as_json = "--json" in (words[: words.index("--")] if "--" in words else words)
    try:
        with _explained():
            # Without --json the library itself shows wrong usage, with the part of the help that matters.
            sys.exit(app(standalone_mode=not as_json))
    except DeepError as error:
        report_error(error, as_json=as_json)
        sys.exit(error.exit_code)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn errors of the libraries and of the system that a user can do something about into a ``DeepError``."""
    try:
        yield
    except BrokenPipeError:
        # Whoever read the output has enough of it; nothing may be written at the interpreter's end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CHECK_FAILED)
    except typer.TyperException as wrong:
        context = getattr(wrong, "ctx", None)
        raise DeepError(
            wrong.format_message(), next_step=f"{context.command_path if context else 'deep'} --help"
        ) from wrong
    except typer.Abort as interrupted:
        raise DeepError("interrupted", next_step="run the same command again", exit_code=CHECK_FAILED) from interrupted
    except DockerException as refused:
        raise DeepError(
            f"Docker Engine: {refused}",
            host=machine_name(),
            next_step="read the engine's log, then run the same command again",
            exit_code=CHECK_FAILED,
        ) from refused
    except OSError as failed:
        where = f"{failed.filename}: " if failed.filename else ""
        raise DeepError(
            f"{where}{failed.strerror or failed}",
            host=machine_name(),
            next_step="remove the cause, then run the same command again",
            exit_code=CHECK_FAILED,
        ) from failed
