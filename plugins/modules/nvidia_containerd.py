#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Let NVIDIA's toolkit write its drop-in for containerd, and keep it only when it differs."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deephdc.testbed.plugins.module_utils.programs import path_of

DOCUMENTATION = r"""
module: nvidia_containerd
short_description: Add NVIDIA's runtime to containerd by a drop-in file
description:
  - Runs C(nvidia-ctk runtime configure) beside containerd's configuration, because it rewrites the file that it gets
    even when nothing changes. The drop-in that comes out replaces the present one when it differs.
  - The tool is shown the runtime C(runc) with the cgroup driver that containerd's files give it, the drop-in itself
    left out, so that NVIDIA's runtime gets the same one. Nothing else is copied into the drop-in, where it would stay
    on after a change of the original.
  - Does not restart containerd.
options:
  path:
    description: Drop-in file. Containerd's configuration must import its directory.
    type: path
    default: /etc/containerd/conf.d/99-nvidia.toml
  config:
    description: Containerd's own configuration. It is only read.
    type: path
    default: /etc/containerd/config.toml
  program:
    description: NVIDIA's configuration tool.
    type: path
    default: /usr/bin/nvidia-ctk
  set_as_default:
    description: Whether containers use NVIDIA's runtime without asking for it.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Tells what would change. Before the tool is installed that is the whole drop-in.
  diff_mode:
    support: full
    description: Shows the drop-in.
  idempotent:
    support: full
    description: A second call changes nothing.
author: deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Add NVIDIA's runtime to containerd
  deephdc.testbed.nvidia_containerd:
"""

RETURN = r"""
path:
  description: The drop-in file.
  returned: always
  type: str
"""

MODE = 0o644
# Name of containerd's plugin for Kubernetes by the version of the configuration that has it.
PLUGINS = {3: "io.containerd.cri.v1.runtime", 2: "io.containerd.grpc.v1.cri"}
RUNC_CGROUP = re.compile(r"runtimes\.runc\.options\][^\[]*?\bSystemdCgroup = (true|false)")


def seed(dump: str) -> str:
    """A configuration with only the runtime runc in it, with the cgroup driver that a whole one gives it."""
    version = 3 if PLUGINS[3] in dump else 2
    found = RUNC_CGROUP.search(dump)
    systemd = found.group(1) if found else "false"
    runc = f'plugins."{PLUGINS[version]}".containerd.runtimes.runc'
    lines = [f"version = {version}", f"[{runc}]", 'runtime_type = "io.containerd.runc.v2"']
    return "\n".join([*lines, f"[{runc}.options]", f"SystemdCgroup = {systemd}", ""])


def copy_configuration(config: Path, drop_in: Path, directory: Path) -> Path:
    """Copy containerd's files without ``drop_in`` to ``directory`` and return the copy of the main one."""
    drop_ins = directory / "conf.d"
    drop_ins.mkdir()
    for path in drop_in.parent.glob("*.toml"):
        if path != drop_in:
            shutil.copyfile(path, drop_ins / path.name)
    copy = directory / "config.toml"
    copy.write_text(config.read_text(encoding="utf-8").replace(str(drop_in.parent), str(drop_ins)), encoding="utf-8")
    return copy


def arguments(params: dict[str, Any], directory: Path) -> list[str]:
    """The command that writes the drop-in to ``directory`` for the seed in it."""
    command = [params["program"], "--quiet", "runtime", "configure", "--runtime=containerd", "--cdi.enabled"]
    command += [f"--config={directory / 'seed.toml'}", f"--drop-in-config={directory / 'drop-in.toml'}"]
    return [*command, "--nvidia-set-as-default"] if params["set_as_default"] else command


def run(module: AnsibleModule, command: list[str]) -> str:
    """Run a command and return its standard output; failing, end the module."""
    code, out, err = module.run_command(command)
    if code != 0:
        module.fail_json(msg=f"{' '.join(command)} failed: {(err or out).strip()}")
    return str(out)


def generate(module: AnsibleModule) -> str:
    """The drop-in that NVIDIA's tool makes for the present configuration."""
    params = module.params
    with tempfile.TemporaryDirectory(prefix="nvidia-containerd.") as name:
        directory = Path(name)
        copy = copy_configuration(Path(params["config"]), Path(params["path"]), directory)
        containerd = path_of(module, "containerd")
        dump = run(module, [containerd, "--config", str(copy), "config", "dump"])
        (directory / "seed.toml").write_text(seed(dump), encoding="utf-8")
        run(module, arguments(params, directory))
        return (directory / "drop-in.toml").read_text(encoding="utf-8")


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/containerd/conf.d/99-nvidia.toml"},
            "config": {"type": "path", "default": "/etc/containerd/config.toml"},
            "program": {"type": "path", "default": "/usr/bin/nvidia-ctk"},
            "set_as_default": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    missing = [name for name in ("program", "config") if not Path(module.params[name]).exists()]
    if missing and module.check_mode:
        module.exit_json(changed=True, path=str(path))
    if missing:
        module.fail_json(msg=f"{module.params[missing[0]]} does not exist")
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after = generate(module)
    if before != after and not module.check_mode:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(after, encoding="utf-8")
        fresh.chmod(MODE)
        fresh.replace(path)
    module.exit_json(changed=before != after, path=str(path), diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
