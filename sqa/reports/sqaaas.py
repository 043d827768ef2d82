"""The assessment JSON that EOSC-Synergy's SQAaaS gives (AssessmentOutput of its API specification 3.2)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqa.standard import BINDING

MET = ("pass", "not_applicable")


def render(document: Mapping[str, Any]) -> str:
    """Families as its criteria, criteria as its subcriteria; what no machine and nobody has seen is not valid."""
    missing = {name for stats in document["badges"].values() for name in stats["missing"]}
    report = {
        family: _family([one for one in document["criteria"] if one["id"].startswith(f"{family}")], document, missing)
        for standard in document["standards"].values()
        for family in standard["families"]
    }
    repository = {"name": document["repository"], "commit_id": document["revision"]}
    made = {
        "meta": {"version": "3.2", "created": document["created"]},
        "repository": [repository],
        "report": report,
        "badge": {"software": {"criteria": _badges(document)}},
    }
    return json.dumps(made, indent=2) + "\n"


def _family(criteria: Sequence[Mapping[str, Any]], document: Mapping[str, Any], missing: set[str]) -> dict[str, Any]:
    subcriteria = {one["id"]: _subcriterion(one, document, missing) for one in criteria}
    good = sum(one["valid"] for one in subcriteria.values())
    return {
        "valid": bool(subcriteria) and all(_met(one) or one["level"] not in BINDING for one in criteria),
        "coverage": {
            "percentage": good * 100 // len(subcriteria) if subcriteria else 0,
            "total_subcriteria": len(subcriteria),
            "success_subcriteria": good,
        },
        "filtered_reason": [] if subcriteria else ["not asked for"],
        "subcriteria": subcriteria,
    }


def _subcriterion(one: Mapping[str, Any], document: Mapping[str, Any], missing: set[str]) -> dict[str, Any]:
    named = {check["check"]: check for check in document["checks"]}
    standard = next(iter(document["standards"].values()))
    checks = [named[name] for name in one["checks"] if name in named]
    return {
        "description": one["title"],
        "valid": _met(one),
        "requirement_level": one["level"],
        "hint": "" if _met(one) else one["evidence"],
        "required_for_next_level_badge": one["id"] in missing,
        "evidence": [
            {
                "name": f"deep-sqa-{check['check']}",
                "tool": check["tool"] or check["check"],
                "standard": {"title": standard["name"], "version": standard["version"], "url": standard["url"]},
                "valid": check["verdict"] == "pass",
                "message": "; ".join(check["reasons"])
                or f"{check['examined']} {check['unit']}, {len(check['findings'])} findings",
            }
            for check in checks
        ]
        or [{"name": "deep-sqa", "tool": one["means"], "valid": _met(one), "message": one["why"]}],
    }


def _met(one: Mapping[str, Any]) -> bool:
    return one["verdict"] in MET or bool(one["waiver"])


def _badges(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {
            "to_fulfill": stats["needed"],
            "missing": stats["missing"],
            "fulfilled": [one for one in stats["needed"] if one not in stats["missing"]],
        }
        for name, stats in document["badges"].items()
    }
