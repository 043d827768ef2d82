"""Images: a known vulnerability is found, and nothing passes without data that know something."""

from __future__ import annotations

import datetime
import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from sqa import trivy_sample
from sqa.model import Outcome, Verdict
from sqa.trivy_sample import CORRECTED, VULNERABILITY, VULNERABLE
from testbed.artifacts import api
from testbed.artifacts.declaration import load_all
from testbed.artifacts.store import Store
from tests.sqa.real_checks import run

TODAY = datetime.datetime.now(datetime.UTC).date().isoformat()
TO_COME = (datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=2)).isoformat()


def scanned(root: Path, packages: tuple[tuple[str, str], ...] = (CORRECTED,), **settings: Any) -> Outcome:
    """What the check says of a repository with an image for each package; settings beside those that name them."""
    root.mkdir(exist_ok=True)
    for number, package in enumerate(packages):
        trivy_sample.write_image(root / f"{number}.tar", package)
    own = {"images": ["*.tar"], "database": "data", **settings}
    (root / "sqa.yml").write_text(yaml.safe_dump({"checks": {"image-scan": own}}), encoding="utf-8")
    return run(root, "image-scan", standards=("service",), **own)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with data of today."""
    trivy_sample.write_database(tmp_path / "tree" / "data", data_of=TODAY)
    return tmp_path / "tree"


def test_a_vulnerable_package_in_an_image_is_found(root: Path) -> None:
    found = scanned(root, (VULNERABLE, CORRECTED))
    assert found.verdict is Verdict.FAIL
    assert [(one.rule, one.message.partition(":")[0], one.severity) for one in found.findings] == [
        (VULNERABILITY, "0.tar", "error")
    ]
    assert "corrected in 2.10.1" in found.findings[0].message
    assert found.work == {"images": 2, "packages looked up": 2, "data of": TODAY}


def test_a_corrected_one_passes_with_the_day_of_the_data(root: Path) -> None:
    found = scanned(root)
    assert (found.verdict, found.work["data of"], found.tool) == (Verdict.PASS, TODAY, found.tool)
    assert found.tool.startswith("trivy 0.")


def test_without_a_named_image_it_does_not_apply(root: Path) -> None:
    assert scanned(root, images=[]).verdict is Verdict.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"images": ["*.tar", "more/*.tar"]}, "needed: more/*.tar"),
        ({"images": ["../*.tar"]}, "no image is there"),
        ({"images": [1]}, "images.0"),
        ({"imagez": []}, "no such setting"),
        ({"artifacts": ["none"]}, "no such artefact: none"),
        ({"database": "elsewhere"}, "no data on vulnerabilities"),
    ],
)
def test_what_is_not_there_is_no_pass(root: Path, settings: dict[str, Any], reason: str) -> None:
    found = scanned(root, **settings)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert reason in found.reasons[0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"data_of": "2026-01-01"}, "are old (found: 2026-01-01"),
        ({"data_of": TODAY, "knows": False}, "knows no vuln"),
        ({"data_of": TO_COME}, f"are of a day to come (found: {TO_COME}"),
    ],
)
def test_data_that_are_old_or_know_nothing_are_not_believed(root: Path, data: dict[str, Any], reason: str) -> None:
    trivy_sample.write_database(root / "data", **data)
    found = scanned(root)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert reason in found.reasons[0]


def test_an_archive_that_is_no_image_is_no_pass(root: Path) -> None:
    (root / "broken.tar").write_text("no image\n", encoding="utf-8")
    found = scanned(root)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "trivy ended with 1" in found.reasons[0]


def test_an_image_in_which_nothing_is_recognised_is_a_finding(root: Path) -> None:
    trivy_sample.write_image(root / "empty.tar", CORRECTED, installed="opt/program")
    assert [one.rule for one in scanned(root).findings] == ["nothing-recognised"]


@pytest.mark.parametrize("version", ["8", "99"])
def test_a_system_that_nobody_looks_after_does_not_pass(root: Path, version: str) -> None:
    release = f'ID=debian\nVERSION_ID="{version}"\n'
    more = {"etc/os-release": release, "etc/debian_version": f"{version}.1\n"}
    trivy_sample.write_image(root / "system.tar", CORRECTED, more=more)
    found = scanned(root)
    if version == "8":
        assert [one.rule for one in found.findings] == ["end-of-life"]
    else:
        assert "no data on vulnerabilities" in found.reasons[0]


SYSTEM = {
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "etc/debian_version": "12.1\n",
    "var/lib/dpkg/status": (
        "Package: openssl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0.1e-2\nDescription: old\n\n"
    ),
}


@pytest.mark.parametrize(
    ("systems", "verdict"),
    [([], Verdict.INCONCLUSIVE), (["debian 11", "alpine 3.20"], Verdict.INCONCLUSIVE), (["debian 12"], Verdict.FAIL)],
)
def test_a_distribution_of_which_the_data_know_nothing_is_no_pass(
    root: Path, systems: list[str], verdict: Verdict
) -> None:
    trivy_sample.write_database(root / "data", data_of=TODAY, systems=systems)
    trivy_sample.write_image(root / "system.tar", CORRECTED, more=SYSTEM)
    found = scanned(root)
    assert found.verdict is verdict
    if verdict is Verdict.INCONCLUSIVE:
        assert "the database knows nothing of debian 12.1" in found.reasons[0]
    else:
        assert [one.message.partition(";")[0].split(":")[:2] for one in found.findings] == [
            ["system.tar", " openssl 1.0.1e-2"]
        ]


def write_layout(folder: Path, *packages: tuple[str, str]) -> None:
    """A folder as OCI lays images out, with one image for each package."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(kind: str, content: bytes) -> dict[str, str | int]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    images = []
    for package in packages:
        archive = folder / "archive"
        trivy_sample.write_image(archive, package)
        with tarfile.open(archive) as opened:
            config, layer = (opened.extractfile(name) for name in ("config.json", "layer.tar"))
            assert config
            assert layer
            parts = {"config": blob("config.v1+json", config.read()), "layers": [blob("layer.v1.tar", layer.read())]}
        images.append(blob("manifest.v1+json", json.dumps({"schemaVersion": 2, **parts}).encode()))
        archive.unlink()
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": images}), encoding="utf-8")
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="utf-8")


