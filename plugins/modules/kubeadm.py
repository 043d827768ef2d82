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
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deephdc.testbed.plugins.module_utils import pod_network, static_pods
from ansible_collections.deephdc.testbed.plugins.module_utils.certificates import days_left, due
from ansible_collections.deephdc.testbed.plugins.module_utils.programs import path_of, search_path

DOCUMENTATION = r"""
module: kubeadm
short_description: Make a host a member of a Kubernetes cluster with kubeadm, or take it out
description:
  - Keeps marker files that say how far kubeadm has come. What an interrupted run left is reset before the next
    try. Traces of a cluster without a marker were made by somebody else; the module touches none of them and
    fails, also with O(phase=reset).
  - The configuration goes to kubeadm through a pipe, so that tokens are on no disk and no command line.
  - On a control plane, certificates near their end are renewed, and its static pods are started again to read them.
  - What has changed in O(cluster) and O(watch) since a member was made or configured is put into force. Every
    control plane renders its static pods, and has a new certificate when its names have changed. The first one also
    stores the configuration in the cluster and applies kube-proxy. Every member takes over a changed
    configuration of the kubelets and restarts its own.
  - After static pods were started again, waits until etcd and the API server of this host are healthy.
options:
  phase:
    description: >-
      V(init) makes the first control plane, V(join_control_plane) a further one, V(join) any other member,
      V(invite) makes a token on a control plane for hosts that are to join, V(reset) takes the host out.
    type: str
    choices: [init, join_control_plane, join, invite, reset]
    required: true
  config:
    description: JoinConfiguration of a host that joins.
    type: str
  cluster:
    description: >-
      InitConfiguration of this host and the documents that describe the cluster. Required on control planes. With
      O(phase=invite), certificates are uploaded too, for a host that joins as a control plane.
    type: str
  watch:
    description: Files beside O(cluster) that shape the static pods.
    type: list
    elements: path
    default: []
  kubelet:
    description: With O(phase=join), RV(parts) of the first control plane for the configuration of the kubelets.
    type: str
    default: ""
  settings:
    description: What cannot be changed on a member, kept in the marker for prechecks to compare with.
    type: dict
    default: {}
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
    support: partial
    description: A member stays as it is. Each O(phase=invite) makes a token.
author: deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Make the first control plane
  deephdc.testbed.kubeadm:
    phase: init
    cluster: "{{ lookup('ansible.builtin.template', 'kubeadm.yaml.j2') }}"
"""

RETURN = r"""
renewed:
  description: Certificates that were (or, in check mode, would be) renewed because of their age.
  returned: unless O(phase=invite)
  type: list
  elements: str
days_left:
  description: Days left by certificate, authorities included, as they were found.
  returned: unless O(phase=invite)
  type: dict
action:
  description: What was done, one of none, init, join, adopt, reconfigure, reset.
  returned: unless O(phase=invite)
  type: str
outdated:
  description: Those of RV(parts) that were (or, in check mode, would be) put into force on a member.
  returned: unless O(phase=invite)
  type: list
  elements: str
parts:
  description: SHA-256 of each part of the configuration, out of names, pods, kubelet and proxy.
  returned: unless O(phase=invite)
  type: dict
invitation:
  description: token and ca_hash for a host that joins, and certificate_key for a control plane. Secret.
  returned: with O(phase=invite)
  type: dict
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
SERVING = ("/etc/kubernetes/pki/apiserver.crt", "/etc/kubernetes/pki/apiserver.key")
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


def sha256(*texts: str) -> str:
    """SHA-256 over texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def cluster_parts(cluster: str, watch: list[str]) -> dict[str, str]:
    """SHA-256 of each part that is put into force in a way of its own. What only this host reads is no part."""
    documents = {}
    for text in re.split(r"^---$", cluster, flags=re.MULTILINE):
        for kind in re.findall(r"^kind: (\w+)$", text, flags=re.MULTILINE):
            documents[kind] = text.strip()
    shape = documents.get("ClusterConfiguration", "")
    return {
        "names": sha256(*re.findall(r"^  certSANs:.*$", shape, flags=re.MULTILINE)),
        "pods": sha256(shape, *(static_pods.text(Path(name)) for name in sorted(watch))),
        "kubelet": sha256(documents.get("KubeletConfiguration", "")),
        "proxy": sha256(documents.get("KubeProxyConfiguration", "")),
    }


def wanted_parts(params: dict[str, Any]) -> dict[str, str]:
    """The parts that this member has to be configured by."""
    if params["cluster"]:
        return cluster_parts(params["cluster"], params["watch"])
    return {"kubelet": params["kubelet"]} if params["kubelet"] else {}


