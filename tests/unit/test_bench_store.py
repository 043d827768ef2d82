"""The store: what it keeps, whoever is killed while writing, and what it does with damaged and foreign data."""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.benchmark import store as kept
from pipelines.benchmark.store import Store
from testbed.errors import WRONG_USAGE, DeepError
from testbed.paths import repo_root
from tests.unit.bench_toys import noise, result, run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_is_kept_comes_back(store: Store) -> None:
    one, other = run(day=1), run(day=2, label="v2")
    for each in (one, other):
        store.append(each)
    assert store.get(one.id) == one
    assert store.get("latest") == other
    assert store.get("20260102") == one
    assert [(each["id"], each["label"], each["ok"]) for each in store.runs()] == [
        (other.id, "v2", True), (one.id, "", True),
    ]  # fmt: skip
    assert store.damaged() == []


def test_a_run_that_is_not_there_and_one_of_several(store: Store) -> None:
    with pytest.raises(DeepError, match="no run 'latest'"):
        store.get("latest")
    store.append(run(day=1))
    store.append(run(day=2))
    with pytest.raises(DeepError, match=r"begins the ids of several runs.*20260102-toy, 20260103-toy"):
        store.get("2026")
    with pytest.raises(DeepError, match="no run '2026%'"):
        store.get("2026%")


@pytest.mark.parametrize("left", [b'{"schema_version": 1, "id": "half', b"garbage", b"\xff\xfe"])
def test_what_a_killed_writer_leaves_is_passed_over(store: Store, left: bytes) -> None:
    store.append(run(day=1))
    with store.lines.open("ab") as sink:
        sink.write(left)
    assert [one["id"] for one in store.runs()] == ["20260102-toy"]
    store.append(run(day=2))
    assert [one["id"] for one in store.runs()] == ["20260103-toy", "20260102-toy"]
    assert store.get("20260103-toy") == run(day=2)
    assert len(store.damaged()) == 1
    assert store.lines.read_bytes().count(b"\n") == 3


def test_a_writer_that_is_killed_loses_nothing_that_was_there(store: Store) -> None:
    """A process that appends for ever, killed in the middle: every line is whole or the last one is passed over."""
    store.append(run(day=1))
    code = (
        "import itertools, pathlib, sys\n"
        "from pipelines.benchmark.store import Store\n"
        "from tests.unit import bench_toys\n"
        "for at in itertools.count():\n"
        "    Store(pathlib.Path(sys.argv[1])).append(bench_toys.run().model_copy(update={'id': f'run-{at}'}))\n"
        "    print(at, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(store.folder)], cwd=repo_root(), stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(repo_root())},
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(5)]
        writer.send_signal(signal.SIGKILL)
    ids = {one["id"] for one in store.runs()}
    assert {"20260102-toy", *(f"run-{line.strip()}" for line in said)} <= ids
    store.append(run(day=3))
    assert store.get("latest") == run(day=3)


def test_a_run_whose_writer_was_killed_before_the_index_is_found(store: Store) -> None:
    store.append(run(day=1))
    with store.lines.open("ab") as sink:
        sink.write(run(day=2).model_dump_json().encode() + b"\n")
    assert store.get("latest") == run(day=2)


def test_an_index_of_another_version_or_a_damaged_one_is_made_anew(store: Store) -> None:
    store.append(run(day=1))
    index = store.folder / kept.INDEX
    with sqlite3.connect(index) as older:
        older.execute("PRAGMA user_version = 99")
        older.execute("DROP TABLE results")
    older.close()
    assert store.get("latest") == run(day=1)
    index.write_bytes(b"no database at all" * 100)
    assert store.get("latest") == run(day=1)
    index.unlink()
    assert len(store.history()[0].points) == 1


def test_lines_put_back_from_a_backup_are_indexed_anew(store: Store) -> None:
    store.append(run(day=1))
    before = store.lines.read_bytes()
    store.append(run(day=2))
    store.lines.write_bytes(before)
    assert [one["id"] for one in store.runs()] == ["20260102-toy"]


def test_a_line_that_this_version_knows_and_another_did_not_is_read(store: Store) -> None:
    later = json.loads(run(day=1).model_dump_json()) | {"more": 1}
    store.append(run(day=2))
    with store.lines.open("a") as sink:
        sink.write(json.dumps(later) + "\n")
    (damaged,) = store.damaged()
    assert "more" in damaged
    text = store.lines.read_text()
    store.lines.write_text(text.replace('"more": 1', '"seed": 1'))
    assert store.damaged() == []
    assert [one["id"] for one in store.runs()] == ["20260103-toy", "20260102-toy"]


def test_lines_that_somebody_has_taken_out_are_noticed(store: Store) -> None:
    runs = [run(result(noise(100.0, seed=day)), day=day) for day in (1, 2, 3, 4)]
    for one in runs[:2]:
        store.append(one)
    store.lines.write_text("".join(f"{one.model_dump_json()}\n" for one in runs[1:]))
    assert [one["id"] for one in store.runs()] == ["20260105-toy", "20260104-toy", "20260103-toy"]
    with pytest.raises(DeepError, match="no run '20260102'"):
        store.get("20260102")


