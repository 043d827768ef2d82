"""From outcomes of checks to verdicts on criteria, to a badge, and to whether the gate lets a tree through."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqa.attestation import Attestation
from sqa.model import NO_FILE, Finding, Outcome, Verdict
from sqa.settings import Settings, Waiver
from sqa.standard import BINDING, Criterion, Standard
from sqa.tree import select

Means = Literal["automated", "attested", "not_applicable", "nothing"]
BADGES = {
    "bronze": ("QC.Acc", "QC.Lic", "QC.Met", "QC.Doc"),
    "silver": ("QC.Sty", "QC.Sec", "QC.Ver"),
    "gold": ("QC.Uni", "QC.Wor", "QC.Man", "QC.Del"),
}


@dataclass(frozen=True)
class Judged:
    """One criterion: what it comes to, by which means, and why. ``waiver``: the id of what lets it through."""

    criterion: Criterion
    verdict: Verdict
    means: Means
    why: str
    waiver: str | None = None

    @property
    def met(self) -> bool:
        """Whether nothing has to be done about it."""
        return self.waiver is not None or self.verdict in (Verdict.PASS, Verdict.NOT_APPLICABLE)

    @property
    def blocks(self) -> bool:
        """Whether it holds a tree back: a MUST that is not met, also where nobody could look."""
        return self.criterion.level in BINDING and not self.met

    def as_dict(self) -> dict[str, Any]:
        """The judgement as a JSON object."""
        return {
            "id": self.criterion.id, "level": self.criterion.level, "title": self.criterion.title,
            "verdict": self.verdict.value, "means": self.means, "why": self.why, "waiver": self.waiver,
            "evidence": self.criterion.evidence, "checks": list(self.criterion.checks),
        }  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """A run, judged.

    ``accepted``: fingerprint to why a finding does not count (it does not apply, a waiver, the baseline). ``partial``:
    it judges checks and no criteria. ``complete``: it judges every criterion of the repository's standards.
    """

    outcomes: tuple[Outcome, ...]
    criteria: tuple[Judged, ...]
    accepted: Mapping[str, str]
    expired: tuple[Waiver, ...]
    unused: tuple[str, ...]
    gate: str
    badge: str
    partial: bool
    complete: bool

    @property
    def open_findings(self) -> tuple[Finding, ...]:
        """Findings that nothing accepts."""
        return tuple(
            one for outcome in self.outcomes for one in outcome.findings if one.fingerprint not in self.accepted
        )

    @property
    def obstacles(self) -> tuple[str, ...]:
        """Why the gate holds the tree back, empty where it does not."""
        found = [f"waiver {one.id} expired on {one.expires}" for one in self.expired]
        if self.partial:
            found += [
                f"check {one.check}: {one.verdict.value}"
                for one in self.outcomes
                if one.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)
            ]
            if all(one.reasons == (NO_FILE,) for one in self.outcomes):
                found.append("nothing was looked at: no check has a file of its kind")
            return tuple(found)
        found += [
            f"{one.criterion.id} ({one.criterion.level}): {one.verdict.value}" for one in self.criteria if one.blocks
        ]
        order = ["none", *BADGES]
        if order.index(self.badge) < order.index(self.gate):
            found.append(f"badge: {self.badge}, needed: {self.gate}")
        return tuple(found)

    @property
    def ok(self) -> bool:
        """Whether the gate lets the tree through."""
        return not self.obstacles


def judge(
    outcomes: Sequence[Outcome],
    standards: Mapping[str, Standard],
    settings: Settings,
    *,
    today: datetime.date,
    attestations: Mapping[str, Attestation],
    baseline: frozenset[str] = frozenset(),
    only: frozenset[str] = frozenset(),
    partial: bool = False,
) -> Judgement:
    """Judge a run.

    ``attestations``: by criterion, verified. ``baseline``: fingerprints of findings that were there before. ``only``:
    the criteria that were asked for, all where empty. ``partial``: only some files or checks were looked at, so that
    the run judges them and no criterion.
    """
    asked = {
        criterion.id
        for standard in standards.values()
        for criterion in standard.criteria
        if not only or criterion.id in only or criterion.family in only
    }
    concerned = [_about(one, asked) for one in outcomes]
    accepted, used = _accepted(concerned, settings, today, baseline)
    counted = [_recounted(one, accepted) for one in concerned]
    by_name = {one.check: one for one in counted}
    criteria = [
        _judged(criterion, by_name, accepted, settings, attestations.get(criterion.id), today)
        for standard in standards.values()
        for criterion in standard.criteria
        if criterion.id in asked and not partial
    ]
    used |= {one.waiver for one in criteria if one.waiver}
    expired = tuple(one for one in settings.waivers if one.expires < today)
    unused = (
        ()
        if partial or only
        else tuple(one.id for one in settings.waivers if one.id not in used and one not in expired)
    )
    return Judgement(
        tuple(counted), tuple(criteria), accepted, expired, unused, "none" if only else settings.gate,
        badge(criteria), partial, not (partial or only),
    )  # fmt: skip


def badge(criteria: Sequence[Judged]) -> str:
    """``none``, ``bronze``, ``silver`` or ``gold``: the last badge of which, as of those before, nothing is missing."""
    reached = "none"
    for name in BADGES:
        needed = needs(criteria, name)
        if not needed or not all(one.met for one in needed):
            break
        reached = name
    return reached


def needs(criteria: Sequence[Judged], name: str) -> list[Judged]:
    """The criteria that the badge ``name`` asks for beside those of the badges before it.

    Of each of its families that is every MUST, or where there is none, each SHOULD and RECOMMENDED; gold asks for each
    SHOULD of its families too. Empty where a family was not judged.
    """
    needed = []
    for family in BADGES[name]:
        judged = [one for one in criteria if one.criterion.family == family]
        if not judged:
            return []
        binding = [one for one in judged if one.criterion.level in BINDING]
        expected = [one for one in judged if one.criterion.level in ("SHOULD", "SHOULD NOT")]
        advised = [one for one in judged if one.criterion.level == "RECOMMENDED"]
        needed += binding + expected if name == "gold" and binding else binding or expected + advised
    return needed


def _accepted(
    outcomes: Sequence[Outcome], settings: Settings, today: datetime.date, baseline: frozenset[str]
) -> tuple[dict[str, str], set[str]]:
    accepted, used = {}, set()
    for finding in (one for outcome in outcomes for one in outcome.findings):
        waiver = next((one for one in settings.waivers if _counts(one, today) and _covers(one, finding)), None)
        if finding.rule in settings.not_applicable:
            accepted[finding.fingerprint] = "does not apply"
        elif waiver:
            accepted[finding.fingerprint] = f"waiver {waiver.id}"
            used.add(waiver.id)
        elif finding.fingerprint in baseline:
            accepted[finding.fingerprint] = "baseline"
    return accepted, used


def _counts(waiver: Waiver, today: datetime.date) -> bool:
    return waiver.since <= today <= waiver.expires


def _covers(waiver: Waiver, finding: Finding) -> bool:
    if waiver.check != finding.check or waiver.rule not in (None, finding.rule):
        return False
    return waiver.path is None or bool(select([finding.path], [waiver.path]))


def _about(outcome: Outcome, asked: set[str]) -> Outcome:
    """Of a check that judges criterion by criterion, what is about those that were asked for."""
    if not outcome.rules:
        return outcome
    left = tuple(one for one in outcome.findings if one.rule in asked)
    verdict = Verdict.PASS if outcome.verdict is Verdict.FAIL and not left else outcome.verdict
    return replace(outcome, findings=left, verdict=verdict)


def _recounted(outcome: Outcome, accepted: Mapping[str, str]) -> Outcome:
    left = [one for one in outcome.findings if one.fingerprint not in accepted]
    if left or not outcome.findings:
        return outcome
    return replace(outcome, verdict=Verdict.INCONCLUSIVE if outcome.reasons else Verdict.PASS)


def _judged(
    criterion: Criterion,
    outcomes: Mapping[str, Outcome],
    accepted: Mapping[str, str],
    settings: Settings,
    attested: Attestation | None,
    today: datetime.date,
) -> Judged:
    """The verdict on one criterion: a reason that it does not apply, a check, or somebody's word, in this order."""
    reason = settings.not_applicable.get(criterion.id)
    if reason is not None:
        return Judged(criterion, Verdict.NOT_APPLICABLE, "not_applicable", reason)
    missing = [name for name in criterion.checks if name not in outcomes]
    named = [one for one in outcomes.values() if _concerns(one, criterion)]
    made = _by_checks(criterion, named, missing, accepted) if named or missing else None
    spoken = {one.verdict for one in named} & {Verdict.FAIL, Verdict.INCONCLUSIVE}
    if attested is not None and not spoken and (made is None or made.verdict is Verdict.INCONCLUSIVE):
        made = _by_word(criterion, attested, today)
    if made is None:
        made = Judged(criterion, Verdict.INCONCLUSIVE, "nothing", "no check ran and nobody has attested it")
    waiver = next((one for one in settings.waivers if one.criterion == criterion.id and _counts(one, today)), None)
    return replace(made, waiver=waiver.id) if waiver and not made.met else made


