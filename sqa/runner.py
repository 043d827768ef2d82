"""Runs checks side by side, each on a copy of what it declares, and remembers what they found.

A result is remembered by everything that decides on it, so a run with a cold cache and one with a warm one agree. A
check that only looks at changed files gives for them what it gives in a run over all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sqa import standard, tools
from sqa.cache import Cache
from sqa.check import Canary, Check, InconclusiveError, Look, Regards, Report
from sqa.model import NO_FILE, SEVERITIES, Finding, Outcome, Verdict, fingerprinted
from sqa.registry import Registered
from sqa.settings import Settings
from sqa.tree import Tree, select
from testbed.errors import DeepError
from testbed.paths import cache_dir

SMALLEST_PART = 20  # files that are worth a process of their own
WHOLE = ""  # the key under which a check of scope ``tree`` has its one result

Progress = Callable[[str, str], None]


@dataclass(frozen=True)
class Result:
    """What a check saw of one file, or of the whole tree, as it is remembered."""

    findings: tuple[Finding, ...]
    examined: tuple[str, ...]
    work: Mapping[str, str | int]
    rules: tuple[str, ...]

    def stored(self) -> list[Any]:
        """As JSON."""
        rows = [[one.path, one.line, one.rule, one.message, one.severity] for one in self.findings]
        return [rows, list(self.examined), dict(self.work), list(self.rules)]

    @staticmethod
    def restored(check: str, stored: list[Any]) -> Result:
        """From JSON."""
        rows, examined, work, rules = stored
        findings = tuple(Finding(path, line, check, rule, text, level) for path, line, rule, text, level in rows)
        return Result(findings, tuple(examined), work, tuple(rules))


@dataclass
class Plan:
    """What one check has to do in this run."""

    registered: Registered
    tree: Tree
    settings: Settings
    changed: frozenset[str] | None
    results: dict[str, Result] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cached: bool = True
    named: dict[str, bytes] = field(default_factory=dict)

    @property
    def check(self) -> Check:
        """The check itself."""
        return self.registered.check

    @cached_property
    def own(self) -> dict[str, Any]:
        """The check's part of ``sqa.yml``."""
        return self.settings.checks.get(self.check.name, {})

    @cached_property
    def selected(self) -> tuple[str, ...]:
        """The files that the check is asked to examine."""
        return self.check.selected(self.tree, self.own.get("exclude", ()))

    @cached_property
    def restricted(self) -> tuple[str, ...]:
        """Those of them that this run is about."""
        return tuple(name for name in self.selected if self.changed is None or name in self.changed)

    @cached_property
    def beside(self) -> tuple[str, ...]:
        """Files that the tool needs beside those: its configuration and its support."""
        patterns = (*self.check.configuration, *self.check.support)
        return self.tree.matching(patterns) if patterns else ()

    @cached_property
    def keys(self) -> dict[str, str]:
        """By file (or ``WHOLE``): the hash of everything that decides on the result."""
        common = hashlib.sha256(self.registered.identity.encode())
        common.update(json.dumps([self.settings.standards, self.own], sort_keys=True, default=str).encode())
        if self.check.environment:
            common.update(self.check.environment(self.tree, self.own).encode())
        self._add(common, self.beside)
        if self.check.scope == "tree":
            self._add(common, self.selected)
            return {WHOLE: common.hexdigest()}
        keys = {}
        for name in self.restricted:
            own = common.copy()
            self._add(own, (name,))
            self._add(own, self.related(name), self.check.regards)
            keys[name] = own.hexdigest()
        return keys

    def related(self, name: str) -> tuple[str, ...]:
        """Other files that decide on the result of this one."""
        return tuple(sorted(set(self.check.related(self.tree, name)))) if self.check.related else ()

    def refuse_changes(self, names: Iterable[str]) -> None:
        """Raise ``InconclusiveError`` where one of these files is not what it was when its key was made."""
        for name in names:
            if name in self.named and self._named(name) != self.named[name]:
                raise InconclusiveError(f"{name} was changed while it was looked at; run this again")

    def _named(self, name: str) -> bytes:
        return _entry(name, self.tree.digest(name))

    def _add(self, digest: Any, names: Iterable[str], regards: Regards | None = None) -> None:
        for name in names:
            if name not in self.named:  # files that many others import are asked for again and again
                self.named[name] = self._named(name)
            digest.update(_entry(name, regards(self.tree, name)) if regards else self.named[name])

    @property
    def remembered(self) -> bool:
        """Whether results of this check may be used again."""
        outside = self.check.of_repository and self.check.environment is None
        return not (self.check.network or outside)

    @property
    def missing(self) -> tuple[str, ...]:
        """The files that are still to be examined."""
        if self.check.scope == "tree":
            return () if self.results else self.selected
        return tuple(name for name in self.restricted if name not in self.results)

    @property
    def left(self) -> float:
        """The share of its files that is still to be examined, up to 1."""
        return len(self.missing) / max(1, len(self.selected))

    def parts(self, jobs: int) -> list[tuple[str, ...]]:
        """The files that are still to be examined, in as many parts as are worth a process each."""
        missing = self.missing
        if self.check.scope == "tree":
            return [missing] if missing else []
        wanted = min(jobs, len(missing) // SMALLEST_PART) if self.check.split else 1
        # Every nth file: neighbours are alike, so the parts take about as long as each other.
        return [missing[start :: max(1, wanted)] for start in range(max(1, wanted))] if missing else []

    def take(self, part: Sequence[str], report: Report) -> None:
        """Keep what was seen of ``part``, by file where the check is of that scope."""
        least = SEVERITIES.index(self.own.get("severity", SEVERITIES[0]))
        findings = [one for one in report.findings if SEVERITIES.index(one.severity) >= least]
        examined = set(report.examined) & set(self.selected)
        allowed = {*self.selected, ""} if self.check.scope == "tree" else set(part)
        stray = next((one for one in findings if one.path not in allowed), None)
        if stray:
            raise InconclusiveError(
                f"a finding is in none of the files that were examined: {stray.path or '(no file)'}: {stray.message}"
            )
        if self.check.scope == "tree":
            self.results[WHOLE] = Result(
                tuple(sorted(findings)), tuple(sorted(examined)), report.work, tuple(sorted(report.rules))
            )
            return
        for name in part:
            of_file = tuple(sorted(one for one in findings if one.path == name))
            self.results[name] = Result(of_file, (name,) if name in examined else (), report.work, tuple(report.rules))

    def outcome(self) -> Outcome:
        """What the check comes to, restricted to the files that this run is about."""
        tool = self.registered.tool.version if self.registered.tool else ""
        made = Outcome(
            self.check.name, Verdict.INCONCLUSIVE, tool, selected=len(self.restricted),
            reasons=tuple(sorted(set(self.reasons))),
            seconds=self.seconds, cached=self.cached, criteria=self.check.criteria, title=self.check.title,
        )  # fmt: skip
        if self.reasons:
            return made
        if not self.selected and self.check.selected(self.tree):
            return replace(made, reasons=("sqa.yml excludes every file of its kind",))
        if not self.restricted:
            why = NO_FILE if not self.selected else f"{NO_FILE} has changed"
            return replace(made, verdict=Verdict.NOT_APPLICABLE, reasons=(why,))
        about = set(self.restricted)
        findings = [
            one
            for result in self.results.values()
            for one in result.findings
            if one.path in about or (self.changed is None and one.path == "")
        ]
        examined = {name for result in self.results.values() for name in result.examined} & about
        work: dict[str, str | int] = {}
        for result in self.results.values():
            work.update(result.work)
        rules = frozenset(rule for result in self.results.values() for rule in result.rules)
        if not examined and self.changed is not None and any(one.examined for one in self.results.values()):
            why = f"{NO_FILE} has changed that the tool's configuration does not leave out"
            return replace(made, verdict=Verdict.NOT_APPLICABLE, reasons=(why,))
        if not examined:
            return replace(made, reasons=("the tool looked at none of the files it was asked to look at",))
        return replace(
            made,
            verdict=Verdict.FAIL if findings else Verdict.PASS,
            findings=tuple(fingerprinted(findings, self.tree.line)),
            examined=len(examined),
            work=work,
            rules=rules,
        )


class Runner:
    """One run over a repository; ``progress(check, what)`` is told when a check begins and ends."""

    def __init__(
        self, tree: Tree, settings: Settings, *, jobs: int, cache: Cache | None = None, progress: Progress | None = None
    ) -> None:
        self.tree = tree
        self.settings = settings
        self.jobs = max(1, jobs)
        self.cache = cache or Cache()
        self.progress = progress or (lambda _check, _what: None)

    def run(self, checks: Sequence[Registered], changed: frozenset[str] | None = None) -> list[Outcome]:
        """The outcomes of ``checks``, in their order; of the files ``changed`` alone where they are given."""
        plans = [Plan(one, self.tree, self.settings, changed) for one in checks]
        for plan in plans:
            self._prepare(plan)
        with self._workplace() as place, ThreadPoolExecutor(self.jobs) as pool:
            waiting = {pool.submit(self._work, plan, part, place): plan for plan, part in self._ordered(plans)}
            for done in as_completed(waiting):
                done.result()
        self._remember(plans)
        return [plan.outcome() for plan in plans]

    def _prepare(self, plan: Plan) -> None:
        """Find what is known already, and what keeps the check from looking at all."""
        try:
            plan.check.refuse(plan.own)
        except InconclusiveError as why:
            plan.own = {}
            plan.reasons.append(str(why))
            return
        plan.reasons += [
            f"{name} is a repository of its own: nothing in it was looked at; run this there, and exclude it in sqa.yml"
            for name in self.tree.nested
            if not select([f"{name}/"], plan.own.get("exclude", ()))
        ]
        if self.tree.left_out:
            plan.reasons.append(
                f"{len(self.tree.left_out)} files are not checked out, the first {self.tree.left_out[0]}; "
                "next: git sparse-checkout disable, or exclude them in sqa.yml"
            )
        if not plan.restricted or plan.reasons:
            return
        plan.reasons += _obstacles(self.tree, (*plan.selected, *plan.beside), self.settings.largest_file)
        if plan.reasons:
            return
        try:
            known = self.cache.get(plan.keys.values()) if plan.remembered else {}
        except InconclusiveError as why:
            plan.reasons.append(str(why))
            return
        except OSError as unreadable:
            plan.reasons.append(f"{unreadable.filename}: {unreadable.strerror}")
            return
        plan.results = {
            name: Result.restored(plan.check.name, known[key]) for name, key in plan.keys.items() if key in known
        }

    def _ordered(self, plans: Sequence[Plan]) -> list[tuple[Plan, tuple[str, ...]]]:
        """Every part that has to be worked on, the longest first.

        A tool reads in each part anew what the files import: parts are made of what would outlast all others alone.
        """
        took = self.cache.get(_took(plan.check) for plan in plans)
        lasts = [
            (took.get(_took(plan.check), plan.check.seconds) * plan.left, plan)
            for plan in plans
            if not plan.reasons and plan.restricted
        ]
        share = sum(seconds for seconds, _ in lasts) / self.jobs
        todo = []
        for seconds, plan in lasts:
            parts = plan.parts(self.jobs if seconds > share else 1)
            todo += [(seconds / len(parts), plan, part) for part in parts]
        todo.sort(key=lambda one: -one[0])
        return [(plan, part) for _, plan, part in todo]

    def _work(self, plan: Plan, part: tuple[str, ...], place: Path) -> None:
        began = time.monotonic()
        plan.cached = False
        self.progress(plan.check.name, "begins")
        try:
            self._equip(plan.registered)
            self._prove(plan.registered, place)
            plan.take(part, self._examine(plan, part, place))
        except InconclusiveError as why:
            plan.reasons.append(_without(place, str(why)))
        except DeepError as failed:
            plan.reasons.append(f"{failed}" + (f"; next: {failed.next_step}" if failed.next_step else ""))
        except Exception as broken:  # pylint: disable=broad-exception-caught # a defect of an adapter is no pass
            plan.reasons.append(_without(place, f"the check itself failed: {type(broken).__name__}: {broken}"))
        plan.seconds += time.monotonic() - began
        self.progress(plan.check.name, "ends")

    def _equip(self, registered: Registered) -> None:
        if registered.tool and not registered.tool.installed:
            self.progress(registered.check.name, "installs")
            tools.install(registered.tool)

    def _prove(self, registered: Registered, place: Path) -> None:
        """Let the check find its canary, once per version; raises ``InconclusiveError`` where it does not."""
        key = hashlib.sha256(f"canary {registered.identity}".encode()).hexdigest()
        if self.cache.get([key]):
            return
        canary = registered.check.canary
        _require_found(canary, self._sample(registered, canary.bad, place))
        good = self._sample(registered, canary.good, place)
        first = next(iter(good.findings), None)
        if first is not None:
            raise InconclusiveError(f"it finds {first.rule} in the sample that has no defect: {first.message}")
        if not good.examined:
            raise InconclusiveError("it looked at no file of the sample that has no defect")
        self.cache.put({key: True})

    def _sample(self, registered: Registered, files: Mapping[str, str], place: Path) -> Report:
        with _folder(place, registered.check.name) as root:
            for name, text in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text, encoding="utf-8")
            if registered.check.canary.prepare:
                registered.check.canary.prepare(root)
            tree = Tree(root)
            return self._look(registered, root, registered.check.selected(tree), tree, None)

    def _examine(self, plan: Plan, part: tuple[str, ...], place: Path) -> Report:
        """What the check sees of ``part``, which has to be what it was when the run began, up to the end."""
        related = {other for name in part for other in plan.related(name)}
        names = sorted({*part, *plan.beside, *related})
        if plan.check.of_repository:
            report = self._look(plan.registered, self.tree.root, part, self.tree, plan)
        else:
            _refuse_foreign_configuration(place, plan.check.configuration)
            with _folder(place, plan.check.name) as root:
                before = _copied(self.tree.root, root, names)
                report = self._look(plan.registered, root, part, self.tree, plan)
                _refuse_writing(root, before, plan.check.leaves)
        plan.refuse_changes(names)
        return report

    def _look(
        self, registered: Registered, root: Path, files: tuple[str, ...], tree: Tree, plan: Plan | None
    ) -> Report:
        """What the check sees in ``root``; without a plan it is a sample, for which nobody has settings."""
        check, settings = registered.check, plan.own if plan else {}
        scratch = cache_dir() / "sqa" / "scratch" / check.name
        scratch.mkdir(parents=True, exist_ok=True)
        report = check.inspect(
            Look(
                check.name, root, files, tree, settings, registered.tool.programs if registered.tool else None, scratch,
                check.network, float(settings.get("timeout", check.timeout)),
                plan.settings.standards if plan else tuple(standard.names()),
            )
        )  # fmt: skip
        return Report(tuple(report.findings), tuple(report.examined), report.work, tuple(report.rules))

    def _remember(self, plans: Sequence[Plan]) -> None:
        found: dict[str, Any] = {}
        for plan in plans:
            if plan.cached or plan.reasons:
                continue
            if plan.changed is None:
                found[_took(plan.check)] = plan.seconds
            if plan.remembered:
                found.update({key: plan.results[name].stored() for name, key in plan.keys.items()})
        self.cache.put(found)

    @contextmanager
    def _workplace(self) -> Iterator[Path]:
        parent = cache_dir() / "sqa" / "run"
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as place:
            yield Path(place)


