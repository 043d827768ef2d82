"""What pods take, what nodes have left and what quotas leave, case by case."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from deep_cloud_info.kubernetes import machine, merged, resources
from deep_cloud_info.pods import requests
from deep_cloud_info.quantities import parse
from deep_cloud_info.resources import Gpus, Machine, rooms

GPU = "nvidia.com/gpu"
MIB = 1024**2


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", "0"), ("2", "2"), ("1.5", "1.5"), (".5", ".5"), ("5.", "5"), ("+1", "1"), ("-1", "-1"),
        ("250m", "0.25"), ("100n", "1e-7"),
        ("7u", "7e-6"), ("1k", "1000"), ("3M", "3e6"), ("1Ki", "1024"), ("1.5Gi", "1610612736"), ("2E", "2e18"),
        ("1Ei", "1152921504606846976"), ("12e6", "12e6"), ("12E2", "1200"), ("1e-3", "0.001"),
    ],
)  # fmt: skip
def test_quantities_are_exact(text: str, number: str) -> None:
    assert parse(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "1 Gi", "Gi", "1K", "1mi", "1Gi ", "0x1", "1e", "1.2.3", "nan", "1e3k"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse(text)


def container(gpus: int = 0, cpu: str = "0", name: str = "one", **more: Any) -> dict[str, Any]:
    return {"name": name, "resources": {"requests": {"cpu": cpu, **({GPU: str(gpus)} if gpus else {})}}, **more}


def pod(*containers: Any, init: Any = (), status: Any = None, **spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": list(containers), "initContainers": list(init), **spec}, "status": status or {}}


ALWAYS = {"restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("one", "gpus", "cpus"),
    [
        (pod(container()), 0, "0"),
        (pod({"name": "one"}), 0, "0"),
        (pod(container(1, "1"), container(2, "500m")), 3, "1.5"),
        # Those that run before do not run together with the others.
        (pod(container(1, "1"), init=[container(2, "250m"), container(1, "3")]), 2, "3"),
        (pod(container(2, "1"), init=[container(1, "250m")]), 2, "1"),
        # Sidecars do, and so with what is started after them only.
        (pod(container(1, "1"), init=[container(1, "1", **ALWAYS)]), 2, "2"),
        (pod(container(1, "1"), init=[container(1, "1", **ALWAYS), container(3, "1")]), 4, "2"),
        (pod(container(1, "1"), init=[container(3, "1"), container(1, "1", **ALWAYS)]), 3, "2"),
        # What runs them costs something, and what the pod says as a whole comes first.
        (pod(container(1, "1"), overhead={"cpu": "100m"}), 1, "1.1"),
        (pod(container(1, "1"), resources={"requests": {"cpu": "2"}}), 1, "2"),
        (pod(container(1, "1"), resources={"requests": {"cpu": "2"}}, overhead={"cpu": "100m"}), 1, "2.1"),
        # Extended resources are often given as limits; the server copies them.
        (pod({"name": "one", "resources": {"limits": {GPU: "2", "cpu": "1"}}}), 2, "1"),
    ],
)
def test_a_pod_takes_what_the_scheduler_counts(one: dict[str, Any], gpus: int, cpus: str) -> None:
    asked = requests(one)
    assert (asked.get(GPU, 0), asked.get("cpu", 0)) == (gpus, Decimal(cpus))


@pytest.mark.parametrize(
    ("status", "cpus"),
    [
        ({"resources": {"requests": {"cpu": "3"}}}, "3"),
        ({"allocatedResources": {"cpu": "2"}}, "2"),
        ({"allocatedResources": {"cpu": "500m"}}, "1"),
    ],
)
def test_a_container_that_is_resized_counts_with_the_larger(status: dict[str, Any], cpus: str) -> None:
    found = requests(pod(container(0, "1"), status={"containerStatuses": [{"name": "one", **status}]}))
    assert found["cpu"] == Decimal(cpus)


def test_a_resize_that_can_never_be_counts_for_nothing() -> None:
    refused = {"type": "PodResizePending", "reason": "Infeasible", "status": "True"}
    held = {"name": "one", "allocatedResources": {"cpu": "1"}}
    status = {"conditions": [refused], "containerStatuses": [held]}
    assert requests(pod(container(0, "64"), status=status))["cpu"] == 1


def node(*, ready: str = "True", allocatable: Any = None, labels: Any = None, **spec: Any) -> dict[str, Any]:
    capacity = {"cpu": "4", "memory": "8Gi", GPU: "2", "pods": "10"}
    conditions = [{"type": "Ready", "status": ready}]
    status = {"capacity": capacity, "allocatable": allocatable or capacity, "conditions": conditions}
    return {"metadata": {"name": "n", "labels": labels or {}}, "spec": spec, "status": status}


def taint(effect: str, key: str = "k") -> list[dict[str, str]]:
    return [{"key": key, "effect": effect}]


@pytest.mark.parametrize(
    ("one", "free"),
    [
        (node(), 2),
        (node(ready="False"), 0),
        (node(ready="Unknown"), 0),
        (node(unschedulable=True), 0),
        (node(taints=taint("NoSchedule")), 0),
        (node(taints=taint("NoExecute")), 0),
        (node(taints=taint("PreferNoSchedule")), 2),
        (node(taints=taint("NoSchedule", GPU)), 2),
        (node(allocatable={GPU: "1", "pods": "10"}), 1),
        (node(allocatable={GPU: "2", "pods": "0"}), 0),
        (node(allocatable={"pods": "10"}), 0),
    ],
)
def test_only_nodes_that_take_pods_have_free_gpus(one: dict[str, Any], free: int) -> None:
    found = machine(one, [], frozenset({GPU}))
    assert (found.gpus_free, found.gpus) == (free, 2)


def test_a_node_that_is_overfull_has_nothing_free() -> None:
    found = machine(node(allocatable={"cpu": "1", GPU: "1", "pods": "10"}), [pod(container(2, "3"))])
    assert (found.gpus_free, float(found.cpus_free)) == (0, 0.0)


def test_a_node_full_of_pods_has_no_room() -> None:
    found = machine(node(), [pod(container())] * 10)
    assert (found.usable, found.gpus_free) == (False, 0)


def test_pods_that_have_ended_or_wait_hold_nothing() -> None:
    running, ended = pod(container(1), nodeName="n"), pod(container(1), nodeName="n", status={"phase": "Succeeded"})
    found = resources(
        [node()], [running, ended, pod(container(1)), pod(container(5), nodeName="gone")], [], frozenset(), "v1"
    )
    assert (found.machines[0].gpus_free, found.gpus_waiting) == (1, 1)


def test_what_discovery_says_of_a_gpu() -> None:
    labels = {
        "nvidia.com/gpu.product": "Tesla-T4", "nvidia.com/gpu.memory": "15360", "nvidia.com/gpu.compute.major": "7",
        "nvidia.com/gpu.compute.minor": "5", "nvidia.com/cuda.driver-version.full": "580.65.06",
        "nvidia.com/cuda.runtime.major": "13", "nvidia.com/cuda.runtime.minor": "0", "deephdc.org/gpu": "simulated",
        "deephdc.org/gpu-sharing": "exclusive", "feature.node.kubernetes.io/pci-0207_15b3.present": "true",
    }  # fmt: skip
    found = machine(node(labels=labels), [])
    assert found.kind == Gpus("Tesla-T4", True, "580.65.06", "13.0", 15360, "7.5", "exclusive")
    assert found.infiniband
    assert not machine(node(labels={"feature.node.kubernetes.io/pci-0300_10de.present": "true"}), []).infiniband


def quota(hard: Any, used: Any = None, **spec: Any) -> dict[str, Any]:
    status = {"hard": hard, "used": used} if used is not None else {}
    return {"spec": {"hard": hard, **spec}, "status": status}


ASKED = f"requests.{GPU}"


@pytest.mark.parametrize(
    ("quotas", "left"),
    [
        ([], {}),
        ([quota({ASKED: "4", "cpu": "2"}, {ASKED: "1", "cpu": "1500m"})], {"gpu": 3, "cpu": Decimal("0.5")}),
        # The one that leaves least holds, whichever names it counts under.
        ([quota({ASKED: "4"}, {ASKED: "1"}), quota({ASKED: "2"}, {ASKED: "1"})], {"gpu": 1}),
        ([quota({"cpu": "4"}, {"cpu": "1"}), quota({"requests.cpu": "2"}, {"requests.cpu": "1"})], {"cpu": 1}),
        # Lowered below what is used.
        ([quota({ASKED: "1"}, {ASKED: "3"})], {"gpu": 0}),
        # For some pods only.
        ([quota({ASKED: "1"}, {ASKED: "0"}, scopes=["BestEffort"])], {}),
        # Not counted yet: nothing is let in.
        ([quota({ASKED: "4"})], {"gpu": 0}),
    ],
)  # fmt: skip
def test_what_quotas_leave(quotas: list[dict[str, Any]], left: dict[str, Any]) -> None:
    assert merged(quotas).left == left


def room(gpus: int, cpus: int, memory: int = 1, model: str = "T4", **more: Any) -> Machine:
    return Machine(True, cpus_free=Decimal(cpus), memory_mib_free=memory, gpus_free=gpus, kind=Gpus(model), **more)


def test_rooms_are_the_largest_and_lose_nothing() -> None:
    machines = [room(g, c, m, model) for g in range(4) for c in range(4) for m in range(3) for model in ("T4", "A100")]
    machines += [Machine(False, cpus_free=Decimal(99)), room(0, 9), room(1, 1, 1, infiniband=True)]
    found = rooms(machines)
    assert len(found) == 4
    for one in rooms([one for one in machines if one.usable]) + found:
        assert any(other.holds(one) for other in found)
    assert [other for one in found for other in found if other is not one and other.holds(one)] == []