def _concerns(outcome: Outcome, criterion: Criterion) -> bool:
    """Whether a check that ran says something about a criterion: one that judges rule by rule may not know it."""
    named = outcome.check in criterion.checks or criterion.id in outcome.criteria
    return named and (not outcome.rules or criterion.id in outcome.rules)


def _by_checks(
    criterion: Criterion, outcomes: Sequence[Outcome], missing: Sequence[str], accepted: Mapping[str, str]
) -> Judged:
    verdicts = {one.check: _of_criterion(one, criterion, accepted) for one in outcomes}
    verdicts |= dict.fromkeys(missing, Verdict.INCONCLUSIVE)
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        which = [name for name, found in verdicts.items() if found is verdict]
        if which:
            return Judged(criterion, verdict, "automated", ", ".join(which))
    passed = [name for name, found in verdicts.items() if found is Verdict.PASS]
    if not passed:
        return Judged(criterion, Verdict.INCONCLUSIVE, "automated", f"nothing to look at for {', '.join(verdicts)}")
    let_through = sum(one.fingerprint in accepted for outcome in outcomes for one in outcome.findings)
    more = f" ({let_through} findings accepted)" if let_through else ""
    return Judged(criterion, Verdict.PASS, "automated", ", ".join(passed) + more)


def _of_criterion(outcome: Outcome, criterion: Criterion, accepted: Mapping[str, str]) -> Verdict:
    if outcome.rules and outcome.verdict is Verdict.FAIL:
        failed = {one.rule for one in outcome.findings if one.fingerprint not in accepted}
        return Verdict.FAIL if criterion.id in failed else Verdict.PASS
    return outcome.verdict


def _by_word(criterion: Criterion, attested: Attestation, today: datetime.date) -> Judged:
    if attested.expires < today:
        return Judged(
            criterion,
            Verdict.INCONCLUSIVE,
            "attested",
            f"what {attested.signer} attested expired on {attested.expires}",
        )
    return Judged(criterion, Verdict.PASS, "attested", f"{attested.signer}, until {attested.expires}")
