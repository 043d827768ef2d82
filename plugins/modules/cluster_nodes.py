#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Wait for the nodes of a Kubernetes cluster, and approve their serving certificates."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import ssl
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deephdc.testbed.plugins.module_utils.kubectl import kubectl

DOCUMENTATION = r"""
module: cluster_nodes
short_description: Wait for the nodes of a Kubernetes cluster and approve their serving certificates
description:
  - Asks the API server again every O(interval) seconds until every node of O(nodes) is V(registered) (known,
    with a pod network of its own) or V(ready) (Ready, serving a certificate of the cluster, and cluster DNS
    available).
  - A kubelet's request for a serving certificate is approved only when the node that asks is in O(nodes), asks
    for nothing but a server certificate, and names only its own host name and address.
options:
  nodes:
    description: Address of every node that shall be in the cluster, by node name.
    type: dict
    required: true
  until:
    description: How far the nodes shall be.
    type: str
    choices: [registered, ready]
    required: true
  kubeconfig:
    description: Credentials of a cluster administrator.
    type: path
    default: /etc/kubernetes/admin.conf
  ca:
    description: Certificate authority of the cluster, which the kubelets' serving certificates must come from.
    type: path
    default: /etc/kubernetes/pki/ca.crt
  timeout:
    description: Seconds to wait at most.
    type: int
    default: 120
  interval:
    description: Seconds between two looks.
    type: float
    default: 0.5
attributes:
  check_mode:
    support: full
    description: Looks once, approves nothing and does not wait. Without O(kubeconfig) it returns no nodes.
  diff_mode:
    support: none
    description: RV(approved) says what was approved.
  idempotent:
    support: full
    description: Nothing is left to approve the second time.
author: deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Wait for the nodes
  deephdc.testbed.cluster_nodes:
    until: ready
    nodes:
      node1: 192.0.2.11
"""

RETURN = r"""
nodes:
  description: What the cluster says of each node, by name.
  returned: always
  type: dict
  contains:
    ready:
      description: Whether the node is Ready.
      type: bool
    pod_cidr:
      description: Pod network of the node, or empty.
      type: str
    address:
      description: Internal address of the node.
      type: str
settled:
  description: Whether the nodes are as far as V(ready) asks, whatever O(until) was.
  returned: success
  type: bool
approved:
  description: Certificate requests that were approved.
  returned: always
  type: list
  elements: str
pending:
  description: Serving certificate requests that were not approved, with the reason.
  returned: always
  type: list
  elements: str
"""

SIGNER = "kubernetes.io/kubelet-serving"
USAGES = {"digital signature", "key encipherment", "server auth"}
NODE_USER = "system:node:"
KUBELET_PORT = 10250


def node_facts(item: dict[str, Any]) -> dict[str, Any]:
    """Readiness, pod network and address from a Node object."""
    conditions = {row["type"]: row["status"] for row in item["status"].get("conditions", [])}
    addresses = {row["type"]: row["address"] for row in item["status"].get("addresses", [])}
    return {
        "ready": conditions.get("Ready") == "True",
        "pod_cidr": item["spec"].get("podCIDR", ""),
        "address": addresses.get("InternalIP", ""),
    }


