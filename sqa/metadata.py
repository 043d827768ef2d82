"""What a repository's metadata files state about it: name, version, licence."""

from __future__ import annotations

import configparser
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

# Versions as semver.org writes them, with the ``v`` that tags carry.
SEMVER = (
    r"v?(?P<numbers>(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*))"
    r"(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?"
)


@dataclass(frozen=True)
class Stated:
    """What one file states; empty where it states nothing. ``problem``: why it cannot be read."""

    path: str
    version: str = ""
    licence: str = ""
    problem: str = ""


def stated(names: Iterable[str], text: Callable[[str], str]) -> list[Stated]:
    """What each known metadata file among ``names`` states, in their order."""
    found = []
    for name in names:
        reader = _reader(name)
        if reader is None:
            continue
        try:
            found.append(reader(name, text(name)))
        except (ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError, configparser.Error) as broken:
            found.append(Stated(name, problem=f"{type(broken).__name__}: {broken}"))
    return found


def citation(text: str) -> list[str]:
    """What is wrong with a CITATION.cff, by what its format asks for."""
    data = yaml.safe_load(text)
    if not isinstance(data, Mapping):
        return ["is no mapping"]
    wrong = [f"lacks {key}" for key in ("cff-version", "message", "title", "authors") if not data.get(key)]
    authors = data.get("authors") or []
    if not isinstance(authors, list) or not all(_author(one) for one in authors):
        wrong.append("authors: each needs a name, or family-names")
    return wrong


def codemeta(text: str) -> list[str]:
    """What is wrong with a codemeta.json."""
    data = json.loads(text)
    if not isinstance(data, dict):
        return ["is no object"]
    wrong = [f"lacks {key}" for key in ("@context", "@type", "name", "author", "license") if not data.get(key)]
    if "codemeta" not in str(data.get("@context", "")).lower():
        wrong.append("@context: is not CodeMeta's")
    return wrong


def _author(one: Any) -> bool:
    return isinstance(one, Mapping) and bool(one.get("name") or one.get("family-names"))


def _reader(name: str) -> Callable[[str, str], Stated] | None:
    by_name = {
        "pyproject.toml": _pyproject, "setup.cfg": _setup_cfg, "package.json": _json, "codemeta.json": _json,
        "CITATION.cff": _yaml, "galaxy.yml": _yaml, "Cargo.toml": _cargo,
    }  # fmt: skip
    folder, _, last = name.rpartition("/")
    if name in by_name:
        return by_name[name]
    parts = folder.split("/")
    role = last == "main.yml" and parts[-1] == "meta" and (len(parts) == 1 or parts[:1] == ["roles"])
    return _role if role else None


def _pyproject(path: str, text: str) -> Stated:
    data = tomllib.loads(text)
    project = data.get("project") or data.get("tool", {}).get("poetry", {})
    licence = project.get("license", "")
    return Stated(
        path, str(project.get("version", "")), str(licence.get("text", "") if isinstance(licence, Mapping) else licence)
    )


def _cargo(path: str, text: str) -> Stated:
    package = tomllib.loads(text).get("package", {})
    return Stated(path, str(package.get("version", "")), str(package.get("license", "")))


def _setup_cfg(path: str, text: str) -> Stated:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    version = parser.get("metadata", "version", fallback="")
    return Stated(path, "" if ":" in version else version, parser.get("metadata", "license", fallback=""))


def _json(path: str, text: str) -> Stated:
    return _of(path, json.loads(text))


def _yaml(path: str, text: str) -> Stated:
    return _of(path, yaml.safe_load(text))


def _role(path: str, text: str) -> Stated:
    return Stated(path, licence=_of(path, (yaml.safe_load(text) or {}).get("galaxy_info", {})).licence)


def _of(path: str, data: Mapping[str, Any]) -> Stated:
    licence = data.get("license") or ""
    if isinstance(licence, list):
        licence = " AND ".join(map(str, licence))
    if isinstance(licence, Mapping):
        licence = licence.get("name") or licence.get("url") or ""
    name = str(licence)
    return Stated(path, str(data.get("version") or ""), name.rstrip("/").rpartition("/")[2] if "://" in name else name)
