"""Two runs against each other: each workload has become slower, has not, or neither was shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pipelines.benchmark import stats
from pipelines.benchmark.model import Machine, Result, counted
from pipelines.benchmark.store import settings
from testbed.errors import DeepError

REGRESSION: Literal["regression"] = "regression"
NO_REGRESSION: Literal["no regression"] = "no regression"
INCONCLUSIVE: Literal["inconclusive"] = "inconclusive"
Verdict = Literal["regression", "no regression", "inconclusive"]


@dataclass(frozen=True)
class Rule:
    """When something is called slower: shown to be worse by more than ``minimum``, relative to before.

    ``level``: how likely one of the workloads of a comparison may be called slower though it is not.
    """

    minimum: float = 0.02
    level: float = stats.LEVEL


@dataclass(frozen=True)
class Outcome:
    """One workload. ``change``, ``low``, ``high``: relative to before, at 95 %; above 0 is better; ``p`` after Holm.

    ``worse``: it looks slower, since the whole interval is below what matters, whether or not that was shown.
    """

    workload: str
    device: str
    unit: str
    verdict: Verdict
    reason: str
    before: float | None = None
    after: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    worse: bool = False


def compared(
    before: Sequence[Result], after: Sequence[Result], rule: Rule | None = None, *, across: bool = False
) -> list[Outcome]:
    """Each workload of either side.

    Raises ``DeepError`` where the sides were measured on different device models, unless ``across``: then what was
    found is told, and nothing is concluded from it.
    """
    rule = rule or Rule()
    old, new = {one.workload: one for one in before}, {one.workload: one for one in after}
    if not across:
        _require_same_devices(old, new)
    outcomes = [_outcome(name, old.get(name), new.get(name), rule.minimum) for name in dict.fromkeys([*old, *new])]
    names = [one.workload for one in outcomes if one.p is not None]
    few = {name: _too_few(old[name], new[name], len(names), rule.level) for name in names}
    outcomes = [replace(one, p=None, reason=few[one.workload]) if few.get(one.workload) else one for one in outcomes]
    tested = [one for one in outcomes if one.p is not None]
    corrected = dict(zip((one.workload for one in tested), stats.holm([one.p or 0.0 for one in tested]), strict=True))
    decided = [
        _decided(replace(one, p=corrected[one.workload]), rule) if one.p is not None else one for one in outcomes
    ]
    return [_suspected(one) for one in decided]


def overall(outcomes: Sequence[Outcome]) -> Verdict:
    """The verdict on a whole comparison; one of nothing shows nothing."""
    found = {one.verdict for one in outcomes}
    if REGRESSION in found:
        return REGRESSION
    return NO_REGRESSION if found == {NO_REGRESSION} else INCONCLUSIVE


def passes(outcomes: Sequence[Outcome], *, lenient: bool = False) -> bool:
    """Whether a gate opens: nothing is slower and that was shown, or, ``lenient``, nothing even looks slower."""
    verdict = overall(outcomes)
    return verdict == NO_REGRESSION or (
        lenient and verdict == INCONCLUSIVE and not any(one.worse for one in outcomes)
    )  # fmt: skip


def document(outcomes: Sequence[Outcome], rule: Rule, before: Mapping[str, Machine], after: Machine) -> dict[str, Any]:
    """Everything about a comparison: ``before`` are the machines of earlier runs, by the run's id."""
    notes = [f"{run}: {one}" for run, machine in before.items() for one in differences(machine, after)]
    return {
        "verdict": overall(outcomes), "rule": asdict(rule), "outcomes": [asdict(one) for one in outcomes],
        "differences": notes,
    }  # fmt: skip


def differences(before: Machine, after: Machine) -> list[str]:
    """What else differs between two machines, or between one then and now."""
    pairs: dict[str, tuple[object, object]] = {
        name: (getattr(before, name), getattr(after, name))
        for name in ("host", "kernel", "system", "container", "memory")
    }
    for name in ("quota", "max_mhz", "governor"):
        pairs[name] = getattr(before.cpu, name), getattr(after.cpu, name)
    for name in sorted({*before.libraries, *after.libraries}):
        pairs[name] = before.libraries.get(name), after.libraries.get(name)
    for name in ("driver", "cuda", "mig", "ecc", "pcie", "power_limit"):
        sides = ([getattr(gpu, name) for gpu in machine.gpus] for machine in (before, after))
        pairs[f"GPU {name}"] = next(sides), next(sides)
    return [f"{name} was {old or 'none'}, is {new or 'none'}" for name, (old, new) in pairs.items() if old != new]


