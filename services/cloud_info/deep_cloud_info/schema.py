"""What may be published."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

from deep_cloud_info.errors import CloudInfoError

SHOWN = 5


@cache
def validator() -> Draft202012Validator:
    """Checks documents against schema.json of this package."""
    schema = json.loads(resources.files("deep_cloud_info").joinpath("schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FormatChecker())


def problems(document: Any) -> list[str]:
    """What is wrong with a document, each with its place; empty where nothing is."""
    faults = sorted(validator().iter_errors(document), key=lambda error: error.json_path)
    return [f"{error.json_path}: {error.message[:200]}" for error in faults]


def check(document: Any) -> None:
    """Raise CloudInfoError unless a document is what is agreed with its readers."""
    if faults := problems(document):
        more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise CloudInfoError(
            "what would be published is not valid", found="; ".join(faults[:SHOWN]) + more,
            needed="what schema.json of deep_cloud_info says", next_step="report it with the configuration",
        )  # fmt: skip
