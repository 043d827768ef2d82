#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Keep a systemd unit enabled and running on its present configuration."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deephdc.testbed.plugins.module_utils.managed_files import (
    OPTION,
    Change,
    FilesError,
    apply,
    differences,
)

DOCUMENTATION = r"""
module: service
short_description: Keep a systemd unit enabled and running on its present configuration
description:
  - Starts the unit when it is not active, and restarts it only when one of O(restart_after) is newer than its start.
  - Because this compares times instead of waiting for a notification, a run that was interrupted between
    writing a file and restarting its service is repaired by the next run.
  - Reloads systemd when it says that the unit's own files have changed.
  - Can bring the unit's files into their state first, in the same call.
options:
  name:
    description: Unit, with its suffix unless it is a service.
    type: str
    required: true
  files:
    description: Files to manage before, as in M(deephdc.testbed.files).
    type: list
    elements: dict
    default: []
  start_when:
    description: File that must exist before the unit is started. Until then it is only enabled.
    type: path
  restart_after:
    description: >-
      Files and directories that the unit reads at its start. Missing ones are left out; of a directory its
      entries count.
    type: list
    elements: path
    default: []
  restart:
    description: >-
      What to do to a unit that is older than its files. V(reload) for units that read them again on reload.
    type: str
    choices: [restart, reload, none]
    default: restart
  state:
    description: Whether the unit shall run. V(enabled) only enables it and leaves starting to somebody else.
    type: str
    choices: [started, stopped, enabled]
    default: started
attributes:
  check_mode:
    support: full
    description: Tells what would be done. A unit that does not exist yet counts as one that would be started.
  diff_mode:
    support: none
    description: Says in RV(actions) what it did.
  idempotent:
    support: full
    description: A second call does nothing.
author: deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Run containerd on its configuration
  deephdc.testbed.service:
    name: containerd
    files:
      - path: /etc/containerd/config.toml
        content: "{{ lookup('ansible.builtin.template', 'config.toml.j2') }}"
    restart_after: [/etc/containerd/config.toml, /etc/containerd/conf.d]
"""

RETURN = r"""
actions:
  description: What was done to the unit, out of daemon-reload, enable, disable, start, stop, restart, reload.
  returned: always
  type: list
  elements: str
paths:
  description: Files that were changed.
  returned: always
  type: list
  elements: str
waiting:
  description: Whether the unit was not started because O(start_when) does not exist.
  returned: always
  type: bool
reason:
  description: The file that made a restart necessary, or empty.
  returned: always
  type: str
"""

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "NeedDaemonReload",
    "ActiveEnterTimestampMonotonic",
    "ExecMainStartTimestampMonotonic",
)
# Long enough for a program to read its configuration and give up.
SETTLE_SECONDS = 0.3
Systemctl = Callable[..., tuple[int, str, str]]


def started_at(properties: dict[str, str], now: float, monotonic: float) -> float:
    """Wall-clock time (s) at which the unit's main process, or the unit itself, started; 0 when it did not."""
    ticks = int(properties.get("ExecMainStartTimestampMonotonic") or 0) or int(
        properties.get("ActiveEnterTimestampMonotonic") or 0
    )
    return now - monotonic + ticks / 1e6 if ticks else 0.0


def changed_at(path: Path) -> float:
    """Newest change (s) of a path, of the link that it may be, and of a directory's entries; 0 when it is missing."""
    if not os.path.lexists(path):
        return 0.0
    newest = path.lstat().st_mtime
    if path.exists():
        newest = max(newest, path.stat().st_mtime)
    if path.is_dir():
        newest = max([newest, *map(changed_at, path.iterdir())])
    return newest


def newer_file(paths: list[str], start: float) -> str:
    """The first path that changed after ``start``, or empty."""
    return next((path for path in paths if changed_at(Path(path)) > start), "")


def parse(show: str) -> dict[str, str]:
    """Properties from the output of systemctl show."""
    return dict(line.split("=", 1) for line in show.splitlines() if "=" in line)


