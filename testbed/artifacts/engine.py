"""Bring the store up to date: build what changed, repair what is damaged, leave the rest alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from testbed import files
from testbed.artifacts import builders
from testbed.artifacts.builders import Context
from testbed.artifacts.declaration import Declaration, GoBuild, in_order
from testbed.artifacts.store import Problem, Record, Store
from testbed.errors import DeepError

LOCK_WAIT_SECONDS = 3600.0


@dataclass(frozen=True)
class Outcome:
    """What was done for one artefact; ``reason`` says why, ``seconds`` is wall time."""

    name: str
    version: str
    source: str
    changed: bool
    reason: str
    seconds: float
    size: int
    log: str | None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def ensure(
    names: Sequence[str],
    ctx: Context,
    *,
    source: str = builders.BUILD,
    rehash: bool = False,
    wait_seconds: float = LOCK_WAIT_SECONDS,
) -> list[Outcome]:
    """Make the artefacts ``names`` (all when empty), and what they need, present and correct.

    ``source`` is preferred where an artefact has both. With ``rehash`` every stored file is hashed
    again, otherwise only those whose size or time changed. One artefact is built at a time, because
    a compiler uses every core; modules of the following ones are downloaded meanwhile.
    """
    ordered = in_order(list(names), dict(ctx.declarations))
    with ThreadPoolExecutor(1, thread_name_prefix="modules") as pool:
        modules = _prefetch(ordered, ctx, source, pool)
        try:
            return [_ensure_one(item, ctx, source, rehash, wait_seconds, modules.get(item.name)) for item in ordered]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _prefetch(
    ordered: list[Declaration], ctx: Context, source: str, pool: ThreadPoolExecutor
) -> dict[str, Future[int]]:
    """Start downloading modules of the Go builds that will be needed."""
    waiting: dict[str, Future[int]] = {}
    for item in ordered:
        if not isinstance(item.sources.build, GoBuild) or builders.source_of(item, source) != builders.BUILD:
            continue
        if why_stale(item, ctx, builders.BUILD) is not None:
            waiting[item.name] = pool.submit(builders.prepare_go, item, ctx)
    return waiting


def why_stale(item: Declaration, ctx: Context, source: str, *, rehash: bool = False) -> str | None:
    """Why the artefact has to be made again; None when what is stored is what would be made."""
    record = ctx.store.record(item.name)
    if record is None:
        return "not in the store"
    if record.version != item.version:
        return f"version {record.version} is stored, {item.version} is declared"
    if record.fingerprint != builders.fingerprint(item, source, ctx):
        return "its inputs changed"
    problems = ctx.store.check(record, rehash=rehash)
    return _damage(problems) if problems else None


def _damage(problems: list[Problem]) -> str:
    first = problems[0]
    return f"{first.file} is damaged (found {first.found}, needed {first.needed})"


def _ensure_one(
    item: Declaration, ctx: Context, preferred: str, rehash: bool, wait_seconds: float, modules: Future[int] | None
) -> Outcome:
    started = time.monotonic()
    source = builders.source_of(item, preferred)
    with ctx.store.lock(item.name, wait_seconds, lambda text: ctx.reporter.step(item.name, text)):
        reason = why_stale(item, ctx, source, rehash=rehash)
        record = ctx.store.record(item.name)
        if reason is None and record is not None:
            repaired = ctx.store.publish(record)
            ctx.reporter.finish(item.name, f"{item.version} ready")
            return _outcome(
                record, repaired, "links of the mirror were repaired" if repaired else "unchanged", started, None
            )
        _check_space(item, ctx.store, source)
        if modules is not None:
            ctx.reporter.step(item.name, "downloading modules")
            modules.result()
        record = _make(item, ctx, source, started)
    ctx.reporter.finish(item.name, f"{item.version} made in {record.seconds:.0f} s, {files.human(record.size)}")
    return _outcome(record, True, reason or "not in the store", started, str(ctx.store.log_path(item.name)))


def _make(item: Declaration, ctx: Context, source: str, started: float) -> Record:
    ctx.store.log_path(item.name).unlink(missing_ok=True)
    with files.disk_full_explained(ctx.store.root, f"artefact {item.name}"), ctx.store.workspace(item.name) as work:
        identity = builders.fingerprint(item, source, ctx)
        made = builders.make(item, source, ctx, work)
        _all_there(item, made)
        return ctx.store.commit(item, source, identity, made, time.monotonic() - started)


def _all_there(item: Declaration, made: dict[str, Any]) -> None:
    missing = sorted({file.name for file in item.files} - {name for name, path in made.items() if path.is_file()})
    if missing:
        raise DeepError(
            f"artifacts/{item.name}.yml: the build made no {', '.join(missing)}",
            next_step="compare 'files' with 'sources.build'",
        )


def _check_space(item: Declaration, store: Store, source: str) -> None:
    needed = builders.disk_needed(item, source)
    if not needed:
        return
    others = builders.on_other_disks(builders.build_caches(item), store.root) if source == builders.BUILD else []
    for path in [store.root, *others]:
        files.require_space(path, needed, f"artefact {item.name}")


def _outcome(record: Record, changed: bool, reason: str, started: float, log: str | None) -> Outcome:
    return Outcome(
        record.name,
        record.version,
        record.source,
        changed,
        reason,
        round(time.monotonic() - started, 2),
        record.size,
        log,
    )
