"""Which checks there are: the modules of ``sqa/checks``, and those of the folder that a repository names."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from sqa import checks, tools
from sqa.check import Check
from testbed.errors import DeepError


@lru_cache
def suite() -> str:
    """SHA-256 of what turns a tool's answer into a result: the modules of the suite beside the checks."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


@dataclass(frozen=True)
class Registered:
    """A check, the hash of its module and belongings, its tool, and whether the repository brought it."""

    check: Check
    digest: str
    tool: tools.Tool | None
    plugin: bool = False

    @property
    def identity(self) -> str:
        """Everything about the check itself that decides on a result: its module, its tool, and the suite's own."""
        return f"{suite()} {self.check.name} {self.digest} {self.tool.digest if self.tool else ''}"


def load(plugins: Path | None = None) -> dict[str, Registered]:
    """Every check by its name; raises ``DeepError`` for a plug-in that cannot be used."""
    found = {}
    for module in pkgutil.iter_modules(checks.__path__):
        one = _registered(importlib.import_module(f"{checks.__name__}.{module.name}"), tools.PINS)
        found[one.check.name] = one
    if plugins is None:
        return found
    if not plugins.is_dir():
        raise DeepError(
            "sqa.yml: plugins: no such folder", found=str(plugins), next_step="make it, or leave plugins out"
        )
    for path in sorted(plugins.glob("*.py")):
        one = replace(_registered(_imported(path), plugins), plugin=True)
        if one.check.name in found:
            raise DeepError(f"{path}: a check of this name exists", found=one.check.name, next_step="give it another")
        found[one.check.name] = one
    return found


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"sqa_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise DeepError(f"{path}: not a Python module")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as broken:
        raise DeepError(
            f"{path}: cannot be loaded: {type(broken).__name__}: {broken}", next_step="correct it"
        ) from broken
    return module


def _registered(module: ModuleType, pins: Path) -> Registered:
    declared = getattr(module, "CHECK", None)
    if not isinstance(declared, Check):
        raise DeepError(f"{module.__file__}: declares no CHECK", next_step="see docs/sqa-add-a-check.md")
    own = hashlib.sha256()
    for path in (Path(str(module.__file__)), *declared.belongings):
        own.update(path.read_bytes())
    return Registered(declared, own.hexdigest(), tools.tool(declared.tool, pins) if declared.tool else None)
