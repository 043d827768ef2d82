"""GPUs through Kubernetes: the five checks of DEEP's guide to a GPU cluster, and what must not be possible.

The GPU node's pods are started together where they do not compete for devices, one group after the other.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.acceptance.probes.cluster import FINISHED, POLL, Cluster, pod, pod_spec, unschedulable, wait_until
from tests.acceptance.probes.gpu import Intervals, devices, own_devices, required_gpus, runtime_class, versions
from tests.acceptance.probes.site import Site

LABEL = "deephdc.org/gpu"
# What a pod can see: device nodes first, then what the driver library tells.
LOOK = "ls /dev | grep -E '^nvidia[0-9]+$' || echo no-device; nvidia-smi -L 2>/dev/null || true"
JOB_SECONDS = 1.5


@pytest.mark.group("gpu")
def test_node_says_what_its_gpus_are(site: Site, cluster: Cluster, hostname: str) -> None:
    """The node's label says whether its GPUs are real or simulated, as its group does."""
    wanted = "simulated" if hostname in site.group("gpu_simulated") else "real"
    labels = cluster.node(hostname).metadata.labels
    assert labels.get(LABEL) == wanted
    product = labels.get("nvidia.com/gpu.product", "")
    assert product, "GPU feature discovery has not labelled the node"
    assert ("imulated" in product) == (wanted == "simulated"), f"the node is {wanted} but its product is {product}"


@pytest.mark.group("gpu")
def test_every_gpu_is_offered(site: Site, cluster: Cluster, host: Any, hostname: str) -> None:
    """The node offers as many GPUs as it has, times the replicas of time slicing where that is on."""
    present = len(devices(host))
    assert present > 0, "the node has no /dev/nvidiaN"
    sharing = site.value(hostname, "gpu_sharing")
    if sharing == "mig":
        pytest.skip("MIG offers instances of its own resource names")
    factor = int(site.value(hostname, "gpu_sharing_replicas")) if sharing in ("time_slicing", "mps") else 1
    assert cluster.gpus(hostname) == present * factor, f"{present} devices, sharing {sharing}"


@pytest.mark.group("gpu")
def test_time_slicing_multiplies_gpus(site: Site, cluster: Cluster, host: Any, hostname: str) -> None:
    """With time slicing more pods than GPUs hold a GPU at the same time."""
    if (sharing := site.value(hostname, "gpu_sharing")) != "time_slicing":
        pytest.skip(f"gpu_sharing is {sharing} on {hostname}")
    present = len(devices(host))
    assert cluster.gpus(hostname) > present, (
        f"time slicing is on, yet {present} GPUs are offered {cluster.gpus(hostname)} times"
    )
    required_gpus(cluster, hostname, present + 1)
    namespace = cluster.namespace(f"slicing-{hostname}")
    names = [f"slice-{index}" for index in range(present + 1)]
    cluster.create(namespace, *(_gpu_pod(site, cluster, hostname, name, f"{LOOK}; sleep 60", 1) for name in names))
    cluster.wait_for_pods(namespace, names, lambda one: one.status.phase == "Running", 60, "running together")
    cluster.delete_pods(namespace, names)


@pytest.mark.group("gpu")
def test_one_gpu_gives_one_device(site: Site, cluster: Cluster, hostname: str) -> None:
    """A pod that asks for one GPU sees exactly one device."""
    required_gpus(cluster, hostname, 1)
    namespace = cluster.namespace(f"one-{hostname}")
    cluster.create(namespace, _gpu_pod(site, cluster, hostname, "one", LOOK, 1))
    log = cluster.finished_logs(namespace, ["one"])["one"]
    assert len(own_devices(log)) == 1, f"the pod saw: {log.strip()}"
    assert len(re.findall(r"^GPU \d+:", log, re.M)) == 1, f"the driver library shows: {log.strip()}"


