"""Where things stand in a plot: axes, their ticks, and labels that do not lie on each other. All places are pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

TICKS = 4
# Of a character of the reports' small type, its width at most; of a line of it, what is above and below the baseline.
CHARACTER, ABOVE, BELOW = 7.0, 10.0, 3.0
# Distance of a label from what it names.
GAP = 8.0
# Which ends of a label may be how far from a dot that it stands above or below of.
SIDES = ((0.0, "middle"), (GAP, "start"), (-GAP, "end"), (6 * GAP, "start"), (-6 * GAP, "end"))


def scale(low: float, high: float) -> tuple[float, float]:
    """An axis that shows everything from ``low`` to ``high`` with some room."""
    room = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    return low - room, high + room


def ticks(low: float, high: float) -> list[float]:
    """Round values for an axis: a few, one, two or five times a power of ten apart."""
    power = 10.0 ** math.floor(math.log10((high - low) / TICKS))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * TICKS >= (high - low))
    return [at * step for at in range(math.ceil(low / step), math.floor(high / step) + 1)]


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic axis from ``low`` at the place ``start`` to ``high`` at the place ``end``."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Where a value stands."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return round(self.start + (self.end - self.start) * share, 1)

    def ticks(self) -> list[tuple[float, float]]:
        """Places of round values: powers of ten, 2 and 5 between few of them; evenly spaced within less than one."""
        if self.high / self.low < 10:
            found = ticks(self.low, self.high)
        else:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            factors = (1, 2, 5) if self.high / self.low < 1000 else (1,)
            found = [factor * 10.0**power for power in decades for factor in factors]
        return [(self.place(one), one) for one in found if self.low <= one <= self.high]


class Spot(NamedTuple):
    """Where a label may stand: its baseline, and which end of it is at ``x`` (``start``, ``middle`` or ``end``)."""

    x: float
    y: float
    anchor: str


class Label(NamedTuple):
    """A text where it stands."""

    text: str
    x: float
    y: float
    anchor: str


class Box(NamedTuple):
    """What something covers."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether they have a place in common."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, other: Box) -> bool:
        """Whether the other is within this one."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and self.right >= other.right
            and self.bottom >= other.bottom
        )


def box(text: str, spot: Spot) -> Box:
    """What a label covers at a spot."""
    width = CHARACTER * len(text)
    left = spot.x - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[spot.anchor]
    return Box(left, spot.y - ABOVE, left + width, spot.y + BELOW)


def label(text: str, spots: Sequence[Spot], plot: Box, taken: list[Box]) -> Label:
    """The label at the first spot in the plot where it lies on nothing that is ``taken``, else at the first of all.

    What it covers is taken then.
    """
    free = (one for one in spots if plot.holds(box(text, one)) and not any(box(text, one).meets(it) for it in taken))
    spot = next(free, spots[0])
    taken.append(box(text, spot))
    return Label(text, *spot)


def around(x: float, y: float) -> list[Spot]:
    """Spots for the label of a dot, the nearest first, and none on a level line through it."""
    corners = [Spot(x + GAP, y - 5, "start"), Spot(x - GAP, y - 5, "end"), Spot(x + GAP, y + 14, "start")]
    rows = (14.0, -9.0, 28.0, -23.0, 42.0, -37.0)
    return corners + [Spot(round(x + shift, 1), y + row, anchor) for row in rows for shift, anchor in SIDES]


def along(begin: tuple[float, float], end: tuple[float, float]) -> list[Box]:
    """What a straight line covers, as boxes so near to each other that nothing stands between them."""
    steps = max(1, math.ceil(math.dist(begin, end) / 4))
    pairs = list(zip(begin, end, strict=True))
    return dots(([now + (then - now) * step / steps for now, then in pairs] for step in range(steps + 1)), radius=1.0)


def dots(places: Iterable[Sequence[float]], radius: float = 4.0) -> list[Box]:
    """What dots cover."""
    return [Box(x - radius, y - radius, x + radius, y + radius) for x, y in places]
