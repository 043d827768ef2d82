"""Arguments of a module's calls, checked before anything is computed; a wrong one is answered with 422 and says why."""

from __future__ import annotations

import json
import math
from typing import Any

from aiohttp import web
from marshmallow import ValidationError, fields


class Matrix(fields.Field):
    """Rows of finite numbers, as a JSON array or, in a query string, as its text.

    ``columns`` is the length of each row; ``rows`` the least and the greatest number of them; ``bounds`` those of the
    numbers.
    """

    def __init__(
        self, columns: int, *, rows: tuple[int, int], bounds: tuple[float, float] | None = None, **more: Any
    ) -> None:
        super().__init__(**more)
        self._columns, self._rows, self._bounds = columns, rows, bounds

    def _deserialize(self, value: Any, *_args: Any, **_more: Any) -> list[list[float]]:
        found = _decoded(value)
        least, most = self._rows
        if not isinstance(found, list) or not all(isinstance(row, list) for row in found):
            raise ValidationError(f"not a table (needed an array of arrays of {self._columns} numbers)")
        if not least <= len(found) <= most:
            raise ValidationError(f"wrong number of rows (found {len(found)}, needed {least} to {most})")
        return [self._row(number, row) for number, row in enumerate(found)]

    def _row(self, number: int, row: list[Any]) -> list[float]:
        if len(row) != self._columns:
            raise ValidationError(f"row {number}: wrong length (found {len(row)}, needed {self._columns} numbers)")
        for value in row:
            if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
                raise ValidationError(f"row {number}: not a number (found {str(value)[:40]!r}, needed finite numbers)")
            if self._bounds and not self._bounds[0] <= value <= self._bounds[1]:
                low, high = self._bounds
                raise ValidationError(f"row {number}: out of range (found {value}, needed {low:g} to {high:g})")
        return [float(value) for value in row]


def _decoded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValidationError("not JSON (needed an array of arrays of numbers)") from None


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


class RefusedError(web.HTTPUnprocessableEntity):  # pylint: disable=too-many-ancestors  # aiohttp's
    """Arguments that only together are wrong, in the form of answer that a single wrong one gets."""

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(text=json.dumps({argument: [message]}), content_type="application/json")
        self.argument, self.message = argument, message

    def __reduce__(self) -> tuple[Any, ...]:
        """It crosses from a worker to the server, and aiohttp's own cannot."""
        return type(self), (self.argument, self.message)
