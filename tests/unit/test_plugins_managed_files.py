"""Files come into their state, once, whole, and with the permissions asked for."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.managed_files import FilesError, apply, differences, with_block

BEFORE = "127.0.0.1 localhost\n"


def item(path: Path, **options: Any) -> dict[str, Any]:
    """An item as Ansible completes it, owned by who runs the tests."""
    defaults: dict[str, Any] = {
        "state": "file", "content": None, "secret_content": None, "wanted": True, "block": None, "replace": True,
        "target": None, "mode": None, "owner": "root", "group": "root",
    }  # fmt: skip
    return {**defaults, "path": str(path), **options}


@pytest.fixture(autouse=True)
def own_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests stands for root."""
    user = type("User", (), {"pw_uid": os.getuid(), "gr_gid": os.getgid()})()
    monkeypatch.setattr("plugins.module_utils.managed_files.pwd.getpwnam", lambda *_: user)
    monkeypatch.setattr("plugins.module_utils.managed_files.grp.getgrnam", lambda *_: user)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_written_once(tmp_path: Path) -> None:
    wanted = [item(tmp_path / "folder" / "file", content="text")]
    assert [change.path for change in apply(wanted, check=False)] == [str(tmp_path / "folder" / "file")]
    assert (tmp_path / "folder" / "file").read_text() == "text\n"
    assert mode(tmp_path / "folder" / "file") == 0o644
    assert apply(wanted, check=False) == []


def test_check_mode_only_tells(tmp_path: Path) -> None:
    wanted = [item(tmp_path / "file", content="text"), item(tmp_path / "folder", state="directory")]
    assert len(apply(wanted, check=True)) == 2
    assert list(tmp_path.iterdir()) == []


def test_permissions_alone_are_a_change(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text\n")
    (tmp_path / "file").chmod(0o644)
    wanted = [item(tmp_path / "file", content="text", mode="0600")]
    assert len(apply(wanted, check=True)) == 1
    assert mode(tmp_path / "file") == 0o644
    assert len(apply(wanted, check=False)) == 1
    assert mode(tmp_path / "file") == 0o600
    assert apply(wanted, check=False) == []


def test_a_secret_is_never_readable_by_others_and_never_shown(tmp_path: Path) -> None:
    changes = apply([item(tmp_path / "key", secret_content="hunter2", mode="0600")], check=False)
    assert mode(tmp_path / "key") == 0o600
    assert "hunter2" not in str(differences(changes))


def test_a_difference_is_shown(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old\n")
    shown = differences(apply([item(tmp_path / "file", content="new")], check=True))
    assert (shown[0]["before"], shown[0]["after"]) == ("old\n", "new\n")


def test_a_file_made_once_keeps_its_content(tmp_path: Path) -> None:
    wanted = item(tmp_path / "key", secret_content="first", replace=False)
    apply([wanted], check=False)
    assert apply([{**wanted, "secret_content": "second"}], check=False) == []
    assert (tmp_path / "key").read_text() == "first\n"


def test_a_block_leaves_the_rest_alone() -> None:
    once = with_block(BEFORE, "site", "192.0.2.1 a\n")
    assert once == BEFORE + "# BEGIN site\n192.0.2.1 a\n# END site\n"
    assert with_block(once + "10.0.0.1 own\n", "site", "192.0.2.2 b") == (
        BEFORE + "# BEGIN site\n192.0.2.2 b\n# END site\n10.0.0.1 own\n"
    )
    assert with_block(once, "site", "192.0.2.1 a") == once


def test_a_block_whose_end_is_lost_is_written_again() -> None:
    assert with_block("# BEGIN site\nx\n", "site", "y").endswith("# BEGIN site\ny\n# END site\n")


def test_a_mounted_file_is_written_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hosts"
    path.write_text(BEFORE)
    inode = path.stat().st_ino
    monkeypatch.setattr("plugins.module_utils.managed_files.os.path.ismount", lambda *_: True)
    apply([item(path, block="site", content="192.0.2.1 a")], check=False)
    assert path.stat().st_ino == inode
    assert path.read_text().startswith(BEFORE)
    assert [entry.name for entry in tmp_path.iterdir()] == ["hosts"]


def test_links_and_removals(tmp_path: Path) -> None:
    link, folder = tmp_path / "link", tmp_path / "folder"
    wanted = [item(link, state="link", target="/nowhere")]
    assert len(apply(wanted, check=False)) == 1
    assert link.readlink() == Path("/nowhere")
    assert apply(wanted, check=False) == []
    (folder / "inside").mkdir(parents=True)
    gone = [item(link, state="absent"), item(folder, state="absent")]
    assert len(apply(gone, check=False)) == 2
    assert list(tmp_path.iterdir()) == []
    assert apply(gone, check=False) == []


def test_what_is_not_wanted_is_left_out(tmp_path: Path) -> None:
    assert apply([item(tmp_path / "file", content="x", wanted=False)], check=False) == []


def test_a_failure_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FilesError, match="file/below"):
        apply([item(tmp_path / "file" / "below", content="x")], check=False)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("old\n")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("plugins.module_utils.managed_files.os.fsync", full)
    with pytest.raises(FilesError, match="No space left"):
        apply([item(tmp_path / "file", content="new")], check=False)
    assert (tmp_path / "file").read_text() == "old\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
