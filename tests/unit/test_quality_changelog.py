"""Every changelog fragment is one that antsibull-changelog accepts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from testbed.paths import repo_root

ROOT = repo_root()
PROGRAM = Path(sys.executable).parent / "antsibull-changelog"


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the fragments of the collection in ``root``."""
    return subprocess.run([PROGRAM, "lint"], cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "galaxy.yml", tmp_path)
    shutil.copytree(ROOT / "changelogs", tmp_path / "changelogs")
    (tmp_path / "changelogs" / "fragments").mkdir(exist_ok=True)  # a release takes the fragments away
    return tmp_path


def test_fragments_are_valid() -> None:
    fragments = sorted((ROOT / "changelogs/fragments").glob("*.yml"))
    releases = yaml.safe_load((ROOT / "changelogs/changelog.yaml").read_text(encoding="utf-8"))["releases"]
    assert fragments or releases, "a change without a fragment, or no change at all"
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("text", ["unheard_of:\n  - x\n", "bugfixes: not a list\n", "bugfixes:\n  - [nested]\n"])
def test_an_invalid_fragment_is_refused(collection: Path, text: str) -> None:
    (collection / "changelogs/fragments/wrong.yml").write_text(text)
    done = lint(collection)
    assert done.returncode != 0
    assert "wrong.yml" in done.stdout
