"""A site's verdict as checks of the gate: what did not run is no pass."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from sqa import assessment
from sqa.judgement import judge
from sqa.model import Outcome, Verdict
from sqa.settings import Settings


def case(check: str, outcome: str, identifier: str = "t") -> dict[str, Any]:
    return {"id": identifier, "title": "", "check": check, "outcome": outcome, "reason": f"{outcome} because"}


def found(*tests: dict[str, Any]) -> dict[str, Outcome]:
    return {one.check: one for one in assessment.outcomes({"checks": list(tests)})}


@pytest.mark.parametrize(
    ("outcomes", "verdict", "examined"),
    [
        (("passed",), Verdict.PASS, 1),
        (("passed", "skipped"), Verdict.PASS, 1),
        (("passed", "failed"), Verdict.FAIL, 2),
        (("failed", "not run"), Verdict.FAIL, 1),
        (("passed", "not run"), Verdict.INCONCLUSIVE, 1),
        (("skipped",), Verdict.INCONCLUSIVE, 0),
        ((), Verdict.INCONCLUSIVE, 0),
    ],
)
def test_a_check_of_a_site_is_as_good_as_its_tests(outcomes: tuple[str, ...], verdict: Verdict, examined: int) -> None:
    one = found(*(case("tls", outcome, str(number)) for number, outcome in enumerate(outcomes)))["tls"]
    assert (one.verdict, one.examined, one.selected) == (verdict, examined, len(outcomes))


def test_what_did_not_run_is_no_pass_when_the_failure_is_accepted() -> None:
    one = found(case("ssh", "failed", "a"), case("ssh", "not run", "b"))["ssh"]
    waiver = {
        "id": "w", "check": "ssh", "reason": "accepted until it is replaced", "owner": "maintainers",
        "since": "2026-01-01", "expires": "2026-06-30",
    }  # fmt: skip
    settings = Settings.model_validate({"standards": ["service"], "waivers": [waiver]})
    judged = judge([one], {}, settings, today=datetime.date(2026, 2, 1), attestations={})
    assert judged.outcomes[0].verdict is Verdict.INCONCLUSIVE


def test_a_failure_says_which_test_and_why() -> None:
    one = found(case("ssh", "failed", "test_ssh[node1]"))["ssh"]
    assert [(each.rule, each.message) for each in one.findings] == [("test_ssh[node1]", "failed because")]
    assert one.findings[0].fingerprint
