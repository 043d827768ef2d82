"""The badge as a picture: SVG, without a font or address of anybody else's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLOURS = {"none": "#9f9f9f", "bronze": "#a8572b", "silver": "#6b7a88", "gold": "#8a6d00"}
TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{{ left + right }}" height="20" role="img"
  aria-label="{{ label }}: {{ value }}">
  <title>{{ label }}: {{ value }}</title>
  <rect width="{{ left + right }}" height="20" rx="3" fill="#444"/>
  <path d="M{{ left }} 0h{{ right - 3 }}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{{ right - 3 }}z" fill="{{ colour }}"/>
  <g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
    <text x="{{ left / 2 }}" y="14">{{ label }}</text>
    <text x="{{ left + right / 2 }}" y="14">{{ value }}</text>
  </g>
</svg>
"""


def render(document: Mapping[str, Any]) -> str:
    """The badge that a run has reached; ``held back`` where the gate does not let the tree through."""
    reached = document["badge"] if document["complete"] else "not judged"
    value = reached if document["ok"] else f"{reached}, held back"
    colour = COLOURS[document["badge"]] if document["ok"] else "#b3261e"
    import jinja2  # slow, and most runs write no report

    environment = jinja2.Environment(autoescape=True, keep_trailing_newline=True)
    return environment.from_string(TEMPLATE).render(
        label="software quality", value=value, colour=colour, left=104, right=14 + 7 * len(value)
    )
