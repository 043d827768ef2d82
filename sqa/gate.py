"""What ``deep sqa`` does: put settings, checks, runner and judgement together for one repository."""

from __future__ import annotations

import datetime
import difflib
import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sqa import attestation, baseline, registry, settings, standard
from sqa.attestation import Attestation, Place
from sqa.judgement import BADGES, Judgement, judge, needs
from sqa.model import Outcome
from sqa.registry import Registered
from sqa.runner import Progress, Runner
from sqa.settings import Settings, Waiver
from sqa.standard import Criterion, Standard
from sqa.tree import STATUS, Tree
from sqa.wrong import explained
from testbed.errors import CHECK_FAILED, DeepError
from testbed.files import write_atomic, write_json
from testbed.paths import cache_dir

FIRST = """\
---
# What this repository is held against: deep sqa run, deep sqa explain ID.
standards: [software]
# The badge that a run has to reach: none, bronze, silver or gold.
gate: bronze
# Criteria that do not apply here, each with the reason.
not_applicable: {}
"""


@dataclass(frozen=True)
class Repository:
    """A repository, or one of its sites, with all that decides on how it is judged.

    ``place``: where attestations lie and what they are about. ``further``: names of checks that others run.
    """

    root: Path
    settings: Settings
    tree: Tree
    standards: dict[str, Standard]
    checks: dict[str, Registered]
    place: Place
    settings_file: Path
    further: tuple[str, ...] = ()

    @property
    def criteria(self) -> list[Criterion]:
        """Every criterion of its standards, in their order."""
        return [one for loaded in self.standards.values() for one in loaded.criteria]


def top(start: Path) -> Path:
    """The root of the repository that ``start`` is in: the checkout of git around it, or itself."""
    if not start.is_dir():
        raise DeepError("no such folder", found=str(start), next_step="name the root of a repository")
    return next((folder for folder in (start, *start.parents) if (folder / ".git").exists()), start)


def repository(start: Path, *, plugins: bool = True) -> Repository:
    """The repository that ``start`` is in; raises ``DeepError`` for settings or plug-ins that cannot be used.

    ``plugins``: also load the repository's own checks, which is to run its code.
    """
    root = top(start.resolve())
    found = settings.load(root)
    checks = registry.load(root / found.plugins if found.plugins and plugins else None)
    if found.plugins and not plugins:
        return _repository(root, found, checks)
    idle = [one.check.name for one in checks.values() if one.plugin and not one.check.criteria]
    if idle:
        raise DeepError(
            "a check of the repository serves no criterion", found=", ".join(idle),
            needed="criteria=(...) in its CHECK", next_step="see docs/sqa-add-a-check.md",
        )  # fmt: skip
    unknown = sorted({*found.checks, *(one.check for one in found.waivers if one.check)} - set(checks))
    if unknown:
        raise DeepError(
            f"{root / settings.NAME}: no such check", found=", ".join(unknown),
            needed=f"some of: {', '.join(checks)}", next_step="correct the file",
        )  # fmt: skip
    return _repository(root, found, checks)


def _repository(root: Path, found: Settings, checks: dict[str, Registered]) -> Repository:
    standards = {name: standard.load(name) for name in found.standards}
    tree = Tree(root, found.exclude)
    return Repository(root, found, tree, standards, checks, Place(root, tree), root / settings.NAME)


