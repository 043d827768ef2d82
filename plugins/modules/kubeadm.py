#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Make a host a member of a Kubernetes cluster with kubeadm, or take it out."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deephdc.testbed.plugins.module_utils.certificates import (
    component_processes,
    days_left,
    due,
    program,
)

DOCUMENTATION = r"""
module: kubeadm
short_description: Make a host a member of a Kubernetes cluster with kubeadm, or take it out
description:
  - Keeps marker files that say how far kubeadm has come. What an interrupted run left is reset before the next
    try. Traces of a cluster without a marker were made by somebody else; the module touches none of them and
    fails.
  - The configuration goes to kubeadm through a pipe, so that tokens are on no disk and no command line.
  - On a control plane, certificates near their end are renewed, and its containers are started again to read them.
  - On an initialised control plane a changed configuration is uploaded to the cluster and its static pods are
    rendered again.
options:
  phase:
    description: >-
      V(init) makes the first control plane, V(join_control_plane) a further one, V(join) any other member,
      V(reset) takes the host out.
    type: str
    choices: [init, join_control_plane, join, reset]
    required: true
  config:
    description: kubeadm configuration, one or more YAML documents. Required unless O(phase=reset).
    type: str
  watch:
    description: Files beside O(config) that shape the static pods, so that a change of theirs renders the pods again.
    type: list
    elements: path
    default: []
  renew_before_days:
    description: >-
      On a control plane, days before the end of a certificate from which on all that kubeadm manages are
      renewed. V(0) looks at none.
    type: int
    default: 0
attributes:
  check_mode:
    support: full
    description: Tells what would be done.
  diff_mode:
    support: none
    description: The configuration may hold a token.
  idempotent:
    support: full
    description: A member stays as it is.
author: deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Make the first control plane
  deephdc.testbed.kubeadm:
    phase: init
    config: "{{ lookup('ansible.builtin.template', 'kubeadm.yaml.j2') }}"
"""

RETURN = r"""
renewed:
  description: Certificates that were (or, in check mode, would be) renewed because of their age.
  returned: always
  type: list
  elements: str
days_left:
  description: Days left by certificate, authorities included, as they were found.
  returned: always
  type: dict
action:
  description: What was done, one of none, init, join, adopt, reconfigure, reset.
  returned: always
  type: str
"""

# The first is there from the end of kubeadm on, the second from its start to its end.
MEMBER = Path("/etc/kubernetes/deephdc/member.json")
UNFINISHED = Path("/etc/kubernetes/deephdc/unfinished.json")
ADMIN = "/etc/kubernetes/admin.conf"
CLIENT_CERTIFICATE = "/var/lib/kubelet/pki/kubelet-client-current.pem"
TRACES = (
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/bootstrap-kubelet.conf",
    "/etc/kubernetes/pki/ca.crt",
    "/etc/kubernetes/manifests/kube-apiserver.yaml",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/etcd/member",
    CLIENT_CERTIFICATE,
)
STARTED, DONE = "started", "done"
# kubeadm leaves the CNI configuration and the mounts of pods behind; both would reach into the next cluster.
LEFT_BEHIND = ("/etc/cni/net.d/10-deephdc.conflist", "/var/lib/cni")
BRIDGE = "cni0"
SECRET = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}|[0-9a-f]{64}")


def marker() -> dict[str, Any]:
    """How far this host has come, as the marker files say; empty when there is none that can be read."""
    return read_marker(DONE, MEMBER) or read_marker(STARTED, UNFINISHED)


def read_marker(state: str, path: Path) -> dict[str, Any]:
    """The content of one marker file and the state that it stands for; empty without a readable one."""
    try:
        return {**json.loads(path.read_text(encoding="utf-8")), "state": state}
    except (OSError, ValueError):
        return {}


def digest(config: str, watch: list[str]) -> str:
    """SHA-256 over the configuration and the watched files."""
    total = hashlib.sha256(config.encode())
    for name in sorted(watch):
        path = Path(name)
        total.update(name.encode())
        total.update(path.read_bytes() if path.is_file() else b"")
    return total.hexdigest()


def traces(root: Path = Path("/")) -> list[str]:
    """Files of a cluster on this host."""
    return [name for name in TRACES if os.path.lexists(root / name.lstrip("/"))]


def joined(found: list[str]) -> bool:
    """Whether a join that was interrupted had come to its end: the kubelet has its own credentials."""
    return "/etc/kubernetes/kubelet.conf" in found and CLIENT_CERTIFICATE in found


def wait_for_others(seconds: float = 180.0, proc: Path = Path("/proc")) -> None:
    """Wait for a kubeadm of an interrupted run, which goes on without it and writes its marker at the end."""
    deadline = time.monotonic() + seconds
    waited = False
    while any(program(entry) == "kubeadm" for entry in proc.glob("[0-9]*")) and time.monotonic() < deadline:
        waited = True
        time.sleep(0.5)
    if waited:
        time.sleep(1)


