#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Apply what offers GPUs to a cluster, label the nodes, and wait until every GPU is counted."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deephdc.testbed.plugins.module_utils.kubectl import kubectl

DOCUMENTATION = r"""
module: gpu_nodes
short_description: Offer the GPUs of nodes to a Kubernetes cluster
description:
  - Labels the nodes of O(nodes), applies O(manifest) by server-side apply where C(kubectl diff) finds a difference, and
    waits until the device plugin is rolled out and every node counts as many GPUs as NVIDIA's feature discovery found
    there, times the replicas.
  - Then gives each node the labels that feature discovery published for it (NodeFeature objects), as
    node-feature-discovery would. Labels are owned by a field manager of ours, so those that are no longer wanted
    disappear, also from nodes that are not in O(nodes) any more. Labels of others are not touched.
  - DaemonSets that O(manifest) had earlier and no longer has are removed. They are known by the label
    C(app.kubernetes.io/part-of) with the value C(deephdc-gpu).
  - Nodes of O(nodes) that are not in the cluster are left out and named in RV(missing).
options:
  manifest:
    description: Objects to apply, in YAML.
    type: str
    required: true
  nodes:
    description: >-
      Nodes with GPUs, by name, each with labels (dictionary), daemonset (the one whose pod offers its GPUs), replicas
      (pods per GPU) and resource (nvidia.com/gpu, or empty where its name is only known on the node).
    type: dict
    required: true
  daemonsets:
    description: Names of all DaemonSets in O(manifest).
    type: list
    elements: str
    required: true
  namespace:
    description: Namespace of the DaemonSets and of the NodeFeature objects.
    type: str
    default: kube-system
  feature_labels:
    description: Whether NodeFeature objects become labels here. V(false) where the cluster runs node-feature-discovery.
    type: bool
    default: true
  kubeconfig:
    description: Credentials of a cluster administrator.
    type: path
    default: /etc/kubernetes/admin.conf
  timeout:
    description: Seconds to wait at most.
    type: int
    default: 180
  interval:
    description: Seconds between two looks.
    type: float
    default: 0.5
attributes:
  check_mode:
    support: full
    description: Tells whether something would change and does not wait. Without a cluster everything would.
  diff_mode:
    support: full
    description: Shows what C(kubectl diff) says.
  idempotent:
    support: full
    description: A second call changes nothing.
author: deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Offer the GPUs
  deephdc.testbed.gpu_nodes:
    manifest: "{{ lookup('ansible.builtin.template', 'nvidia-device-plugin.yaml.j2') }}"
    daemonsets: [nvidia-device-plugin-exclusive]
    nodes:
      node2:
        labels: {deephdc.org/gpu: simulated}
        daemonset: nvidia-device-plugin-exclusive
        replicas: 1
        resource: nvidia.com/gpu
"""

RETURN = r"""
allocatable:
  description: What each node offers of nvidia.com resources, by node name.
  returned: always
  type: dict
labels:
  description: Labels that were set, by node name. Only nodes that changed.
  returned: always
  type: dict
missing:
  description: Nodes that were asked for and are not in the cluster.
  returned: always
  type: list
  elements: str
"""

MANAGER = "deephdc-gpu"
RESOURCE_PREFIX = "nvidia.com/"
NODE_NAME_LABEL = "nfd.node.kubernetes.io/node-name"
PART_LABEL = ("app.kubernetes.io/part-of", "deephdc-gpu")
FEATURE_KIND = "nodefeatures.nfd.k8s-sigs.io"
APPLY = ("--server-side", "--force-conflicts", f"--field-manager={MANAGER}", "--filename=-")
COUNT, REPLICAS = "nvidia.com/gpu.count", "nvidia.com/gpu.replicas"


def owned_labels(node: dict[str, Any]) -> set[str]:
    """Labels of a Node object that our field manager set."""
    entries = [entry for entry in node["metadata"].get("managedFields", []) if entry.get("manager") == MANAGER]
    fields = [entry.get("fieldsV1", {}).get("f:metadata", {}).get("f:labels", {}) for entry in entries]
    return {name.removeprefix("f:") for labels in fields for name in labels if name.startswith("f:")}


def needs_labels(node: dict[str, Any], wanted: dict[str, str]) -> bool:
    """Whether a Node object lacks a label that is wanted or has one of ours that is not."""
    present = node["metadata"].get("labels", {})
    differs = any(present.get(name) != value for name, value in wanted.items())
    return differs or bool(owned_labels(node) - set(wanted))