def _require_found(canary: Canary, bad: Report) -> None:
    """Raise ``InconclusiveError`` where a check did not find the defect of its canary in a file that it looked at."""
    found = [one for one in bad.findings if one.rule == canary.rule]
    missing = next((text for text in canary.says if not any(text in one.message for one in found)), "")
    if missing or not found:
        what = f"{canary.rule} ({missing})" if missing else canary.rule
        raise InconclusiveError(f"it does not find {what} in the sample that has it: it finds nothing to rely on")
    examined = set(bad.examined)
    if not any(one.path in examined if one.path else examined for one in found):
        raise InconclusiveError(
            f"it finds {canary.rule} in the sample that has it, but says that it looked at no such file"
        )


def _without(place: Path, text: str) -> str:
    """A text without the folders of copies, which are called otherwise in each run."""
    return re.sub(rf"{re.escape(str(place))}/[^/\s]+/?", "", text)


def _entry(name: str, content: str) -> bytes:
    return f"\0{name}\0{content}".encode("utf-8", "surrogateescape")


def _took(check: Check) -> str:
    return f"seconds {check.name}"


def _obstacles(tree: Tree, names: Iterable[str], largest: int) -> list[str]:
    """Why files cannot be looked at: each would be a file that nobody has looked at."""
    found = []
    for name in names:
        try:
            name.encode()
            size = os.stat(f"{tree.root}/{name}").st_size  # noqa: PTH116 # quicker
        except UnicodeEncodeError:
            found.append(f"{os.fsencode(name)!r}: the name is not UTF-8; rename the file or exclude it in sqa.yml")
            continue
        except OSError as gone:
            found.append(f"{name}: {gone.strerror}")
            continue
        if size > largest:
            found.append(
                f"{name}: {size} bytes, over the limit of {largest}; exclude it in sqa.yml or raise largest_file there"
            )
        elif not os.access(f"{tree.root}/{name}", os.R_OK):
            found.append(f"{name}: cannot be read; let {os.geteuid()} read it or exclude it in sqa.yml")
    return found


