"""A running site held against the service baseline: what the acceptance suite finds there, and how it is deployed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqa import attestation, gate, settings, standard
from sqa.judgement import Judgement, judge
from sqa.model import Finding, Outcome, Verdict, fingerprinted
from sqa.runner import Progress
from sqa.settings import Settings
from testbed import sites
from testbed.errors import DeepError
from testbed.paths import repo_root

STANDARD = "service"
# What the acceptance suite runs for them.
TOOLS = ("ssh-audit", "sslyze")
# Hidden, for every other file of the folder is read as an inventory.
SETTINGS = ".sqa.yml"
# Settings that are about code.
OF_CODE = {"baseline", "checks", "exclude", "plugins"}
# The checks that the acceptance suite is: each of its tests says which one it is a part of.
OF_A_SITE = {
    "acceptance": "The site does what it promises",
    "tls": "Whatever can be reached is encrypted well",
    "ssh": "The way in for administrators is strong",
    "hardening": "Hosts show and let change no more than they must",
}


@dataclass(frozen=True)
class Assessed:
    """The judgement on a site, the repository that deploys it, and where the suite's own report is."""

    judgement: Judgement
    repo: gate.Repository
    suite: Mapping[str, Any]


def assess(site: str, *, name: str | None = None, progress: Progress | None = None, quiet: bool = False) -> Assessed:
    """Assess a site: run the acceptance suite against it and the checks of deployment code that the baseline names.

    What is known of the site beforehand (waivers, what does not apply) is in ``.sqa.yml`` of its inventory.
    Raises ``DeepError`` for a site that is not there or cannot be reached.
    """
    repo = repository(site)
    verdict = sites.verify(site, name=name, assess=True, quiet=quiet)
    of_code = gate.look(repo, [one for one in gate.wanted(repo) if one not in OF_A_SITE], progress=progress)
    judged = judge(
        [*outcomes(verdict), *of_code], repo.standards, repo.settings, today=gate.today(),
        attestations=attestation.load(repo.place, repo.settings),
    )  # fmt: skip
    return Assessed(judged, repo, verdict)


def repository(site: str) -> gate.Repository:
    """This repository, to be held against the service baseline with what is known of a site.

    Raises ``DeepError`` for a site that is not there.
    """
    folder = sites.site_path(site)
    found = gate.repository(repo_root())
    known = settings.load(folder, SETTINGS, Settings(standards=(STANDARD,), gate="none"))
    _refuse_idle(folder / SETTINGS, known)
    of_site = known.model_copy(update={"checks": found.settings.checks, "exclude": found.settings.exclude})
    return replace(
        found, settings=of_site, standards={STANDARD: standard.load(STANDARD)}, further=tuple(OF_A_SITE),
        place=attestation.Place(folder, found.tree, site), settings_file=folder / SETTINGS,
    )  # fmt: skip


def _refuse_idle(path: Path, known: Settings) -> None:
    """Raise ``DeepError`` for what says nothing in the settings of a site: code is the repository's."""
    idle = sorted(OF_CODE & known.model_fields_set)
    if idle:
        raise DeepError(
            f"{path}: {', '.join(idle)}: does nothing for a site", needed=f"it in {settings.NAME} of the repository",
            next_step="move it there, or remove it",
        )  # fmt: skip
    if "standards" in known.model_fields_set and known.standards != (STANDARD,):
        raise DeepError(
            f"{path}: standards", found=", ".join(known.standards), needed=STANDARD, next_step="correct the file"
        )
    for one in known.waivers:
        gate.refuse_path(one, tuple(OF_A_SITE))


def outcomes(verdict: Mapping[str, Any]) -> list[Outcome]:
    """An outcome for each check of a site, from the verdict of the acceptance suite.

    What was skipped was not examined; a check of which nothing ran is inconclusive.
    """
    return [_outcome(name, [one for one in verdict["checks"] if one["check"] == name]) for name in OF_A_SITE]


def _outcome(name: str, tests: list[Mapping[str, Any]]) -> Outcome:
    ran = [one for one in tests if one["outcome"] in ("passed", "failed")]
    lost = [one["id"] for one in tests if one["outcome"] == "not run"]
    failed = [Finding("", 0, name, one["id"], one["reason"]) for one in tests if one["outcome"] == "failed"]
    made = Outcome(
        name, Verdict.INCONCLUSIVE, title=OF_A_SITE[name], selected=len(tests), examined=len(ran),
        findings=tuple(fingerprinted(failed, _no_line)),
        unit="tests", work={"skipped": len(tests) - len(ran) - len(lost)},
    )  # fmt: skip
    reasons = (f"not run: {', '.join(lost)}",) if lost else () if ran else ("no test of it ran",)
    if failed:
        return replace(made, verdict=Verdict.FAIL, reasons=reasons)
    if reasons:
        return replace(made, reasons=reasons)
    return replace(made, verdict=Verdict.PASS)


def _no_line(_path: str, _line: int) -> str:
    return ""
