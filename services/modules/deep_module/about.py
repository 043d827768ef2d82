"""What a module says of itself."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def about(package: str) -> dict[str, Any]:
    """The public part of a module's ``metadata.json`` in the words of DEEPaaS: text, not a list of paragraphs."""
    known = json.loads(files(package).joinpath("metadata.json").read_text(encoding="utf-8"))
    return {
        "name": package,
        "title": known["title"],
        "summary": known["summary"],
        "description": " ".join(known["description"]),
        "keywords": known["keywords"],
        "license": known["license"],
        "sources": known["sources"],
    }
