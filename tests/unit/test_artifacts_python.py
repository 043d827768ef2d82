"""Python packages for hosts: pinned, the same bytes everywhere, and complete without anything of the host's own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from testbed.artifacts import python_packages
from testbed.artifacts.builders import Context
from testbed.artifacts.declaration import Declaration, PythonBuild, load_all
from testbed.artifacts.engine import Outcome, ensure
from testbed.artifacts.progress import Silent
from testbed.artifacts.store import Store
from testbed.errors import DeepError
from testbed.paths import repo_root

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
ARCHIVE = f"python{VERSION}.tar.gz"
BUILDS = [(item, item.sources.build) for item in load_all().values() if isinstance(item.sources.build, PythonBuild)]


def wheel(folder: Path, name: str, files: dict[str, str]) -> str:
    """A wheel of pure Python in ``folder``; returns its line of a requirements file."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in content.items():
            archive.writestr(member, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{member},,\n" for member in [*content, f"{info}/RECORD"]))
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def declare(**changes: Any) -> Declaration:
    build = {
        "kind": "python", "requirements": "program", "pythons": [VERSION], "packages": ["services/own/own_part"],
        "disk": "1MiB", **changes,
    }  # fmt: skip
    return Declaration.model_validate(
        {
            "name": "program", "version": "1.0", "licence": "MIT", "homepage": "https://example.org",
            "summary": "A program", "files": [{"name": ARCHIVE, "mode": "0644", "unpack": "packages"}],
            "sources": {"build": build},
        }
    )  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with pins and a package, and wheels that uv finds without a registry."""
    wheels, pins, own = tmp_path / "wheels", tmp_path / "artifacts/python/program", tmp_path / "services/own/own_part"
    for folder in (wheels, pins, own):
        folder.mkdir(parents=True)
    lines = wheel(wheels, "helper", {"helper/__init__.py": "WORD = 'helped'\n", "helper/tests/much.py": ""})
    (pins / "requirements.txt").write_text(lines, encoding="utf-8")
    (own / "__init__.py").write_text("", encoding="utf-8")
    (own / "__main__.py").write_text(
        "import sys\nfrom helper import WORD\nprint(WORD, sys.argv[1:], __name__)\n", encoding="utf-8"
    )
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return tmp_path


def context(root: Path, store: str = "store", **changes: Any) -> Context:
    return Context(Store(root / store), {"program": declare(**changes)}, Silent(), root)


def build(ctx: Context) -> Outcome:
    return ensure(["program"], ctx)[-1]


def unpacked(ctx: Context) -> Path:
    folder = ctx.root / "unpacked"
    with tarfile.open(ctx.store.file("program", ARCHIVE)) as archive:
        archive.extractall(folder, filter="tar")
    return folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-IS", folder, *words], capture_output=True, text=True, check=False, cwd=folder.parent
    )


def test_a_program_runs_on_nothing_but_its_folder(root: Path) -> None:
    ctx = context(root)
    build(ctx)
    folder = unpacked(ctx)
    assert run(folder, "own_part", "one", "-m").stdout == "helped ['one', '-m'] __main__\n"
    missing = run(folder, "pytest")
    assert "No module named pytest" in missing.stderr, "what is installed beside must not be seen"
    assert "which module?" in run(folder).stderr


def test_the_same_bytes_are_made_elsewhere(root: Path) -> None:
    first, second = context(root), context(root, "elsewhere")
    build(first)
    (root / "services/own/own_part/__main__.py").touch()
    (root / "wheels").chmod(0o700)
    build(second)
    assert first.store.file("program", ARCHIVE).name == second.store.file("program", ARCHIVE).name
    with tarfile.open(first.store.file("program", ARCHIVE)) as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names)
    assert {member.mtime for member in members} == {0}
    assert {oct(member.mode) for member in members} <= {"0o755", "0o644"}
    assert not [name for name in names if name.startswith("bin") or name.endswith(("RECORD", ".pyc"))]


def test_what_is_left_out_and_where_the_rest_goes(root: Path) -> None:
    ctx = context(root, exclude=["*/tests"], folder="opt/program")
    build(ctx)
    folder = unpacked(ctx)
    assert run(folder / "opt/program", "own_part").returncode == 0
    assert not (folder / "opt/program/helper/tests").exists()
    assert (folder / "opt/program/helper/__init__.py").exists()


def test_other_programs_find_the_own_package_by_its_entry_points(root: Path) -> None:
    project = root / "services/own/pyproject.toml"
    text = '[project]\nname = "own"\nversion = "2.0"\n[project.entry-points."a.group"]\nthis = "own_part.api"\n'
    project.write_text(text, encoding="utf-8")
    finder = root / "services/own/own_part/finder.py"
    finder.write_text(
        "from importlib.metadata import entry_points, version\nprint(version('own'), *entry_points(group='a.group'))\n",
        encoding="utf-8",
    )
    ctx = context(root)
    build(ctx)
    said = run(unpacked(ctx), "own_part.finder").stdout
    assert said == "2.0 EntryPoint(name='this', value='own_part.api', group='a.group')\n"
    project.write_text(text.replace("this", "that"), encoding="utf-8")
    assert build(ctx).reason == "its inputs changed"
    # Whoever looks for entry points would import what is not there.
    project.write_text(text + 'other = "other_part.api"\n', encoding="utf-8")
    build(ctx)
    assert run(unpacked(ctx), "own_part.finder").stdout == said


def test_what_keeps_its_path_is_imported_by_it_and_knows_its_version(root: Path) -> None:
    (root / "pyproject.toml").write_text('[project]\nname = "whole"\nversion = "3.0"\n', encoding="utf-8")
    deep = root / "rooms/room"
    deep.mkdir(parents=True)
    for file, text in (
        (root / "rooms/__init__.py", ""), (root / "rooms/other.py", ""), (deep / "__init__.py", ""),
        (deep / "__main__.py", "from importlib.metadata import version\nprint(version('whole'), __package__)\n"),
    ):  # fmt: skip
        file.write_text(text, encoding="utf-8")
    ctx = context(root, paths=["rooms/__init__.py", "rooms/room"])
    build(ctx)
    assert run(unpacked(ctx), "rooms.room").stdout == "3.0 rooms.room\n"
    assert not (unpacked(ctx) / "rooms/other.py").exists()
    (deep / "__main__.py").write_text("", encoding="utf-8")
    assert build(ctx).reason == "its inputs changed"
    with pytest.raises(DeepError, match=r"rooms/none: no package of Python"):
        build(context(root, paths=["rooms/none"]))


def test_another_package_than_the_pinned_one_is_refused(root: Path) -> None:
    wheel(root / "wheels", "helper", {"helper/__init__.py": "WORD = 'exchanged'\n"})
    with pytest.raises(DeepError, match="Hash mismatch"):
        build(context(root))


def test_a_change_of_pins_or_of_the_own_package_is_noticed(root: Path) -> None:
    ctx = context(root)
    build(ctx)
    own = root / "services/own/own_part"
    (own / "__pycache__").mkdir()
    (own / "__pycache__/x.pyc").write_bytes(b"x")
    assert not build(ctx).changed
    (own / "more.py").write_text("", encoding="utf-8")
    assert build(ctx).reason == "its inputs changed"
    pins = root / "artifacts/python/program/requirements.txt"
    pins.write_text(pins.read_text(encoding="utf-8") + "# another one\n", encoding="utf-8")
    assert build(ctx).reason == "its inputs changed"


def test_no_pins_and_no_package_are_said(root: Path) -> None:
    with pytest.raises(DeepError, match=r"services/own: no package of Python .*needed: a folder with __init__.py"):
        build(context(root, packages=["services/own"]))
    (root / "artifacts/python/program/requirements.txt").unlink()
    with pytest.raises(DeepError, match=r"no pins .needed: one made of requirements\.in"):
        build(context(root))


@pytest.mark.parametrize(
    ("pure", "found"), [("false", "parts that were compiled on this machine"), (None, "no such package")]
)
def test_what_was_compiled_here_is_refused(root: Path, pure: str | None, found: str) -> None:
    described = declare(from_source=["helper"]).sources.build
    assert isinstance(described, PythonBuild)
    info = root / "target/helper-1.0.dist-info"
    info.mkdir(parents=True)
    if pure:
        (info / "WHEEL").write_text(f"Root-Is-Purelib: {pure}\n", encoding="utf-8")
    with pytest.raises(DeepError, match=f"helper cannot come from its source .found: {found}"):
        python_packages.complete("program", described, root, root / "target")


@pytest.mark.parametrize(("item", "described"), BUILDS, ids=lambda value: getattr(value, "name", ""))
def test_pins_and_licences_of_the_project_belong_together(item: Declaration, described: PythonBuild) -> None:
    pins = python_packages.requirements_file(described, repo_root())
    lines = [line for line in pins.read_text(encoding="utf-8").splitlines() if "==" in line and "--hash" not in line]
    always = {line.split()[0] for line in lines if ";" not in line}
    listed = {line.split()[0] for line in (pins.parent / "licences.txt").read_text(encoding="utf-8").splitlines()}
    assert always
    assert always <= listed <= {line.split()[0] for line in lines}, f"{item.name}: run tools/lock_python.py"
    assert "://" not in pins.read_text(encoding="utf-8")
    assert {file.unpack for file in item.files} <= {None, *(f"python{version}" for version in described.pythons)}
