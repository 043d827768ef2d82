"""What the site publishes is what the cluster says, also while a job comes and goes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from kubernetes.utils.quantity import parse_quantity

from plugins.filter.access import organisations
from tests.acceptance.probes.cluster import FINISHED, GPU, Cluster, gpus_asked, pod, wait_until
from tests.acceptance.probes.gpu import required_gpus, runtime_class
from tests.acceptance.probes.site import Site

UNIT = "deephdc-cloud-info.service"
USER = "deephdc-cloud-info"


@pytest.fixture
def folder(site: Site, hostname: str) -> str:
    """Where the provider publishes."""
    return str(site.value(hostname, "cloud_info_provider_folder"))


@pytest.fixture
def file(site: Site, hostname: str, folder: str) -> str:
    """What it publishes."""
    return f"{folder}/{site.value(hostname, 'cloud_info_provider_site')}.json"


def published(host: Any, file: str) -> dict[str, Any]:
    """What the site publishes when it is told to now."""
    done = host.run(f"systemctl start {UNIT}")
    assert done.rc == 0, host.run(f"journalctl --unit {UNIT} --lines 5 --no-pager --output cat").stdout
    return dict(json.loads(host.file(file).content_string))


def totals(document: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the whole site."""
    return dict(document["CloudComputingManager"][0]["OtherInfo"])


def takes_pods(node: Any) -> bool:
    """Whether pods without tolerations are put on a node."""
    ready = any(one.type == "Ready" and one.status == "True" for one in node.status.conditions)
    hard = [taint for taint in node.spec.taints or [] if taint.effect != "PreferNoSchedule"]
    return ready and not node.spec.unschedulable and not hard


def free_gpus(cluster: Cluster) -> int:
    """GPUs that are free by the cluster's own objects."""
    names = {node.metadata.name for node in cluster.nodes() if takes_pods(node)}
    offered = sum(int(node.status.allocatable.get(GPU, 0)) for node in cluster.nodes() if node.metadata.name in names)
    pods = cluster.core.list_pod_for_all_namespaces().items
    return offered - sum(
        gpus_asked(one) for one in pods if one.spec.node_name in names and one.status.phase not in FINISHED
    )


@pytest.mark.group("cloud_info_provider")
def test_what_is_published_is_new(host: Any, file: str) -> None:
    """The publication is replaced by the timer before it is stale."""
    document = json.loads(host.file(file).content_string)
    (service,) = document["CloudComputingService"]
    age = (datetime.now(UTC) - datetime.fromisoformat(service["CreationTime"])).total_seconds()
    assert -60 < age < service["Validity"], f"made {age:.0f} s ago"
    assert host.run("systemctl is-active deephdc-cloud-info.timer").stdout.strip() == "active"


@pytest.mark.group("cloud_info_provider")
def test_the_numbers_are_the_cluster_s(cluster: Cluster, host: Any, file: str) -> None:
    """Machines, GPUs, CPUs and memory are those of the nodes."""
    document = published(host, file)
    nodes, said = cluster.nodes(), totals(document)
    assert said["gpus_free"] == free_gpus(cluster)
    assert said["gpus_total"] == sum(int(node.status.capacity.get(GPU, 0)) for node in nodes)
    assert said["machines"] == len(nodes)
    assert said["machines_usable"] == sum(takes_pods(node) for node in nodes)
    cpus: Any = [parse_quantity(node.status.capacity["cpu"]) for node in nodes]  # type: ignore[no-untyped-call]
    assert Decimal(str(said["cpus_total"])) == sum(cpus)
    for one in document["CloudComputingVirtualAccelerator"]:
        models = [node for node in nodes if node.metadata.labels.get("nvidia.com/gpu.product") == one["Model"]]
        assert one["Number"] == sum(int(node.status.capacity.get(GPU, 0)) for node in models)
        assert one["OtherInfo"]["simulated"] == all(
            node.metadata.labels.get("deephdc.org/gpu") == "simulated" for node in models
        )
        assert one["OtherInfo"]["driver"]


