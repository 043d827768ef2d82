"""The command line ``deep``: one sub-command per room of the project."""

from __future__ import annotations

import os
import sys

import typer

from testbed.cli import artifacts, site, testbed
from testbed.console import report_error
from testbed.errors import DeepError

app = typer.Typer(name="deep", no_args_is_help=True, help="Testbeds, sites and artefacts of the DEEP stack.")
app.add_typer(testbed.app, name="testbed")
app.add_typer(site.app, name="site")
app.add_typer(artifacts.app, name="artifacts")


def main() -> None:
    """Entry point: every expected failure becomes a message and an exit code."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # dockerd and iptables, which a user's PATH may lack
    try:
        app()
    except DeepError as error:
        report_error(error, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)
