"""Quantities as Kubernetes writes them, without rounding."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

_FORM = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([+-]?[0-9]+)|([numkMGTPE]|[KMGTPE]i))?")
_FACTORS: dict[str | None, Decimal] = {
    None: Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}
Amounts = dict[str, Decimal]


def parse(text: str | int | float) -> Decimal:
    """The number that a quantity such as ``250m``, ``1Gi``, ``1e3`` or ``2`` means.

    Raises ValueError for anything else.
    """
    match = _FORM.fullmatch(str(text))
    if match is None:
        raise ValueError(f"not a quantity: {text!r}")
    number, exponent, suffix = match.groups()
    return Decimal(f"{number}e{exponent or 0}") * _FACTORS[suffix]


def amounts(resources: Mapping[str, str] | None) -> Amounts:
    """A list of resources as numbers: CPUs, bytes, pieces."""
    return {name: parse(value) for name, value in (resources or {}).items()}


def added(one: Mapping[str, Decimal], other: Mapping[str, Decimal]) -> Amounts:
    """The sum of two, resource by resource."""
    return {name: one.get(name, Decimal()) + other.get(name, Decimal()) for name in {*one, *other}}


def larger(one: Mapping[str, Decimal], other: Mapping[str, Decimal]) -> Amounts:
    """The larger of two, resource by resource."""
    return {name: max(one.get(name, Decimal()), other.get(name, Decimal())) for name in {*one, *other}}
