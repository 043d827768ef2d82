"""Variables of the site that one testbed sets for itself: ``deep testbed up --set NAME=VALUE``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from testbed.errors import WRONG_USAGE, DeepError
from testbed.paths import repo_root


def changed(before: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """``before`` with each ``NAME=VALUE`` applied; VALUE is YAML, and an empty one gives the site's own value back.

    Raises ``DeepError`` (exit code 2) for what is no assignment, no YAML, or names a variable that nothing reads.
    """
    settings = dict(before)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise _wrong("not a setting", assignment, "NAME=VALUE")
        _need_known(name)
        value = _value(name, text)
        settings[name] = value
        if value is None:
            del settings[name]
    return settings


def _value(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as broken:
        raise _wrong(
            f"the value of {name} is not YAML", text, "a YAML value, quoted where it has special characters"
        ) from broken


def _need_known(name: str) -> None:
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        raise _wrong("no such variable", name, f"one of: {', '.join(close)}" if close else "a variable of the site")


def _wrong(what: str, found: str, needed: str) -> DeepError:
    where = "inventories/common/group_vars/all.yml and docs/reference/roles.md list the variables"
    return DeepError(what, found=found, needed=needed, next_step=where, exit_code=WRONG_USAGE)


def names() -> list[str]:
    """Every variable that can be set: those of the inventories and those of the roles' argument specs."""
    found: set[str] = set()
    for site in ("common", "local"):
        for file in (repo_root() / "inventories" / site / "group_vars").rglob("*.yml"):
            found |= set(_read(file))
    for file in (repo_root() / "roles").glob("*/meta/argument_specs.yml"):
        found |= {option for entry in _read(file)["argument_specs"].values() for option in entry.get("options", {})}
    return sorted(found)


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] | None = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found or {}
