"""Python packages in one folder, for the Python of hosts that have neither pip nor a way to a registry.

A host runs a module of such a folder by ``python3 -IS FOLDER MODULE [ARGUMENTS]``: of what it has installed itself only
the standard library is seen, so that a package which is missing in the folder is noticed everywhere.
"""

from __future__ import annotations

import platform
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from testbed import files
from testbed.artifacts import compilers
from testbed.artifacts.declaration import PythonBuild
from testbed.errors import CHECK_FAILED, DeepError

# The C library that wheels may ask for: older than that of every distribution with one of the versions of Python.
C_LIBRARY = "manylinux_2_28"
LAUNCHER = """import runpy
import sys

del sys.argv[0]
if not sys.argv:
    sys.exit("which module? usage: python3 -IS FOLDER MODULE [ARGUMENTS]")
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
BYTECODE = ("*.pyc", "*/__pycache__", "__pycache__")
# What names places of the machine that it was made on.
NEVER = ("*.dist-info/RECORD", "*.dist-info/direct_url.json", ".lock")
SCRIPTS = "bin"
PROJECT = "pyproject.toml"
PURE = "Root-Is-Purelib: true"


def requirements_file(build: PythonBuild, root: Path) -> Path:
    """The pins of a build, with hashes; ``DeepError`` when there are none."""
    path = root / "artifacts" / "python" / build.requirements / "requirements.txt"
    if not path.is_file():
        raise DeepError(f"{path}: no pins", needed="one made of requirements.in beside it", next_step="run 'make lock'")
    return path


def inputs(build: PythonBuild, root: Path) -> dict[str, Any]:
    """What decides the content besides the declaration."""
    return {
        "uv": compilers.uv_version(),
        "requirements": files.sha256_of(requirements_file(build, root)),
        "packages": {str(path.relative_to(root)): files.sha256_of(path) for path, _ in _own(build, root)},
        "projects": _projects(build, root),
        "launcher": LAUNCHER,
        "platform": C_LIBRARY,
    }


def _own(build: PythonBuild, root: Path) -> Iterator[tuple[Path, Path]]:
    """Files of this repository, each with its place among the packages."""
    for package in build.packages:
        folder = root / package
        yield from ((path, path.relative_to(folder.parent)) for path in _own_files(folder))
    for name in build.paths:
        found = [root / name] if (root / name).is_file() else _own_files(root / name)
        yield from ((path, path.relative_to(root)) for path in found)


def _own_files(package: Path) -> Iterator[Path]:
    """Files of a package of this repository, without bytecode."""
    if not (package / "__init__.py").is_file():
        raise DeepError(
            f"{package}: no package of Python",
            needed="a folder with __init__.py",
            next_step="correct sources.build.packages and sources.build.paths",
        )
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _projects(build: PythonBuild, root: Path) -> list[dict[str, Any]]:
    """What other programs find of this repository's projects: name, version, and entry points into its packages.

    A project without any is there only for what keeps its path: the repository's own, which is asked for its version.
    """
    names = {Path(package).name for package in build.packages}
    found = [_project(file, names) for file in sorted({(root / one).parent / PROJECT for one in build.packages})]
    own = [_project(root / PROJECT, names)] if build.paths else []
    return [one for one in found if one.get("points")] + [one for one in own if one]


def _project(file: Path, packages: set[str]) -> dict[str, Any]:
    if not file.is_file():
        return {}
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    points = {
        group: {name: place for name, place in sorted(named.items()) if _package(place) in packages}
        for group, named in sorted(project.get("entry-points", {}).items())
    }
    return {
        "name": project["name"],
        "version": project["version"],
        "points": {group: named for group, named in points.items() if named},
    }


def _package(place: str) -> str:
    """The package of an entry point, ``PACKAGE.MODULE:OBJECT``."""
    return place.partition(":")[0].partition(".")[0].strip()


def _announce(project: dict[str, Any], packages: Path) -> None:
    """Write name, version and entry points where ``importlib.metadata`` looks for them."""
    name, version = project["name"], project["version"]
    folder = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    groups = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in named.items())
        for group, named in project["points"].items()
    ]
    (folder / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")


def command(build: PythonBuild, root: Path, version: str, target: Path) -> list[str]:
    """The command that puts the pinned packages for Python ``version`` below ``target``."""
    pins = str(requirements_file(build, root))
    return [
        compilers.uv(),
        "pip",
        "install",
        "--quiet",
        f"--python={sys.executable}",
        f"--target={target / (build.folder or '.')}",
        f"--python-version={version}",
        f"--python-platform={platform.machine()}-{C_LIBRARY}",
        "--link-mode=copy",
        "--require-hashes",
        "--no-deps",
        "--only-binary=:all:",
        *[f"--no-binary={name}" for name in build.from_source],
        f"--build-constraints={pins}",
        f"--requirements={pins}",
    ]


def complete(name: str, build: PythonBuild, root: Path, target: Path) -> None:
    """Add launcher and packages of the repository, take away what depends on this machine.

    Raises ``DeepError`` for what was compiled here.
    """
    packages = target / (build.folder or ".")
    _refuse_compiled(name, build, packages)
    shutil.rmtree(packages / SCRIPTS, ignore_errors=True)
    for path, place in _own(build, root):
        target_file = packages / place
        target_file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target_file)
        target_file.chmod(path.stat().st_mode)
    for project in _projects(build, root):
        _announce(project, packages)
    (packages / "__main__.py").write_text(LAUNCHER, encoding="utf-8")
    for path in target.rglob("*"):
        if not path.is_symlink():
            # Those of wheels and of this machine's umask differ.
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _refuse_compiled(name: str, build: PythonBuild, packages: Path) -> None:
    """A package that was compiled here fits this machine's Python and C library, not those of hosts."""
    for source in build.from_source:
        stem = source.replace("-", "_").lower()
        wheels = [
            path for path in packages.glob("*.dist-info/WHEEL") if path.parent.name.lower().startswith(f"{stem}-")
        ]
        if not wheels or any(PURE not in path.read_text(encoding="utf-8") for path in wheels):
            raise DeepError(
                f"artifacts/{name}.yml: sources.build.from_source: {source} cannot come from its source",
                found="parts that were compiled on this machine" if wheels else "no such package",
                needed="a package of pure Python",
                next_step="choose a version with a wheel, or another package",
                exit_code=CHECK_FAILED,
            )


def left_out(build: PythonBuild) -> list[str]:
    """Patterns of what is not packed."""
    prefix = f"{build.folder}/" if build.folder else ""
    return [*NEVER, *(() if build.bytecode else BYTECODE), *[f"{prefix}{pattern}" for pattern in build.exclude]]