def decide(phase: str, member: dict[str, Any], found: list[str], sha256: str) -> str:
    """The action for this host: none, init, join, adopt, reconfigure, reset, or foreign for somebody else's cluster."""
    if phase == "reset":
        return "reset" if member or found else "none"
    if not member:
        return "foreign" if found else phase.removesuffix("_control_plane")
    if member.get("state") != DONE:
        return "adopt" if phase == "join" and joined(found) else phase.removesuffix("_control_plane")
    return "reconfigure" if phase == "init" and member.get("config_sha256") != sha256 else "none"


class Kubeadm:
    """Runs kubeadm for one module call."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.config: str = module.params["config"] or ""

    def run(self, *words: str, config: bool = True) -> str:
        """Run kubeadm with the configuration on a pipe and return its output; end the module when it fails."""
        argv = ["kubeadm", *words, *(["--config", "/dev/stdin"] if config else [])]
        code, out, err = self.module.run_command(argv, data=self.config if config else None)
        if code != 0:
            lines = [SECRET.sub("***", line) for line in f"{out}\n{err}".splitlines() if line.strip()]
            self.module.fail_json(msg=f"kubeadm {' '.join(words)} failed: {reason(lines)}", log=lines[-40:])
        return str(out)

    def reset(self) -> None:
        """Take this host out of whatever it is in and remove what kubeadm leaves."""
        self.run("reset", "--force", "--cleanup-tmp-dir", config=False)
        MEMBER.unlink(missing_ok=True)
        UNFINISHED.unlink(missing_ok=True)
        self.module.run_command(["rm", "-rf", *LEFT_BEHIND])
        self.module.run_command(["ip", "link", "delete", BRIDGE])

    def init(self) -> None:
        """Make the first control plane."""
        self.run("init")

    def join(self) -> None:
        """Join as the configuration says."""
        self.run("join")

    def reconfigure(self) -> None:
        """Render the static pods again and keep the configuration in the cluster for members to come."""
        self.run("init", "phase", "control-plane", "all")
        self.run("init", "phase", "upload-config", "kubeadm")

    def adopt(self) -> None:
        """Take over a join that ended without its run."""
        Path("/etc/kubernetes/bootstrap-kubelet.conf").unlink(missing_ok=True)

    def certificates(self) -> tuple[dict[str, int], list[str]]:
        """Days left by certificate, and those that were near their end and are renewed now."""
        out = self.run("certs", "check-expiration", "--output", "json", config=False)
        report = json.loads(out[out.index("{") :])
        left = days_left(report, datetime.now(timezone.utc))
        ending = due(report, left, self.module.params["renew_before_days"])
        if ending and not self.module.check_mode:
            self.run("certs", "renew", "all", config=False)
            for process in component_processes():
                os.kill(process, signal.SIGTERM)  # the kubelet starts it again
        return left, ending

    def remember(self, state: str, sha256: str) -> None:
        """Write the marker: this host is becoming a member, or is one."""
        path = MEMBER if state == DONE else UNFINISHED
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(
            json.dumps({"phase": self.module.params["phase"], "config_sha256": sha256}) + "\n", encoding="utf-8"
        )
        temporary.replace(path)
        if state == DONE:
            UNFINISHED.unlink(missing_ok=True)


def reason(lines: list[str]) -> str:
    """The line of kubeadm's output that says why it stopped."""
    telling = [line.strip() for line in lines if re.search(r"\[ERROR|^error|error execution phase", line)]
    return "; ".join(telling[:4]) or (lines[-1].strip() if lines else "no output")


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "phase": {"type": "str", "choices": ["init", "join_control_plane", "join", "reset"], "required": True},
            "config": {"type": "str", "no_log": True},
            "watch": {"type": "list", "elements": "path", "default": []},
            "renew_before_days": {"type": "int", "default": 0},
        },
        required_if=[("phase", phase, ("config",)) for phase in ("init", "join", "join_control_plane")],
        supports_check_mode=True,
    )
    kubeadm = Kubeadm(module)
    sha256 = digest(kubeadm.config, module.params["watch"])
    wait_for_others()
    found = traces()
    action = decide(module.params["phase"], marker(), found, sha256)
    if action == "foreign":
        module.fail_json(msg=f"this host belongs to a cluster that was not made by this site: found {', '.join(found)}")
    if action != "none" and not module.check_mode:
        perform(kubeadm, action, found, sha256)
    left, renewed = kubeadm.certificates() if module.params["renew_before_days"] and Path(ADMIN).exists() else ({}, [])
    module.exit_json(changed=action != "none" or bool(renewed), action=action, days_left=left, renewed=renewed)


def perform(kubeadm: Kubeadm, action: str, found: list[str], sha256: str) -> None:
    """Carry out an action that :func:`decide` named, and keep the marker true at each moment."""
    if action in ("init", "join"):
        if found:
            kubeadm.reset()
        kubeadm.remember(STARTED, sha256)
    getattr(kubeadm, action)()
    if action != "reset":
        kubeadm.remember(DONE, sha256)


if __name__ == "__main__":
    main()