def test_a_folder_of_which_only_one_image_would_be_looked_at_is_no_pass(root: Path) -> None:
    write_layout(root / "folder.tar", CORRECTED, VULNERABLE)
    found = scanned(root)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "folder.tar is no archive (found: a folder" in found.reasons[0]


def test_an_artefact_counts_with_all_of_its_images(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(api, "Store", lambda: Store(root.parent / "store"))
    declared = load_all()["coredns"]
    made = {name: root.parent / name for name in ("one.tar", "two.tar", "list.json")}
    for path in made.values():
        trivy_sample.write_image(path, CORRECTED)
    store = Store(root.parent / "store")
    record = store.commit(declared, "build", "", made, 0.0)
    whole = scanned(root, artifacts=["coredns"])
    assert (whole.verdict, whole.work["images"]) == (Verdict.PASS, 3)
    store.file("coredns", "two.tar").unlink()
    (store.view(record) / "two.tar").unlink()
    lacking = scanned(root, artifacts=["coredns"])
    assert lacking.verdict is Verdict.INCONCLUSIVE
    assert "two.tar is not what was stored (found: no file" in lacking.reasons[0]


def test_a_repository_cannot_hide_a_vulnerability_by_files_of_the_tool(root: Path) -> None:
    (root / ".trivyignore").write_text(f"{VULNERABILITY}\n", encoding="utf-8")
    (root / "trivy.yaml").write_text("severity: [LOW]\n", encoding="utf-8")
    assert scanned(root, (VULNERABLE,)).verdict is Verdict.FAIL
