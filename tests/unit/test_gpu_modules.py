"""Modules that offer GPUs to containerd and to a cluster, against a cluster and programs made of data."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from plugins.modules import gpu_nodes, nvidia_containerd

GPU = "nvidia.com/gpu"
FEATURES = {
    "nvidia.com/gpu.count": "2",
    "nvidia.com/gpu.replicas": "1",
    "nvidia.com/gpu.product": "NVIDIA-Simulated-T4",
}
ASKED = {
    "node2": {
        "labels": {"deephdc.org/gpu": "simulated", "nvidia.com/gpu.present": "true"},
        "daemonset": "plugin",
        "replicas": 1,
        "resource": "nvidia.com/gpu",
    }
}


class StoppedError(Exception):
    """The module ended itself."""


def node(name: str, labels: dict[str, str], owned: list[str], gpus: int = 2) -> dict[str, Any]:
    """A Node object of which our field manager owns some labels."""
    fields: dict[str, Any] = {"f:metadata": {"f:labels": {".": {}, **{f"f:{label}": {} for label in owned}}}}
    return {
        "metadata": {
            "name": name,
            "labels": labels,
            "managedFields": [{"manager": "kubelet"}, {"manager": gpu_nodes.MANAGER, "fieldsV1": fields}],
        },
        "status": {"allocatable": {"cpu": "2", "nvidia.com/gpu": str(gpus)}},
    }


class FakeModule:
    """Stands for AnsibleModule; kubectl is answered from ``cluster``, a dictionary of API paths."""

    def __init__(self, params: dict[str, Any], cluster: dict[str, Any], check: bool = False) -> None:
        self.params = params
        self.cluster = cluster
        self.check_mode = check
        self.difference = (1, "-old\n+new\n", "")
        self.written: list[tuple[str, str]] = []

    def fail_json(self, msg: str, **_: Any) -> None:
        """End with a message."""
        raise StoppedError(msg)

    def get_bin_path(self, name: str, **_: Any) -> str:
        """Any program is where it should be."""
        return f"/bin/{name}"

    def run_command(self, argv: list[str], data: str | None = None) -> tuple[int, str, str]:
        """Answer for kubectl."""
        words = argv[5:]
        if words[0] == "get":
            kinds = [KINDS[word] for word in words[1].split(",")]
            if not set(kinds) <= set(self.cluster):
                return 1, "", 'error: the server doesn\'t have a resource type "nodefeatures"'
            items = [{"kind": kind, **item} for kind in kinds for item in self.cluster[kind]]
            return 0, json.dumps({"items": items}), ""
        if words[0] == "diff":
            return self.difference
        self.written.append((words[0], data or " ".join(words)))
        return 0, "", ""


KINDS = {"nodes": "Node", "daemonsets.apps": "DaemonSet", gpu_nodes.FEATURE_KIND: "NodeFeature"}


def daemonset(name: str = "plugin", observed: int = 3, ready: int = 1) -> dict[str, Any]:
    """A DaemonSet of ours, of generation 3 on one node."""
    status = {"observedGeneration": observed, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1}
    labels = dict([gpu_nodes.PART_LABEL])
    return {"metadata": {"name": name, "generation": 3, "labels": labels}, "status": {**status, "numberReady": ready}}


def features(labels: dict[str, str], name: str = "node2") -> dict[str, Any]:
    """A NodeFeature object."""
    return {"metadata": {"name": f"of-{name}", "labels": {gpu_nodes.NODE_NAME_LABEL: name}}, "spec": {"labels": labels}}


def settled() -> dict[str, Any]:
    """A cluster in which everything is as it should be."""
    labels = {**FEATURES, **ASKED["node2"]["labels"]}  # type: ignore[dict-item]
    return {
        "Node": [node("node1", {}, []), node("node2", labels, list(labels))],
        "DaemonSet": [daemonset(), {"metadata": {"name": "kube-proxy"}}],
        "NodeFeature": [features(FEATURES)],
    }


def cluster(content: dict[str, Any], *, check: bool = False, **params: Any) -> gpu_nodes.Cluster:
    """The module's view of ``content``."""
    usual = {
        "manifest": "kind: List", "nodes": ASKED, "daemonsets": ["plugin"], "namespace": "kube-system",
        "feature_labels": True, "kubeconfig": "/admin.conf", "timeout": 0, "interval": 0.0,
    }  # fmt: skip
    return gpu_nodes.Cluster(FakeModule({**usual, **params}, content, check))


