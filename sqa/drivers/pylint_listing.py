"""pylint that also says which files it has looked at; the tool's own Python runs this.

``PATHS ARGUMENTS...``: PATHS is JSON, folders where modules are looked for after the tool's own.
"""

from __future__ import annotations

import gc
import json
import sys

from astroid import nodes
from pylint.checkers import BaseRawFileChecker
from pylint.lint import PyLinter, Run


class Listing(BaseRawFileChecker):
    """A message for each file that was parsed and is then given to every checker."""

    name = "listing"
    msgs = {"I9901": ("looked at", "looked-at", "The file was looked at.")}  # noqa: RUF012 # as pylint declares it

    def process_module(self, node: nodes.Module) -> None:
        """Note the file."""
        del node
        self.add_message("looked-at", line=1)


def register(linter: PyLinter) -> None:
    """What pylint asks of a plug-in."""
    linter.register_checker(Listing(linter))


if __name__ == "__main__":
    gc.disable()  # nothing of what it parses goes before the end, and looking for it takes a fifth of the time
    sys.path.extend(json.loads(sys.argv[1]))
    sys.modules["pylint_listing"] = sys.modules[__name__]
    Run(["--load-plugins=pylint_listing", *sys.argv[2:]])