def wanted_labels(
    nodes: dict[str, Any], asked: dict[str, Any], features: dict[str, dict[str, str]]
) -> dict[str, dict[str, str]]:
    """Labels that each node shall have of us: those asked for, with its features; none on nodes that only had some."""
    wanted: dict[str, dict[str, str]] = {name: {} for name, node in nodes.items() if owned_labels(node)}
    present = {name: node for name, node in asked.items() if name in nodes}
    return {**wanted, **{name: {**features.get(name, {}), **node["labels"]} for name, node in present.items()}}


def feature_labels(items: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Labels by node name out of NodeFeature objects; of what they ask, only NVIDIA's own."""
    found: dict[str, dict[str, str]] = {}
    for item in items:
        name = item["metadata"].get("labels", {}).get(NODE_NAME_LABEL, "")
        labels = item["spec"].get("labels") or {}
        found[name] = {key: str(value) for key, value in labels.items() if key.startswith(RESOURCE_PREFIX)}
    return found


def allocatable(node: dict[str, Any]) -> dict[str, int]:
    """Resources of NVIDIA that a Node object offers."""
    offered = node["status"].get("allocatable", {})
    return {name: int(value) for name, value in offered.items() if name.startswith(RESOURCE_PREFIX)}


def rollout_fault(daemonset: dict[str, Any], pods: int) -> str:
    """What is missing from a DaemonSet's rollout to ``pods`` nodes; empty when it is complete."""
    if not daemonset:
        return "a DaemonSet is missing"
    name, status = daemonset["metadata"]["name"], daemonset.get("status", {})
    if status.get("observedGeneration") != daemonset["metadata"]["generation"]:
        return f"{name} has not been looked at yet"
    desired = max(pods, status.get("desiredNumberScheduled", 0))
    ready = min(status.get("updatedNumberScheduled", 0), status.get("numberReady", 0))
    return "" if ready >= desired else f"{ready} of {desired} pods of {name} are updated and ready"


def offer_fault(name: str, offered: dict[str, int], features: dict[str, str], node: dict[str, Any]) -> str:
    """What is wrong with the resources that node ``name`` offers; empty when they fit its features and replicas."""
    resource, replicas = node["resource"], int(node["replicas"])
    if not resource:
        return "" if any(offered.values()) else f"{name} offers nothing of {RESOURCE_PREFIX}"
    found = offered.get(resource, 0)
    if COUNT not in features:
        return "" if found > 0 and found % replicas == 0 else f"{name} offers {found} {resource}"
    if max(1, int(features.get(REPLICAS, "1"))) != replicas:
        return f"{name} was last seen with {features.get(REPLICAS, '1')} replicas, not {replicas}"
    needed = int(features[COUNT]) * replicas
    return "" if found == needed else f"{name} offers {found} {resource}, not {needed}"


class View(NamedTuple):
    """What the cluster was seen to be, each part by name."""

    nodes: dict[str, Any]
    daemonsets: dict[str, Any]
    features: dict[str, dict[str, str]]


def view_of(items: list[dict[str, Any]]) -> View:
    """The view that a list of objects gives. Of the DaemonSets, only ours."""
    kinds: dict[str, dict[str, Any]] = {"Node": {}, "DaemonSet": {}, "NodeFeature": {}}
    for item in items:
        kinds[item["kind"]][item["metadata"]["name"]] = item
    key, value = PART_LABEL
    ours = {name: it for name, it in kinds["DaemonSet"].items() if it["metadata"].get("labels", {}).get(key) == value}
    return View(kinds["Node"], ours, feature_labels(list(kinds["NodeFeature"].values())))


class Cluster:
    """The cluster, through kubectl."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params

    def look(self) -> View:
        """See nodes, DaemonSets and features in one call. Feature discovery's kind may not be known yet."""
        kinds = ["nodes", "daemonsets.apps", *([FEATURE_KIND] if self.params["feature_labels"] else [])]
        options = ["--namespace", self.params["namespace"], "--show-managed-fields", "--output", "json"]
        code, out, err = kubectl(self.module, "get", ",".join(kinds), *options)
        if code != 0 and FEATURE_KIND in kinds and "doesn't have a resource type" in err:
            code, out, err = kubectl(self.module, "get", ",".join(kinds[:-1]), *options)
        if code != 0:
            self.module.fail_json(msg=f"kubectl get {','.join(kinds)}: {err.strip()}")
        return view_of(json.loads(out)["items"])

    def change(self, *words: str, data: str | None = None) -> None:
        """Run a kubectl command that changes the cluster; not in check mode. Failing, end the module."""
        if self.module.check_mode:
            return
        code, _, error = kubectl(self.module, *words, data=data)
        if code != 0:
            self.module.fail_json(msg=f"kubectl {words[0]}: {error.strip()}")

    def apply_manifest(self) -> str:
        """Apply the manifest where it differs and return the difference."""
        code, difference, error = kubectl(self.module, "diff", *APPLY, data=self.params["manifest"])
        if code > 1:
            self.module.fail_json(msg=f"kubectl diff: {error.strip()}")
        if code == 1:
            self.change("apply", *APPLY, data=self.params["manifest"])
        return difference if code == 1 else ""

    def drop_obsolete(self, view: View) -> list[str]:
        """Remove our DaemonSets that are not wanted any more and return their names."""
        found = sorted(set(view.daemonsets) - set(self.params["daemonsets"]))
        if found:
            self.change("delete", "daemonset", "--namespace", self.params["namespace"], *found)
        return found

    def label(self, view: View) -> dict[str, dict[str, str]]:
        """Bring our labels of all nodes into the state wanted and return those of the nodes that changed."""
        wanted = wanted_labels(view.nodes, self.params["nodes"], view.features)
        changed = {name: labels for name, labels in wanted.items() if needs_labels(view.nodes[name], labels)}
        items = [
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
            for name, labels in changed.items()
        ]
        if items:
            self.change("apply", *APPLY, data=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        return changed

    def faults(self, view: View) -> list[str]:
        """What is still missing before every GPU is counted."""
        present = {name: node for name, node in self.params["nodes"].items() if name in view.nodes}
        found = []
        for daemonset in self.params["daemonsets"]:
            pods = sum(node["daemonset"] == daemonset for node in present.values())
            found.append(rollout_fault(view.daemonsets.get(daemonset, {}), pods))
        for name, node in present.items():
            seen = view.features.get(name, {})
            if self.params["feature_labels"] and COUNT not in seen:
                found.append(f"{name} has no features yet")
            found.append(offer_fault(name, allocatable(view.nodes[name]), seen, node))
        return [fault for fault in found if fault]

    def wait(self, view: View) -> View:
        """Look until every GPU is counted, ``view`` being the first look; ends the module at the timeout."""
        deadline = time.monotonic() + float(self.params["timeout"])
        while faults := self.faults(view):
            if time.monotonic() > deadline:
                self.module.fail_json(msg=f"after {self.params['timeout']} s: {'; '.join(faults)}")
            time.sleep(float(self.params["interval"]))
            view = self.look()
        return view


def deploy(cluster: Cluster) -> dict[str, Any]:
    """Do the whole work and return the module's result."""
    view = cluster.look()
    labels = cluster.label(view)
    difference = cluster.apply_manifest()
    dropped = cluster.drop_obsolete(view)
    if not cluster.module.check_mode:
        # A first look that is older than a change would see the state before it.
        view = cluster.wait(cluster.look() if labels or difference or dropped else view)
        labels.update(cluster.label(view))
    asked = cluster.params["nodes"]
    return {
        "changed": bool(labels or difference or dropped),
        "labels": labels,
        "missing": [name for name in asked if name not in view.nodes],
        "allocatable": {name: allocatable(view.nodes[name]) for name in asked if name in view.nodes},
        "diff": {"prepared": difference},
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "manifest": {"type": "str", "required": True},
            "nodes": {"type": "dict", "required": True},
            "daemonsets": {"type": "list", "elements": "str", "required": True},
            "namespace": {"type": "str", "default": "kube-system"},
            "feature_labels": {"type": "bool", "default": True},
            "kubeconfig": {"type": "path", "default": "/etc/kubernetes/admin.conf"},
            "timeout": {"type": "int", "default": 180},
            "interval": {"type": "float", "default": 0.5},
        },
        supports_check_mode=True,
    )
    if module.check_mode and not Path(module.params["kubeconfig"]).exists():
        module.exit_json(changed=True, allocatable={}, labels={}, missing=sorted(module.params["nodes"]))
    module.exit_json(**deploy(Cluster(module)))


if __name__ == "__main__":
    main()
