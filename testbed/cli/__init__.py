"""The command line ``deep``: one sub-command per room of the project."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from testbed.cli import login
from testbed.console import report_error
from testbed.errors import CHECK_FAILED, INTERRUPTED, DeepError
from testbed.host import machine_name

ROOMS = {
    "testbed": "Raise, inspect, use and remove testbeds on this machine.",
    "modules": "Pick a module, run it at a site, ask it for a prediction.",
    "site": "Check, deploy and verify the sites of inventories/.",
    "artifacts": "Build, check and serve what is deployed.",
    "bench": "Measure nodes, keep the figures, tell whether they got worse.",
    "sqa": "Hold a repository against published quality standards.",
    "release": "Build releases and bring them to their users.",
    "jenkins": "Keep Jenkins' jobs as the repository says, run them, check Jenkinsfiles.",
}


class Deep(TyperGroup):
    """All rooms."""

    def invoke(self, ctx: Any) -> Any:
        """Run what was asked for; Ctrl-C is told, which the library would end without a word."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupted:
            raise DeepError(
                "interrupted", next_step="run the same command again", exit_code=INTERRUPTED
            ) from interrupted  # fmt: skip


class Room(TyperGroup):
    """A sub-command whose module is imported when somebody enters it.

    The libraries of a room take longer to import than kubectl should wait for a token.
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, ``None`` where there is none."""
        self._enter()
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands."""
        self._enter()
        return super().list_commands(ctx)

    def _enter(self) -> None:
        if not self.commands:
            self.commands.update(typer.main.get_group(importlib.import_module(f"{__name__}.{self.name}").app).commands)


app = typer.Typer(name="deep", no_args_is_help=True, help="Testbeds, sites and artefacts of the DEEP stack.", cls=Deep)
app.add_typer(login.app)
for room, purpose in ROOMS.items():
    app.add_typer(typer.Typer(no_args_is_help=True, help=purpose, cls=Room), name=room)


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
    except _docker_errors() as refused:
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


def _docker_errors() -> tuple[type[Exception], ...]:
    """What the engine's library raises; nothing where no command has imported it."""
    loaded = sys.modules.get("docker.errors")
    return (loaded.DockerException,) if loaded else ()
