"""The steps of a release: a candidate into preview, on to testing and production, and back.

Each can be repeated and does then nothing; each was written down before it began, so that whoever comes after a crash
ends it first. What a step refuses, a plan says beforehand.
"""

from __future__ import annotations

import os
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
from pipelines.release.evidence import Trust
from pipelines.release.journal import Step, as_json
from pipelines.release.state import STAGES, Package, Stage, State, before, composed, line_of, parsed, refuse_changed
from pipelines.release.store import QUALITY, Store, refuse_other
from testbed.errors import CHECK_FAILED, DeepError


@dataclass(frozen=True)
class Release:
    """A store, and whom it believes; ``progress`` is told what is being done."""

    store: Store
    trust: Trust
    progress: Callable[[str], None] = lambda _: None

    def plan(self, folder: Path, *, attestation: Path | None = None, third_party: Sequence[str] = ()) -> dict[str, Any]:
        """What each step to production would do with a candidate and why it would be refused; nothing is changed."""
        candidate = candidates.read(folder)
        line = line_of(candidate.version)
        pending = self.store.journal.pending()
        steps = []
        for stage in STAGES:
            current = self.store.current(line, stage)
            former = before(stage)
            done = current is not None and current.version == candidate.version
            words = ("stage", str(folder)) if former is None else ("promote", candidate.version, stage)
            refused = [*self._refusals(candidate, folder, attestation)] if former is None else []
            refused += self._downgrades(candidate.version, current, allowed=False)
            steps.append({
                "step": " ".join(("deep release", *words)), "stage": stage,
                "replaces": current.version if current else None,
                "does": "nothing: it is there" if done else f"{candidate.version} into {stage}",
                "refused": [str(one) for one in refused],
            })  # fmt: skip
        packages = self._composed(candidate, third_party) if not steps[0]["refused"] else ()
        return {
            "ok": not any(one["refused"] for one in steps), "line": line, "version": candidate.version,
            "commit": candidate.commit, "steps": steps, "suites": _counted(packages),
            "interrupted": as_json([pending])[0] if pending else None,
        }  # fmt: skip

    def stage(
        self,
        folder: Path,
        *,
        attestation: Path | None = None,
        third_party: Sequence[str] = (),
        downgrade: bool = False,
    ) -> tuple[State, bool]:
        """Bring a candidate into the first stage; its state there, and whether anything was done."""
        candidate = candidates.read(folder)
        line = line_of(candidate.version)
        with self._work():
            self.progress("the candidate's signatures and attestations")
            current = self.store.current(line, STAGES[0])
            refused = [*self._refusals(candidate, folder, attestation)]
            _raise([*refused, *self._downgrades(candidate.version, current, allowed=downgrade)])
            packages = self._composed(candidate, third_party)
            self.progress("the candidate's files")
            self.store.admit(folder, candidate, line, attestation or folder / QUALITY)
            return self._bring("stage", "preview", candidate.version, candidate.commit, packages)

    def promote(self, version: str, stage: Stage, *, downgrade: bool = False) -> tuple[State, bool]:
        """Bring what the stage before has into ``stage``, package by package the same files."""
        line = line_of(version)
        former = before(stage)
        if former is None:
            raise DeepError(
                f"nothing is promoted to {stage}",
                needed=" or ".join(STAGES[1:]),
                next_step="deep release stage CANDIDATE",
            )
        with self._work():
            source, current = self.store.current(line, former), self.store.current(line, stage)
            if source is None or source.version != version:
                raise self._elsewhere(version, line, stage, former)
            _raise(self._downgrades(version, current, allowed=downgrade))
            self._whole(source)
            return self._bring("promote", stage, version, source.commit, source.packages)

    def rollback(self, version: str, stage: Stage) -> tuple[State, bool]:
        """Bring back what ``stage`` had with ``version``: its packages and indices, byte for byte."""
        line = line_of(version)
        with self._work():
            past = self.store.states(line, stage)
            found = [one for one in past if one.version == version]
            if not found:
                raise DeepError(
                    f"{stage} never had this version", found=version, exit_code=CHECK_FAILED,
                    needed=f"one of: {', '.join(sorted({one.version for one in past}, key=parsed)) or 'none yet'}",
                )  # fmt: skip
            self._whole(found[-1])
            return self._bring("rollback", stage, version, found[-1].commit, found[-1].packages)

    def verify(self) -> dict[str, Any]:
        """Look through the current state of every stage of every line."""
        states = [*_current(self.store)]
        found = [
            (one, verification.verify(self.store, one, self.trust, self.progress, now=time.time())) for one in states
        ]
        pending = self.store.journal.pending()
        rows = [
            {
                "line": one.line, "stage": one.stage, "version": one.version, "ok": not seen.problems,
                "problems": seen.problems, "warnings": seen.warnings, "examined": seen.examined,
            }
            for one, seen in found
        ]  # fmt: skip
        odd = [*_strayed(self.store)]
        if pending:
            odd.append(f"a step was cut short: {pending.step} of {pending.state.version} to {pending.state.stage}")
        return {"ok": bool(rows) and not odd and all(row["ok"] for row in rows), "stages": rows, "problems": odd}

    def _bring(
        self, step: Step, stage: Stage, version: str, commit: str, packages: tuple[Package, ...]
    ) -> tuple[State, bool]:
        line = line_of(version)
        current = self.store.current(line, stage)
        now = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
        state = State(
            line=line, stage=stage, number=self.store.next_number(line, stage), version=version, commit=commit,
            # apt keeps the newer of two states: each has a time of its own.
            time=max(now, current.time + 1 if current else 0), key=self.trust.keys[0], packages=packages,
        )  # fmt: skip
        if current is not None and current.like(state):
            return current, False
        self._key_counts(self.trust.keys[0])
        self.progress(f"{version} into {stage}: indices and signatures")
        self.store.bring(step, state, self._maker(state))
        return state, True

    def _maker(self, state: State) -> Callable[[Path], None]:
        same = [one for one in self.store.states(state.line) if one.packages == state.packages]
        return partial(
            repository.build, state=state, candidates=self.store.candidates(state.line), keyring=self.trust.keyring,
            like=self.store.folder(same[-1]) if same else None,
        )  # fmt: skip

    @contextmanager
    def _work(self) -> Iterator[None]:
        """Hold the store alone, with what was cut short carried out."""
        with self.store.locked():
            pending = self.store.journal.pending()
            if pending is not None:
                self.progress(f"ending what was cut short: {pending.step} of {pending.state.version}")
                self.store.carry_out(pending, self._maker(pending.state))
            yield

    def _refusals(self, candidate: Candidate, folder: Path, attestation: Path | None) -> Iterator[DeepError]:
        """Why a candidate would not be taken."""
        yield from programs.missing()
        line = line_of(candidate.version)
        place = self.store.candidates(line) / candidate.version
        checks: list[Callable[[], None]] = [self.trust.refuse_dirty]
        checks += [partial(self._key_counts, one) for one in dict.fromkeys([self.trust.keys[0], self.trust.build_key])]
        if place.exists():
            checks.append(lambda: refuse_other(place, candidate))
        others = [one for one in self.store.known(line) if one.version != candidate.version]
        checks += [partial(refuse_changed, candidate, one) for one in others]
        yield from _refused(checks)
        yield from evidence.problems(folder, candidate, self.trust, attestation)

    def _key_counts(self, fingerprint: str) -> None:
        self.trust.keyring.find(fingerprint).check(time.time())

    @staticmethod
    def _downgrades(version: str, current: State | None, *, allowed: bool) -> list[DeepError]:
        if allowed or current is None or parsed(version) >= parsed(current.version):
            return []
        return [
            DeepError(
                f"{current.stage} has a newer version", found=current.version, needed=f"{version} or older",
                exit_code=CHECK_FAILED,
                next_step=f"deep release rollback {version} {current.stage}, or --downgrade where it was never there",
            )
        ]  # fmt: skip

    def _composed(self, candidate: Candidate, third_party: Sequence[str]) -> tuple[Package, ...]:
        return composed(candidate, self.store.current(line_of(candidate.version), STAGES[0]), third_party)

    def _whole(self, state: State) -> None:
        """Raise ``DeepError`` unless a state, and what it was made of, is as it was published."""
        # Its key may have expired since: the one that signs now is looked at before it does.
        seen = verification.verify(self.store, state, self.trust, self.progress, now=state.time)
        if seen.problems:
            raise DeepError(
                f"{state.version} of {state.stage} is not whole", found="; ".join(seen.problems),
                next_step="deep release verify; put the store back from its backup", exit_code=CHECK_FAILED,
            )  # fmt: skip

    def _elsewhere(self, version: str, line: str, stage: Stage, former: Stage) -> DeepError:
        found = [one.stage for one in _current(self.store) if (one.line, one.version) == (line, version)]
        current = self.store.current(line, former)
        return DeepError(
            f"{version} is not in {former}, from which {stage} is filled",
            found=f"{version} in {' and '.join(found) or 'no stage'}; {former} has {_version(current)}",
            needed=f"{version} in {former}", exit_code=CHECK_FAILED,
            next_step=f"deep release promote {version} {former}" if before(former) else "deep release stage CANDIDATE",
        )  # fmt: skip


