"""Images: a known vulnerability is found, and nothing passes without data that know something."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from sqa import trivy_sample
from sqa.model import Outcome, Verdict
from sqa.trivy_sample import CORRECTED, VULNERABILITY, VULNERABLE
from tests.sqa.real_checks import run

TODAY = datetime.datetime.now(datetime.UTC).date().isoformat()


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
    [({"data_of": "2026-01-01"}, "are old (found: 2026-01-01"), ({"data_of": TODAY, "knows": False}, "knows no vuln")],
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


def test_a_repository_cannot_hide_a_vulnerability_by_files_of_the_tool(root: Path) -> None:
    (root / ".trivyignore").write_text(f"{VULNERABILITY}\n", encoding="utf-8")
    (root / "trivy.yaml").write_text("severity: [LOW]\n", encoding="utf-8")
    assert scanned(root, (VULNERABLE,)).verdict is Verdict.FAIL
