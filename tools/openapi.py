"""Generate docs/reference/orchestrator.openapi.json, which describes the REST interface, from its code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.generated import ROOT, command

sys.path.insert(0, str(ROOT / "services/orchestrator"))
PAGE = ROOT / "docs/reference/orchestrator.openapi.json"


def pages() -> dict[Path, str]:
    """The description, by path."""
    from deep_orchestrator.api import application  # pylint: disable=import-outside-toplevel # slow

    return {PAGE: json.dumps(application().openapi(), indent=1) + "\n"}


if __name__ == "__main__":
    sys.exit(command(__doc__ or "", pages))
