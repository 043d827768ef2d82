"""Pin the Python packages of artefacts, with hashes, and write their licences down.

tools/lock_python.py [--upgrade] [NAME...]

NAME is a folder of artifacts/python/ with requirements.in (and overrides.txt where a requirement of a package is left
out). Written are requirements.txt, which names no registry, and licences.txt.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from testbed.artifacts import compilers, python_packages
from testbed.artifacts.declaration import PythonBuild, load_all
from testbed.errors import DeepError
from tools.generated import ROOT
from tools.licences import licence_of


def builds() -> dict[str, list[PythonBuild]]:
    """The declared builds by the name of their requirements."""
    found: dict[str, list[PythonBuild]] = {}
    for declaration in load_all().values():
        if isinstance(build := declaration.sources.build, PythonBuild):
            found.setdefault(build.requirements, []).append(build)
    return found


def lowest(versions: Iterable[str]) -> str:
    """The oldest of some versions of Python."""
    return min(versions, key=lambda version: int(version.partition(".")[2]))


def pin(folder: Path, oldest: str, *, upgrade: bool) -> None:
    """Write ``requirements.txt`` for Python ``oldest`` and newer."""
    overrides = folder / "overrides.txt"
    options = [*(["--upgrade"] if upgrade else []), *([f"--override={overrides}"] if overrides.exists() else [])]
    subprocess.run(
        [
            compilers.uv(), "pip", "compile", "--quiet", "--universal", f"--python-version={oldest}",
            "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-header", "--no-annotate",
            *options,
            str(folder / "requirements.in"), f"--output-file={folder / 'requirements.txt'}",
        ],
        check=True,
    )  # fmt: skip


def licences(build: PythonBuild) -> set[str]:
    """A line ``NAME==VERSION LICENCE`` for each package that the build holds."""
    lines = set()
    for version in build.pythons:
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run(python_packages.command(build, ROOT, version, Path(scratch)), check=True)
            place = Path(scratch) / (build.folder or ".")
            for package in distributions(path=[str(place)]):
                facts = package.metadata
                name = re.sub(r"[-_.]+", "-", facts["Name"]).lower()
                lines.add(f"{name}=={facts['Version']} {licence_of(facts)}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Pin what was named, or everything; 2 for a name that no declaration has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="move to the newest allowed versions")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args(arguments)
    declared = builds()
    if unknown := sorted(set(options.names) - set(declared)):
        print(f"no artefact has these requirements (found {', '.join(unknown)}, needed {', '.join(declared)})")
        return 2
    for name in options.names or declared:
        folder = ROOT / "artifacts" / "python" / name
        pin(folder, lowest(version for build in declared[name] for version in build.pythons), upgrade=options.upgrade)
        try:
            lines = set().union(*(licences(build) for build in declared[name]))
        except DeepError as failure:
            print(failure)
            return 2
        (folder / "licences.txt").write_text("".join(f"{line}\n" for line in sorted(lines)), encoding="utf-8")
        print(f"{name}: {len(lines)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
