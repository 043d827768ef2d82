"""SARIF 2.1.0 (OASIS, 2020): one run per check, so that each has its own tool, rules and success."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT = "deepSqa/v1"
INCONCLUSIVE = "inconclusive"


def render(document: Mapping[str, Any]) -> str:
    """The findings of a run; a check that could not look is a run that did not succeed, with the reason."""
    runs = [_run(check, document["accepted"]) for check in document["checks"]]
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": runs}, indent=2) + "\n"


def _run(check: Mapping[str, Any], accepted: Mapping[str, str]) -> dict[str, Any]:
    name, _, version = check["tool"].partition(" ")
    rules = sorted({one["rule"] for one in check["findings"]})
    notes = [{"level": "error", "message": {"text": reason}} for reason in check["reasons"]]
    driver = {"name": check["check"], "fullName": check["title"], "rules": [{"id": rule} for rule in rules]}
    if version:
        driver["version"] = version
    return {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"deep-sqa/{check['check']}/"},
        "columnKind": "utf16CodeUnits",
        "invocations": [
            {
                "executionSuccessful": check["verdict"] != INCONCLUSIVE,
                "toolExecutionNotifications": notes if check["verdict"] == INCONCLUSIVE else [],
            }
        ],
        "properties": {
            "verdict": check["verdict"], "tool": name, "examined": check["examined"], "selected": check["selected"],
            "work": check["work"],
        },
        "results": [_result(one, rules, accepted.get(one["fingerprint"])) for one in check["findings"]],
    }  # fmt: skip


def _result(finding: Mapping[str, Any], rules: list[str], accepted: str | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding["rule"],
        "ruleIndex": rules.index(finding["rule"]),
        "level": finding["severity"],
        "message": {"text": finding["message"]},
        "partialFingerprints": {FINGERPRINT: finding["fingerprint"]},
        "baselineState": "unchanged" if accepted == "baseline" else "new",
    }
    if finding["path"]:
        place: dict[str, Any] = {"artifactLocation": {"uri": quote(finding["path"]), "uriBaseId": "SRCROOT"}}
        if finding["line"]:
            place["region"] = {"startLine": finding["line"]}
        result["locations"] = [{"physicalLocation": place}]
    if accepted:
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": accepted}]
    return result
