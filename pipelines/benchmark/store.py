"""Where runs are kept: one JSON document a line, only ever appended to, and an index that can be made anew.

Whoever may only read needs neither lock nor index: of a line that is just being written nothing is seen.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from pydantic import ValidationError

from pipelines.benchmark.model import SCHEMA, Result, Run, counted
from pipelines.benchmark.stats import LEVEL, fewest
from sqa import wrong
from testbed.errors import DeepError
from testbed.files import disk_full_explained, require_space, sync_directory, write_json
from testbed.host import machine_name
from testbed.paths import state_root

LINES, INDEX, BASELINES, LOCK = "runs.jsonl", "index.sqlite", "baselines.json", "lock"
LATEST = "latest"
# What a run needs at most, in bytes: looked for before something is measured for minutes.
ROOM = 16 << 20
WHAT, ELSEWHERE = "the results of benchmarks", "free space there, or name another folder with --store"
# Of the index; one of another version is made anew.
INDEX_VERSION = 2
LONGEST_REASON = 300
# Bytes before the end of what was indexed by which it is seen whether the lines are still the same.
TAIL = 4096
TABLES = """
CREATE TABLE progress (bytes INTEGER NOT NULL, tail BLOB NOT NULL);
CREATE TABLE damaged (place INTEGER PRIMARY KEY, why TEXT NOT NULL);
CREATE TABLE runs (
  id TEXT PRIMARY KEY, started TEXT NOT NULL, label TEXT NOT NULL, host TEXT NOT NULL, ok INTEGER NOT NULL,
  place INTEGER NOT NULL, length INTEGER NOT NULL
);
CREATE TABLE results (
  run TEXT NOT NULL, workload TEXT NOT NULL, device TEXT NOT NULL, unit TEXT NOT NULL, direction TEXT NOT NULL,
  settings TEXT NOT NULL, status TEXT NOT NULL, median REAL, low REAL, high REAL, PRIMARY KEY (run, workload)
);
INSERT INTO progress VALUES (0, x'');
"""


class Point(NamedTuple):
    """A figure of the past: the run, when it was (ISO 8601), median and interval in its unit, whether it holds."""

    run: str
    started: str
    median: float
    low: float
    high: float
    status: str


class Series(NamedTuple):
    """Figures of one workload with the same settings on one device model, the oldest first."""

    workload: str
    device: str
    settings: str
    unit: str
    direction: str
    points: list[Point]


class Store:
    """The runs in a folder. Several processes may write: each waits for the others. Reading makes no store."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or state_root() / "benchmarks"
        self.lines = self.folder / LINES

    def prepare(self) -> None:
        """Raise an error where a run could not be kept, before it is measured."""
        with self._alone(), self.lines.open("ab"):
            require_space(self.folder, ROOM, WHAT, ELSEWHERE)

    def append(self, run: Run) -> None:
        """Keep a run. Killed at any moment, this leaves what was there before, or the run as well."""
        line = run.model_dump_json().encode() + b"\n"
        with self._alone(), disk_full_explained(self.folder, WHAT, ELSEWHERE):
            with self.lines.open("a+b") as sink:
                end = sink.seek(0, os.SEEK_END)
                if end:
                    sink.seek(end - 1)
                    # What a write that was cut short has left becomes a line of its own, which is skipped.
                    line = line if sink.read(1) == b"\n" else b"\n" + line
                sink.write(line)
                sink.flush()
                os.fsync(sink.fileno())
            sync_directory(self.folder)
            with self._index(self.folder / INDEX):
                pass

    def exists(self) -> bool:
        """Whether a run was ever kept here, or was about to be."""
        with self._usable():
            return self.lines.exists()

    def measured(self) -> list[tuple[str, str]]:
        """The workloads of which there are results, with the device model."""
        with self._read() as index:
            rows = index.execute("SELECT DISTINCT workload, device FROM results ORDER BY workload, device").fetchall()
        return [(row["workload"], row["device"]) for row in rows]

    def runs(self) -> list[dict[str, Any]]:
        """Every run in short, the newest first."""
        with self._read() as index:
            found = index.execute("SELECT id, started, label, host, ok FROM runs ORDER BY started DESC, id DESC")
            runs = [dict(row) | {"ok": bool(row["ok"])} for row in found.fetchall()]
            for run in runs:
                rows = index.execute("SELECT workload, status FROM results WHERE run = ?", (run["id"],))
                run["results"] = {row["workload"]: row["status"] for row in rows}
        return runs

    def damaged(self) -> list[str]:
        """Lines that are no run, with the reason."""
        with self._read() as index:
            rows = index.execute("SELECT place, why FROM damaged ORDER BY place").fetchall()
        return [f"{self.lines}, byte {row['place']}: {row['why']}" for row in rows]

    def get(self, reference: str) -> Run:
        """The run with this id, or the only one whose id begins like this, or the ``latest``."""
        with self._read() as index:
            if reference == LATEST:
                rows = index.execute("SELECT * FROM runs ORDER BY started DESC, id DESC LIMIT 1").fetchall()
            else:
                rows = index.execute(
                    "SELECT * FROM runs WHERE substr(id, 1, ?) = ? LIMIT 2", (len(reference), reference)
                ).fetchall()
        if len(rows) != 1:
            said = f"{reference!r} begins the ids of several runs" if rows else f"no run {reference!r} in {self.folder}"
            found = ", ".join(row["id"] for row in rows) or None
            raise DeepError(said, found=found, next_step="deep bench list shows the runs there are")
        with self._usable(), self.lines.open("rb") as source:
            source.seek(rows[0]["place"])
            line = source.read(rows[0]["length"])
        try:
            return Run.model_validate_json(line)
        except ValidationError as refused:
            raise DeepError(
                f"run {rows[0]['id']} is damaged", found=_why(refused), needed="the line as it was",
                next_step=f"put {self.lines} back from a backup, or remove that line and {self.folder / INDEX}",
            ) from refused  # fmt: skip

    def history(self, workload: str | None = None, device: str | None = None) -> list[Series]:
        """What was measured over time, without invalid results."""
        query = (
            "SELECT * FROM results JOIN runs ON runs.id = results.run WHERE status != 'invalid'"
            " AND workload = ifnull(?, workload) AND device = ifnull(?, device) ORDER BY started, id"
        )
        with self._read() as index:
            rows = index.execute(query, (workload, device)).fetchall()
        series: dict[tuple[str, ...], Series] = {}
        for row in rows:
            one = Series(row["workload"], row["device"], row["settings"], row["unit"], row["direction"], [])
            point = Point(*(row[name] for name in Point._fields))
            series.setdefault(one[:-1], one).points.append(point)
        return list(series.values())

    def set_baseline(self, run: Run) -> list[str]:
        """Make a run what others are compared with, for each device model in it; returns those."""
        unfit = [f"{one.workload} is {one.status}" for one in run.results if one.status != "valid"]
        if unfit or not run.results:
            raise DeepError(
                f"run {run.id} is no baseline", found="; ".join(unfit) or "no result", needed="valid results only",
                next_step="measure again on a machine that has nothing else to do",
            )  # fmt: skip
        processes, needed = min(len(one.samples) for one in run.results), fewest(len(run.results), LEVEL)
        if processes < needed:
            raise DeepError(
                f"run {run.id} is no baseline: it has too few processes to be compared with",
                found=counted(processes, "process"), needed=f"{needed} for {counted(len(run.results), 'workload')}",
                next_step=f"measure the same again with --processes {needed}, or more",
            )  # fmt: skip
        devices = list(dict.fromkeys(one.device for one in run.results))
        with self._alone():
            write_json(self.folder / BASELINES, self.baselines() | dict.fromkeys(devices, run.id))
        return devices

    def baselines(self) -> dict[str, str]:
        """The run that is the baseline of each device model."""
        path = self.folder / BASELINES
        try:
            with self._usable():
                found = json.loads(path.read_text(encoding="utf-8") if path.exists() else "{}")
        except ValueError as broken:
            raise DeepError(
                f"{path} is damaged: {broken}", next_step="remove it, then deep bench baseline set"
            ) from broken
        return dict(found)

    def baseline_of(self, run: Run) -> list[tuple[Run, Result]]:
        """The results that those of a run are held against: of each device model in it."""
        baselines, found = self.baselines(), []
        for device in dict.fromkeys(one.device for one in run.results):
            if device not in baselines:
                raise DeepError(
                    f"no baseline for {device}", found=", ".join(baselines) or "none at all",
                    next_step="deep bench baseline set RUN",
                )  # fmt: skip
            kept = self.get(baselines[device])
            found += [(kept, one) for one in kept.results if one.device == device]
        return found

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """What the system says of a folder that is no store, or is not this user's, is a wrong environment."""
        try:
            yield
        except (OSError, sqlite3.Error) as failed:
            raise DeepError(
                f"the store {self.folder} cannot be used",
                host=machine_name(),
                found=str(failed),
                needed="a folder that this user can read, to keep something also write",
                next_step="name another folder with --store, or change who may use this one",
            ) from failed

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._usable():
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / LOCK).open("a", encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """The index; where nothing can be written, or there is nothing yet, one that is made in memory."""
        if self.exists() and self._writable():
            with self._alone(), self._index(self.folder / INDEX) as index:
                yield index
        else:
            with self._usable(), self._index() as index:
                yield index

    @contextmanager
    def _index(self, path: Path | None = None) -> Iterator[sqlite3.Connection]:
        """The index with every whole line in it, one of a file only while the lock is held."""
        if path and not self._whole(path):
            path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path or ":memory:")) as index:
            index.row_factory = sqlite3.Row
            if not index.execute("PRAGMA user_version").fetchone()[0]:
                index.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {INDEX_VERSION}; COMMIT;")
            with index:
                self._catch_up(index)
            yield index

    def _whole(self, path: Path) -> bool:
        """Whether an index is of this version, whole, and about the lines that there are."""
        if not path.exists():
            return True
        try:
            with closing(sqlite3.connect(path)) as index:
                version = index.execute("PRAGMA user_version").fetchone()[0]
                known, tail = index.execute("SELECT bytes, tail FROM progress").fetchone()
                whole = index.execute("PRAGMA quick_check").fetchone()[0] == "ok"
        except sqlite3.DatabaseError:
            return False
        with self.lines.open("rb") as source:
            return bool(version == INDEX_VERSION and whole and _tail(source, known) == tail)

    def _writable(self) -> bool:
        places = (self.folder, self.folder / LOCK, self.folder / INDEX)
        return all(os.access(place, os.W_OK) for place in places if place.exists())

    def _size(self) -> int:
        return self.lines.stat().st_size if self.lines.exists() else 0

    def _catch_up(self, index: sqlite3.Connection) -> None:
        place = index.execute("SELECT bytes FROM progress").fetchone()[0]
        damaged = [row["place"] for row in index.execute("SELECT place FROM damaged").fetchall()]
        if self._size() == place and not damaged:
            return
        with self.lines.open("rb") as source:
            for one in damaged:  # a version may know what another one did not
                source.seek(one)
                self._add(index, one, source.readline())
            source.seek(place)
            for line in source:
                if not line.endswith(b"\n"):
                    break  # somebody was cut short while writing; what comes next ends it
                self._add(index, place, line)
                place += len(line)
            index.execute("UPDATE progress SET bytes = ?, tail = ?", (place, _tail(source, place)))

    def _add(self, index: sqlite3.Connection, place: int, line: bytes) -> None:
        try:
            run = Run.model_validate_json(line)
        except ValidationError as refused:
            self._require_schema(line)
            index.execute("INSERT OR REPLACE INTO damaged VALUES (?, ?)", (place, _why(refused)))
            return
        index.execute("DELETE FROM damaged WHERE place = ?", (place,))
        row = (run.id, run.started.isoformat(), run.label, run.machine.host, run.ok, place, len(line))
        index.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        index.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _rows(run))

    def _require_schema(self, line: bytes) -> None:
        try:
            found = json.loads(line)["schema_version"]
        except (ValueError, TypeError, KeyError):
            return
        if found != SCHEMA:
            raise DeepError(
                f"{self.lines} holds a run of another schema", found=f"schema_version {found}", needed=str(SCHEMA),
                next_step="use the version of deep that wrote it, or another folder: --store",
            )  # fmt: skip


def settings(result: Result) -> str:
    """What makes figures of a workload comparable on one device, as a text."""
    return ", ".join(
        f"{name} {value}" for name, value in sorted({"threads": result.threads, **result.parameters}.items())
    )


def _rows(run: Run) -> Iterable[tuple[Any, ...]]:
    for one in run.results:
        figures = (one.summary.median, one.summary.low, one.summary.high) if one.summary else (None, None, None)
        yield run.id, one.workload, one.device, one.unit, one.direction, settings(one), one.status, *figures


def _why(refused: ValidationError) -> str:
    """Why a line is no run."""
    return wrong.explained(refused, Run)[:LONGEST_REASON]


def _tail(source: IO[bytes], place: int) -> bytes:
    """What a file has right before a place."""
    begin = max(0, place - TAIL)
    source.seek(begin)
    return source.read(place - begin)
