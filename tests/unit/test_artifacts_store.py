"""The store: complete or absent, damage detected, one writer at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import files
from testbed.artifacts.declaration import Declaration
from testbed.artifacts.store import Record, Store
from testbed.errors import DeepError

TOOL = Declaration.model_validate(
    {
        "name": "tool",
        "version": "1.0",
        "licence": "Apache-2.0",
        "homepage": "https://example.org",
        "summary": "A tool",
        "files": [{"name": "tool"}, {"name": "data", "mode": "0644"}],
        "sources": {"upstream": {"url": "https://example.org/x", "checksum_url": "https://example.org/y"}},
    }
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "artifacts")


def fill(store: Store, content: str = "#!/bin/sh\n", declaration: Declaration = TOOL) -> Record:
    with store.workspace("tool") as work:
        (work / "tool").write_text(content, encoding="utf-8")
        (work / "data").write_text("data\n", encoding="utf-8")
        return store.commit(declaration, "build", "f" * 64, {"tool": work / "tool", "data": work / "data"}, 1.5)


def test_committed_files_are_served_with_their_hashes(store: Store) -> None:
    record = fill(store)
    view = store.mirror / "tool" / "1.0"
    assert (view / "tool").read_text(encoding="utf-8") == "#!/bin/sh\n"
    done = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=view, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert store.record("tool") == record
    assert not store.check(record, rehash=True)
    assert not store.check_view(record)


def test_scratch_is_gone_after_a_commit(store: Store) -> None:
    fill(store)
    assert not list((store.root / "work").iterdir())


def test_truncated_object_is_found_without_hashing(store: Store) -> None:
    record = fill(store)
    path = store.object_path(record.files["tool"].sha256)
    os.truncate(path, 3)
    (problem,) = store.check(record, rehash=False)
    assert (problem.file, problem.found) == ("tool", "3 bytes")


def test_changed_object_of_the_same_size_is_found_by_its_time(store: Store) -> None:
    record = fill(store)
    path = store.object_path(record.files["tool"].sha256)
    path.write_text("#!/bin/ah\n", encoding="utf-8")
    (problem,) = store.check(record, rehash=False)
    assert problem.found == files.sha256_of(path)
    assert record.files["tool"].sha256 in problem.needed


def test_silent_corruption_is_found_by_rehash(store: Store) -> None:
    record = fill(store)
    entry = record.files["tool"]
    path = store.object_path(entry.sha256)
    path.write_text("#!/bin/ah\n", encoding="utf-8")
    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
    assert not store.check(record, rehash=False), "the cheap check trusts size and time"
    assert [problem.file for problem in store.check(record, rehash=True)] == ["tool"]


def test_touched_but_intact_object_is_no_problem(store: Store) -> None:
    record = fill(store)
    os.utime(store.object_path(record.files["tool"].sha256))
    assert not store.check(record, rehash=False)


def test_missing_object_is_found(store: Store) -> None:
    record = fill(store)
    store.object_path(record.files["data"].sha256).unlink()
    assert [problem.found for problem in store.check(record, rehash=False)] == ["no file"]


def test_view_is_repaired(store: Store) -> None:
    record = fill(store)
    view = store.view(record)
    (view / "tool").unlink()
    (view / "SHA256SUMS").write_text("nonsense\n", encoding="utf-8")
    (view / "stranger").write_text("x", encoding="utf-8")
    assert len(store.check_view(record)) == 2
    assert store.publish(record) is True
    assert not store.check_view(record)
    assert sorted(path.name for path in view.iterdir()) == ["SHA256SUMS", "data", "tool"]
    assert store.publish(record) is False


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "tool"}'])
def test_unreadable_record_counts_as_absent(store: Store, content: str) -> None:
    fill(store)
    (store.root / "records" / "tool.json").write_text(content, encoding="utf-8")
    assert store.record("tool") is None


def test_absent_file_says_how_to_get_it(store: Store) -> None:
    with pytest.raises(DeepError, match="tool/tool is not in the store") as failure:
        store.file("tool", "tool")
    assert failure.value.next_step == "run 'deep artifacts build tool'"


def test_second_process_is_told_who_holds_the_lock(store: Store) -> None:
    program = (
        "import sys, time; from pathlib import Path; from testbed.artifacts.store import Store\n"
        "with Store(Path(sys.argv[1])).lock('tool'):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(store.root)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        told: list[str] = []
        with pytest.raises(DeepError, match=f"found: process {holder.pid}"), store.lock("tool", 0.6, told.append):
            pytest.fail("the lock was given twice")
        assert told == [f"waiting for process {holder.pid}, which works on tool"]
        holder.kill()
        holder.wait()
    with store.lock("tool"):
        assert (store.root / "locks" / "tool.lock").read_text(encoding="utf-8") == f"{os.getpid()}\n"


def test_workspace_removes_what_a_killed_build_left(store: Store) -> None:
    left = store.root / "work" / "tool.1"
    left.mkdir(parents=True)
    (left / "half").write_text("x", encoding="utf-8")
    other = store.root / "work" / "toolbox.1"
    other.mkdir()
    with store.workspace("tool") as work:
        assert not left.exists()
        assert not list(work.iterdir())
    assert other.exists()


def test_space_is_checked_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _path: 1000)
    with pytest.raises(DeepError, match=r"found: 1000 bytes \(1000 bytes\); needed: 2048 bytes \(2.0 KiB\)"):
        files.require_space(tmp_path, 2048, "artefact tool")


def test_free_space_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert files.free_bytes(tmp_path / "a" / "b") > 0
