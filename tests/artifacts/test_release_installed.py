"""A candidate as its users have it: without a checkout, its wheel and its collection raise a testbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.release import packages, source
from testbed import engine, image, profiles
from testbed.artifacts import api
from testbed.paths import COLLECTION, cache_dir, repo_root, state_dir, state_root
from tests.unit import release_repository

pytestmark = pytest.mark.live

NAME = "installed"
PROFILE = profiles.load("high-availability")
MINE = release_repository.candidate_of("deep-testbed-0.1")
WHEEL = f"deep_testbed-{MINE.version}-py3-none-any.whl"
CHECKS = "test_hosts or test_registry or test_kubernetes_security or names_resolve"
UV = Path(sys.executable).with_name("uv")


@dataclass(frozen=True)
class Machine:
    """Folders of somebody who has the files of a release, and nothing else of ours."""

    folder: Path

    @property
    def programs(self) -> Path:
        return self.folder / "venv/bin"

    @property
    def collections(self) -> Path:
        return self.folder / "collections"

    def run(self, program: str, *arguments: str | Path, status: int = 0, **environment: str) -> str:
        """What a program of the environment says, run beside no checkout, with nothing of this one's environment."""
        (home := self.folder / "home").mkdir(exist_ok=True)
        known = {
            "PATH": os.defpath, "HOME": str(home), "DEEP_CACHE_DIR": str(cache_dir()),
            "DEEP_STATE_DIR": str(state_root()), "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
        }  # fmt: skip
        done = subprocess.run(
            [self.programs / program, *arguments], cwd=home, env={**known, **environment}, check=False, text=True,
            capture_output=True,
        )  # fmt: skip
        assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def deep(self, *arguments: str, status: int = 0, **environment: str) -> Any:
        return json.loads(self.run("deep", *arguments, "--json", status=status, **environment))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel and the collection, built as a release builds them from the files of this tree."""
    folder = tmp_path_factory.mktemp("candidate")
    root = release_repository.of_this_tree(folder / "repository")
    found = source.commit(root, "HEAD")
    shop = packages.Workshop(MINE, found.epoch, folder / "source", folder / "files", folder / "work")
    for one in (shop.source, shop.files, shop.work):
        one.mkdir()
    source.export(found, MINE, shop.source)
    for product, declared, _ in MINE.files():
        if declared.kind in ("collection", "wheel"):
            packages.MAKERS[declared.kind](shop, product, declared)
    return shop.files


@pytest.fixture(scope="module")
def machine(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """An empty environment of Python with the wheel and its needs, as pinned; an empty folder with the collection."""
    made = Machine(tmp_path_factory.mktemp("machine"))
    uv: list[str | Path] = [UV, "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, made.folder / "venv"], check=True)
    subprocess.run(
        [*uv, "pip", "install", "--python", made.programs / "python", "--constraint",
         repo_root() / "requirements/dev.txt", f"deep-testbed[build] @ {(files / WHEEL).as_uri()}"],
        check=True,
    )  # fmt: skip
    tarball = files / f"deephdc-testbed-{MINE.semver}.tar.gz"
    made.run("ansible-galaxy", "collection", "install", "--offline", "--collections-path", made.collections, tarball)
    return made


@pytest.fixture(scope="module")
def raised(machine: Machine) -> Iterator[dict[str, Any]]:
    """A testbed of one node that is a whole cluster, raised by what is installed, from the cache that there is."""
    client = engine.ensure_running()
    image.ensure(client, image.named(PROFILE.image), cache_dir() / "images" / f"{PROFILE.image}.log")
    api.ensure(PROFILE.artifacts)
    machine.deep("testbed", "down", f"--name={NAME}")
    try:
        yield machine.deep(
            "testbed", "up", f"--name={NAME}", f"--profile={PROFILE.name}", "--nodes=1", "--until=deploy"
        )
    finally:
        machine.deep("testbed", "down", f"--name={NAME}")


def test_the_wheel_has_every_file_of_its_packages(files: Path) -> None:
    """But what pins are made from, which only the repository needs."""
    listed = release_repository.git(repo_root(), "ls-files", "pipelines", "sqa", "testbed").splitlines()
    wanted = {name for name in listed if not name.endswith(".in") and (repo_root() / name).is_file()}
    with zipfile.ZipFile(files / WHEEL) as wheel:
        assert wanted - set(wheel.namelist()) == set()


def test_the_command_finds_the_collection(machine: Machine) -> None:
    (local,) = (one for one in machine.deep("site", "list")["sites"] if one["name"] == "local")
    assert Path(local["path"]).is_relative_to(machine.collections)


def test_without_the_collection_it_says_what_to_do(machine: Machine, tmp_path: Path) -> None:
    said = machine.deep("site", "list", status=2, ANSIBLE_COLLECTIONS_PATH=str(tmp_path))["error"]
    assert (said["found"], said["needed"]) == (f"none in {tmp_path}", MINE.version)


def test_it_would_build_the_same_artefacts(machine: Machine) -> None:
    api.ensure(PROFILE.artifacts)
    states = {one["name"]: one["state"] for one in machine.deep("artifacts", "list")["artifacts"]}
    assert {states[name] for name in PROFILE.artifacts} == {"ready"}


def test_a_testbed_is_raised_from_the_cache_that_there_is(machine: Machine, raised: dict[str, Any]) -> None:
    assert (raised["ok"], raised["phase"]) == (True, "deploy")
    assert str(machine.collections) in raised["inventory"][0]
    assert not (state_dir(NAME) / "logs/image.log").exists()


def test_it_passes_its_acceptance_suite(machine: Machine, raised: dict[str, Any]) -> None:
    """The checks that take seconds: of the host, of the registry, of a pod that asks for names, of who may do what."""
    verdict = machine.deep("testbed", "verify", f"--name={NAME}", f"--select={CHECKS}")
    assert verdict["failures"] == []
    passed = {check["id"].partition("[")[0] for check in verdict["checks"] if check["outcome"] == "passed"}
    assert {
        "hosts::declared_units_are_active", "kubernetes_network::names_resolve_on_every_node",
        "kubernetes_security::privileged_pod_is_refused", "registry::registry_admits_the_site",
    } <= passed  # fmt: skip


def test_nothing_is_kept_beside_the_playbooks(machine: Machine, raised: dict[str, Any]) -> None:
    """The collection has what was installed and Python's bytecode: it may be another person's, or read-only."""
    folder = machine.collections / COLLECTION
    listed = json.loads((folder / "FILES.json").read_text(encoding="utf-8"))["files"]
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}
    assert present - {one["name"] for one in listed} == {"FILES.json", "MANIFEST.json"}
