"""Manifests of releases: what is in the tree is right, and what is wrong is refused by name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version
from typer.testing import CliRunner

from pipelines.release import candidate, manifest
from pipelines.release.manifest import Manifest
from testbed.artifacts.declaration import ImageBuild, load_all
from testbed.cli.release import app
from testbed.errors import DeepError
from testbed.paths import repo_root

MINE: dict[str, Any] = {
    "release": "toy-0.1",
    "title": "Toy",
    "line": "deep-0",
    "version": "0.1.0rc1",
    "summary": "Of this test.",
    "build": {"commit": "any", "suites": ["base"], "apt_priority": 950, "yum_priority": 40},
    "platforms": {"debian12": {"title": "Debian 12", "packages": "deb"}},
    "products": [{"name": "toy", "title": "Toy", "artefacts": [{"kind": "wheel", "file": "toy-{version}.whl"}]}],
}
SOURCE = {"repository": "https://example.org/x", "branch": "main", "path": "index", "note": "Read once."}
DIGEST = "5" * 64


def put(folder: Path, **different: Any) -> Path:
    """The file of a manifest with other keys; a key without a value is left out."""
    data = {key: value for key, value in {**MINE, **different}.items() if value is not None}
    path = folder / f"{data['release']}.yml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_the_manifests_of_the_project_are_right() -> None:
    known = manifest.load_all()
    products = {name: len(one.products) for name, one in known.items()}
    assert products == {"deep-1": 9, "deep-2": 12, "deep-testbed-0.1": 4}
    assert [name for name, one in known.items() if one.build] == ["deep-testbed-0.1"]
    for one in known.values():
        if one.published:
            assert one.published.source.repository == "https://github.com/deephdc/deep-releases"


def test_what_is_built_has_names_that_a_candidate_may_have() -> None:
    mine = manifest.find("deep-testbed-0.1")
    assert manifest.find(mine.version) == mine
    names = [file for _, _, file in mine.files()]
    assert f"deephdc-release_{mine.package}+debian12_all.deb" in names
    assert f"deephdc-testbed-{mine.semver}.tar.gz" in names
    assert len(set(names)) == len(names)
    for name in names:
        candidate.Artefact(product="x", version="1", kind="deb", file=name, size=1, sha256=DIGEST)


@pytest.mark.parametrize(
    ("version", "semver", "package"), [("0.1.0rc1", "0.1.0-rc.1", "0.1.0~rc1"), ("1.2.30", "1.2.30", "1.2.30")]
)
def test_a_version_is_spelled_as_each_kind_of_package_wants_it(version: str, semver: str, package: str) -> None:
    rule = {**MINE["build"], "commit": "tagged"}
    made = Manifest.model_validate({**MINE, "version": version, "build": rule})
    assert (made.semver, made.package) == (semver, package)


def test_a_candidate_is_older_than_its_release_for_everybody() -> None:
    made = Manifest.model_validate(MINE)
    assert made.parsed < Version("0.1.0")
    if shutil.which("dpkg"):
        assert subprocess.run(["dpkg", "--compare-versions", made.package, "lt", "0.1.0"], check=False).returncode == 0


def artefacts(*declared: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "toy", "title": "Toy", "artefacts": list(declared)}]


WHEEL = {"kind": "wheel", "file": "a.whl"}
DEB = {"kind": "deb", "file": "a_all.deb"}


@pytest.mark.parametrize(
    ("different", "why"),
    [
        ({"colour": "red"}, "colour: there is no such key, needed one of: build, codename"),
        ({"title": None}, "title: is missing"),
        ({"title": "two\nlines"}, "title: found 'two"),
        ({"build": None}, "needed either 'published' or 'build'"),
        ({"published": {"source": SOURCE, "claimed": {}}}, "needed either 'published' or 'build'"),
        ({"version": "0.1"}, "version: found '0.1', needed one such as 0.1.0 or 0.1.0rc1"),
        ({"version": "0.1.0rc0"}, "version: found '0.1.0rc0', needed one such as"),
        ({"version": "0.01.0"}, "version: found '0.01.0', needed one such as"),
        ({"version": "0.1.0"}, "build.commit: 0.1.0 is no candidate, needed 'tagged'"),
        ({"build": {**MINE["build"], "apt_priority": 1001}}, "build.apt_priority: found 1001, needed at most 1000"),
        ({"build": {**MINE["build"], "suites": []}}, "build.suites: found a list, needed at least 1 entries"),
        ({"products": MINE["products"] * 2}, "two products are called toy"),
        ({"products": [{**MINE["products"][0], "changelog": ["a", "a"]}]}, "two products claim the changelog of a"),
        ({"products": artefacts({**WHEEL, "platform": "mars"})}, "artefacts for platforms that are not declared: mars"),
        ({"products": artefacts(WHEEL, WHEEL)}, "two artefacts are the file a.whl"),
        ({"products": artefacts({**WHEEL, "file": "a-{colour}.whl"})}, "'colour', needed one of: version, platform"),
        ({"products": artefacts({**WHEEL, "kind": "floppy"})}, "kind: found 'floppy', needed 'collection', 'wheel'"),
        ({"products": artefacts({**WHEEL, "sha256": "xxxxxxxxxxx"})}, "sha256: found 'xxxxxxxxxxx'"),
        (
            {"products": artefacts({**WHEEL, "sha256": DIGEST}, {"kind": "image", "file": "b.tar", "sha256": DIGEST})},
            f"two artefacts have the digest {DIGEST}",
        ),
        ({"version": "../0.1.0"}, "version: found '../0.1.0'"),
        (
            {"products": artefacts({**WHEEL, "file": "../a-{version}.whl"})},
            "file: found '../a-0.1.0rc1.whl', needed a name",
        ),
        ({"products": artefacts({**WHEEL, "file": "/etc/a"})}, "file: found '/etc/a', needed a name without a folder"),
        ({"products": artefacts({**WHEEL, "file": "..."})}, "file: found '...', needed a name without a folder"),
        (
            {"products": artefacts({**DEB, "kind": "rpm"})},
            "a_all.deb: found for debian12, needed a platform with packages rpm",
        ),
        (
            {"products": artefacts({**DEB, "platform": "debian12", "kind": "rpm"})},
            "needed a platform with packages rpm",
        ),
        (
            {"products": [{**MINE["products"][0], "third_party": "perhaps"}]},
            "third_party: found 'perhaps', needed true or false",
        ),
        ({"products": [{**MINE["products"][0], "installation": "pip install {file}"}]}, "'pip install {file}': 'file'"),
    ],
)
def test_what_is_wrong_is_refused_with_its_key(tmp_path: Path, different: dict[str, Any], why: str) -> None:
    path = put(tmp_path, **different)
    with pytest.raises(DeepError, match=re.escape(why)) as refused:
        manifest.read(path)
    assert str(path) in str(refused.value)


def test_what_was_published_by_others_has_a_version_that_can_be_a_name(tmp_path: Path) -> None:
    theirs = {"build": None, "published": {"source": SOURCE, "claimed": {}}}
    assert manifest.read(put(tmp_path, **theirs, version="1")).files()
    with pytest.raises(DeepError, match=r"version: found '\.\./1'"):
        manifest.read(put(tmp_path, **theirs, version="../1"))


def test_a_package_is_of_a_platform_that_has_such(tmp_path: Path) -> None:
    for one in (DEB, {**DEB, "platform": "debian12"}):
        assert manifest.read(put(tmp_path, products=artefacts(one))).files()


def test_files_that_are_no_manifests_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    with pytest.raises(DeepError, match=r"x\.yml: cannot be read: No such file"):
        manifest.read(path)
    path.write_text("a: [1\n")
    with pytest.raises(DeepError, match=r"x\.yml: not YAML in line 2"):
        manifest.read(path)
    path.write_bytes(b"\xff")
    with pytest.raises(DeepError, match=r"x\.yml: not UTF-8"):
        manifest.read(path)
    path.write_text(yaml.safe_dump(MINE))
    with pytest.raises(DeepError, match=r"release: found 'toy-0\.1', needed the name of the file"):
        manifest.read(path)


def test_a_release_is_found_by_its_name_version_and_file(tmp_path: Path) -> None:
    path = put(tmp_path)
    assert manifest.find("toy-0.1", tmp_path) == manifest.find("0.1.0rc1", tmp_path) == manifest.find(str(path))
    with pytest.raises(DeepError, match=r"found: deep-3; needed: one of: deep-2, deep-1"):
        manifest.find("deep-3")
    with pytest.raises(DeepError, match=r"found: 1; needed"):
        manifest.find("1")  # the version of a release that is not ours to build


def test_the_command_shows_them_and_names_the_wrong_one(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["manifests", "--json"])
    assert [one["release"] for one in json.loads(done.stdout)["manifests"]] == list(manifest.load_all())
    assert "published" in CliRunner().invoke(app, ["manifests"]).stdout
    path = put(tmp_path, version="soon")
    done = CliRunner().invoke(app, ["manifests", str(path)])
    assert isinstance(done.exception, DeepError)
    assert done.exception.exit_code == 2
    assert str(path) in done.exception.message


def test_every_image_of_modules_is_in_the_release() -> None:
    build = load_all()["modules"].sources.build
    assert isinstance(build, ImageBuild)
    mine = manifest.find("deep-testbed-0.1")
    declared = [one for one in mine.files() if one[1].kind == "image"]
    assert sorted(file for _, _, file in declared) == sorted(f"{name}-{mine.version}.tar" for name in build.images)


def test_the_notes_name_the_needs_that_the_collection_has() -> None:
    root = repo_root()
    galaxy = yaml.safe_load((root / "galaxy.yml").read_text(encoding="utf-8"))["dependencies"]
    ansible = yaml.safe_load((root / "meta/runtime.yml").read_text(encoding="utf-8"))["requires_ansible"]
    collection, command = manifest.find("deep-testbed-0.1").products[:2]
    assert {one.name: one.version for one in collection.dependencies} == {"ansible-core": ansible, **galaxy}
    python = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert [one.version for one in command.dependencies] == [python]