def outdated(member: dict[str, Any], parts: dict[str, str]) -> list[str]:
    """The parts that are not in force on a member."""
    return [name for name, text in parts.items() if member.get("parts", {}).get(name) != text]


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
    while (
        any(static_pods.text(entry / "comm") == "kubeadm" for entry in proc.glob("[0-9]*"))
        and time.monotonic() < deadline
    ):
        waited = True
        time.sleep(0.5)
    if waited:
        time.sleep(1)


def decide(phase: str, member: dict[str, Any], found: list[str], parts: dict[str, str]) -> str:
    """The action for this host: none, init, join, adopt, reconfigure, reset, or foreign for somebody else's cluster."""
    if not member and found:
        return "foreign"
    if phase == "reset":
        return "reset" if member else "none"
    if not member:
        return phase.removesuffix("_control_plane")
    if member.get("state") != DONE:
        return "adopt" if phase == "join" and joined(found) else phase.removesuffix("_control_plane")
    return "reconfigure" if outdated(member, parts) else "none"


class Kubeadm:
    """Runs kubeadm for one module call."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.phase: str = module.params["phase"]
        self.cluster: str = module.params["cluster"] or ""
        self.parts = wanted_parts(module.params)
        self.outdated: list[str] = []

    def run(self, *words: str, config: str = "") -> str:
        """Run kubeadm, with a configuration on a pipe, and return its output; end the module when it fails."""
        argv = [path_of(self.module, "kubeadm"), *words, *(["--config", "/dev/stdin"] if config else [])]
        # It asks the kubelet for its version, by name.
        path = {"PATH": search_path()}
        code, out, err = self.module.run_command(argv, data=config or None, environ_update=path)
        if code != 0:
            lines = [SECRET.sub("***", line) for line in f"{out}\n{err}".splitlines() if line.strip()]
            self.module.fail_json(msg=f"kubeadm {' '.join(words)} failed: {reason(lines)}", log=lines[-40:])
        return str(out)

    def init_phase(self, *words: str) -> None:
        """Run one phase of ``kubeadm init`` with the configuration of the cluster."""
        self.run("init", "phase", *words, config=self.cluster)

    def system(self, *argv: str) -> None:
        """Run a program of the host; end the module when it fails."""
        code, out, err = self.module.run_command([path_of(self.module, argv[0]), *argv[1:]])
        if code != 0:
            self.module.fail_json(msg=f"{' '.join(argv)} failed: {(err or out).strip()}")

    def reset(self) -> None:
        """Take this host out of whatever it is in, and remove what kubeadm leaves, the markers last."""
        self.run("reset", "--force", "--cleanup-tmp-dir")
        self.clean_network()
        MEMBER.unlink(missing_ok=True)
        UNFINISHED.unlink(missing_ok=True)

    def clean_network(self) -> None:
        """Remove rules, links and files of services and pods; they would reach into the next cluster."""
        for save, restore in (("iptables-save", "iptables-restore"), ("ip6tables-save", "ip6tables-restore")):
            removal = pod_network.chain_removal(self.output(save))
            if removal:
                self.module.run_command([path_of(self.module, restore), "--noflush"], data=removal, check_rc=True)
        for table in pod_network.tables(self.output("nft", "list", "tables")):
            self.system("nft", "delete", "table", *table.split())
        for link in pod_network.links(os.listdir("/sys/class/net")):
            self.system("ip", "link", "delete", link)
        self.system("rm", "-rf", *pod_network.FILES)

    def output(self, program: str, *words: str) -> str:
        """What a program prints; empty where the host does not have it or its kernel not what it shows."""
        path = path_of(self.module, program, required=False)
        return str(self.module.run_command([path, *words])[1]) if path else ""

    def init(self) -> None:
        """Make the first control plane."""
        self.run("init", config=self.cluster)

    def join(self) -> None:
        """Join as the configuration says."""
        self.run("join", config=self.module.params["config"])

    def invite(self) -> dict[str, str]:
        """What a host needs to join; with the cluster's configuration, as a control plane."""
        out = self.run("token", "create", "--ttl", "15m", "--print-join-command")
        words = out.split()
        invitation = {
            "token": words[words.index("--token") + 1],
            "ca_hash": words[words.index("--discovery-token-ca-cert-hash") + 1],
        }
        if self.cluster:
            out = self.run("init", "phase", "upload-certs", "--upload-certs", config=self.cluster)
            invitation["certificate_key"] = out.split()[-1]
        return invitation

    def reconfigure(self) -> None:
        """Put the outdated parts into force."""
        if self.phase == "init":
            self.publish()
        if "names" in self.outdated:
            for name in SERVING:
                Path(name).unlink(missing_ok=True)
            self.init_phase("certs", "apiserver")  # the API server notices
        if "pods" in self.outdated:
            self.render()
        if "kubelet" in self.outdated:
            self.run("upgrade", "node", "phase", "kubelet-config")
            self.system("systemctl", "restart", "kubelet")

    def publish(self) -> None:
        """Store the outdated parts in the cluster and apply what runs there."""
        if "kubelet" in self.outdated:
            self.init_phase("upload-config", "kubelet")
        if "proxy" in self.outdated:
            self.init_phase("addon", "kube-proxy")
            rollout = ("rollout", "restart", "daemonset/kube-proxy")
            self.system("kubectl", "--kubeconfig", ADMIN, "--namespace", "kube-system", *rollout)
        if "pods" in self.outdated:
            self.init_phase("upload-config", "kubeadm")

    def render(self) -> None:
        """Render the static pods again, and wait for those that change."""
        running, before = static_pods.processes(), static_pods.manifests()
        self.init_phase("control-plane", "all")
        after = static_pods.manifests()
        self.healthy(number for number, name in running.items() if before.get(name) != after.get(name))

    def healthy(self, ended: Iterable[int]) -> None:
        """Wait until processes have ended and the control plane is healthy; end the module if it never is."""
        lacking = static_pods.wait(ended)
        if lacking:
            self.module.fail_json(msg=f"the control plane is not healthy again: {'; '.join(lacking)}")

    def adopt(self) -> None:
        """Take over a join that ended without its run."""
        Path("/etc/kubernetes/bootstrap-kubelet.conf").unlink(missing_ok=True)

    def certificates(self) -> tuple[dict[str, int], list[str]]:
        """Days left by certificate, and those that were near their end and are renewed now."""
        out = self.run("certs", "check-expiration", "--output", "json")
        report = json.loads(out[out.index("{") :])
        left = days_left(report, datetime.now(timezone.utc))
        ending = due(report, left, self.module.params["renew_before_days"])
        if ending and not self.module.check_mode:
            self.run("certs", "renew", "all")
            running = static_pods.processes()
            for process in running:
                os.kill(process, signal.SIGTERM)  # the kubelet starts it again
            self.healthy(running)
        return left, ending

    def remember(self, state: str) -> None:
        """Write the marker: this host is becoming a member, or is one."""
        path = MEMBER if state == DONE else UNFINISHED
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        content = {"phase": self.phase, "settings": self.module.params["settings"], "parts": self.parts}
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
        temporary.replace(path)
        if state == DONE:
            UNFINISHED.unlink(missing_ok=True)


