"""A unit is restarted when a file that it reads is newer than its start, and left alone otherwise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from plugins.modules.service import changed_at, newer_file, parse, plan, started_at

RUNNING = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "NeedDaemonReload": "no"}
NEW = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": "", "NeedDaemonReload": "no"}
START = 1000.0


def actions(
    properties: dict[str, str], state: str = "started", restart: str = "restart", after: tuple[str, ...] = ()
) -> list[str]:
    params: dict[str, Any] = {"state": state, "restart": restart, "restart_after": list(after)}
    return plan(properties, params, START)[0]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config"
    path.write_text("x")
    os.utime(path, (START - 1, START - 1))
    return path


def test_a_new_unit_is_enabled_and_started() -> None:
    assert actions(NEW) == ["daemon-reload", "enable", "start"]


def test_a_running_unit_on_its_configuration_is_left_alone(config: Path) -> None:
    assert actions(RUNNING, after=(str(config), "/nowhere")) == []


def test_a_newer_file_restarts(config: Path) -> None:
    os.utime(config, (START + 1, START + 1))
    assert actions(RUNNING, after=(str(config),)) == ["restart"]
    assert plan(RUNNING, {"state": "started", "restart": "restart", "restart_after": [str(config)]}, START)[1] == str(
        config
    )
    assert actions(RUNNING, restart="reload", after=(str(config),)) == ["reload"]
    assert actions(RUNNING, restart="none", after=(str(config),)) == []


def test_a_newer_file_in_a_folder_and_a_newer_link_count(config: Path) -> None:
    link = config.parent / "link"
    link.symlink_to(config)
    assert changed_at(link) > START
    assert newer_file([str(config.parent)], START) == str(config.parent)


def test_changed_unit_files_are_read_again() -> None:
    assert actions({**RUNNING, "NeedDaemonReload": "yes"}) == ["daemon-reload"]


def test_a_failed_unit_is_started_and_not_restarted(config: Path) -> None:
    os.utime(config, (START + 1, START + 1))
    assert actions({**RUNNING, "ActiveState": "failed"}, after=(str(config),)) == ["start"]


def test_a_unit_that_is_only_enabled_is_not_started() -> None:
    assert actions(NEW, state="enabled") == ["daemon-reload", "enable"]
    assert actions({**RUNNING, "ActiveState": "inactive"}, state="enabled") == []


def test_stopping() -> None:
    assert actions(RUNNING, state="stopped") == ["disable", "stop"]
    assert actions({**RUNNING, "ActiveState": "inactive", "UnitFileState": "disabled"}, state="stopped") == []
    assert actions(NEW, state="stopped") == []
    assert actions({**RUNNING, "ActiveState": "activating"}, state="stopped") == ["disable", "stop"]


def test_the_start_in_wall_clock_time() -> None:
    shown = parse("ExecMainStartTimestampMonotonic=5000000\nActiveEnterTimestampMonotonic=6000000\nname\n")
    assert started_at(shown, now=1000.0, monotonic=100.0) == 905.0
    assert started_at({"ExecMainStartTimestampMonotonic": "0"}, now=1000.0, monotonic=100.0) == 0.0
