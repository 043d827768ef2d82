"""``deep jenkins``: jobs of Jenkins and what they run."""

from __future__ import annotations

import typer

from testbed.cli import jenkins_validate

app = typer.Typer(no_args_is_help=True)
jenkins_validate.register(app)