def test_a_run_whose_line_was_changed_is_told(store: Store) -> None:
    store.append(run(day=1))
    for day in (2, 3):
        store.append(run(day=day, label="x" * kept.TAIL))
    text = store.lines.read_text()
    store.lines.write_text(text.replace('"seed":1', '"sead":1', 1))
    with pytest.raises(DeepError, match=r"run 20260102-toy is damaged .*found: .*sead"):
        store.get("20260102")
    assert store.get("latest").id == "20260104-toy"


@pytest.mark.parametrize("version", [0, 2])
def test_a_run_of_another_schema_is_refused_and_not_lost(store: Store, version: int) -> None:
    line = json.loads(run().model_dump_json()) | {"schema_version": version}
    store.folder.mkdir()
    store.lines.write_text(json.dumps(line) + "\n")
    with pytest.raises(DeepError, match=f"another schema .*found: schema_version {version}; needed: 1"):
        store.runs()
    assert json.loads(store.lines.read_text())["schema_version"] == version


def test_writers_wait_for_each_other(store: Store) -> None:
    runs = [run().model_copy(update={"id": f"run-{at}"}) for at in range(8)]
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda one: Store(store.folder).append(one), runs))
    assert {one["id"] for one in store.runs()} == {one.id for one in runs}
    assert store.damaged() == []


def test_a_folder_that_cannot_be_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeepError, match=r"store .*file/store cannot be used") as refused:
        Store(tmp_path / "file" / "store").prepare()
    assert refused.value.exit_code == WRONG_USAGE


def test_a_full_disk_is_told_before_anything_is_measured(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.files.free_bytes", lambda _: 1000)
    with pytest.raises(DeepError, match=r"not enough space.*the results of benchmarks") as refused:
        store.prepare()
    assert refused.value.next_step == "free space there, or name another folder with --store"


def test_a_disk_that_becomes_full_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    with pytest.raises(DeepError, match=r"became full while writing the results of benchmarks") as refused:
        store.append(run())
    assert refused.value.next_step == "free space there, or name another folder with --store"


def test_reading_makes_nothing(store: Store) -> None:
    assert (store.runs(), store.history(), store.baselines(), store.measured()) == ([], [], {}, [])
    assert not store.folder.exists()
    store.prepare()
    assert store.exists()


READER = """
import os, pathlib, sys
from pipelines.benchmark.store import Store
os.setuid(65534)
store = Store(pathlib.Path(sys.argv[1]))
print(store.get("latest").id, [one["id"] for one in store.runs()], len(store.history()), *store.baselines().values())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("index", [True, False])
def test_who_may_only_read_reads(index: bool) -> None:
    """Nothing is written, and nothing that a writer holds is waited for."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        store.append(run(day=1))
        store.set_baseline(run(day=1))
        with store.lines.open("ab") as sink:
            sink.write(run(day=2).model_dump_json().encode() + b'\n{"half')
        if not index:
            (store.folder / kept.INDEX).unlink()
        for place in (folder, store.folder):
            Path(place).chmod(0o755)
        there = {one.name: one.read_bytes() for one in store.folder.iterdir()}
        with store._alone():
            done = subprocess.run(
                [sys.executable, "-c", READER, str(store.folder)], cwd=repo_root(), check=True, timeout=60, text=True,
                capture_output=True, env=os.environ | {"PYTHONPATH": str(repo_root())},
            )  # fmt: skip
        assert done.stdout == "20260103-toy ['20260103-toy', '20260102-toy'] 1 20260102-toy\n"
        assert {one.name: one.read_bytes() for one in store.folder.iterdir()} == there


def test_history_is_apart_by_workload_device_and_settings(store: Store) -> None:
    fast = result(noise(200.0), threads=8)
    broken = result(noise(1.0), "memory-copy", status="invalid", summary=None)
    store.append(run(result(noise(100.0)), broken, day=2))
    store.append(run(result(noise(101.0)), day=1))
    store.append(run(fast, day=3))
    found = store.history()
    assert [(one.workload, one.settings, len(one.points)) for one in found] == [
        ("gemm-fp64", "size 1024, threads 4", 2), ("gemm-fp64", "size 1024, threads 8", 1),
    ]  # fmt: skip
    assert [round(point.median) for point in found[0].points] == [101, 100]
    assert store.history("memory-copy") == []
    assert store.history(device="none") == []


def test_a_baseline_is_kept_for_each_device_model(store: Store) -> None:
    here, there = run(day=1), run(result(noise(50.0), device="Other, 2 CPUs"), day=2)
    for one in (here, there):
        store.append(one)
        store.set_baseline(one)
    assert store.baselines() == {"Toy, 4 CPUs": here.id, "Other, 2 CPUs": there.id}
    assert [one.id for one, _ in store.baseline_of(run(day=3))] == [here.id]


def test_what_is_no_baseline(store: Store) -> None:
    with pytest.raises(DeepError, match=r"no baseline for Toy, 4 CPUs .*none at all"):
        store.baseline_of(run())
    suspect = run(result(noise(1.0), status="suspect", reasons=("slow",)))
    with pytest.raises(DeepError, match="gemm-fp64 is suspect"):
        store.set_baseline(suspect)
    with pytest.raises(DeepError, match=r"too few processes .*found: 4 processes; needed: 5 for 1 workload") as told:
        store.set_baseline(run(result(noise(1.0, processes=4))))
    assert told.value.next_step == "measure the same again with --processes 5, or more"
    store.folder.mkdir()
    (store.folder / kept.BASELINES).write_text("{")
    with pytest.raises(DeepError, match="is damaged"):
        store.baselines()
