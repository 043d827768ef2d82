"""Whether Jenkins understands when a job is to start: five fields of cron, with its ``H`` for any."""

from __future__ import annotations

import re

ALIASES = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
PART = re.compile(r"(?:\*|H(?:\((?P<low>\d+)-(?P<high>\d+)\))?|(?P<first>\d+)(?:-(?P<last>\d+))?)(?:/(?P<step>\d+))?")


def problem(spec: str) -> str | None:
    """What is wrong with a specification, of one line or of several with comments; nothing where all is well."""
    lines = [line.strip() for line in spec.splitlines()]
    wanted = [line for line in lines if line and not line.startswith(("#", "TZ="))]
    if not wanted:
        return "it names no time"
    return next((found for line in wanted if (found := _of_line(line))), None)


def _of_line(line: str) -> str | None:
    if line.startswith("@"):
        return None if line in ALIASES else f"found {line}, needed one of {', '.join(ALIASES)}"
    fields = line.split()
    if len(fields) != len(FIELDS):
        return f"found {len(fields)} fields, needed {len(FIELDS)}"
    return next(
        (found for field, limits in zip(fields, FIELDS, strict=True) if (found := _of_field(field, *limits))), None
    )


def _of_field(field: str, name: str, least: int, most: int) -> str | None:
    for part in field.split(","):
        match = PART.fullmatch(part)
        if match is None:
            return f"{name}: {part!r} is none"
        numbers = [int(value) for key, value in match.groupdict().items() if value and key != "step"]
        if any(not least <= number <= most for number in numbers) or numbers != sorted(numbers):
            return f"{name}: {part!r} is not within {least} and {most}"
        if match["step"] == "0":
            return f"{name}: {part!r} makes no step"
    return None