@pytest.mark.group("gpu")
def test_no_gpu_asked_no_device(site: Site, cluster: Cluster, hostname: str) -> None:
    """A pod that asks for no GPU sees none, whatever its environment or runtime class says."""
    namespace = cluster.namespace(f"none-{hostname}")
    node = cluster.node(hostname).metadata.labels["kubernetes.io/hostname"]
    image, chosen = site_image(site, cluster), runtime_class(cluster)
    pods = {
        "plain": pod("plain", image, LOOK, node=node),
        "environment": pod("environment", image, LOOK, node=node, env={"NVIDIA_VISIBLE_DEVICES": "all"}),
    }
    if chosen:
        pods["runtime"] = pod("runtime", image, LOOK, node=node, runtime_class=chosen)
        pods["both"] = pod("both", image, LOOK, node=node, runtime_class=chosen, env={"NVIDIA_VISIBLE_DEVICES": "all"})
        # The device plugin tells NVIDIA's runtime by mounts below this path which devices a container shall have.
        pods["mount"] = pod("mount", image, LOOK, node=node, runtime_class=chosen)
        mount = {"name": "scratch", "mountPath": "/var/run/nvidia-container-devices/all"}
        pods["mount"]["spec"]["containers"][0]["volumeMounts"].append(mount)
    cluster.create(namespace, *pods.values())
    logs = cluster.finished_logs(namespace, pods)
    seen = {name: own_devices(log) for name, log in logs.items() if "no-device" not in log}
    assert not seen, f"devices without a request: {seen}"


@pytest.mark.group("gpu")
def test_two_runtimes_side_by_side(site: Site, cluster: Cluster, hostname: str) -> None:
    """Two pods with different versions of the CUDA libraries run at the same time on one node."""
    required_gpus(cluster, hostname, 2)
    pair = versions(site, hostname)
    if len(pair) < 2:
        pytest.skip(
            f"{hostname} has no second version: set acceptance_cuda_images, or gpu_simulator_extra_driver_versions"
        )
    namespace = cluster.namespace(f"versions-{hostname}", level="privileged")
    pods = {
        name: _gpu_pod(
            site, cluster, hostname, name, f"{one.script}; sleep 60", 1, image=one.image, mounts=one.mounts, env=one.env
        )
        for name, one in pair.items()
    }
    cluster.create(namespace, *pods.values())
    cluster.wait_for_pods(namespace, pods, lambda one: one.status.phase == "Running", 120, "running together")
    wait_until(
        lambda: all(cluster.log(namespace, name).strip() for name in pods), 20, "both pods have told their version"
    )
    running = cluster.pods(namespace)
    assert {running[name].status.phase for name in pods} == {"Running"}, "one ended before the other had started"
    told = {name: cluster.log(namespace, name).strip() for name in pods}
    cluster.delete_pods(namespace, pods)
    assert told == {name: one.expected or told[name] for name, one in pair.items()}
    assert len(set(told.values())) == len(pair), f"the versions are the same: {told}"


@pytest.mark.group("gpu")
def test_one_pod_on_all_gpus(site: Site, cluster: Cluster, host: Any, hostname: str) -> None:
    """One pod gets all GPUs of the node."""
    present = devices(host)
    if cluster.gpus(hostname) != len(present):
        pytest.skip(f"GPUs of {hostname} are shared: a pod may not ask for more than one share")
    required_gpus(cluster, hostname, len(present))
    namespace = cluster.namespace(f"all-{hostname}")
    cluster.create(namespace, _gpu_pod(site, cluster, hostname, "all", LOOK, len(present)))
    log = cluster.finished_logs(namespace, ["all"])["all"]
    assert own_devices(log) == present
    assert len(set(re.findall(r"UUID: (\S+)\)", log))) == len(present), f"the driver library shows: {log.strip()}"


@pytest.mark.group("gpu")
def test_too_many_gpus_stay_pending(site: Site, cluster: Cluster, hostname: str) -> None:
    """A pod that asks for one GPU more than the node has stays pending and says why."""
    namespace = cluster.namespace(f"many-{hostname}")
    cluster.create(namespace, _gpu_pod(site, cluster, hostname, "many", LOOK, cluster.gpus(hostname) + 1))
    pods = cluster.wait_for_pods(
        namespace,
        ["many"],
        lambda one: bool(unschedulable(one)) or one.status.phase != "Pending",
        30,
        "refused by the scheduler",
    )
    assert pods["many"].status.phase == "Pending"
    assert "Insufficient nvidia.com/gpu" in unschedulable(pods["many"])