def plan(properties: dict[str, str], params: dict[str, Any], start: float) -> tuple[list[str], str]:
    """The actions that bring the unit into the state wanted, in order, and the file that asks for a restart."""
    actions: list[str] = []
    reason = ""
    exists = properties.get("LoadState") == "loaded"
    active = properties.get("ActiveState") in ("active", "reloading")
    if not exists or properties.get("NeedDaemonReload") == "yes":
        actions.append("daemon-reload")
    enabled = properties.get("UnitFileState") in ("enabled", "static", "alias", "indirect", "generated")
    if params["state"] == "stopped":
        actions += ["disable"] if properties.get("UnitFileState") == "enabled" else []
        # One that is being started again and again is not active.
        actions += ["stop"] if properties.get("ActiveState") not in ("inactive", "failed") else []
        return ([] if not exists else actions), reason
    if not enabled:
        actions.append("enable")
    if params["state"] == "enabled":
        return actions, reason
    if not active:
        actions.append("start")
    else:
        reason = newer_file(params["restart_after"], start)
        if reason and params["restart"] != "none":
            actions.append(params["restart"])
    return actions, reason


def managed_files(module: AnsibleModule) -> list[Change]:
    """Bring the unit's files into their state; returns what changed and ends the module when one cannot be managed."""
    try:
        return list(apply(module.params["files"], module.check_mode))
    except FilesError as error:
        module.fail_json(msg=str(error))
        raise


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "files": {**OPTION, "default": []},
            "start_when": {"type": "path"},
            "restart_after": {"type": "list", "elements": "path", "default": []},
            "restart": {"type": "str", "choices": ["restart", "reload", "none"], "default": "restart"},
            "state": {"type": "str", "choices": ["started", "stopped", "enabled"], "default": "started"},
        },
        supports_check_mode=True,
    )
    unit = module.params["name"]
    waiting = bool(module.params["start_when"]) and not Path(module.params["start_when"]).exists()
    wanted = {**module.params, **({"state": "enabled"} if waiting else {})}

    def systemctl(*words: str) -> tuple[int, str, str]:
        code, out, err = module.run_command(["systemctl", *words])
        return int(code), str(out), str(err)

    changes = managed_files(module)
    _, shown, _ = systemctl("show", unit, "--property", ",".join(PROPERTIES))
    properties = parse(shown)
    actions, reason = plan(properties, wanted, started_at(properties, time.time(), time.monotonic()))
    if not module.check_mode:
        for action in actions:
            perform(module, systemctl, action, unit)
        if set(actions) & {"start", "restart"}:
            see_running(module, systemctl, unit)
    module.exit_json(
        changed=bool(changes or set(actions) - {"daemon-reload"}),
        actions=actions,
        reason=reason,
        waiting=waiting,
        paths=[change.path for change in changes],
        diff=differences(changes),
    )


def see_running(module: AnsibleModule, systemctl: Systemctl, unit: str) -> None:
    """End the module when a unit that was just started stops at once, as one with a wrong configuration does."""
    time.sleep(SETTLE_SECONDS)
    _, shown, _ = systemctl("show", unit, "--property", "ActiveState,SubState,Result")
    properties = parse(shown)
    if properties.get("ActiveState") != "active":
        fail(module, unit, f"{unit} does not keep running: {properties.get('SubState')}, {properties.get('Result')}")


def fail(module: AnsibleModule, unit: str, message: str) -> None:
    """End the module with the unit's last log lines."""
    _, log, _ = module.run_command(["journalctl", "--unit", unit, "--lines", "15", "--no-pager", "--output", "cat"])
    module.fail_json(msg=message, log=str(log).splitlines())


def perform(module: AnsibleModule, systemctl: Systemctl, action: str, unit: str) -> None:
    """Run one systemctl action."""
    words = [action] if action == "daemon-reload" else [action, unit]
    code, out, err = systemctl(*words)
    if code != 0:
        fail(module, unit, f"systemctl {' '.join(words)} failed: {(err or out).strip()}")


if __name__ == "__main__":
    main()
