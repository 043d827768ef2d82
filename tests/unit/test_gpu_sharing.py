"""How pods share GPUs: what a site may ask for, and what is rendered from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.filter.gpu import SHARINGS, gpu_sharing_nodes, gpu_sharing_problems
from testbed.artifacts.declaration import declarations_dir
from testbed.paths import repo_root
from testbed.rendering import SiteVariables, role_path

ROLE = "nvidia_device_plugin"
HOSTS: dict[str, dict[str, Any]] = {
    "gpu1": {"gpu_sharing": "exclusive", "gpu_sharing_replicas": 4},
    "gpu2": {"gpu_sharing": "time_slicing", "gpu_sharing_replicas": 4},
    "gpu3": {"gpu_sharing": "mps", "gpu_sharing_replicas": 8},
    "gpu4": {"gpu_sharing": "mig", "gpu_sharing_replicas": 4, "gpu_mig_strategy": "mixed"},
    "gpu5": {"gpu_sharing": "time_slicing", "gpu_sharing_replicas": 4},
}
PROFILES = ["exclusive", "mig-mixed", "mps-8", "time-slicing-4"]


def test_hosts_with_the_same_wish_have_the_same_profile() -> None:
    nodes = gpu_sharing_nodes(list(HOSTS), HOSTS, ["gpu2"])
    assert {name: node["profile"] for name, node in nodes.items()} == {
        "gpu1": "exclusive",
        "gpu2": "time-slicing-4",
        "gpu3": "mps-8",
        "gpu4": "mig-mixed",
        "gpu5": "time-slicing-4",
    }
    assert [node["replicas"] for node in nodes.values()] == [1, 4, 8, 1, 4]
    assert [node["mig_strategy"] for node in nodes.values()] == ["none", "none", "none", "mixed", "none"]
    assert [name for name, node in nodes.items() if node["simulated"]] == ["gpu2"]
    assert gpu_sharing_problems(nodes) == []


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"gpu_sharing": "mps"}, ("node2: simulated GPUs cannot be shared by mps", "needed exclusive or time_slicing")),
        (
            {"gpu_sharing": "mig"},
            ("node2: simulated GPUs cannot be shared by mig", "take it out of group gpu_simulated"),
        ),
        ({"gpu_sharing": "time_slicing", "gpu_sharing_replicas": 1}, ("found gpu_sharing_replicas 1", "2 or more")),
        (
            {"gpu_sharing": "time_slicing", "gpu_sharing_replicas": "few"},
            ("found gpu_sharing_replicas few", "2 or more"),
        ),
        ({"gpu_sharing": "time-slicing"}, ("unknown way of sharing GPUs", "found gpu_sharing time-slicing")),
        ({"gpu_sharing": "mig", "gpu_mig_strategy": "several"}, ("unknown MIG strategy", "needed single or mixed")),
    ],
)
def test_wish_that_cannot_be_met_is_refused(wish: dict[str, Any], expected: tuple[str, ...]) -> None:
    hostvars = {"node2": {"gpu_sharing_replicas": 4, "gpu_mig_strategy": "single", **wish}}
    found = gpu_sharing_problems(gpu_sharing_nodes(["node2"], hostvars, ["node2"]))
    assert any(all(part in sentence for part in expected) for sentence in found), found
    assert all("(found " in sentence and "Next: " in sentence for sentence in found)


def test_every_variable_of_a_wish_has_a_default_for_all_sites() -> None:
    declared = yaml.safe_load((repo_root() / "inventories/common/group_vars/all.yml").read_text())
    for way in SHARINGS:
        nodes = gpu_sharing_nodes(["node2"], {"node2": {**declared, "gpu_sharing": way}}, [])
        assert gpu_sharing_problems(nodes) == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SiteVariables:
    """A site with one host for each way of sharing."""
    folder = tmp_path_factory.mktemp("site")
    groups: dict[str, Any] = {
        "kubernetes_control_plane": {"hosts": {"head": {}}},
        "registry": {"hosts": {"head": {}}},
        "kubernetes_node": {"hosts": {name: {} for name in HOSTS}},
        "gpu_real": {"hosts": {name: {} for name in HOSTS if name != "gpu2"}},
        "gpu_simulated": {"hosts": {"gpu2": {}}},
    }
    hosts = {"head": {}, **HOSTS}
    (folder / "hosts.yml").write_text(
        yaml.safe_dump(
            {"all": {"hosts": hosts, "vars": {"site_name": "t", "site_domain": "t.test"}, "children": groups}}
        )
    )
    return SiteVariables([repo_root() / "inventories" / "common", folder])


def render(site: SiteVariables, template: str, **more: Any) -> list[dict[str, Any]]:
    """The documents of a template of the role, on the control plane."""
    path = role_path(ROLE) / "templates" / template
    text = site.render_file(path, site.variables("head", ROLE, more))
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.fixture(scope="module")
def manifest(site: SiteVariables) -> dict[tuple[str, str], dict[str, Any]]:
    """Rendered objects by kind and name."""
    documents = render(site, "nvidia-device-plugin.yaml.j2")
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def test_each_profile_has_its_plugin_and_its_configuration(manifest: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert sorted(manifest["ConfigMap", "nvidia-device-plugin"]["data"]) == PROFILES
    daemonsets = {name for kind, name in manifest if kind == "DaemonSet"}
    assert daemonsets == {f"nvidia-device-plugin-{p}" for p in PROFILES} | {"nvidia-mps-control-daemon-mps-8"}
    for profile in PROFILES:
        daemonset = manifest["DaemonSet", f"nvidia-device-plugin-{profile}"]
        assert daemonset["metadata"]["labels"]["app.kubernetes.io/part-of"] == "deephdc-gpu"
        pod = daemonset["spec"]["template"]["spec"]
        assert pod["nodeSelector"] == {"deephdc.org/gpu-sharing": profile}
        assert pod["runtimeClassName"] == "nvidia"
        (config,) = [volume["configMap"] for volume in pod["volumes"] if volume["name"] == "config"]
        assert config["items"] == [{"key": profile, "path": "config.yaml"}]


def test_plugin_is_privileged_only_where_it_must_be(manifest: dict[tuple[str, str], dict[str, Any]]) -> None:
    for profile in PROFILES:
        pod = manifest["DaemonSet", f"nvidia-device-plugin-{profile}"]["spec"]["template"]["spec"]
        contexts = [container["securityContext"] for container in pod["containers"]]
        needs_it = profile.startswith(("mps", "mig"))
        assert [context.get("privileged", False) for context in contexts] == [needs_it] * 2
        if not needs_it:
            assert all(context["capabilities"] == {"drop": ["ALL"]} for context in contexts)


def test_another_configuration_makes_other_pods(site: SiteVariables) -> None:
    def annotations(replicas: int) -> set[str]:
        nodes = gpu_sharing_nodes(["gpu2"], {"gpu2": {**HOSTS["gpu2"], "gpu_sharing_replicas": replicas}}, [])
        documents = render(site, "nvidia-device-plugin.yaml.j2", nvidia_device_plugin_nodes=nodes)
        templates = [d["spec"]["template"]["metadata"] for d in documents if d["kind"] == "DaemonSet"]
        return {metadata["annotations"]["deephdc.org/configuration"] for metadata in templates}

    assert annotations(2) == annotations(2)
    assert annotations(2) != annotations(3)


def test_nodes_are_labelled_by_what_they_are(site: SiteVariables) -> None:
    (nodes,) = render(site, "nodes.yml.j2")
    assert set(nodes) == set(HOSTS)
    assert nodes["gpu2"]["labels"]["deephdc.org/gpu"] == "simulated"
    assert nodes["gpu1"]["labels"]["deephdc.org/gpu"] == "real"
    assert nodes["gpu5"] == {
        "labels": {
            "deephdc.org/gpu": "real",
            "deephdc.org/gpu-sharing": "time-slicing-4",
            "nvidia.com/gpu.present": "true",
        },
        "daemonset": "nvidia-device-plugin-time-slicing-4",
        "replicas": 4,
        "resource": "nvidia.com/gpu",
    }
    assert nodes["gpu4"]["resource"] == "", "each size of a part is a resource of its own"


def test_feature_discovery_needs_no_definition_of_ours_beside_nfd(site: SiteVariables) -> None:
    def kinds(labels: str) -> set[str]:
        documents = render(site, "nvidia-device-plugin.yaml.j2", nvidia_device_plugin_feature_labels=labels)
        return {document["kind"] for document in documents}

    assert "CustomResourceDefinition" in kinds("builtin")
    assert "CustomResourceDefinition" not in kinds("nfd")


def test_image_is_the_sites_own_only_where_the_clusters_are(site: SiteVariables) -> None:
    def images(repository: str) -> set[str]:
        documents = render(site, "nvidia-device-plugin.yaml.j2", kubernetes_image_repository=repository)
        pods = [document["spec"]["template"]["spec"] for document in documents if document["kind"] == "DaemonSet"]
        return {container["image"].rsplit(":", 1)[0] for pod in pods for container in pod["containers"]}

    assert images("registry.k8s.io") == {"nvcr.io/nvidia/k8s-device-plugin"}
    assert images("registry.t.test:5000/deephdc") == {"registry.t.test:5000/deephdc/nvidia-device-plugin"}


def test_every_program_that_is_run_is_in_our_image(manifest: dict[tuple[str, str], dict[str, Any]]) -> None:
    image = yaml.safe_load((declarations_dir() / "images.yml").read_text())["sources"]["build"]["images"][
        "nvidia-device-plugin"
    ]
    inside = {Path(path).name for layer in image["layers"] for path in layer.get("files", {})}
    pods = [document["spec"]["template"]["spec"] for (kind, _), document in manifest.items() if kind == "DaemonSet"]
    containers = [part for pod in pods for part in (*pod["containers"], *pod.get("initContainers", []))]
    assert {container["command"][0] for container in containers} == inside
