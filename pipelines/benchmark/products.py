"""Whether a product of two random matrices is what it should be, in arrays of numpy or of torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Columns that a random vector of the check adds up: few, so that one wrong element stands out.
COLUMNS = 64
# Of random signs, a sum of errors exceeds this many times the root of their squares once in 10^13 rows (Hoeffding).
DEVIATIONS = 8


def signs(size: int, seed: int) -> NDArray[np.float64]:
    """A random sign for each of ``size`` columns, in an array that a matrix times which adds up groups of them."""
    found = np.zeros((size, -(-size // COLUMNS)))
    at = np.arange(size)
    found[at, at // COLUMNS] = np.random.default_rng(seed).choice([-1.0, 1.0], size)
    return found


def rounded(size: int, last: float, each: float, factors: float = 0.0) -> float:
    """How far an element of a product may be off, relative to its usual size.

    It is rounded once (``last``), and its additions round numbers that grow to it (``each``): of random data their
    errors add up to the root of ``size`` roundings of the element (a BLAS in single precision stays below a fifth of
    what is allowed, 16 to 2048 rows; factors of 10 bits exceed it fifty times). Where ``factors`` are rounded that adds
    up as they do. All relative.
    """
    return last + math.sqrt(size) * each + 4 * factors


def wrong(left: Any, right: Any, product: Any, added: Any, off: float) -> str | None:
    """Freivalds' check (1977) for each few columns, within the rounding; all arrays are of double precision.

    ``added``: ``signs``; ``off``: ``rounded``. An element of a product of normal random matrices is about as large as
    the norms of its row and column by the root of their length. Errors of columns that are added up with random signs
    grow as the root of their number.
    """
    error = abs(product @ added - left @ (right @ added))
    rows, columns = (left**2).sum(1) ** 0.5, ((right**2).sum(0) @ abs(added)) ** 0.5
    allowed = DEVIATIONS * off / math.sqrt(len(left)) * rows[:, None] * columns[None, :]
    if bool((error <= allowed).all()):
        return None
    return f"the product is wrong: off by {float(error.max()):.3g}, rounding explains {float(allowed.max()):.3g}"
