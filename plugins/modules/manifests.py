#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Bring objects of a cluster into the state declared, and remove those that are no longer declared."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deephdc.testbed.plugins.module_utils.kubectl import kubectl

DOCUMENTATION = r"""
module: manifests
short_description: Apply objects to a Kubernetes cluster and remove what is no longer declared
description:
  - Applies O(objects) by server-side apply, in one call, where C(kubectl diff) finds a difference.
  - Of the kinds in O(prune), objects that carry the label C(app.kubernetes.io/part-of) with the value of O(part_of)
    and are not in O(objects) are removed.
  - A namespace that exists without that label is somebody else's. It is refused before anything is changed.
options:
  objects:
    description: Objects to apply, in this order. A namespace comes before what is in it.
    type: list
    elements: dict
    required: true
  part_of:
    description: Value of the label C(app.kubernetes.io/part-of) of all O(objects), and name of the field manager.
    type: str
    required: true
  prune:
    description: Kinds (RESOURCE.GROUP) of which undeclared objects are removed.
    type: list
    elements: str
    default: []
  kubeconfig:
    description: Credentials of a cluster administrator.
    type: path
    default: /etc/kubernetes/admin.conf
attributes:
  check_mode:
    support: full
    description: Tells what would change. Without a cluster everything would.
  diff_mode:
    support: full
    description: Shows what C(kubectl diff) says, and what is new or removed by name.
  idempotent:
    support: full
    description: A second call changes nothing.
author: deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Bring namespaces into force
  deephdc.testbed.manifests:
    objects: "{{ lookup('ansible.builtin.template', 'namespaces.yaml.j2') | from_yaml_all }}"
    part_of: example
    prune: [rolebindings.rbac.authorization.k8s.io]
"""

RETURN = r"""
removed:
  description: Objects that were removed, as KIND NAMESPACE/NAME.
  returned: always
  type: list
  elements: str
"""

PART_LABEL = "app.kubernetes.io/part-of"
Object = dict[str, Any]


def identity(item: Object) -> tuple[str, str, str]:
    """Kind, namespace and name of an object; a cluster has one of each."""
    metadata = item["metadata"]
    return item["kind"], metadata.get("namespace", ""), metadata["name"]


def title(item: Object) -> str:
    """An object for people."""
    kind, namespace, name = identity(item)
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def document(items: Iterable[Object]) -> str:
    """A list of objects as kubectl reads it."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(items)})


def unmarked(objects: Iterable[Object], part_of: str) -> list[str]:
    """Objects without the label by which they would be found again."""
    return [title(item) for item in objects if item["metadata"].get("labels", {}).get(PART_LABEL) != part_of]


def strange(foreign: Iterable[str], part_of: str) -> str:
    """That namespaces are somebody else's."""
    return (
        f"a namespace is somebody else's (found {', '.join(foreign)} without label {PART_LABEL}={part_of}, needed a "
        f"free name). Next: choose another, or hand it over with kubectl label namespace NAME {PART_LABEL}={part_of}"
    )


class Cluster:
    """The cluster, through kubectl."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.objects: list[Object] = module.params["objects"]
        self.part_of: str = module.params["part_of"]
        self.options = ("--server-side", "--force-conflicts", f"--field-manager={self.part_of}", "--filename=-")

    def ask(self, *words: str, data: str | None = None, good: tuple[int, ...] = (0,)) -> tuple[int, str]:
        """Run kubectl and return exit status and output; ends the module on a status that is not ``good``."""
        code, out, error = kubectl(self.module, *words, data=data)
        if code not in good:
            self.module.fail_json(msg=f"kubectl {words[0]}: {error.strip() or out.strip()}")
        return code, out

    def absent(self) -> list[Object]:
        """Namespaces that are not there yet, and what is to be in them: the server can compare neither."""
        _, out = self.ask("get", "namespaces", "--output", "json")
        items = json.loads(out)["items"]
        there = {item["metadata"]["name"] for item in items}
        wanted = {item["metadata"]["name"] for item in self.objects if item["kind"] == "Namespace"}
        if foreign := unmarked([item for item in items if item["metadata"]["name"] in wanted], self.part_of):
            self.module.fail_json(msg=strange(foreign, self.part_of))
        return [item for item in self.objects if place(item) in wanted - there]

    def apply(self) -> str:
        """Apply the objects where they differ and return the difference."""
        new = self.absent()
        known = [item for item in self.objects if item not in new]
        code, difference = self.ask("diff", *self.options, data=document(known), good=(0, 1)) if known else (0, "")
        if (code or new) and not self.module.check_mode:
            self.ask("apply", *self.options, data=document(self.objects))
        return difference + "".join(f"+ {title(item)}\n" for item in new)

    def prune(self) -> list[Object]:
        """Remove objects of ours that are no longer declared and return them."""
        if not self.module.params["prune"]:
            return []
        selector = f"{PART_LABEL}={self.module.params['part_of']}"
        kinds = ",".join(self.module.params["prune"])
        _, out = self.ask("get", kinds, "--all-namespaces", "--selector", selector, "--output", "json")
        declared = {identity(item) for item in self.objects}
        doomed = [item for item in json.loads(out)["items"] if identity(item) not in declared]
        if doomed and not self.module.check_mode:
            self.ask("delete", "--filename=-", "--ignore-not-found", data=document(doomed))
        return doomed


def place(item: Object) -> str:
    """The namespace that an object is, or is in; empty for what is the whole cluster's."""
    kind, namespace, name = identity(item)
    return name if kind == "Namespace" else namespace


def deploy(cluster: Cluster) -> dict[str, Any]:
    """Do the whole work and return the module's result."""
    difference = cluster.apply() if cluster.objects else ""
    removed = [title(item) for item in cluster.prune()]
    shown = difference + "".join(f"- {name}\n" for name in removed)
    return {"changed": bool(shown), "removed": removed, "diff": {"prepared": shown}}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "objects": {"type": "list", "elements": "dict", "required": True},
            "part_of": {"type": "str", "required": True},
            "prune": {"type": "list", "elements": "str", "default": []},
            "kubeconfig": {"type": "path", "default": "/etc/kubernetes/admin.conf"},
        },
        supports_check_mode=True,
    )
    if lost := unmarked(module.params["objects"], module.params["part_of"]):
        module.fail_json(msg=f"without the label {PART_LABEL}: {', '.join(lost)}")
    if module.check_mode and not Path(module.params["kubeconfig"]).exists():
        module.exit_json(changed=True, removed=[])
    module.exit_json(**deploy(Cluster(module)))


if __name__ == "__main__":
    main()
