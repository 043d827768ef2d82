"""Reports: each is made of the one document of a run (``sqa.gate.document``) and of nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sqa.reports import badge, html, junit, sarif, sqaaas

Document = Mapping[str, Any]


def as_json(document: Document) -> str:
    """The document itself."""
    return json.dumps(document, indent=2) + "\n"


# Name of the format: the file it is written to, and what makes it.
FORMATS: dict[str, tuple[str, Callable[[Document], str]]] = {
    "json": ("sqa.json", as_json),
    "sarif": ("sqa.sarif", sarif.render),
    "junit": ("sqa.xml", junit.render),
    "html": ("sqa.html", html.render),
    "sqaaas": ("assessment_output.json", sqaaas.render),
    "badge": ("badge.svg", badge.render),
}
