"""A candidate built again where all is different that should not matter, and held against what there is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipelines.release import build, candidate, members, source
from pipelines.release.candidate import DOCUMENT, FILES, INPUTS, SUMS
from testbed.errors import CHECK_FAILED, DeepError
from testbed.files import sha256_of
from testbed.paths import cache_dir, repo_root

LOOKED_INTO = 256 << 20  # bytes; of larger files only the digests are shown
SHOWN = 20  # differences
DIFFOSCOPE_LINES = 200
TAIL = 1500  # characters


@dataclass(frozen=True)
class File:
    """A file of both builds: digests, of which one is empty where the file is missing, and what differs, in words."""

    file: str
    first: str
    second: str
    differences: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether both builds have the same bytes."""
        return self.first == self.second


@dataclass(frozen=True)
class Reproduced:
    """Each file, and the tools that are of another version now: ``name: then, now``."""

    files: tuple[File, ...]
    tools: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every file is the same."""
        return all(one.same for one in self.files)


def reproduce(folder: Path, root: Path) -> Reproduced:
    """Build the candidate again, in another folder, zone, locale, home and umask, and compare each file.

    Packages of RPM get the signature that they have in the candidate, as nobody can make that again. Raises
    ``DeepError`` for a candidate that is not as it was built, a commit that the repository lacks, a failed build.
    """
    made = candidate.read(folder)
    inputs = build.read_inputs(folder)
    if not build.listed(folder, made):
        raise DeepError(
            "the list of digests is not that of the candidate", found=str(folder / SUMS),
            needed=f"a line for every file, for {DOCUMENT} and {INPUTS}", exit_code=CHECK_FAILED,
            next_step="build the candidate anew, and find out who changed it",
        )  # fmt: skip
    found = source.commit(root, inputs.commit)
    with tempfile.TemporaryDirectory(prefix="deep-again-") as name:
        work = Path(name)
        _build_again(folder, found.root, work)
        compared = [
            compare(folder / FILES / file, work / "again" / FILES / file)
            for file in sorted({one.file for one in made.artefacts} | _names(work / "again" / FILES))
        ]
    now = build.tool_versions()
    changed = [
        f"{tool}: {inputs.tools.get(tool, 'none')}, now {now.get(tool, 'none')}"
        for tool in sorted(inputs.tools | now)
        if inputs.tools.get(tool) != now.get(tool)
    ]
    return Reproduced(tuple(compared), tuple(changed))


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _build_again(folder: Path, root: Path, work: Path) -> None:
    for place in ("home", "elsewhere"):
        (work / place).mkdir()
    environment = {
        **os.environ, "HOME": str(work / "home"), "TMPDIR": str(work / "elsewhere"), "TZ": "Asia/Kathmandu",
        "LC_ALL": "POSIX", "PYTHONHASHSEED": "271828", "PYTHONPATH": str(repo_root()),
        "DEEP_CACHE_DIR": str(cache_dir()),
    }  # fmt: skip
    environment.pop("SOURCE_DATE_EPOCH", None)
    done = subprocess.run(
        [
            sys.executable, "-P", "-m", "pipelines.release.build", folder.absolute(), root, work / "again",
            work / "workshop",
        ],
        cwd=work / "elsewhere", env=environment, umask=0o077, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise DeepError(
            "the candidate cannot be built again", found=done.stderr.strip()[-TAIL:], exit_code=CHECK_FAILED,
            next_step="remove the cause, then run the same command again",
        )  # fmt: skip


def compare(first: Path, second: Path) -> File:
    """Both digests of a file and, where they differ, what does."""
    one, other = (sha256_of(path) if path.is_file() else "" for path in (first, second))
    if one == other:
        return File(first.name, one, other)
    if not one or not other:
        return File(first.name, one, other, ("only one build has it",))
    return File(first.name, one, other, (*by_members(first, second), *_by_diffoscope(first, second)))


def _by_diffoscope(first: Path, second: Path) -> list[str]:
    """What diffoscope says, where it is installed."""
    if not shutil.which("diffoscope"):
        return []
    done = subprocess.run(
        ["diffoscope", "--text", "-", first, second], capture_output=True, text=True, errors="replace", check=False
    )
    return done.stdout.splitlines()[:DIFFOSCOPE_LINES]


def by_members(first: Path, second: Path) -> list[str]:
    """Members of two archives that differ, and the first byte where nothing can be said of members."""
    if max(first.stat().st_size, second.stat().st_size) > LOOKED_INTO:
        return ["too large to be looked into"]
    left, right = members.of(first), members.of(second)
    said = []
    if left is not None and right is not None:
        for name in [*left, *(name for name in right if name not in left)]:
            one, other = left.get(name), right.get(name)
            if one is None or other is None:
                said.append(f"{name}: only in the {'second' if one is None else 'first'}")
            elif one != other:
                facts = [(key, value, other.facts[key]) for key, value in one.facts.items()]
                said.append(f"{name}: " + ", ".join(f"{key} {a} and {b}" for key, a, b in facts if a != b))
        if not said and list(left) != list(right):
            said.append("the same members in another order")
    if not said:
        said.append(_first_byte(first.read_bytes(), second.read_bytes()))
    return said[:SHOWN] + ([f"and {len(said) - SHOWN} more"] if len(said) > SHOWN else [])


def _first_byte(left: bytes, right: bytes) -> str:
    at = next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    return f"outside of members, from byte {at} on; {len(left)} and {len(right)} bytes"
