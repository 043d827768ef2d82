"""A repository, a manifest and builders of a moment, for tests of what surrounds the real builders."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packaging.version import Version

from pipelines.release import manifest
from pipelines.release.manifest import Declared, Manifest, Product
from pipelines.release.packages import Workshop
from testbed.paths import repo_root
from tests.unit.test_release_manifest import MINE

TIME = 1767225600  # 2026-01-01
PEOPLE = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
FILES = {
    "pyproject.toml": '[project]\nname = "toy"\nversion = "0.1.0"\n',
    "galaxy.yml": "namespace: toys\nname: toy\nversion: 0.1.0\nreadme: README.md\nauthors: [somebody]\n",
    "CITATION.cff": "cff-version: 1.2.0\nversion: 0.1.0\n",
    "README.md": "# Toy\n",
    ".gitignore": "/dist/\n/ignored\n",
}


def git(root: Path, *words: str) -> str:
    """What git says in the repository."""
    environment = {
        **os.environ, **PEOPLE, "GIT_AUTHOR_DATE": f"{TIME} +0000", "GIT_COMMITTER_DATE": f"{TIME} +0000",
    }  # fmt: skip
    person = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    argv = ["git", "-C", str(root), *person, *words]
    return subprocess.run(argv, env=environment, check=True, capture_output=True, text=True).stdout


def commit(root: Path) -> str:
    """Commit everything; returns the commit's name."""
    if not (root / ".git").exists():
        git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=x")
    return git(root, "rev-parse", "HEAD").strip()


def repository(root: Path) -> Path:
    """A repository of which a toy can be released."""
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    commit(root)
    return root


def of_this_tree(root: Path) -> Path:
    """A repository of one commit with the files of this tree as they are now."""
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(argv, cwd=repo_root(), check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (repo_root() / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repo_root() / name, root / name, follow_symlinks=False)
    commit(root)
    return root


def toys(**different: Any) -> Manifest:
    """The manifest, with differences."""
    return Manifest.model_validate({**MINE, **different})


def candidate_of(release: str) -> Manifest:
    """A manifest of the project as that of its release's first candidate, whichever version it is at now."""
    found = manifest.find(release).model_dump()
    version = f"{Version(found['version']).base_version}rc1"
    return Manifest.model_validate({**found, "version": version, "build": {**found["build"], "commit": "any"}})


def maker(text: str = "wheel\n") -> Callable[[Workshop, Product, Declared], None]:
    """What builds a file of this text in a moment."""

    def make(shop: Workshop, _: Product, declared: Declared) -> None:
        (shop.files / shop.manifest.expand(declared)).write_text(text)

    return make