def status(store: Store) -> dict[str, Any]:
    """What each stage of each line has, since when and of which commit."""
    pending = store.journal.pending()
    rows = [
        {
            "line": one.line, "stage": one.stage, "version": one.version, "commit": one.commit,
            "since": moment(one.time), "suites": one.versions, "packages": len(one.packages), "key": one.key,
            "state": one.name,
        }
        for one in _current(store)
    ]  # fmt: skip
    return {
        "ok": pending is None, "store": str(store.root), "stages": rows,
        "interrupted": as_json([pending])[0] if pending else None,
    }  # fmt: skip


def _version(state: State | None) -> str:
    return state.version if state else "nothing"


def moment(seconds: int) -> str:
    """A time as ISO 8601 has it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _current(store: Store) -> Iterator[State]:
    for line in store.lines():
        for stage in STAGES:
            state = store.current(line, stage)
            if state is not None:
                yield state


def _strayed(store: Store) -> Iterator[str]:
    """Stages that do not have what the journal says."""
    last = {(one.state.line, one.state.stage): one.state for one in store.journal.records() if one.what == "done"}
    for (line, stage), state in last.items():
        current = store.current(line, stage)
        if current != state:
            yield f"{line} {stage} has {current.name if current else 'nothing'}, by the journal {state.name}"


def _counted(packages: Sequence[Package]) -> dict[str, int]:
    return {suite: sum(one.suite == suite for one in packages) for suite in sorted({one.suite for one in packages})}


def _refused(checks: Sequence[Callable[[], None]]) -> Iterator[DeepError]:
    for check in checks:
        try:
            check()
        except DeepError as refused:
            yield refused


def _raise(refused: Sequence[DeepError]) -> None:
    """Raise the one reason, or all in one."""
    if len(refused) == 1:
        raise refused[0]
    if refused:
        raise DeepError(
            f"refused for {len(refused)} reasons", found="; ".join(map(str, refused)), exit_code=CHECK_FAILED,
            next_step=refused[0].next_step,
        )  # fmt: skip
