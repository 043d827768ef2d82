"""A store on its disk: in which order things are there, what a full disk, a lost line or a umask leaves."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.release.journal import Journal
from pipelines.release.steps import Release
from testbed.errors import DeepError
from tests.unit import release_toys
from tests.unit.release_toys import Workshop, in_production

pytestmark = release_toys.NEEDS_PROGRAMS


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with release_toys.workshop(tmp_path_factory.mktemp("shop")) as made:
        yield made


@pytest.fixture(scope="module")
def first(shop: Workshop) -> Path:
    return shop.candidate("1.0.0", kinds=("deb",))


@pytest.fixture
def release(shop: Workshop, tmp_path: Path) -> Release:
    return shop.release(tmp_path / "store")


@pytest.fixture
def told(release: Release, first: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reached the disk while a candidate was staged, in its order."""
    seen: list[str] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def synced(handle: int) -> None:
        fsync(handle)
        seen.append(f"fsync {Path(f'/proc/self/fd/{handle}').readlink()}")

    def renamed(source: Path, target: Path) -> None:
        rename(source, target)
        seen.append(f"rename {source} {target}")

    def replaced(source: Path, target: Path) -> None:
        replace(source, target)
        seen.append(f"replace {target}")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(os, "replace", replaced)
    release.stage(first)
    return seen


def named(told: list[str], place: Path) -> int:
    """When a place got its name."""
    (at,) = (number for number, one in enumerate(told) if one.startswith("rename ") and one.endswith(f" {place}"))
    return at


@pytest.mark.parametrize("name", ["candidates/deep-1/1.0.0", "states/deep-1/preview-0001"])
def test_all_is_on_disk_before_it_is_to_be_seen(release: Release, told: list[str], name: str) -> None:
    place = release.store.public / name
    at = named(told, place)
    made = told[at].split()[1]
    before = {one.removeprefix("fsync ") for one in told[:at]}
    # Each file that is new, and each folder; of files with other names the first one was brought to disk.
    new = [path for path in (place, *place.rglob("*")) if path.is_dir() or path.stat().st_nlink == 1]
    wanted = {str(Path(made, path.relative_to(place))) for path in new}
    assert wanted <= before, sorted(wanted - before)
    assert f"fsync {place.parent}" in told[at:]


def test_each_step_is_on_disk_before_the_next(release: Release, told: list[str]) -> None:
    public = release.store.public
    made = named(told, public / "states/deep-1/preview-0001")
    kept = told.index(f"fsync {public / 'states/deep-1'}", made)
    link = told.index(f"replace {public / 'preview/deep-1'}")
    linked = told.index(f"fsync {public / 'preview'}", link)
    intent, done = (number for number, one in enumerate(told) if one == f"fsync {release.store.journal.path}")
    assert intent < made < kept < link < linked < done
    for folder in (public, public / "preview", public / "states", public / "states/deep-1"):
        assert f"fsync {folder.parent}" in told, folder


CALLS: dict[str, tuple[Any, str]] = {
    "copies of the candidate": (shutil, "copyfile"),
    "a new folder": (os, "mkdir"),
    "a link to a package": (os, "link"),
    "a rename": (os, "rename"),
    "a line of the journal": (os, "write"),
    "the link of the stage": (os, "symlink"),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_full_disk_is_explained_wherever_it_becomes_full(
    release: Release, shop: Workshop, first: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    release.stage(first)
    second = shop.candidate("1.1.0", kinds=("deb",))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as small:
        small.setattr(*CALLS[what], full)
        with pytest.raises(DeepError, match="became full while writing") as refused:
            release.stage(second)
    assert refused.value.next_step == "free space there, and run the command again"
    assert [path for path in release.store.public.rglob(".tmp-*") if path.is_dir()] == []
    before = release.store.current("deep-1", "preview")
    assert before is not None
    assert before.version == "1.0.0"
    release.stage(second)
    after = release.store.current("deep-1", "preview")
    assert after is not None
    assert (after.version, after.number) == ("1.1.0", 2)
    assert release.verify()["ok"]


def test_a_store_too_small_for_a_candidate_says_so_before(
    release: Release, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("testbed.files.free_bytes", lambda _: 1000)
    with pytest.raises(DeepError, match=r"not enough space .* for the candidate 1\.0\.0") as refused:
        release.stage(first)
    assert "DEEP_CACHE_DIR" not in str(refused.value.next_step)


def test_a_line_that_the_disk_takes_in_parts_is_whole(
    release: Release, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write: Callable[[int, bytes], int] = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:100]))
    release.stage(first)
    assert [one.what for one in release.store.journal.records()] == ["intent", "done"]


def test_a_lost_line_does_not_bring_back_an_old_state(release: Release, shop: Workshop, first: Path) -> None:
    release.stage(first)
    release.store.journal.path.unlink()
    state, changed = release.stage(shop.candidate("1.1.0", kinds=("deb",)))
    assert (changed, state.number) == (True, 2)
    assert release.store.current("deep-1", "preview") == state
    assert release.verify()["ok"]


def test_an_intent_of_an_older_state_is_not_carried_out(release: Release, shop: Workshop, first: Path) -> None:
    old, _ = release.stage(first)
    new, _ = release.stage(shop.candidate("1.1.0", kinds=("deb",)))
    release.store.journal.intend("stage", old)
    release.promote("1.1.0", "testing")
    assert release.store.current("deep-1", "preview") == new
    assert [one.what for one in release.store.journal.records()][-3:] == ["dropped", "intent", "done"]


def test_what_was_not_ready_is_dropped_and_its_number_is_free(
    release: Release, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intend = Journal.intend

    def cut(*arguments: Any) -> None:
        intend(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as short:
        short.setattr(Journal, "intend", cut)
        with pytest.raises(KeyboardInterrupt):
            release.stage(first)
    assert release.verify()["problems"] == ["a step was cut short: stage of 1.0.0 to preview"]
    assert release.stage(first)[0].number == 1
    whats = [json.loads(line)["what"] for line in release.store.journal.path.read_text().splitlines()]
    assert whats == ["intent", "dropped", "intent", "done"]


@pytest.mark.parametrize("umask", [0o077, 0o002])
def test_a_web_server_can_read_it_whatever_the_umask(release: Release, first: Path, umask: int) -> None:
    former = os.umask(umask)
    try:
        in_production(release, first)
    finally:
        os.umask(former)
    modes = {
        ("folder" if path.is_dir() else "file", stat.S_IMODE(path.stat().st_mode))
        for path in (release.store.public, *release.store.public.rglob("*"))
    }
    assert modes == {("folder", 0o755), ("file", 0o444)}