@contextmanager
def _folder(place: Path, name: str) -> Iterator[Path]:
    """An empty folder for as long as it is looked at."""
    with tempfile.TemporaryDirectory(dir=place, prefix=f"{name}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _copied(source: Path, target: Path, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Copy files with their modes; returns what shows that one of the copies was written to."""
    before = {}
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, target / name)
        before[name] = _state(target / name)
    return before


def _refuse_foreign_configuration(place: Path, patterns: Iterable[str]) -> None:
    """Raise ``InconclusiveError`` where a folder above the copies holds a configuration: tools look there too."""
    for folder in place.parents:
        for pattern in patterns:
            found = folder / pattern.strip("/")
            if "*" not in pattern and found.is_file():
                raise InconclusiveError(
                    f"{found} would decide too; remove it, or put the cache elsewhere with DEEP_CACHE_DIR"
                )


def _refuse_writing(root: Path, before: Mapping[str, tuple[int, int]], leaves: tuple[str, ...]) -> None:
    """Raise ``InconclusiveError`` where the tool changed, removed or added a file: it may not have seen the tree."""
    after = Tree(root, leaves)
    for name in after.files:
        if name not in before:
            raise InconclusiveError(f"the tool wrote {name} into the tree that it was to look at")
    for name, state in before.items():
        if not (root / name).is_file() or _state(root / name) != state:
            raise InconclusiveError(f"the tool changed {name} in the tree that it was to look at")


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
