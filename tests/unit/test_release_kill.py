"""Killed anywhere, a step run again ends as if nothing had been, and at no moment was half of a state to be seen."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.release.journal import Journal, Record
from pipelines.release.state import State
from testbed.errors import DeepError
from tests.unit import release_toys
from tests.unit.release_killed import BOUNDARIES, chosen
from tests.unit.release_toys import NOW

ROOT = Path(__file__).resolve().parents[2]

pytestmark = release_toys.NEEDS_PROGRAMS


def test_a_step_that_was_killed_ends_as_one_that_was_not(tmp_path: Path) -> None:
    with release_toys.workshop(tmp_path) as shop:
        first, second = (str(shop.candidate(version)) for version in ("1.0.0", "1.1.0"))
        job = {
            "work": str(tmp_path / "work"), "home": str(shop.keyring.home), "key": shop.key, "root": str(shop.root),
            "every": 31,
            "steps": [
                [True, "stage", first], [True, "promote", "1.0.0", "testing"], [False, "stage", second],
                [True, "rollback", "1.0.0", "preview"],
            ],
        }  # fmt: skip
        (tmp_path / "work").mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "tests.unit.release_killed"], cwd=ROOT, input=json.dumps(job), check=False,
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    points = json.loads(done.stdout)
    assert {one["killed"] for one in points} == {-signal.SIGKILL}
    wrong = [one for one in points if one["again"] or one["broken"] or not one["same"] or not one["ended"]]
    assert wrong == []
    assert {one["step"] for one in points} == {"stage", "promote", "rollback"}
    assert {name for one in points for name in one["call"].split()[1:]} >= BOUNDARIES
    assert any(one["twice"] == -signal.SIGKILL for one in points)


def test_points_are_around_every_boundary() -> None:
    calls = ["mkdir", "open", "rename", "fsync", "open", "open", "open", "write"]
    assert chosen(calls, 100) == [3, 4, 8]


def test_what_was_cut_short_is_ended_by_whoever_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with release_toys.workshop(tmp_path) as shop:
        made = shop.candidate("1.0.0", kinds=("deb",))
        release = shop.release(tmp_path / "store")
        with monkeypatch.context() as cut:
            cut.setattr(Journal, "done", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                release.stage(made)
        assert release.verify()["problems"] == ["a step was cut short: stage of 1.0.0 to preview"]
        assert release.plan(made)["interrupted"]["step"] == "stage"
        shutil.rmtree(made)  # the candidate is in the store
        assert release.promote("1.0.0", "testing")[1]
        assert [(one.what, one.step) for one in release.store.journal.records()] == [
            ("intent", "stage"), ("done", "stage"), ("intent", "promote"), ("done", "promote"),
        ]  # fmt: skip
        assert release.verify()["ok"]


def test_a_disk_that_is_full_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with release_toys.workshop(tmp_path) as shop:
        made = shop.candidate("1.0.0", kinds=("deb",))
        release = shop.release(tmp_path / "store")

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as small:
            small.setattr(shutil, "copyfile", full)
            with pytest.raises(DeepError, match=r"became full while writing the candidate 1\.0\.0"):
                release.stage(made)
        assert not list(release.store.public.rglob(".tmp-*"))
        assert release.stage(made)[1]


def test_records_are_on_disk_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    state = State(
        line="deep-1", stage="preview", number=1, version="1.0.0", commit="0" * 40, time=NOW, key="A" * 40, packages=()
    )
    journal = Journal(tmp_path / "journal.jsonl")
    written = journal.intend("stage", state)
    assert synced == [journal.path.stat().st_ino, tmp_path.stat().st_ino]
    assert journal.pending() == written == Record(number=1, what="intent", step="stage", state=state)
    journal.done(written)
    assert journal.pending() is None