def _require_same_devices(old: Mapping[str, Result], new: Mapping[str, Result]) -> None:
    for name in old.keys() & new.keys():
        if old[name].device != new[name].device:
            raise DeepError(
                f"{name} was measured on different devices", found=f"{old[name].device} and {new[name].device}",
                needed="one device model", next_step="give --across to see the figures nevertheless",
            )  # fmt: skip


def _outcome(name: str, old: Result | None, new: Result | None, minimum: float) -> Outcome:
    """The figures of a workload, ``p`` where they can be tested, else the reason why they cannot."""
    one = new or old
    if one is None:
        raise ValueError(name)
    bare = Outcome(name, one.device, one.unit, INCONCLUSIVE, "")
    if old is None or new is None:
        return replace(bare, reason="measured before only" if new is None else "the baseline lacks it")
    for side, when in ((old, "before"), (new, "now")):
        if side.summary is None:
            return replace(bare, reason=f"invalid {when}: {'; '.join(side.reasons)}")
    if old.summary is None or new.summary is None:
        return bare
    change, low, high = stats.change(old.medians, new.medians)
    if new.direction == "lower":
        change, low, high = -change, -high, -low
    seen = replace(
        bare, before=old.summary.median, after=new.summary.median, change=change, low=low, high=high
    )  # fmt: skip
    otherwise = _measured_otherwise(old, new)
    if otherwise:
        return replace(seen, reason=otherwise)
    seen = replace(seen, worse=high < -minimum)
    suspect = _suspect(old, new)
    if suspect:
        return replace(seen, reason=suspect)
    return replace(seen, p=stats.p_value(old.medians, new.medians, new.direction, minimum))


def _measured_otherwise(old: Result, new: Result) -> str:
    if old.device != new.device:
        return f"another device: {old.device} before, {new.device} now"
    if settings(old) != settings(new) or (old.unit, old.direction) != (new.unit, new.direction):
        return f"measured otherwise: {settings(old)} before, {settings(new)} now"
    return ""


def _suspect(old: Result, new: Result) -> str:
    for side, when in ((old, "before"), (new, "now")):
        if side.status == "suspect":
            return f"suspect {when}: {'; '.join(side.reasons)}"
    return ""


def _too_few(old: Result, new: Result, tests: int, level: float) -> str:
    """The more workloads are tested together, the more processes it takes to show something of each."""
    before, now, needed = len(old.samples), len(new.samples), stats.fewest(tests, level)
    if min(before, now) >= needed:
        return ""
    said = f"{before} before, {now} now, needed at least {needed}"
    return f"too few processes for {counted(tests, 'workload')}: {said}"


def _decided(one: Outcome, rule: Rule) -> Outcome:
    """Slower: surely by more than what matters. Not slower: the interval excludes what matters."""
    if one.change is None or one.low is None or one.high is None or one.p is None:
        raise ValueError(one.workload)
    said = _figures(one)
    if one.p < rule.level:
        return replace(one, verdict=REGRESSION, reason=said)
    if one.low > -rule.minimum:
        return replace(one, verdict=NO_REGRESSION, reason=said)
    if one.worse:
        return replace(one, reason=f"not sure enough at {rule.level:.2g}; more processes help")
    return replace(one, reason=f"the interval is too wide: {said}, {rule.minimum:.1%} matter; more processes help")


def _suspected(one: Outcome) -> Outcome:
    if one.verdict != INCONCLUSIVE or not one.worse:
        return one
    return replace(one, reason=f"{one.reason}; it looks slower: {_figures(one)}")


def _figures(one: Outcome) -> str:
    return f"{one.change:+.1%} ({one.low:+.1%} to {one.high:+.1%})"
