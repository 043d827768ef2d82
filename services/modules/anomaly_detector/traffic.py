"""Made-up measurements of a network: five series that follow one load, and events that only their relation betrays."""

from __future__ import annotations

from typing import Any

import numpy as np

CHANNELS = ("flows", "megabytes", "packets", "dns_queries", "failed_logins")
# One row is five minutes.
DAY = 288
GAINS = np.array([40.0, 12.0, 90.0, 25.0, 2.0])
LEVELS = np.array([200.0, 60.0, 450.0, 120.0, 10.0])
NOISE = 0.06
LENGTH = 6


def normal(rows: int, seed: int) -> Any:
    """``rows`` x channels without any event."""
    chance = np.random.default_rng(seed)
    load = 1.5 * np.sin(2 * np.pi * (np.arange(rows) + chance.integers(DAY)) / DAY) + _drifting(rows, 0.97, 0.2, chance)
    own = np.stack([_drifting(rows, 0.5, NOISE, chance) for _ in CHANNELS], axis=1)
    return LEVELS + GAINS * (load[:, None] + own)


def with_events(rows: int, seed: int, events: int = 8) -> tuple[Any, Any]:
    """Rows, and for each whether it belongs to an event.

    In an event one series goes its own way by less than a day's ups and downs: a scan has packets without megabytes, a
    tunnel DNS queries without flows. Every fourth event is one that sticks out by itself.
    """
    series, labels = normal(rows, seed), np.zeros(rows, dtype=bool)
    chance = np.random.default_rng(seed + 1_000_000)
    starts = np.linspace(rows // 10, rows - 2 * LENGTH, events).astype(int) + chance.integers(0, LENGTH, events)
    for number, start in enumerate(starts):
        channel = chance.integers(len(CHANNELS))
        size = (4.0 if number % 4 == 3 else 0.8) * chance.choice([-1.0, 1.0])
        series[start : start + LENGTH, channel] += size * GAINS[channel]
        labels[start : start + LENGTH] = True
    return series, labels


def _drifting(rows: int, memory: float, step: float, chance: np.random.Generator) -> Any:
    """A series that forgets slowly: each value is the last one times ``memory``, and something by chance."""
    steps = chance.normal(0, step, rows)
    found = np.empty(rows)
    value = 0.0
    for row in range(rows):
        value = found[row] = memory * value + steps[row]
    return found
