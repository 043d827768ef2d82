"""The report for people: one HTML file that needs nothing else, on a screen and on paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqa.model import Verdict

TEMPLATE = Path(__file__).resolve().parent / "report.html.j2"


def render(document: Mapping[str, Any]) -> str:
    """The whole run: verdict, what is missing for each badge, criteria by family, checks, findings, waivers."""
    import jinja2  # slow, and most runs write no report

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    families = {
        family: {"title": title, "criteria": [one for one in document["criteria"] if one["id"].startswith(family)]}
        for standard in document["standards"].values()
        for family, title in standard["families"].items()
    }
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        run=document,
        families={name: one for name, one in families.items() if one["criteria"]},
        counts=Counter(one["verdict"] for one in document["criteria"]),
        verdicts=[one.value for one in Verdict],
    )