@pytest.mark.group("gpu")
def test_jobs_queue_for_gpus(site: Site, cluster: Cluster, hostname: str) -> None:
    """Twice as many jobs as GPUs and one more: they queue, never more run than there are GPUs, all finish."""
    gpus = cluster.gpus(hostname)
    required_gpus(cluster, hostname, gpus)
    namespace = cluster.namespace(f"queue-{hostname}")
    jobs = [f"job-{index}" for index in range(2 * gpus + 1)]
    cluster.create(namespace, *(_job(site, cluster, hostname, name) for name in jobs))
    most, waited = 0, False

    def all_ended() -> bool:
        nonlocal most, waited
        pods = list(cluster.pods(namespace).values())
        holding = [one for one in pods if one.spec.node_name and one.status.phase not in FINISHED]
        most = max(most, len(holding))
        waited = waited or (len(holding) == gpus and any(unschedulable(one) for one in pods))
        return len(pods) == len(jobs) and all(one.status.phase in FINISHED for one in pods)

    wait_until(all_ended, 60 + 4 * JOB_SECONDS * len(jobs) / gpus, "all jobs have ended")
    pods = cluster.pods(namespace)
    logs = {name: cluster.log(namespace, name) for name in pods}
    failed = [cluster.describe(namespace, name) for name, one in pods.items() if one.status.phase != "Succeeded"]
    assert not failed, "; ".join(failed)
    assert most <= gpus, f"{most} pods held one of {gpus} GPUs"
    assert waited, f"no job was seen waiting while {gpus} GPUs were busy (looked every {POLL} s)"
    ran = Intervals.of(logs.values())
    assert ran.most_at_once <= gpus, f"by the jobs' own clock {ran.most_at_once} ran at once on {gpus} GPUs"
    assert all(len(own_devices(log)) == 1 for log in logs.values()), f"not one device each: {logs}"


@pytest.mark.group("gpu")
def test_cuda_job(site: Site, cluster: Cluster, hostname: str) -> None:
    """A CUDA program computes on the GPU."""
    kind = cluster.node(hostname).metadata.labels.get(LABEL)
    if kind != "real":
        pytest.skip(f"the GPUs of {hostname} are {kind}: nothing can be computed on them")
    if not site.has(hostname, "acceptance_cuda_sample_image"):
        pytest.skip("the inventory names no image with the vectorAdd sample in acceptance_cuda_sample_image")
    required_gpus(cluster, hostname, 1)
    namespace = cluster.namespace(f"cuda-{hostname}")
    sample = _gpu_pod(
        site, cluster, hostname, "vector-add", "", 1, image=str(site.value(hostname, "acceptance_cuda_sample_image"))
    )
    del sample["spec"]["containers"][0]["command"]
    cluster.create(namespace, sample)
    assert "Test PASSED" in cluster.finished_logs(namespace, ["vector-add"], seconds=300)["vector-add"]


def site_image(site: Site, cluster: Cluster) -> str:
    """The image with a shell that pods of the checks run."""
    return str(site.image(cluster.control_plane))


def _gpu_pod(
    site: Site, cluster: Cluster, hostname: str, name: str, script: str, gpus: int, *, image: str = "", **more: Any
) -> dict[str, Any]:
    node = cluster.node(hostname).metadata.labels["kubernetes.io/hostname"]
    return pod(
        name,
        image or site_image(site, cluster),
        script,
        node=node,
        gpus=gpus,
        runtime_class=runtime_class(cluster),
        **more,
    )


def _job(site: Site, cluster: Cluster, hostname: str, name: str) -> dict[str, Any]:
    node = cluster.node(hostname).metadata.labels["kubernetes.io/hostname"]
    # All processes of a node read the same uptime: the intervals can be compared to a hundredth of a second.
    script = (
        f"echo start $(cut -d' ' -f1 /proc/uptime); {LOOK}; sleep {JOB_SECONDS}; echo end $(cut -d' ' -f1 /proc/uptime)"
    )
    # It names no runtime class: whoever asks for a GPU is to see it.
    spec = pod_spec(site_image(site, cluster), script, node=node, gpus=1)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": {"job": name}}, "spec": spec}},
    }
