"""Real builds: the same files from the same sources, and nothing left of one that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.artifacts import api, compilers
from testbed.artifacts.store import Record, Store

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
DEEP = [sys.executable, "-c", "from testbed.cli import main; main()", "artifacts"]
# Of those that are compiled from Go modules, the one that takes the least time.
SMALLEST = "crane"


def record_of(store: Store) -> Record:
    """What the store holds of the smallest artefact."""
    record = store.record(SMALLEST)
    assert record is not None
    return record


def below(folder: Path) -> dict[int, list[str]]:
    """Processes that work in ``folder``, which is in their arguments or in their environment, by number."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            text = b"".join((path / name).read_bytes() for name in ("cmdline", "environ"))
            argv = (path / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
        except OSError:
            continue
        if int(path.name) != os.getpid() and str(folder).encode() in text:
            found[int(path.name)] = argv
    return found


def wait_until(holds: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "this did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's cache folder and a compiler's cache with nothing in them; downloaded modules stay."""
    monkeypatch.setenv("DEEP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("GOCACHE", str(tmp_path / "go"))
    compilers.go_caches.cache_clear()
    yield tmp_path
    compilers.go_caches.cache_clear()


def test_two_builds_make_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api.ensure([SMALLEST])
    first = record_of(Store())
    monkeypatch.setenv("GOCACHE", str(tmp_path / "go"))
    own = Store(tmp_path / "store")
    (outcome,) = api.ensure([SMALLEST], store=own)
    assert outcome.changed
    second = record_of(own)
    assert {name: entry.sha256 for name, entry in second.files.items()} == {
        name: entry.sha256 for name, entry in first.files.items()
    }


def test_a_killed_build_leaves_no_compiler_and_is_finished_by_the_next(empty_caches: Path) -> None:
    with subprocess.Popen(
        [*DEEP, "build", SMALLEST],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as build:
        try:
            wait_until(lambda: any(Path(argv[0]).name == "compile" for argv in below(empty_caches).values()), 60)
        finally:
            os.killpg(build.pid, signal.SIGKILL)
    wait_until(lambda: not below(empty_caches), 5)
    store = Store()
    assert store.record(SMALLEST) is None
    assert list((store.root / "work").iterdir()), "it was not killed while it worked"
    for command in (["build", SMALLEST], ["verify"]):
        done = subprocess.run([*DEEP, *command], cwd=ROOT, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert not list((store.root / "work").iterdir())
    assert record_of(store).files
