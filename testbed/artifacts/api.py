"""What the rest of the project uses of the artefact store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed.artifacts import builders, bundle, engine
from testbed.artifacts.builders import BUILD, UPSTREAM
from testbed.artifacts.bundle import Bundle
from testbed.artifacts.declaration import Declaration, ImageBuild, declarations_dir, image_tag, in_order, load_all
from testbed.artifacts.engine import LOCK_WAIT_SECONDS, Outcome
from testbed.artifacts.progress import Display, Reporter, Silent
from testbed.artifacts.store import Problem, Store
from testbed.errors import DeepError
from testbed.run import Children

HOSTS_FETCH = "the hosts fetch it themselves"

__all__ = [
    "BUILD",
    "UPSTREAM",
    "Display",
    "Outcome",
    "Silent",
    "Store",
    "ensure",
    "images",
    "listing",
    "make_bundle",
    "mirror_dir",
    "serve_command",
    "verify",
]


def ensure(
    names: Sequence[str] = (),
    progress: Reporter | None = None,
    *,
    source: str = BUILD,
    rehash: bool = False,
    wait_seconds: float = LOCK_WAIT_SECONDS,
    store: Store | None = None,
    children: Children | None = None,
) -> list[Outcome]:
    """Make artefacts (all when ``names`` is empty) present, verified and served.

    Costs well under a second when nothing changed. Safe to run again after any interruption and
    beside another process; ending ``children`` cuts it short. Raises ``DeepError``.
    """
    ctx = builders.context(store or Store(), load_all(), progress or Silent(), children)
    return engine.ensure(names, ctx, source=source, rehash=rehash, wait_seconds=wait_seconds)


def mirror_dir() -> Path:
    """The folder that ``serve_command`` serves."""
    return Store().mirror


def serve_command(bind: str, port: int, folder: Path | None = None) -> list[str]:
    """The command that serves the mirror in the foreground, on IPv4 address ``bind``.

    It prints the address on its first line of output once it accepts connections; port 0 takes a free one.
    """
    return [
        sys.executable,
        "-m",
        "testbed.artifacts.serve",
        "--folder",
        str(folder or mirror_dir()),
        "--bind",
        bind,
        "--port",
        str(port),
    ]


def listing(store: Store | None = None) -> list[dict[str, Any]]:
    """Every declared artefact with its sources and what the store has of it.

    ``state`` is ready, absent, outdated (then ``reason`` says why), or not held where the hosts fetch it themselves;
    ``exercised`` tells for each source whether it was really used where the project is developed.
    """
    where = store or Store()
    declarations = load_all()
    ctx = builders.context(where, declarations, Silent())
    return [_describe(item, ctx) for item in declarations.values()]


def _describe(item: Declaration, ctx: builders.Context) -> dict[str, Any]:
    record = ctx.store.record(item.name)
    reason = _reason(item, ctx, record.source if record else BUILD) if item.stored else HOSTS_FETCH
    exercised = {name: name == BUILD for name in item.sources.names()}
    if item.sources.upstream is not None:
        exercised[UPSTREAM] = item.sources.upstream.exercised
    return {
        "name": item.name,
        "version": item.version,
        "licence": item.licence,
        "homepage": item.homepage,
        "summary": item.summary,
        "sources": item.sources.names(),
        "exercised": exercised,
        "needs": item.needs(),
        "files": [file.name for file in item.files],
        "state": "ready" if reason is None else "outdated" if record else "absent" if item.stored else "not held",
        "reason": reason,
        "size": record.size if record else 0,
        "build_seconds": record.seconds if record else None,
    }


def _reason(item: Declaration, ctx: builders.Context, source: str) -> str | None:
    try:
        return engine.why_stale(item, ctx, builders.source_of(item, source))
    except DeepError as error:
        # A need that is absent, or a compiler that is not installed: said, not fatal for a list.
        return str(error)


def verify(names: Sequence[str] = (), store: Store | None = None) -> tuple[int, list[Problem]]:
    """Hash every stored file of the artefacts (all when empty): how many were checked, and what is wrong."""
    where = store or Store()
    records = [record for record in where.records() if not names or record.name in names]
    unknown = set(names) - {record.name for record in records}
    if unknown:
        raise DeepError(f"not in the store: {', '.join(sorted(unknown))}", next_step="run 'deep artifacts build'")
    if not records:
        raise DeepError("the store is empty", found=str(where.root), next_step="run 'deep artifacts build'")
    problems = [
        problem for record in records for problem in where.check(record, rehash=True) + where.check_view(record)
    ]
    return sum(len(record.files) for record in records), problems


def make_bundle(directory: Path, names: Sequence[str] = (), store: Store | None = None) -> Bundle:
    """Write the artefacts (all when ``names`` is empty) and what they need into ``directory``."""
    declarations = load_all()
    ordered = in_order(list(names), declarations)
    return bundle.write(directory, ordered, declarations_dir(), store or Store(), not_held(declarations))


def not_held(declarations: dict[str, Declaration]) -> list[str]:
    """What the store and a bundle of it lack, as sentences: files and images that hosts fetch themselves."""
    lacking = []
    for item in declarations.values():
        if item.sources.upstream is not None and not item.stored:
            lacking += [f"{item.name}: {item.expand(item.sources.upstream.url, file.name)}" for file in item.files]
        if item.sources.registry is not None:
            images = item.sources.registry.images.values()
            lacking += [f"{item.name}: image {image.upstream}:{image_tag(image, declarations)}" for image in images]
    return lacking


def version(name: str) -> str:
    """The declared version of the artefact ``name``."""
    return load_all()[name].version


def images() -> dict[str, dict[str, str | None]]:
    """Container images by name: ``tag`` and ``upstream`` reference without the tag (None: only ours)."""
    declarations = load_all()
    found: dict[str, dict[str, str | None]] = {}
    for item in declarations.values():
        if isinstance(item.sources.build, ImageBuild):
            found |= {
                name: {"tag": image_tag(image, declarations), "upstream": image.upstream}
                for name, image in item.sources.build.images.items()
            }
    return found
