"""What the GPU checks share: devices of a node, free GPUs, library versions, and intervals that jobs report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from tests.acceptance.probes.cluster import Cluster
from tests.acceptance.probes.site import Site

RUNTIME_CLASS = "nvidia"
DEVICE = re.compile(r"^nvidia\d+$", re.M)
INTERVAL = re.compile(r"^start (?P<start>[\d.]+)$.*^end (?P<end>[\d.]+)$", re.M | re.S)
# Where the library of another driver version is put in the pod.
OTHER_DRIVER = "/driver"
# Where the simulator keeps it on the node, in a folder of the version's name.
SIMULATED_LIBRARIES = "/usr/lib/deephdc/gpu-simulator"


def devices(host: Any) -> set[str]:
    """Names of the GPU device nodes of a host."""
    return set(DEVICE.findall(host.check_output("ls /dev").replace(" ", "\n")))


def own_devices(log: str) -> set[str]:
    """Names of the GPU device nodes that a pod listed."""
    return set(DEVICE.findall(log))


def runtime_class(cluster: Cluster) -> str | None:
    """The runtime class for pods with GPUs, where the site has one; ``None`` where the default runtime serves them."""
    try:
        return str(cluster.runtime_classes.read_runtime_class(RUNTIME_CLASS).metadata.name)
    except ApiException as error:
        if error.status == 404:
            return None
        raise


def required_gpus(cluster: Cluster, hostname: str, count: int) -> None:
    """Skip the check, saying why, where the node cannot spare the GPUs it needs; fail it where it offers none."""
    offered, used = cluster.gpus(hostname), cluster.gpus_in_use(hostname)
    assert offered > 0, f"{hostname} offers no nvidia.com/gpu: its device plugin is not running or found no GPU"
    if offered < count:
        pytest.skip(f"{hostname} offers {offered} GPUs, the check needs {count}")
    if offered - sum(used.values()) < count:
        pytest.skip(f"GPUs of {hostname} are in use by {', '.join(sorted(used))}: not enough are free to look")


@dataclass(frozen=True)
class Version:
    """One of two pods with different libraries: what it runs and, where known, the version it has to print."""

    image: str
    script: str
    expected: str = ""
    mounts: Sequence[tuple[str, str]] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def versions(site: Site, hostname: str) -> dict[str, Version]:
    """The pair of the side-by-side check, by pod name.

    Real GPUs: the images of ``acceptance_cuda_images``, each telling the version of its CUDA run-time library.
    Simulated GPUs: the driver library of the node and that of another driver version, mounted.
    """
    if hostname in site.group("gpu_simulated"):
        return _simulated_versions(site, hostname)
    images = site.value(hostname, "acceptance_cuda_images") if site.has(hostname, "acceptance_cuda_images") else []
    script = "find / -xdev -name 'libcudart.so.*' 2>/dev/null | sed 's/.*libcudart.so.//' | sort | tail -n 1"
    return {f"cuda-{index}": Version(image=str(image), script=script) for index, image in enumerate(images[:2])}


def _simulated_versions(site: Site, hostname: str) -> dict[str, Version]:
    image = site.image(hostname)
    script = "nvidia-smi --query-gpu=driver_version --format=csv,noheader"
    pair = {"own": Version(image, script, str(site.value(hostname, "gpu_simulator_driver_version")))}
    for other in map(str, site.value(hostname, "gpu_simulator_extra_driver_versions")[:1]):
        mounts = [(f"{SIMULATED_LIBRARIES}/{other}", OTHER_DRIVER)]
        pair["other"] = Version(image, script, other, mounts=mounts, env={"LD_LIBRARY_PATH": OTHER_DRIVER})
    return pair


@dataclass(frozen=True)
class Intervals:
    """Intervals (start, end) in seconds of one clock."""

    spans: Sequence[tuple[float, float]]

    @classmethod
    def of(cls, logs: Iterable[str]) -> Intervals:
        """The interval that each log tells; ``AssertionError`` for a log that tells none."""
        spans = []
        for log in logs:
            match = INTERVAL.search(log)
            assert match, f"a job did not tell when it ran: {log!r}"
            spans.append((float(match["start"]), float(match["end"])))
        return cls(spans)

    @property
    def most_at_once(self) -> int:
        """How many intervals overlap at the fullest moment; touching ends do not overlap."""
        edges = sorted([(start, 1) for start, _ in self.spans] + [(end, -1) for _, end in self.spans])
        running = most = 0
        for _, step in edges:
            running += step
            most = max(most, running)
        return most
