"""Inputs of a template: what may be given for each, and what is wrong with what was given."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from deep_tosca.reading import TemplateError

SIZES = {
    "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SCALAR = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?([A-Za-z]{1,3})")
# Longer values are no input but a file, and a pattern takes its time for them.
LONGEST_VALUE = 255
MOST_ENTRIES = 100
# With more, or with one around another, a pattern can take minutes for a value.
MOST_REPEATS = 3

Check = tuple[Callable[[Any, Any], bool], str]


def scalar(value: object, units: Mapping[str, int]) -> Decimal | None:
    """A size in bytes or a time in seconds, from its text; None where it is none."""
    found = SCALAR.fullmatch(value) if isinstance(value, str) else None
    return Decimal(found[1]) * units[found[2]] if found and found[2] in units else None


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_VALUE and value.isprintable()


# What a value of each type is, and how it is called.
TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "string": (_text, f"a line of at most {LONGEST_VALUE} characters"),
    "integer": (lambda value: _number(value) and isinstance(value, int), "a whole number"),
    "float": (_number, "a number"),
    "boolean": (lambda value: isinstance(value, bool), "true or false"),
    "scalar-unit.size": (lambda value: scalar(value, SIZES) is not None, "a size like 512 MiB"),
    "scalar-unit.time": (lambda value: scalar(value, TIMES) is not None, "a time like 30 m"),
    "list": (
        lambda value: isinstance(value, list) and len(value) <= MOST_ENTRIES and all(map(_text, value)),
        f"a list of at most {MOST_ENTRIES} lines",
    ),
    "map": (
        lambda value: (
            isinstance(value, dict)
            and len(value) <= MOST_ENTRIES
            and all(map(_text, value))
            and all(map(_text, value.values()))
        ),
        f"a mapping of at most {MOST_ENTRIES} lines",
    ),
}
CONSTRAINTS: dict[str, Check] = {
    "equal": (lambda value, wanted: value == wanted, "equal to {}"),
    "greater_than": (lambda value, least: value > least, "greater than {}"),
    "greater_or_equal": (lambda value, least: value >= least, "at least {}"),
    "less_than": (lambda value, most: value < most, "less than {}"),
    "less_or_equal": (lambda value, most: value <= most, "at most {}"),
    "in_range": (lambda value, ends: ends[0] <= value <= ends[1], "between {}"),
    "valid_values": (lambda value, some: value in some, "one of {}"),
    "length": (lambda value, length: len(value) == length, "of length {}"),
    "min_length": (lambda value, least: len(value) >= least, "of at least {} characters"),
    "max_length": (lambda value, most: len(value) <= most, "of at most {} characters"),
    "pattern": (lambda value, pattern: re.fullmatch(pattern, value) is not None, "matching {}"),
}
OF_LENGTH = {"length", "min_length", "max_length"}


def check_definition(name: str, definition: Any) -> None:
    """Raise TemplateError unless an input is defined so that its values can be checked, and quickly."""
    kind = definition.get("type") if isinstance(definition, dict) else definition
    if not isinstance(definition, dict) or not isinstance(kind, str) or kind not in TYPES:
        raise TemplateError(f"input {name}: unknown type (found {short(kind)}, needed one of: {', '.join(TYPES)})")
    constraints = definition.get("constraints", [])
    if not isinstance(constraints, list):
        raise TemplateError(f"input {name}: constraints are no list (found {short(constraints)})")
    for constraint in constraints:
        _check_constraint(name, kind, constraint)
    if definition.get("default") is not None:
        check_value(name, definition, definition["default"])


def _check_constraint(name: str, kind: str, constraint: Any) -> None:
    known = ", ".join(CONSTRAINTS)
    if not isinstance(constraint, dict) or len(constraint) != 1 or not set(constraint) <= set(CONSTRAINTS):
        raise TemplateError(f"input {name}: unknown constraint (found {short(constraint)}, needed one of: {known})")
    ((what, bound),) = constraint.items()
    if what == "pattern":
        _check_pattern(name, bound)
    bounds = bound if what in {"in_range", "valid_values"} else [bound]
    if not isinstance(bounds, list) or not bounds or (what == "in_range" and len(bounds) != 2):
        raise TemplateError(f"input {name}: {what} has not what it needs (found {short(bound)})")
    right = (lambda one: _number(one) and one >= 0) if what in OF_LENGTH else TYPES[kind][0]
    wrong = [one for one in bounds if what != "pattern" and not right(one)]
    if wrong or (what == "pattern" and kind != "string"):
        raise TemplateError(f"input {name}: {what} does not fit the type {kind} (found {short(bound)})")


def _check_pattern(name: str, pattern: Any) -> None:
    """A pattern that takes no longer than its value is long, nearly: nothing repeated repeats."""
    if not isinstance(pattern, str) or len(pattern) > LONGEST_VALUE:
        raise TemplateError(f"input {name}: a pattern is a line of at most {LONGEST_VALUE} characters")
    repeats = sum(pattern.count(sign) for sign in "*+{")
    if repeats > MOST_REPEATS or re.search(r"\)[*+{]", pattern):
        raise TemplateError(
            f"input {name}: a pattern that may take long (found {short(pattern)}; needed at most {MOST_REPEATS} of"
            " * + {, none behind a bracket). Next: say less, or use valid_values"
        )
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise TemplateError(f"input {name}: no pattern (found {short(pattern)}: {error})") from None


def _comparable(kind: str, value: Any) -> Any:
    units = {"scalar-unit.size": SIZES, "scalar-unit.time": TIMES}.get(kind)
    if units is None:
        return value
    return [scalar(one, units) for one in value] if isinstance(value, list) else scalar(value, units)


def check_value(name: str, definition: Mapping[str, Any], value: Any) -> None:
    """Raise TemplateError unless a value is of the input's type and keeps to its constraints."""
    kind = definition["type"]
    is_one, called = TYPES[kind]
    if not is_one(value):
        raise TemplateError(f"input {name}: wrong value (found {short(value)}, needed {called}). Next: correct it")
    for constraint in definition.get("constraints", []):
        ((what, bound),) = constraint.items()
        holds, said = CONSTRAINTS[what]
        plain = what in OF_LENGTH or what == "pattern"
        if not holds(value if plain else _comparable(kind, value), bound if plain else _comparable(kind, bound)):
            needed = said.format(" and ".join(map(str, bound)) if what == "in_range" else bound)
            raise TemplateError(
                f"input {name}: wrong value (found {short(value)}, needed one {needed}). Next: correct it"
            )


def values(definitions: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A value for every input: what was given, or its default, or None where it may be left out.

    Raises TemplateError for what is unknown, missing or wrong.
    """
    unknown = sorted(map(str, set(parameters) - set(definitions)))
    if unknown:
        there = ", ".join(definitions) or "none"
        raise TemplateError(f"no such input (found {', '.join(map(short, unknown[:5]))}, needed one of: {there})")
    given = {}
    for name, definition in definitions.items():
        value = parameters.get(name)
        value = definition.get("default") if value is None else value
        if value is not None:
            check_value(name, definition, value)
        elif definition.get("required", True):
            raise TemplateError(
                f"input {name} is missing (found nothing, needed {TYPES[definition['type']][1]}). Next: give it"
            )
        given[name] = float(value) if definition["type"] == "float" and value is not None else value
    return given


def short(value: Any) -> str:
    """A value as an error may show it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
