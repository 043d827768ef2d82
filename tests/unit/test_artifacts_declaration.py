"""Declarations: those of the project are sound, and a wrong one is explained by file and field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.artifacts.declaration import (
    Declaration,
    GoBuild,
    ImageBuild,
    PythonBuild,
    declarations_dir,
    image_tag,
    in_order,
    load,
    load_all,
)
from testbed.errors import DeepError

MINIMAL: dict[str, Any] = {
    "name": "tool",
    "version": "1.2.3",
    "licence": "Apache-2.0",
    "homepage": "https://example.org",
    "summary": "A tool",
    "files": [{"name": "tool", "dest": "/usr/local/bin/tool"}],
    "sources": {
        "upstream": {"url": "https://example.org/{version}/{file}", "checksum_url": "https://example.org/sums"}
    },
}
PROJECT = load_all()
GO_BUILDS = [(item, item.sources.build) for item in PROJECT.values() if isinstance(item.sources.build, GoBuild)]


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "tool.yml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}), encoding="utf-8")
    return path


def test_minimal_declaration_is_accepted(tmp_path: Path) -> None:
    assert load(write(tmp_path)).sources.names() == ["upstream"]


def test_numeric_version_is_refused_because_yaml_would_change_it(tmp_path: Path) -> None:
    with pytest.raises(DeepError, match="version"):
        load(write(tmp_path, version=1.20))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"version": "latest"}, "version: String should match"),
        ({"files": [{"name": "../tool"}]}, "files.0.name"),
        ({"files": [{"name": "tool", "dest": "bin/tool"}]}, "files.0.dest"),
        ({"files": [{"name": "tool", "mode": "755"}]}, "files.0.mode"),
        ({"files": [{"name": "tool"}, {"name": "tool"}]}, "declared twice"),
        ({"sources": {}}, "at least one is needed"),
        ({"sources": {"upstream": {"url": "https://example.org/x"}}}, "nothing is downloaded unverified"),
        (
            {"sources": {"upstream": {"url": "http://example.org/x", "checksum_url": "https://a/b"}}},
            "sources.upstream.url",
        ),
        (
            {"sources": {"upstream": {"url": "https://example.org/x", "checksum_url": "http://example.org/sums"}}},
            "sources.upstream.checksum_url",
        ),
        ({"sources": {"build": {"kind": "rust"}}}, "sources.build"),
        (
            {
                "sources": {
                    "build": {"kind": "go", "module": "tool", "packages": {"other": "example.org/x"}, "disk": "1MiB"}
                }
            },
            r"declared \['tool'\], but sources.build makes \['other'\]",
        ),
    ],
)
def test_wrong_field_is_named(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(DeepError, match=field) as failure:
        load(path)
    assert str(path) in str(failure.value)


def test_missing_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tool.yml"
    path.write_text(
        yaml.safe_dump({key: value for key, value in MINIMAL.items() if key != "licence"}), encoding="utf-8"
    )
    with pytest.raises(DeepError, match="licence: Field required"):
        load(path)


def test_name_must_be_that_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(DeepError, match=r"found: hammer; needed: tool"):
        load(write(tmp_path, name="hammer"))


def test_broken_yaml_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "tool.yml"
    path.write_text("name: [", encoding="utf-8")
    with pytest.raises(DeepError, match=r"tool\.yml: not YAML"):
        load(path)


def test_image_of_an_unknown_file_is_refused(tmp_path: Path) -> None:
    build = {
        "kind": "image",
        "disk": "1MiB",
        "images": {"box": {"tag": "1", "layers": [{"files": {"/tool": "tool/axe"}}]}},
    }
    write(tmp_path)
    (tmp_path / "box.yml").write_text(
        yaml.safe_dump({**MINIMAL, "name": "box", "files": None, "sources": {"build": build}}), encoding="utf-8"
    )
    with pytest.raises(DeepError, match="found: tool/axe"):
        load_all(tmp_path)


def test_unknown_artifact_lists_the_known_ones() -> None:
    with pytest.raises(DeepError, match=r"no artefact is called kubernettes \(needed: one of .*kubernetes"):
        in_order(["kubernettes"], PROJECT)


def test_needs_come_first() -> None:
    names = [item.name for item in in_order(["images"], PROJECT)]
    assert names[-1] == "images"
    assert {"kubernetes", "etcd", "coredns", "base-layer", "pause", "nvidia-device-plugin"} <= set(names)


def test_circle_of_needs_is_refused() -> None:
    layer = {"layers": [{"files": {"/x": "second/second.tar"}}], "tag": "1"}
    build = {"kind": "image", "disk": "1MiB", "images": {"first": layer}}
    first = Declaration.model_validate(
        {**MINIMAL, "name": "first", "files": [{"name": "first.tar"}], "sources": {"build": build}}
    )
    layer = {"layers": [{"files": {"/x": "first/first.tar"}}], "tag": "1"}
    build = {"kind": "image", "disk": "1MiB", "images": {"second": layer}}
    second = Declaration.model_validate(
        {**MINIMAL, "name": "second", "files": [{"name": "second.tar"}], "sources": {"build": build}}
    )
    with pytest.raises(DeepError, match="first -> second -> first"):
        in_order(["first"], {"first": first, "second": second})


@pytest.mark.parametrize(("item", "build"), GO_BUILDS, ids=lambda value: getattr(value, "name", ""))
def test_go_module_is_pinned_to_the_declared_version(item: Declaration, build: GoBuild) -> None:
    folder = declarations_dir() / "go" / build.module
    module = (folder / "go.mod").read_text(encoding="utf-8")
    assert (folder / "go.sum").stat().st_size > 0
    tools = set(re.findall(r"^(?:tool |\t)(\S+)$", module, re.MULTILINE))
    assert set(build.packages.values()) <= tools, (
        "every command is a tool of the module, so that tidy keeps what it needs"
    )
    versions = {match[1]: match[2] for match in re.finditer(r"^(?:require )?\t?(\S+) v(\S+)", module, re.MULTILINE)}
    for package in build.packages.values():
        owner = max((name for name in versions if package == name or package.startswith(f"{name}/")), key=len)
        assert versions[owner] == item.version


def test_no_declaration_of_the_project_is_installed_twice_in_one_place() -> None:
    places = [file.dest for item in PROJECT.values() for file in item.files if file.dest]
    assert len(places) == len(set(places))


def test_what_hosts_fetch_themselves_is_no_part_of_the_store() -> None:
    held = {item.name for item in in_order([], PROJECT)}
    assert set(PROJECT) - held == {"calico", "flannel", "indigo-iam", "indigo-orchestrator", "jenkins"}
    with pytest.raises(DeepError, match=r"the store does not hold flannel .found: sources registry"):
        in_order(["flannel"], PROJECT)


def test_a_hash_by_the_site_is_for_one_file(tmp_path: Path) -> None:
    upstream = {"url": "https://example.org/{file}", "checksum_by_site": True}
    assert not load(write(tmp_path, sources={"upstream": upstream})).stored
    with pytest.raises(DeepError, match="checksum_by_site is for one file"):
        load(write(tmp_path, sources={"upstream": upstream}, files=[{"name": "a"}, {"name": "b"}]))


def test_bytecode_is_for_the_one_python_of_an_image() -> None:
    assert PROJECT["deep-modules"].needs() == ["python-layer"]
    assert PROJECT["orchestrator"].needs() == []
    good = {
        "kind": "python", "requirements": "tool", "pythons": ["3.13"], "folder": "opt/tool", "disk": "1MiB",
        "bytecode": {"layer": "python-layer/python-layer.tar.gz", "imports": ["tool.serve"]},
    }  # fmt: skip
    PythonBuild.model_validate(good)
    for change in ({"folder": None}, {"pythons": ["3.11", "3.13"]}):
        with pytest.raises(ValueError, match="bytecode: needs 'folder', and one version in 'pythons'"):
            PythonBuild.model_validate({**good, **change})
    wrongs: list[dict[str, Any]] = [{"layer": "python-layer"}, {"imports": []}, {"imports": ["a; b"]}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="bytecode"):
            PythonBuild.model_validate({**good, "bytecode": {"layer": "a/b", "imports": ["c"], **wrong}})


def test_no_image_of_the_project_is_named_outside_its_declaration() -> None:
    publishers = ("ghcr.io/", "quay.io/", "raw.githubusercontent.com")
    paths = [path for path in (declarations_dir().parent / "roles").rglob("*") if path.suffix in {".yml", ".j2"}]
    assert paths
    assert not [path for path in paths if any(name in path.read_text(encoding="utf-8") for name in publishers)]


def test_tags_follow_the_versions() -> None:
    build = PROJECT["images"].sources.build
    assert isinstance(build, ImageBuild)
    assert image_tag(build.images["kube-apiserver"], PROJECT) == f"v{PROJECT['kubernetes'].version}"
    assert image_tag(build.images["etcd"], PROJECT) == f"{PROJECT['etcd'].version}-0"


def test_images_of_one_release_carry_its_version() -> None:
    assert PROJECT["images"].version == PROJECT["kubernetes"].version


def test_every_upstream_that_was_not_exercised_says_so() -> None:
    for item in PROJECT.values():
        for source in (item.sources.upstream, item.sources.registry):
            assert source is None or source.exercised or source.note