def run(
    repo: Repository,
    *,
    criteria: Sequence[str] = (),
    checks: Sequence[str] = (),
    changed: str | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Judgement:
    """Run the checks that the criteria name (ids or families; all where empty), or ``checks``, and judge.

    ``changed``: only files that differ from where the branch left this base. Raises ``DeepError`` for what is unknown.
    """
    if criteria and checks:
        raise DeepError("criteria and checks are asked for together", next_step="leave out --criteria or --check")
    only = frozenset(
        _known(criteria, {one.id for one in repo.criteria} | {one.family for one in repo.criteria}, "criterion")
    )
    names = _known(checks, set(repo.checks), "check") or wanted(repo, only)
    files = repo.tree.changed_since(changed) if changed else None
    return judge(
        look(repo, names, files, jobs=jobs, progress=progress),
        repo.standards,
        repo.settings,
        today=today(),
        attestations=attestation.load(repo.place, repo.settings),
        baseline=baseline.load(repo.root / repo.settings.baseline),
        only=only,
        partial=bool(checks or changed),
    )


def look(
    repo: Repository,
    names: Sequence[str],
    changed: frozenset[str] | None = None,
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """The outcomes of these checks, of the files ``changed`` alone where they are given."""
    runner = Runner(repo.tree, repo.settings, jobs=jobs or len(os.sched_getaffinity(0)), progress=progress)
    return runner.run([repo.checks[name] for name in names], changed)


def waiver(repo: Repository, **fields: Any) -> Waiver:
    """Write a waiver that begins today; raises ``DeepError`` for one that is not whole or names what is not there."""
    if fields.get("check"):
        _known([fields["check"]], {*repo.checks, *repo.further}, "check")
    if fields.get("criterion"):
        fields["criterion"] = standard.find(fields["criterion"], repo.standards).id
    try:
        made = Waiver(since=today(), **fields)
    except ValidationError as wrong:
        raise DeepError(f"not a waiver: {explained(wrong, Waiver)}", next_step="deep sqa waive --help") from wrong
    refuse_path(made, repo.further)
    settings.add_waiver(repo.settings_file, made, repo.settings)
    return made


def refuse_path(made: Waiver, of_site: Sequence[str]) -> None:
    """Raise ``DeepError`` for a waiver of files from a check ``of_site``, which looks at hosts."""
    if made.path and made.check in of_site:
        raise DeepError(
            f"waiver {made.id}: what the check {made.check} finds at a site is in no file", found=f"path {made.path}",
            next_step="leave the path out, and name the test with --rule if wanted",
        )  # fmt: skip


def attest(repo: Repository, criterion: str, words: str, signer: str, expires: datetime.date, key: Path) -> Path:
    """Write and sign an attestation of today; returns its file.

    Raises ``DeepError`` where it would not count: its checks, which are run for that, say more than a word.
    """
    asked = standard.find(criterion, repo.standards)
    about = attestation.repository(repo.place)
    try:
        made = Attestation(
            criterion=asked.id, repository=about, site=repo.place.site, statement=words, signer=signer, date=today(),
            expires=expires,
        )  # fmt: skip
    except ValidationError as wrong:
        raise DeepError(
            f"not an attestation: {explained(wrong, Attestation)}", next_step="deep sqa attest --help"
        ) from wrong
    _refuse_uncounted(repo, asked, made)
    return attestation.write(repo.place, repo.settings, made, key)


def _refuse_uncounted(repo: Repository, criterion: Criterion, made: Attestation) -> None:
    of_site = [name for name in criterion.checks if name in repo.further]
    why = f"checked at the site by {', '.join(of_site)}"
    if not of_site:
        names = wanted(repo, frozenset({criterion.id}))
        judged = judge(
            look(repo, names), repo.standards, repo.settings, today=today(), attestations={criterion.id: made},
            only=frozenset({criterion.id}),
        ).criteria[0]  # fmt: skip
        if judged.means == "attested":
            return
        why = f"{judged.verdict.value}: {judged.why}"
    raise DeepError(
        f"a word on {criterion.id} does not count here", found=why, needed="no check that looks at anything for it",
        next_step=f"deep sqa run --criteria {criterion.id}; what cannot be met is for deep sqa waive",
    )  # fmt: skip


def begin(root: Path) -> Path:
    """Write a first ``sqa.yml``; raises ``DeepError`` where there is one."""
    path = root / settings.NAME
    if path.exists():
        raise DeepError(f"{path} exists", next_step="edit it, or: deep sqa run")
    write_atomic(path, FIRST)
    return path


def remember(repo: Repository, made: Mapping[str, Any]) -> None:
    """Keep the document of a run, for reports on it."""
    write_json(_last(repo), made)


def last(repo: Repository) -> dict[str, Any]:
    """The document of the last run over the repository, which has to be about the tree as it is now."""
    try:
        made: dict[str, Any] = json.loads(_last(repo).read_text(encoding="utf-8"))
    except FileNotFoundError as missing:
        raise DeepError("there is no run to report on", found=str(repo.root), next_step="deep sqa run") from missing
    if made["tree"] != digest(repo.tree):
        raise DeepError("the tree has changed since the last run", next_step="deep sqa run")
    return made


def _last(repo: Repository) -> Path:
    return cache_dir() / "sqa" / "last" / f"{hashlib.sha256(str(repo.root).encode()).hexdigest()[:16]}.json"


def now() -> datetime.datetime:
    """The time of a report: that of SOURCE_DATE_EPOCH where it is set, so that a report can be made again."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    if not epoch.isdecimal():
        raise DeepError("SOURCE_DATE_EPOCH is no number of seconds", found=epoch, next_step="correct or unset it")
    return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)


def today() -> datetime.date:
    """The day by the clock: what has expired has expired whatever SOURCE_DATE_EPOCH says."""
    return datetime.datetime.now(datetime.UTC).date()


def digest(tree: Tree) -> str:
    """SHA-256 over every file's name, mode and content and every link's target: what a verdict is about.

    What no check looks at counts too, and of a repository within it the commit that is checked out there.
    """
    total = hashlib.sha256()
    whole = Tree(tree.root)
    for name in whole.files:
        mode = stat.S_IMODE((tree.root / name).stat().st_mode)
        total.update(f"{tree.digest(name)} {mode:o} {name}\n".encode("utf-8", "surrogateescape"))
    for name in whole.links:
        total.update(f"{(tree.root / name).readlink()} < {name}\n".encode("utf-8", "surrogateescape"))
    for name in whole.nested:
        commit, clean = whole.within(name)
        total.update(f"{commit} {clean} @ {name}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def refuse_unknown(tree: Tree) -> None:
    """Raise ``DeepError`` where a repository within the tree holds what no commit of it does."""
    whole = Tree(tree.root)
    unclean = [name for name in whole.nested if not whole.within(name)[1]]
    if unclean:
        raise DeepError(
            "a repository within the tree is not what one of its commits is", found=", ".join(unclean),
            needed="nothing changed and nothing new in it", next_step=f"see git -C {unclean[0]} status",
            exit_code=CHECK_FAILED,
        )  # fmt: skip


def revision(tree: Tree) -> str:
    """The commit that the tree is, empty where it is none or differs from it."""
    if not tree.versioned or tree.git(*STATUS, check=False).strip():
        return ""
    return tree.git("rev-parse", "HEAD", check=False).strip()


def document(repo: Repository, judged: Judgement) -> dict[str, Any]:
    """A run as data: the one thing that every report is made of. It is the same for the same tree and time."""
    return {
        "format": 1,
        "repository": repo.root.name,
        "created": now().isoformat(),
        "revision": revision(repo.tree),
        "first_commit": repo.tree.first_commit,
        "tree": digest(repo.tree),
        "standards": {
            name: {
                "name": one.name,
                "version": one.version,
                "url": one.source.identifier,
                "families": dict(one.families),
            }
            for name, one in repo.standards.items()
        },
        "ok": judged.ok,
        "gate": judged.gate,
        "badge": judged.badge,
        "badges": {
            name: {
                "needed": [one.criterion.id for one in needs(judged.criteria, name)],
                "missing": [one.criterion.id for one in needs(judged.criteria, name) if not one.met],
            }
            for name in BADGES
        },
        "partial": judged.partial,
        "complete": judged.complete,
        "obstacles": list(judged.obstacles),
        "criteria": [one.as_dict() for one in judged.criteria],
        "checks": [one.as_dict() for one in judged.outcomes],
        "accepted": dict(sorted(judged.accepted.items())),
        "waivers": [json.loads(one.model_dump_json()) for one in repo.settings.waivers],
        "unused_waivers": list(judged.unused),
    }


def _known(names: Sequence[str], known: set[str], what: str) -> list[str]:
    for name in names:
        if name not in known:
            similar = difflib.get_close_matches(name, known, cutoff=0.4) or sorted(known)[:3]
            raise DeepError(
                f"unknown {what}", found=name, needed=f"one such as {', '.join(similar)}",
                next_step="the completion of the shell knows them all (deep --install-completion)",
            )  # fmt: skip
    return list(dict.fromkeys(names))


def wanted(repo: Repository, only: frozenset[str] = frozenset()) -> list[str]:
    """The checks that speak for criteria of the repository (ids or families, all where empty)."""
    asked = [one for one in repo.criteria if not only or one.id in only or one.family in only]
    applicable = [one for one in asked if one.id not in repo.settings.not_applicable]
    named: set[str] = {name for one in applicable for name in one.checks}
    named |= {
        one.check.name for one in repo.checks.values() if set(one.check.criteria) & {each.id for each in applicable}
    }
    return [name for name in repo.checks if name in named]
