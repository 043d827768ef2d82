"""Options and arguments that several rooms share, with what completes them in a shell."""

from __future__ import annotations

from typing import Annotated

import typer

from testbed import sites, state


def complete_site(incomplete: str) -> list[str]:
    """Names of sites for the shell's completion."""
    return [name for name in sites.site_names() if name.startswith(incomplete)]


def complete_name(incomplete: str) -> list[str]:
    """Names of testbeds for the shell's completion."""
    return [name for name in state.names() if name.startswith(incomplete)]


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SiteName = Annotated[
    str, typer.Argument(metavar="SITE", help="A folder of inventories/.", autocompletion=complete_site)
]
SiteTestbed = Annotated[
    str | None, typer.Option("--name", help="Which testbed, for the site 'local'.", autocompletion=complete_name)
]
