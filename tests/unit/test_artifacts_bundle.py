"""Bundles: complete, verified, resumable, and never mixed with other files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from testbed import files
from testbed.artifacts import bundle
from testbed.artifacts.declaration import Declaration, load
from testbed.artifacts.store import Store
from testbed.errors import DeepError


@pytest.fixture
def declarations(tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    data = {
        "name": "tool", "version": "1.0", "licence": "MIT", "homepage": "https://example.org", "summary": "A tool",
        "files": [{"name": "tool"}],
        "sources": {"upstream": {"url": "https://example.org/x", "checksum_url": "https://example.org/y"}},
    }  # fmt: skip
    (folder / "tool.yml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return folder


@pytest.fixture
def tool(declarations: Path) -> Declaration:
    return load(declarations / "tool.yml")


@pytest.fixture
def store(tmp_path: Path, tool: Declaration) -> Store:
    store = Store(tmp_path / "store")
    with store.workspace("tool") as work:
        (work / "tool").write_text("content\n", encoding="utf-8")
        store.commit(tool, "build", "f" * 64, {"tool": work / "tool"}, 1.0)
    return store


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_bundle_is_complete_and_passes_sha256sum(
    tmp_path: Path, tool: Declaration, store: Store, declarations: Path
) -> None:
    target = tmp_path / "bundle"
    written = bundle.write(target, [tool], declarations, store)
    assert (written.artifacts, written.size, written.copied) == (1, 8, 1)
    assert listed(target) == [
        "README.md",
        "SHA256SUMS",
        "artifacts/tool.yml",
        "mirror/tool/1.0/SHA256SUMS",
        "mirror/tool/1.0/tool",
    ]
    assert not any(path.is_symlink() for path in target.rglob("*")), "a copy on another disk must not miss the content"
    for folder in (target, target / "mirror" / "tool" / "1.0"):
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    assert not bundle.verify(target)
    assert "| tool | 1.0 | MIT | 8 bytes |" in (target / "README.md").read_text(encoding="utf-8")


def test_second_run_copies_nothing_and_repairs_damage(
    tmp_path: Path, tool: Declaration, store: Store, declarations: Path
) -> None:
    target = tmp_path / "bundle"
    bundle.write(target, [tool], declarations, store)
    assert bundle.write(target, [tool], declarations, store).copied == 0
    (target / "mirror" / "tool" / "1.0" / "tool").write_text("damaged\n", encoding="utf-8")
    assert [problem.file for problem in bundle.verify(target)] == ["mirror/tool/1.0/tool"]
    assert bundle.write(target, [tool], declarations, store).copied == 1
    assert not bundle.verify(target)


def test_missing_and_additional_files_are_reported(
    tmp_path: Path, tool: Declaration, store: Store, declarations: Path
) -> None:
    target = tmp_path / "bundle"
    bundle.write(target, [tool], declarations, store)
    (target / "mirror" / "tool" / "1.0" / "tool").unlink()
    (target / "artifacts" / "other.yml").write_text("", encoding="utf-8")
    found = {problem.file: problem.found for problem in bundle.verify(target)}
    assert found == {"mirror/tool/1.0/tool": "no file", "artifacts/other.yml": "not listed"}


@pytest.mark.parametrize("line", ["", "8d0a", f"{'a' * 64} mirror/x", f"{'a' * 63}  mirror/x", f"{'a' * 64}  "])
def test_a_damaged_list_of_hashes_is_a_problem(
    tmp_path: Path, tool: Declaration, store: Store, declarations: Path, line: str
) -> None:
    target = tmp_path / "bundle"
    bundle.write(target, [tool], declarations, store)
    with (target / "SHA256SUMS").open("a", encoding="utf-8") as sums:
        sums.write(f"{line}\n")
    (problem,) = bundle.verify(target)
    assert (problem.file, problem.found) == ("SHA256SUMS", f"'{line}' in line 5")


def test_interrupted_bundle_does_not_pass(
    tmp_path: Path, tool: Declaration, store: Store, declarations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    bundle.write(target, [tool], declarations, store)
    with monkeypatch.context() as patch:
        patch.setattr(bundle, "_readme", lambda *_: pytest.fail("interrupted"))
        with pytest.raises(pytest.fail.Exception):
            bundle.write(target, [tool], declarations, store)
    with pytest.raises(DeepError, match="is no complete bundle"):
        bundle.verify(target)
    bundle.write(target, [tool], declarations, store)
    assert not bundle.verify(target)


def test_foreign_directory_is_left_alone(tmp_path: Path, tool: Declaration, store: Store, declarations: Path) -> None:
    target = tmp_path / "documents"
    target.mkdir()
    (target / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(DeepError, match="holds something else"):
        bundle.write(target, [tool], declarations, store)
    assert listed(target) == ["thesis.txt"]


def test_absent_artefact_says_how_to_get_it(tmp_path: Path, tool: Declaration, declarations: Path) -> None:
    with pytest.raises(DeepError, match=r"found: nothing; needed: 1\.0") as failure:
        bundle.write(tmp_path / "bundle", [tool], declarations, Store(tmp_path / "empty"))
    assert failure.value.next_step == "run 'deep artifacts build tool'"


def test_damaged_store_is_not_copied(tmp_path: Path, tool: Declaration, store: Store, declarations: Path) -> None:
    store.file("tool", "tool").write_text("damaged\n", encoding="utf-8")
    with pytest.raises(DeepError, match="the stored file is damaged"):
        bundle.write(tmp_path / "bundle", [tool], declarations, store)


def test_too_little_space_is_said_before_anything_is_copied(
    tmp_path: Path, tool: Declaration, store: Store, declarations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _path: 7)
    with pytest.raises(DeepError, match=r"found: 7 bytes .*needed: 8 bytes"):
        bundle.write(tmp_path / "bundle", [tool], declarations, store)
    assert listed(tmp_path / "bundle") == []