@pytest.mark.group("cloud_info_provider")
def test_a_job_takes_a_gpu_and_gives_it_back(cluster: Cluster, host: Any, file: str, acceptance_image: str) -> None:
    """While a pod holds a GPU one less is free, and afterwards as many as before."""
    hostname = next((one for one in cluster.site.group("gpu") if cluster.gpus(one)), None)
    if hostname is None:
        pytest.skip("no host of the site offers a GPU")
    required_gpus(cluster, hostname, 1)
    before = totals(published(host, file))["gpus_free"]
    namespace = cluster.namespace("cloud-info")
    node = cluster.node(hostname).metadata.labels["kubernetes.io/hostname"]
    one = pod("one", acceptance_image, "sleep 120", gpus=1, node=node, runtime_class=runtime_class(cluster))
    cluster.create(namespace, one)
    cluster.wait_for_pods(namespace, ["one"], lambda it: it.status.phase == "Running", 60, "running")
    assert totals(published(host, file))["gpus_free"] == before - 1
    cluster.delete_pods(namespace, ["one"])
    assert totals(published(host, file))["gpus_free"] == before


@pytest.mark.group("cloud_info_provider")
def test_each_organisation_has_its_share(site: Site, cluster: Cluster, host: Any, file: str) -> None:
    """What is said of each organisation's quota is what its namespace has."""
    declared = organisations(site.value(cluster.control_plane, "site_organisations"))
    if not declared:
        pytest.skip("the site declares no organisations (site_organisations)")
    shares = {one["OtherInfo"]["organisation"]: one["OtherInfo"]["quota"] for one in published(host, file)["Share"]}
    for one in declared:
        (quota,) = cluster.core.list_namespaced_resource_quota(one["name"]).items
        assert shares[one["name"]]["hard"] == (quota.status.hard or {})
        assert shares[one["name"]]["used"] == (quota.status.used or {})


@pytest.mark.group("cloud_info_provider")
def test_images_are_the_registry_s(site: Site, hostname: str, host: Any, file: str) -> None:
    """The image that the checks run is among those published, with its digest."""
    if not site.value(hostname, "cloud_info_provider_registry"):
        pytest.skip("the site publishes no registry (cloud_info_provider_registry)")
    images = {one["Name"]: one["OtherInfo"]["digest"] for one in published(host, file)["CloudComputingImage"]}
    image = str(site.image(hostname))
    assert image in images
    assert images[image].startswith("sha256:")


@pytest.mark.group("cloud_info_provider")
def test_the_account_may_only_list(site: Site, hostname: str, cluster: Cluster, host: Any) -> None:
    """Its account lists nodes, pods and quotas, and reads no secret."""
    namespace = site.value(hostname, "cloud_info_provider_namespace")
    kubectl = f"kubectl --kubeconfig {site.value(hostname, 'cloud_info_provider_kubeconfig')} auth can-i"
    account = f"--as system:serviceaccount:{namespace}:{USER} --all-namespaces"
    asked = {
        ("list", "nodes"): "yes", ("list", "pods"): "yes", ("list", "resourcequotas"): "yes", ("list", "secrets"): "no",
        ("get", "secrets"): "no", ("create", "pods"): "no", ("delete", "nodes"): "no", ("get", "pods/log"): "no",
    }  # fmt: skip
    for (verb, what), answer in asked.items():
        said = host.run(f"{kubectl} {verb} {what} {account} 2>/dev/null").stdout.strip()
        assert said.partition(" ")[0] == answer, f"{verb} {what}: {said}"


@pytest.mark.group("cloud_info_provider")
def test_nobody_else_writes_or_learns_a_secret(host: Any, folder: str, file: str) -> None:
    """The publication is its user's to write; configuration and token are nobody else's to read."""
    assert (host.file(file).user, host.file(file).mode) == (USER, 0o644)
    assert (host.file(folder).user, host.file(folder).mode) == (USER, 0o755)
    password = host.file("/etc/deephdc/cloud-info/registry-password")
    if password.exists:
        assert (password.user, password.group, password.mode) == ("root", USER, 0o640)
    wait_until(lambda: host.run(f"systemctl is-active {UNIT}").stdout.strip() == "inactive", 30, "no run is going on")
    assert not host.file("/run/deephdc-cloud-info").exists, "a token is left behind"
