"""What DEEPaaS calls."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from benchmark import measuring, wanted
from deep_module.about import about


def get_metadata() -> dict[str, Any]:
    """What the module says of itself."""
    return about("benchmark")


def get_predict_args() -> dict[str, fields.Field]:
    """A prediction takes nothing."""
    return {}


def get_train_args() -> dict[str, fields.Field]:
    """Arguments of a training."""
    return wanted.arguments()


def warm() -> None:
    """A measurement begins in processes of its own, so there is nothing to prepare."""


def predict(**_arguments: Any) -> dict[str, Any]:
    """The latest result, or why there is none: ``{result, explanation}``."""
    result = measuring.latest()
    explanation = None if result else "nothing was measured since this module has started: a training measures"
    return {"result": result, "explanation": explanation}


def train(**arguments: Any) -> dict[str, Any]:
    """Measure: the keys of DEEP's own module, and the run with all its samples below ``run``."""
    return measuring.measure(wanted.specification(arguments), arguments["timeout"])
