"""The commit that a release is built from: which one may be, and its export, whatever the clone is set up with."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from pipelines.release import source
from testbed.errors import DeepError
from tests.unit import release_repository
from tests.unit.release_repository import TIME, commit, git, toys
from tests.unit.test_release_manifest import MINE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return release_repository.repository(tmp_path / "repository")


def test_a_tree_with_changes_is_not_built(root: Path) -> None:
    assert source.head(root, toys()).epoch == TIME
    (root / "ignored").write_text("x")
    assert source.head(root, toys()).name == git(root, "rev-parse", "HEAD").strip()
    (root / "README.md").write_text("# Other\n")
    (root / "new.txt").write_text("x")
    with pytest.raises(DeepError, match=r"the tree has changes.*README\.md.*new\.txt") as refused:
        source.head(root, toys())
    assert refused.value.exit_code == 1


def test_a_release_is_built_from_its_tag_alone(root: Path) -> None:
    final = toys(version="0.1.0", build={**MINE["build"], "commit": "tagged"})
    with pytest.raises(DeepError, match=r"its tag alone \(found: [0-9a-f]{12} with no tag; needed: the tag v0\.1\.0"):
        source.head(root, final)
    git(root, "tag", "v0.1.0")
    assert source.head(root, final).epoch == TIME
    (root / "README.md").write_text("# Later\n")
    commit(root)
    with pytest.raises(DeepError, match="needed: the tag v0"):
        source.head(root, final)


def test_what_is_no_repository_is_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DeepError, match=r"git rev-parse failed in .*not a git repository"):
        source.commit(tmp_path, "HEAD")
    with pytest.raises(DeepError, match=r"no such commit .*no-such-branch in .*needed: a repository with this commit"):
        source.commit(root, "no-such-branch")


def test_an_export_is_the_commit_with_the_version_of_the_candidate(root: Path, tmp_path: Path) -> None:
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o700)
    commit(root)
    (root / "ignored").write_text("of the working folder")
    former = os.umask(0o077)
    try:
        source.export(source.commit(root, "HEAD"), toys(), tmp_path / "out")
    finally:
        os.umask(former)
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == sorted([*release_repository.FILES, "run"])
    assert 'version = "0.1.0rc1"' in (out / "pyproject.toml").read_text()
    assert "version: 0.1.0-rc.1\n" in (out / "galaxy.yml").read_text()
    assert (out / "CITATION.cff").read_text() == "cff-version: 1.2.0\nversion: 0.1.0rc1\n"
    assert {path.stat().st_mtime for path in [out, *out.iterdir()]} == {TIME}
    assert {path.name: path.stat().st_mode & 0o777 for path in (out / "run", out / "README.md", out)} == {
        "run": 0o755, "README.md": 0o644, "out": 0o755,
    }  # fmt: skip
    assert 'version = "0.1.0"' in (root / "pyproject.toml").read_text()


def test_what_a_clone_is_set_up_with_does_not_show_in_an_export(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "link").symlink_to("README.md")
    (root / "name with\ttab").write_bytes(b"\0\xff")
    (root / "kept").write_text("in spite of what archives leave out\n")
    commit(root)
    git(root, "config", "core.autocrlf", "true")
    git(root, "config", "filter.other.smudge", "echo planted")
    git(root, "config", "filter.other.clean", "cat")
    attributes = "README.md filter=other\nkept export-ignore\nCITATION.cff ident\n"
    (root / ".git" / "info" / "attributes").write_text(attributes)
    # As in a hook of another repository.
    release_repository.repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    source.export(source.commit(root, "HEAD"), toys(), tmp_path / "out")
    out = tmp_path / "out"
    assert (out / "README.md").read_bytes() == b"# Toy\n"
    assert (out / "kept").read_bytes() == b"in spite of what archives leave out\n"
    assert (out / "link").readlink() == Path("README.md")
    assert (out / "name with\ttab").read_bytes() == b"\0\xff"
    assert b"\r" not in b"".join(path.read_bytes() for path in out.iterdir())


def test_what_a_commit_does_not_hold_itself_is_not_exported(root: Path, tmp_path: Path) -> None:
    release_repository.repository(root / "inner")
    commit(root)
    with pytest.raises(DeepError, match=r"no repositories within it \(found: inner"):
        source.export(source.commit(root, "HEAD"), toys(), tmp_path / "out")
    shutil.rmtree(root / "inner")
    commit(root)
    blob = git(root, "rev-parse", "HEAD:README.md").strip()
    (root / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(DeepError, match=r"the repository lacks README\.md \(found: missing"):
        source.export(source.commit(root, "HEAD"), toys(), tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "found"),
    [("version: 0.2.0\n", "found: 0.2.0"), ("name: x\n", "found: none"), ("version: 1\nversion: 0.1.0\n", "1, 0.1.0")],
)
def test_a_commit_of_another_version_is_refused(root: Path, tmp_path: Path, text: str, found: str) -> None:
    (root / "galaxy.yml").write_text(text)
    commit(root)
    with pytest.raises(DeepError, match=rf"galaxy\.yml is of another version .*{found}.*needed: 0.1.0"):
        source.export(source.commit(root, "HEAD"), toys(), tmp_path / "out")


def test_a_program_of_the_build_sees_nothing_of_whoever_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("SECRET", "x")
    script = "import json, os; print(json.dumps([dict(os.environ), os.umask(0)]), file=open('seen', 'w'))"
    former = os.umask(0o077)
    try:
        source.run([sys.executable, "-c", script], tmp_path, TIME, tmp_path)
    finally:
        os.umask(former)
    seen, umask = json.loads((tmp_path / "seen").read_text())
    assert umask == 0o022
    assert seen["TZ"] == "UTC"
    assert seen["SOURCE_DATE_EPOCH"] == str(TIME)
    assert seen["HOME"] == str(tmp_path)
    assert "SECRET" not in seen
    with pytest.raises(DeepError, match="fails with 3"):
        source.run([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, TIME, tmp_path)
