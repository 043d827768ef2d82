"""The steps of a release: a candidate into preview, on to testing and production, and back.

Each can be repeated and does then nothing. What it makes is looked through, and written down, before anybody gets it:
whoever comes after a crash ends that first, or begins anew. What a step refuses, a plan says beforehand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.release import candidate as candidates
from pipelines.release import evidence, programs, repository, verification
from pipelines.release.candidate import Candidate
from pipelines.release.evidence import Trust, collected
from pipelines.release.journal import Step, as_json
from pipelines.release.state import (
    STAGES,
    Package,
    Stage,
    State,
    before,
    composed,
    line_of,
    moment,
    parsed,
    refuse_changed,
)
from pipelines.release.store import QUALITY, Store, refuse_other
from pipelines.release.verification import AHEAD
from testbed.errors import CHECK_FAILED, DeepError


@dataclass(frozen=True)
class Release:
    """A store, and whom it believes; ``progress`` is told what is being done, ``clock`` tells the time.

    It tells seconds since 1970, whatever SOURCE_DATE_EPOCH says: hosts keep the newer of two states.
    """

    store: Store
    trust: Trust
    progress: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.time

    def plan(self, folder: Path, *, attestation: Path | None = None) -> dict[str, Any]:
        """What each step to production would do with a candidate and why it would be refused; nothing is changed."""
        candidate = candidates.read(folder)
        line = line_of(candidate.version)
        pending = self.store.journal.pending()
        preview = self.store.current(line, STAGES[0])
        refusals = [*self._refusals(candidate, folder, attestation)]
        packages = composed(candidate, preview) if not refusals else ()
        wanted = (candidate.version, self.trust.keys[0], packages)
        steps = []
        for stage in STAGES:
            current = self.store.current(line, stage)
            done = current is not None and (current.version, current.key, current.packages) == wanted
            words = ("stage", str(folder)) if before(stage) is None else ("promote", candidate.version, stage)
            asked = ("--prerelease",) if stage == STAGES[-1] and parsed(candidate.version).is_prerelease else ()
            refused = [*(refusals if before(stage) is None else ()), *self._downgrades(candidate.version, current)]
            if stage == STAGES[-1]:
                refused += collected([lambda: evidence.refuse_untagged(folder, candidate.version)])
            steps.append({
                "step": " ".join(("deep release", *words, *asked)), "stage": stage,
                "replaces": current.version if current else None,
                "does": "nothing: it is there" if done else f"{candidate.version} into {stage}",
                "refused": [str(one) for one in refused],
            })  # fmt: skip
        return {
            "ok": not any(one["refused"] for one in steps), "line": line, "version": candidate.version,
            "commit": candidate.commit, "steps": steps, "suites": _counted(packages),
            "interrupted": as_json([pending])[0] if pending else None,
        }  # fmt: skip

    def stage(
        self, folder: Path, *, attestation: Path | None = None, downgrade: bool = False
    ) -> tuple[State, bool]:  # fmt: skip
        """Bring a candidate into the first stage; its state there, and whether anything was done."""
        candidate = candidates.read(folder)
        with self._work(create=True):
            current = self.store.current(line_of(candidate.version), STAGES[0])

            def check(copy: Path) -> None:
                self.progress("the candidate's signatures and attestations")
                refused = [*self._refusals(candidate, copy)]
                _raise([*refused, *self._downgrades(candidate.version, current, allowed=downgrade)])

            self.progress("the candidate's files")
            self.store.admit(folder, candidate, attestation or folder / QUALITY, check)
            packages = composed(candidate, current)
            return self._bring("stage", "preview", candidate.version, candidate.commit, packages)

    def promote(
        self, version: str, stage: Stage, *, downgrade: bool = False, prerelease: bool = False
    ) -> tuple[State, bool]:
        """Bring what the stage before has into ``stage``, package by package the same files.

        The last stage gets what comes before a release with ``prerelease`` alone.
        """
        line = line_of(version)
        former = before(stage)
        if former is None:
            raise DeepError(
                f"nothing is promoted to {stage}",
                needed=" or ".join(STAGES[1:]),
                next_step="deep release stage CANDIDATE",
            )
        if stage == STAGES[-1] and parsed(version).is_prerelease and not prerelease:
            raise DeepError(
                f"{version} comes before a release, and {stage} is for everybody", needed="a release",
                next_step="--prerelease, if that is what you want", exit_code=CHECK_FAILED,
            )  # fmt: skip
        with self._work():
            self.trust.refuse_dirty()
            source, current = self.store.current(line, former), self.store.current(line, stage)
            if source is None or source.version != version:
                raise self._elsewhere(version, line, stage, former)
            _raise(self._downgrades(version, current, allowed=downgrade))
            self._whole(source)
            if stage == STAGES[-1]:
                evidence.refuse_untagged(self.store.candidates(line) / version, version)
            return self._bring("promote", stage, version, source.commit, source.packages, like=source)

    def rollback(self, version: str, stage: Stage) -> tuple[State, bool]:
        """Bring back what ``stage`` had with ``version``: its packages and indices, byte for byte."""
        line = line_of(version)
        with self._work():
            self.trust.refuse_dirty()
            past = self.store.states(line, stage)
            found = [one for one in past if one.version == version]
            if not found:
                raise DeepError(
                    f"{stage} never had this version", found=version, exit_code=CHECK_FAILED,
                    needed=f"one of: {', '.join(sorted({one.version for one in past}, key=parsed)) or 'none yet'}",
                )  # fmt: skip
            self._whole(found[-1])
            return self._bring("rollback", stage, version, found[-1].commit, found[-1].packages, like=found[-1])

    def verify(self) -> dict[str, Any]:
        """Look through the current state of every stage of every line."""
        self.store.refuse_absent()
        current, odd = _stages(self.store)
        found = [
            (one, verification.verify(self.store, one, self.trust, self.progress, now=self.clock())) for one in current
        ]
        pending = self.store.journal.pending()
        rows = [
            {
                "line": one.line, "stage": one.stage, "version": one.version, "ok": not seen.problems,
                "problems": seen.problems, "warnings": seen.warnings, "examined": seen.examined,
            }
            for one, seen in found
        ]  # fmt: skip
        if pending:
            odd.append(f"a step was cut short: {pending.step} of {pending.state.version} to {pending.state.stage}")
        return {"ok": bool(rows) and not odd and all(row["ok"] for row in rows), "stages": rows, "problems": odd}

    def _bring(
        self, step: Step, stage: Stage, version: str, commit: str, packages: tuple[Package, ...],
        like: State | None = None,
    ) -> tuple[State, bool]:  # fmt: skip
        """Make, sign and look through a state, and give it to its stage; ``like`` is one with the same packages."""
        line, key, now = line_of(version), self.trust.keys[0], int(self.clock())
        current = self.store.current(line, stage)
        if current is not None and current.time > now + AHEAD:
            raise DeepError(
                f"{stage} is from the future", found=f"its state {current.name} of {moment(current.time)}",
                needed=f"one before {moment(now)}, which is now", exit_code=CHECK_FAILED,
                next_step="set the clock of this machine; where that is right, wait: hosts would keep the state",
            )  # fmt: skip
        state = State(
            line=line, stage=stage, number=self.store.next_number(line, stage), version=version, commit=commit,
            # apt keeps the newer of two states: each has a time of its own.
            time=max(now, current.time + 1 if current else 0), key=key, packages=packages,
        )  # fmt: skip
        if current is not None and current.like(state) and self._shown(current):
            return current, False
        self._signs(key)
        self.progress(f"{version} into {stage}: indices and signatures")

        def make(folder: Path) -> None:
            of, same = self.store.candidates(line), self.store.folder(like) if like else None
            repository.build(folder, state, of, same, self.trust.keyring)
            self._whole(state, folder)

        self.store.bring(step, state, make)
        return state, True

    @contextmanager
    def _work(self, *, create: bool = False) -> Iterator[None]:
        """Hold the store alone, with what was cut short brought to its end, or dropped where nothing was ready."""
        with self.store.locked(create=create):
            pending = self.store.journal.pending()
            if pending is not None and self.store.ready(pending):
                self.progress(f"ending what was cut short: {pending.step} of {pending.state.version}")
                self._whole(pending.state)
                self.store.carry_out(pending)
            elif pending is not None:
                self.store.journal.dropped(pending)
            yield

    def _refusals(self, candidate: Candidate, folder: Path, attestation: Path | None = None) -> Iterator[DeepError]:
        """Why a candidate would not be taken."""
        yield from programs.missing()
        line, trust = line_of(candidate.version), self.trust
        place = self.store.candidates(line) / candidate.version
        checks: list[Callable[[], object]] = [trust.refuse_dirty, partial(self._signs, trust.keys[0])]
        if place.exists():
            checks.append(lambda: refuse_other(place, candidate))
        others = [one for one in self.store.known(line) if one.version != candidate.version]
        checks += [partial(refuse_changed, candidate, one) for one in others]
        checks.append(lambda: composed(candidate, None))
        checks.append(lambda: evidence.refuse_keyless(folder, candidate, trust))
        yield from collected(checks)
        yield from evidence.problems(folder, candidate, trust, attestation)

    def _shown(self, state: State) -> bool:
        """Whether users are given the key as it is now: it may have been prolonged."""
        return repository.key_shown(self.store.folder(state)) == self.trust.keyring.public(state.key)

    def _signs(self, fingerprint: str) -> None:
        """Raise ``DeepError`` for a key that cannot sign now."""
        self.trust.keyring.find(fingerprint).check(self.clock())
        self.trust.keyring.refuse_public(fingerprint)

    @staticmethod
    def _downgrades(version: str, current: State | None, *, allowed: bool = False) -> list[DeepError]:
        if allowed or current is None or parsed(version) >= parsed(current.version):
            return []
        return [
            DeepError(
                f"{current.stage} has a newer version", found=current.version, needed=f"{version} or older",
                exit_code=CHECK_FAILED,
                next_step=f"deep release rollback {version} {current.stage}, or --downgrade where it was never there",
            )
        ]  # fmt: skip

    def _whole(self, state: State, folder: Path | None = None) -> None:
        """Raise ``DeepError`` unless a state, and what it was made of, is as it shall be; see ``verification``."""
        # Its key may have expired since: the one that signs now is looked at before it does.
        seen = verification.verify(self.store, state, self.trust, self.progress, now=state.time, folder=folder)
        if seen.problems:
            raise DeepError(
                f"{state.version} of {state.stage} is not whole", found="; ".join(seen.problems),
                next_step="find out who changed it, and put the store back from its backup; what no stage has yet "
                f"can be moved away: {self.store.folder(state)}",
                exit_code=CHECK_FAILED,
            )  # fmt: skip

    def _elsewhere(self, version: str, line: str, stage: Stage, former: Stage) -> DeepError:
        found = [one.stage for one in _stages(self.store)[0] if (one.line, one.version) == (line, version)]
        current = self.store.current(line, former)
        return DeepError(
            f"{version} is not in {former}, from which {stage} is filled",
            found=f"{version} in {' and '.join(found) or 'no stage'}; {former} has {_version(current)}",
            needed=f"{version} in {former}", exit_code=CHECK_FAILED,
            next_step=f"deep release promote {version} {former}" if before(former) else "deep release stage CANDIDATE",
        )  # fmt: skip


def status(store: Store) -> dict[str, Any]:
    """What each stage of each line has, since when and of which commit."""
    store.refuse_absent()
    pending, (current, odd) = store.journal.pending(), _stages(store)
    rows = [
        {
            "line": one.line, "stage": one.stage, "version": one.version, "commit": one.commit,
            "since": moment(one.time), "suites": one.versions, "packages": len(one.packages), "key": one.key,
            "state": one.name,
        }
        for one in current
    ]  # fmt: skip
    return {
        "ok": pending is None and not odd, "store": str(store.root), "stages": rows, "problems": odd,
        "interrupted": as_json([pending])[0] if pending else None,
    }  # fmt: skip


def _version(state: State | None) -> str:
    return state.version if state else "nothing"


def _stages(store: Store) -> tuple[list[State], list[str]]:
    """The state of each stage, and which stages have none that can be read, or another than the journal says."""
    last = {(one.state.line, one.state.stage): one.state for one in store.journal.records() if one.what == "done"}
    of_lines = [(line, stage) for line in store.lines() for stage in STAGES]
    found, odd = [], []
    for line, stage in dict.fromkeys([*of_lines, *last]):
        try:
            current = store.current(line, stage)
        except DeepError as broken:
            odd.append(str(broken))
            continue
        if current is not None:
            found.append(current)
        wanted = last.get((line, stage))
        if wanted is not None and current != wanted:
            odd.append(f"{line} {stage} has {current.name if current else 'nothing'}, by the journal {wanted.name}")
    return found, odd


def _counted(packages: Sequence[Package]) -> dict[str, int]:
    return {suite: sum(one.suite == suite for one in packages) for suite in sorted({one.suite for one in packages})}


def _raise(refused: Sequence[DeepError]) -> None:
    """Raise the one reason, or all in one."""
    if len(refused) == 1:
        raise refused[0]
    if refused:
        raise DeepError(
            f"refused for {len(refused)} reasons", found="; ".join(map(str, refused)), exit_code=CHECK_FAILED,
            next_step=refused[0].next_step,
        )  # fmt: skip