def test_nothing_is_done_where_all_is_well() -> None:
    settled_cluster = cluster(settled())
    settled_cluster.module.difference = (0, "", "")
    result = gpu_nodes.deploy(settled_cluster)
    assert not result["changed"]
    assert settled_cluster.module.written == []
    assert result["allocatable"] == {"node2": {"nvidia.com/gpu": 2}}


def test_difference_is_applied_and_shown() -> None:
    changed = cluster(settled())
    result = gpu_nodes.deploy(changed)
    assert result["changed"]
    assert changed.module.written == [("apply", "kind: List")]
    assert result["diff"] == {"prepared": "-old\n+new\n"}


def test_check_mode_writes_nothing_and_does_not_wait() -> None:
    content = settled()
    content["DaemonSet"].append(daemonset("old"))
    content["Node"][1] = node("node2", {}, [], gpus=0)
    checked = cluster(content, check=True)
    result = gpu_nodes.deploy(checked)
    assert result["changed"]
    assert checked.module.written == []


def test_daemonset_of_another_way_of_sharing_is_removed() -> None:
    content = settled()
    content["DaemonSet"].append(daemonset("old"))
    left = cluster(content)
    left.module.difference = (0, "", "")
    assert gpu_nodes.deploy(left)["changed"]
    assert left.module.written == [("delete", "delete daemonset --namespace kube-system old")]


def test_labels_of_a_node_that_left_are_taken_away() -> None:
    content = settled()
    content["Node"][0] = node("node1", {"deephdc.org/gpu": "real", "a": "b"}, ["deephdc.org/gpu"])
    left = cluster(content)
    left.module.difference = (0, "", "")
    result = gpu_nodes.deploy(left)
    assert result["labels"] == {"node1": {}}
    command, document = left.module.written[0]
    assert command == "apply"
    assert json.loads(document)["items"] == [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1", "labels": {}}}
    ]


def test_foreign_labels_are_not_taken_over() -> None:
    content = settled()
    content["NodeFeature"] = [features({**FEATURES, "node-role.kubernetes.io/control-plane": ""})]
    assert gpu_nodes.deploy(cluster(content))["labels"] == {}


