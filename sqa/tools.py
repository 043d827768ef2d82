"""Environments of the tools: each pinned with hashes in ``sqa/tools/NAME.txt``, installed once into the cache."""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from testbed.errors import DeepError
from testbed.paths import cache_dir

PINS = Path(__file__).resolve().parent / "tools"
PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Tool:
    """The environment ``name`` as its pins describe it."""

    name: str
    pins: Path

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the pins and of the Python that runs them: another one, and nothing found before counts."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return hashlib.sha256(self.pins.read_bytes() + version.encode()).hexdigest()

    @property
    def version(self) -> str:
        """The version of the package that is called like the environment, for people."""
        pinned = {
            name.lower().replace("_", "-"): version for name, version in PINNED.findall(self.pins.read_text("utf-8"))
        }
        wanted = next(
            (key for key in (self.name, f"{self.name}-py", f"{self.name}-bin", f"{self.name}-py-ecc") if key in pinned),
            None,
        )
        return f"{self.name} {pinned[wanted]}" if wanted else self.name

    @property
    def folder(self) -> Path:
        """Where it is installed, or will be."""
        return cache_dir() / "sqa" / "tools" / f"{self.name}-{self.digest[:16]}"

    @property
    def programs(self) -> Path:
        """The folder of its programs."""
        return self.folder / "bin"

    @property
    def installed(self) -> bool:
        """Whether it is there and whole."""
        return (self.folder / ".complete").exists()


def tool(name: str, pins: Path = PINS) -> Tool:
    """The tool ``name``; raises ``DeepError`` where nothing pins it."""
    file = pins / f"{name}.txt"
    if not file.is_file():
        raise DeepError("a check names a tool that nothing pins", found=name, needed=f"a file {file}")
    return Tool(name, file)


def install(wanted: Tool) -> None:
    """Install what is missing, whole or not at all; raises ``DeepError`` with what the installer said last."""
    wanted.folder.parent.mkdir(parents=True, exist_ok=True)
    with wanted.folder.with_suffix(".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if wanted.installed:
            return
        shutil.rmtree(wanted.folder, ignore_errors=True)
        _uv(wanted, "venv", "--quiet", "--python", sys.executable, str(wanted.folder))
        _uv(
            wanted, "pip", "sync", "--quiet", "--compile-bytecode", "--require-hashes", "--python",
            str(wanted.programs / "python"), str(wanted.pins),
        )  # fmt: skip
        (wanted.folder / ".complete").touch()


def _uv(wanted: Tool, *arguments: str) -> None:
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if not uv:
        raise DeepError("uv is not installed", needed="uv, which installs the tools", next_step="pip install uv")
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        done = subprocess.run([uv, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        if done.returncode:
            log.seek(0)
            raise DeepError(
                f"the tool {wanted.name} cannot be installed",
                found=log.read().strip()[-600:],
                next_step="see that the package registry answers, then run the same command again",
            )
