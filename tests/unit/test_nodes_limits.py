"""Kernel settings are raised for the first testbed and put back by the last, whatever happens in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import limits

INSTANCES = "fs/inotify/max_user_instances"


@pytest.fixture
def sysctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEP_STATE_DIR", str(tmp_path / "state"))
    values = dict.fromkeys(limits.NEEDED, 100) | dict.fromkeys(limits.WRITTEN_BY_NODES, 7)
    values["vm/max_map_count"] = 10_000_000
    for key, value in values.items():
        set_value(tmp_path / "sys", key, value)
    return tmp_path / "sys"


def set_value(sysctl: Path, key: str, value: int) -> None:
    (sysctl / key).parent.mkdir(parents=True, exist_ok=True)
    (sysctl / key).write_text(f"{value}\n", encoding="ascii")


def all_values(sysctl: Path) -> dict[str, int]:
    return {key: int((sysctl / key).read_text(encoding="ascii")) for key in (*limits.NEEDED, *limits.WRITTEN_BY_NODES)}


def test_what_is_too_low_is_raised_and_what_is_enough_is_left(sysctl: Path) -> None:
    limits.acquire("one", sysctl)
    found = all_values(sysctl)
    assert found[INSTANCES] == limits.NEEDED[INSTANCES]
    assert found["vm/max_map_count"] == 10_000_000


def test_everything_is_put_back_with_what_nodes_wrote(sysctl: Path) -> None:
    before = all_values(sysctl)
    limits.acquire("one", sysctl)
    set_value(sysctl, "vm/overcommit_memory", 1)
    assert limits.release("one", sysctl)
    assert all_values(sysctl) == before


def test_only_the_last_testbed_puts_back(sysctl: Path) -> None:
    before = all_values(sysctl)
    limits.acquire("one", sysctl)
    limits.acquire("two", sysctl)
    assert not limits.release("one", sysctl)
    assert all_values(sysctl) != before
    assert limits.release("two", sysctl)
    assert all_values(sysctl) == before


def test_a_second_up_remembers_the_values_of_before_the_first(sysctl: Path) -> None:
    before = all_values(sysctl)
    limits.acquire("one", sysctl)
    limits.acquire("one", sysctl)
    limits.release("one", sysctl)
    assert all_values(sysctl) == before


def test_a_limit_that_the_admin_changed_meanwhile_stays(sysctl: Path) -> None:
    limits.acquire("one", sysctl)
    set_value(sysctl, INSTANCES, 99_999)
    limits.release("one", sysctl)
    assert all_values(sysctl)[INSTANCES] == 99_999


def test_a_kill_before_the_first_change_loses_nothing(sysctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_values(sysctl)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            limits.acquire("one", sysctl)
    limits.acquire("one", sysctl)
    limits.release("one", sysctl)
    assert all_values(sysctl) == before


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_kernel_without_a_setting_is_no_error(sysctl: Path) -> None:
    (sysctl / "kernel/keys/maxkeys").unlink()
    limits.acquire("one", sysctl)
    assert limits.release("one", sysctl)


def test_releasing_what_was_never_raised_changes_nothing(sysctl: Path) -> None:
    before = all_values(sysctl)
    assert limits.release("none", sysctl)
    assert all_values(sysctl) == before