def pending_requests(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """CertificateSigningRequests for serving certificates that nobody has decided on."""
    requests = [
        item for item in items if item["kind"] == "CertificateSigningRequest" and item["spec"]["signerName"] == SIGNER
    ]
    return [item for item in requests if not item.get("status", {}).get("conditions")]


def request_names(text: str) -> set[str]:
    """Subject alternative names in the text that openssl prints of a request."""
    return {name.strip() for pair in re.findall(r"DNS:([^,\s]+)|IP Address:([^,\s]+)", text) for name in pair if name}


def objection(item: dict[str, Any], nodes: dict[str, str], text: str) -> str:
    """Why a serving certificate request must not be approved; empty when it may."""
    user = item["spec"].get("username", "")
    name = user.removeprefix(NODE_USER)
    if not user.startswith(NODE_USER) or name not in nodes:
        return f"{user} is no node of the inventory"
    usages = set(item["spec"].get("usages", []))
    if not usages <= USAGES:
        return f"usages {sorted(usages - USAGES)} are not those of a server"
    foreign = request_names(text) - {name, nodes[name]}
    if foreign:
        return f"names {sorted(foreign)} are not of {name}"
    if not re.search(rf"CN\s*=\s*{re.escape(user)}\s*$", text, flags=re.MULTILINE):
        return f"the subject is not {user}"
    return ""


def dns_ready(items: list[dict[str, Any]]) -> bool:
    """Whether the CoreDNS deployment has an available replica; true in a cluster without one."""
    found = [item for item in items if item["kind"] == "Deployment"]
    return all(int(item.get("status", {}).get("availableReplicas") or 0) > 0 for item in found)


def serving_fault(address: str, authority: str, port: int = KUBELET_PORT) -> str:
    """Why the kubelet's own HTTPS at ``address`` cannot be trusted by the cluster's authority; empty when it can."""
    try:
        context = ssl.create_default_context(cafile=authority)
        with (
            socket.create_connection((address, port), timeout=3) as plain,
            context.wrap_socket(plain, server_hostname=address),
        ):
            return ""
    except OSError as error:  # SSLError is one
        return f"kubelet does not serve a certificate of the cluster ({error})"


class Cluster:
    """A look at the cluster through kubectl."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.nodes: dict[str, str] = {name: str(address) for name, address in module.params["nodes"].items()}
        self.approved: list[str] = []
        self.refused: dict[str, str] = {}

    def objects(self) -> tuple[list[dict[str, Any]], str]:
        """Nodes, certificate requests and the CoreDNS deployment, or an empty list and what went wrong."""
        kinds = "nodes,certificatesigningrequests,deployments.apps"
        code, out, err = kubectl(self.module, "get", kinds, "--namespace", "kube-system", "--output", "json")
        if code != 0:
            return [], err.strip()
        items: list[dict[str, Any]] = json.loads(out)["items"]
        return [item for item in items if item["kind"] != "Deployment" or item["metadata"]["name"] == "coredns"], ""

    def decide(self, items: list[dict[str, Any]]) -> None:
        """Approve the pending serving certificates of our nodes and remember why others were not."""
        good = []
        for item in pending_requests(items):
            name = item["metadata"]["name"]
            pem = base64.b64decode(item["spec"]["request"]).decode()
            _, text, _ = self.module.run_command(
                ["openssl", "req", "-noout", "-text", "-nameopt", "RFC2253,sep_multiline,space_eq"], data=pem
            )
            self.refused[name] = objection(item, self.nodes, str(text))
            if not self.refused[name]:
                good.append(name)
        if good and not self.module.check_mode:
            code, _, err = kubectl(self.module, "certificate", "approve", *good)
            if code == 0:
                self.approved += good
            else:
                self.refused.update(dict.fromkeys(good, err.strip()))

    def lacking(self, items: list[dict[str, Any]], error: str, until: str) -> list[str]:
        """What is missing from the state ``until``, in words."""
        if error:
            return [error]
        known = {item["metadata"]["name"]: node_facts(item) for item in items if item["kind"] == "Node"}
        missing = [f"{name} is not registered" for name in self.nodes if name not in known]
        present = [name for name in self.nodes if name in known]
        if until == "registered":
            return missing + [f"{name} has no pod network" for name in present if not known[name]["pod_cidr"]]
        missing += [f"{name} is not Ready" for name in present if not known[name]["ready"]]
        missing += [] if dns_ready(items) else ["no replica of CoreDNS is available"]
        return missing + [
            f"{name}: {fault}"
            for name in present
            if (fault := serving_fault(self.nodes[name], self.module.params["ca"]))
        ]

    def result(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """The module's return values."""
        return {
            "changed": bool(self.approved),
            "nodes": {item["metadata"]["name"]: node_facts(item) for item in items if item["kind"] == "Node"},
            "approved": self.approved,
            "pending": [f"{name}: {reason}" for name, reason in sorted(self.refused.items()) if reason],
        }


def settle(cluster: Cluster) -> dict[str, Any]:
    """Look until nothing is lacking, and return the module's result; ends the module at the timeout."""
    params, check = cluster.module.params, bool(cluster.module.check_mode)
    deadline = time.monotonic() + float(params["timeout"])
    while True:
        items, error = cluster.objects()
        cluster.decide(items)
        lacking = cluster.lacking(items, error, params["until"])
        if not lacking or check:
            return {**cluster.result(items), "settled": not cluster.lacking(items, error, "ready")}
        if time.monotonic() > deadline:
            cluster.module.fail_json(msg=f"after {params['timeout']} s: {'; '.join(lacking)}", **cluster.result(items))
        time.sleep(float(params["interval"]))


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "dict", "required": True},
            "until": {"type": "str", "choices": ["registered", "ready"], "required": True},
            "kubeconfig": {"type": "path", "default": "/etc/kubernetes/admin.conf"},
            "ca": {"type": "path", "default": "/etc/kubernetes/pki/ca.crt"},
            "timeout": {"type": "int", "default": 120},
            "interval": {"type": "float", "default": 0.5},
        },
        supports_check_mode=True,
    )
    if module.check_mode and not os.path.exists(module.params["kubeconfig"]):
        module.exit_json(changed=False, nodes={}, approved=[], pending=[], settled=False)
    module.exit_json(**settle(Cluster(module)))


if __name__ == "__main__":
    main()