def reason(lines: list[str]) -> str:
    """The line of kubeadm's output that says why it stopped."""
    telling = [line.strip() for line in lines if re.search(r"\[ERROR|^error|error execution phase", line)]
    return "; ".join(telling[:4]) or (lines[-1].strip() if lines else "no output")


def main() -> None:
    """Run as an Ansible module."""
    phases = ["init", "join_control_plane", "join", "invite", "reset"]
    module = AnsibleModule(
        argument_spec={
            "phase": {"type": "str", "choices": phases, "required": True},
            "config": {"type": "str", "no_log": True},
            "cluster": {"type": "str"},
            "watch": {"type": "list", "elements": "path", "default": []},
            "kubelet": {"type": "str", "default": ""},
            "settings": {"type": "dict", "default": {}},
            "renew_before_days": {"type": "int", "default": 0},
        },
        required_if=[
            ("phase", "init", ("cluster",)),
            ("phase", "join", ("config",)),
            ("phase", "join_control_plane", ("config", "cluster")),
        ],
        supports_check_mode=True,
    )
    kubeadm = Kubeadm(module)
    wait_for_others()
    if kubeadm.phase == "invite":
        module.exit_json(changed=True, invitation={} if module.check_mode else kubeadm.invite())
    member, found = marker(), traces()
    action = decide(kubeadm.phase, member, found, kubeadm.parts)
    if action == "foreign":
        module.fail_json(
            msg=f"the host belongs to a cluster that this site did not make (found {', '.join(found)}; needed none). "
            "Next: take the host out of the inventory, or run kubeadm reset on it if that cluster may go"
        )
    kubeadm.outdated = outdated(member, kubeadm.parts) if action == "reconfigure" else []
    if action != "none" and not module.check_mode:
        perform(kubeadm, action, found)
    left, renewed = kubeadm.certificates() if module.params["renew_before_days"] and Path(ADMIN).exists() else ({}, [])
    module.exit_json(
        changed=action != "none" or bool(renewed),
        action=action,
        outdated=kubeadm.outdated,
        parts=kubeadm.parts,
        days_left=left,
        renewed=renewed,
    )


def perform(kubeadm: Kubeadm, action: str, found: list[str]) -> None:
    """Carry out an action that :func:`decide` named, and keep the marker true at each moment."""
    if action in ("init", "join"):
        if found:
            kubeadm.reset()
        kubeadm.remember(STARTED)
    getattr(kubeadm, action)()
    if action != "reset":
        kubeadm.remember(DONE)


if __name__ == "__main__":
    main()