def test_node_that_is_not_there_is_named() -> None:
    result = gpu_nodes.deploy(cluster(settled(), nodes={**ASKED, "node9": ASKED["node2"]}))
    assert result["missing"] == ["node9"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"DaemonSet": []}, "a DaemonSet is missing"),
        ({"DaemonSet": [daemonset(observed=2)]}, "plugin has not been looked at yet"),
        ({"DaemonSet": [daemonset(ready=0)]}, "0 of 1 pods of plugin"),
        ({"NodeFeature": []}, "node2 has no features yet"),
        ({"Node": [node("node2", {}, [], gpus=1)]}, "node2 offers 1 nvidia.com/gpu, not 2"),
        (
            {"NodeFeature": [features({**FEATURES, "nvidia.com/gpu.replicas": "4"})]},
            "node2 was last seen with 4 replicas, not 1",
        ),
    ],
)
def test_what_is_missing_at_the_timeout_is_said(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(StoppedError, match=complaint):
        gpu_nodes.deploy(cluster({**settled(), **change}))


def test_cluster_that_does_not_know_features_yet_is_read() -> None:
    content = settled()
    del content["NodeFeature"]
    view = cluster(content).look()
    assert view.features == {}
    assert sorted(view.nodes) == ["node1", "node2"]
    assert sorted(view.daemonsets) == ["plugin"], "those of others are none of ours"


def test_unreadable_cluster_is_an_error() -> None:
    broken = cluster(settled())
    broken.module.run_command = lambda *_, **__: (1, "", "connection refused")
    with pytest.raises(StoppedError, match="connection refused"):
        gpu_nodes.deploy(broken)


@pytest.mark.parametrize(
    ("offered", "seen", "wanted", "complaint"),
    [
        ({GPU: 8}, {f"{GPU}.count": "2", f"{GPU}.replicas": "4"}, (4, GPU), ""),
        ({GPU: 2}, {f"{GPU}.count": "2", f"{GPU}.replicas": "4"}, (4, GPU), "not 8"),
        ({GPU: 7}, {f"{GPU}.count": "7", f"{GPU}.replicas": "0"}, (1, GPU), ""),
        ({"nvidia.com/mig-1g.5gb": 7}, {}, (1, ""), ""),
        ({}, {}, (1, ""), "offers nothing"),
        ({GPU: 3}, {}, (4, GPU), "offers 3"),
        ({GPU: 8}, {}, (4, GPU), ""),
    ],
)  # fmt: skip
def test_offer_has_to_fit_the_features(
    offered: dict[str, int], seen: dict[str, str], wanted: tuple[int, str], complaint: str
) -> None:
    fault = gpu_nodes.offer_fault("n", offered, seen, {"replicas": wanted[0], "resource": wanted[1]})
    assert (complaint in fault) if complaint else (fault == "")


DUMP = """version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes]
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia.options]
    SystemdCgroup = false
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
    BinaryName = ""
    SystemdCgroup = true
"""


@pytest.mark.parametrize(
    ("dump", "version", "plugin", "systemd"),
    [
        (DUMP, 3, "io.containerd.cri.v1.runtime", True),
        (DUMP.replace("= true", "= false"), 3, "io.containerd.cri.v1.runtime", False),
        (DUMP.replace("cri.v1.runtime", "grpc.v1.cri").replace("= 3", "= 2"), 2, "io.containerd.grpc.v1.cri", True),
        ("", 2, "io.containerd.grpc.v1.cri", False),
    ],
)
def test_seed_has_the_cgroup_driver_of_runc_and_nothing_else(
    dump: str, version: int, plugin: str, systemd: bool
) -> None:
    seed = tomllib.loads(nvidia_containerd.seed(dump))
    assert seed == {
        "version": version,
        "plugins": {
            plugin: {
                "containerd": {
                    "runtimes": {
                        "runc": {"runtime_type": "io.containerd.runc.v2", "options": {"SystemdCgroup": systemd}}
                    }
                }
            }
        },
    }


def test_the_drop_in_does_not_speak_for_itself(tmp_path: Path) -> None:
    drop_ins, work = tmp_path / "etc" / "conf.d", tmp_path / "work"
    drop_ins.mkdir(parents=True)
    work.mkdir()
    config = tmp_path / "etc" / "config.toml"
    config.write_text(f'imports = ["{drop_ins}/*.toml"]\n')
    (drop_ins / "10-site.toml").write_text("# site\n")
    (drop_ins / "99-nvidia.toml").write_text("# ours\n")
    copy = nvidia_containerd.copy_configuration(config, drop_ins / "99-nvidia.toml", work)
    assert [path.name for path in (work / "conf.d").iterdir()] == ["10-site.toml"]
    assert tomllib.loads(copy.read_text())["imports"] == [f"{work}/conf.d/*.toml"]


def test_default_runtime_is_asked_for_only_when_wanted(tmp_path: Path) -> None:
    params = {"program": "/usr/bin/nvidia-ctk", "set_as_default": False}
    assert "--nvidia-set-as-default" not in nvidia_containerd.arguments(params, tmp_path)
    assert nvidia_containerd.arguments({**params, "set_as_default": True}, tmp_path)[-1] == "--nvidia-set-as-default"
