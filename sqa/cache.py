"""Results that were found before, by a key of everything that decides on them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testbed.paths import cache_dir

KEPT = 30 * 86400  # seconds that a result is kept without being asked for
BATCH = 500  # of the parameters that SQLite takes at once


class Cache:
    """A table of key to JSON in one file; a file that is damaged or of another time is begun anew."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_dir() / "sqa" / "results.db"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._prepare()
        except sqlite3.OperationalError:
            raise  # locked for too long: somebody else's results are not for us to remove
        except sqlite3.DatabaseError:
            self.path.unlink(missing_ok=True)
            self._prepare()

    def get(self, keys: Iterable[str]) -> dict[str, Any]:
        """The results of those of ``keys`` that there are."""
        wanted, found, now = list(keys), {}, time.time()
        with self._opened() as database:
            for start in range(0, len(wanted), BATCH):
                some = wanted[start : start + BATCH]
                marks = ",".join("?" * len(some))
                rows = database.execute(f"SELECT key, value, used FROM result WHERE key IN ({marks})", some)  # nosec B608 # marks alone
                old = []
                for key, value, used in rows:
                    found[key] = json.loads(value)
                    if used < now - KEPT / 2:
                        old.append((now, key))
                database.executemany("UPDATE result SET used = ? WHERE key = ?", old)
        return found

    def put(self, results: Mapping[str, Any]) -> None:
        """Remember results; those that nobody asked for in a month go."""
        now = time.time()
        rows = [(key, json.dumps(value), now) for key, value in results.items()]
        with self._opened() as database:
            database.executemany("INSERT OR REPLACE INTO result VALUES (?, ?, ?)", rows)
            database.execute("DELETE FROM result WHERE used < ?", (now - KEPT,))

    def _prepare(self) -> None:
        with self._opened() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE IF NOT EXISTS result (key TEXT PRIMARY KEY, value TEXT, used REAL)")

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The file, for one transaction."""
        database = sqlite3.connect(self.path, timeout=60)
        try:
            with database:
                yield database
        finally:
            database.close()
