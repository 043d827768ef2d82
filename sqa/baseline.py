"""Findings that a repository had when it began to be held against a standard: known by fingerprint, not counted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sqa.model import Finding
from testbed.errors import DeepError
from testbed.files import write_json


def load(path: Path) -> frozenset[str]:
    """The fingerprints that the file names, none where there is no file; raises ``DeepError`` for a broken one."""
    try:
        return frozenset(json.loads(path.read_text(encoding="utf-8"))["findings"])
    except FileNotFoundError:
        return frozenset()
    except (ValueError, KeyError, TypeError) as broken:
        raise DeepError(
            f"{path}: not a baseline", found=str(broken), next_step="make it anew: deep sqa baseline"
        ) from broken


def write(path: Path, findings: Iterable[Finding]) -> int:
    """Take these findings, and no others, for known; returns how many they are."""
    known = {one.fingerprint: f"{one.path}: {one.check} {one.rule}" for one in findings}
    write_json(path, {"findings": known})
    return len(known)
