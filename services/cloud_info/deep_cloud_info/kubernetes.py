"""Sites of Kubernetes: nodes, pods and quotas, read with no right but to list them."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from functools import reduce
from pathlib import Path
from typing import Any

import httpx

from deep_cloud_info import pods
from deep_cloud_info.config import Kubernetes
from deep_cloud_info.errors import CloudInfoError, ConfigurationError
from deep_cloud_info.quantities import Amounts, added, amounts
from deep_cloud_info.resources import Gpus, Machine, Quota, Resources

Json = dict[str, Any]
GPU = "nvidia.com/gpu"
MIB = 1024**2
# Labels of NVIDIA's feature discovery, and ours.
SIMULATED = "deephdc.org/gpu"
SHARING = "deephdc.org/gpu-sharing"
INFINIBAND = "deephdc.org/infiniband"
# What node feature discovery says of PCI devices of the class InfiniBand.
PCI_INFINIBAND = re.compile(r"feature\.node\.kubernetes\.io/pci-0207(_[0-9a-f]{4})?\.present")
LISTS = {"nodes": "/api/v1/nodes", "pods": "/api/v1/pods", "resourcequotas": "/api/v1/resourcequotas"}
# Those that have ended hold nothing, and there may be many of them.
ALIVE = ",".join(f"status.phase!={phase}" for phase in pods.TERMINATED)
# A list of many pages is a view of one moment, which the server keeps for some minutes only.
ATTEMPTS = 3
# A quota counts under several names.
LEFT = {
    "cpu": ("cpu", "requests.cpu"),
    "memory": ("memory", "requests.memory"),
    "gpu": (f"requests.{GPU}",),
    "pods": ("pods", "count/pods"),
}


class RefusedError(Exception):
    """The cluster does not let us list something."""


class KubernetesProvider:
    """A cluster, over its API."""

    def __init__(self, settings: Kubernetes) -> None:
        self._settings = settings
        self._token = _token(settings.token_file)
        self._verify = trust(settings.ca_file)

    def look(self) -> Resources:
        """Nodes, pods and quotas as they are now. Raises CloudInfoError."""
        settings = self._settings
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            with httpx.Client(
                base_url=settings.server, headers=headers, verify=self._verify, timeout=settings.timeout_seconds
            ) as client:
                found = self._lists(client)
                version = self._get(client, "/version", {})["gitVersion"]
        except (httpx.HTTPError, ssl.SSLError) as error:
            raise CloudInfoError(
                "the cluster cannot be read", found=str(error) or type(error).__name__,
                needed=f"an API server that answers at {settings.server}",
                next_step="see whether it runs, and correct server and ca_file",
            ) from None  # fmt: skip
        return resources(found["nodes"], found["pods"], found["resourcequotas"], settings.tolerated_taints, version)

    def _lists(self, client: httpx.Client) -> dict[str, list[Json]]:
        found, missing = {}, []
        for name, path in LISTS.items():
            try:
                found[name] = self._all(client, path, {"fieldSelector": ALIVE} if name == "pods" else {})
            except RefusedError:
                missing.append(f"list {name}")
        if missing:
            raise CloudInfoError(
                "the cluster does not give the rights that are needed", found=f"403 Forbidden to {', '.join(missing)}",
                needed=f"{', '.join(f'list {name}' for name in LISTS)}, in all namespaces",
                next_step="let the role cloud_info_provider make its ClusterRole and ClusterRoleBinding again",
                missing=tuple(missing),
            )  # fmt: skip
        return found

    def _all(self, client: httpx.Client, path: str, options: Mapping[str, str]) -> list[Json]:
        for _ in range(ATTEMPTS):
            try:
                return [item for page in self._pages(client, path, options) for item in page]
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.GONE:
                    raise
        raise CloudInfoError(
            "a list is too long", found=f"{path} not read before its first page was out of date, {ATTEMPTS} times",
            needed="all pages of one moment", next_step="raise page_size",
        )  # fmt: skip

    def _pages(self, client: httpx.Client, path: str, options: Mapping[str, str]) -> Iterator[list[Json]]:
        following = ""
        while True:
            asked = {**options, "limit": str(self._settings.page_size)}
            answer = self._get(client, path, {**asked, "continue": following} if following else asked)
            yield answer["items"]
            following = answer["metadata"].get("continue", "")
            if not following:
                return

    def _get(self, client: httpx.Client, path: str, options: Mapping[str, str]) -> Json:
        answer = client.get(path, params=dict(options))
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise CloudInfoError(
                "the cluster does not know the token", found="401 Unauthorized",
                needed=f"a token that is not over in {self._settings.token_file}",
                next_step="see the unit that asks for it: systemctl status deephdc-cloud-info",
            )  # fmt: skip
        if answer.status_code == httpx.codes.FORBIDDEN:
            raise RefusedError
        answer.raise_for_status()
        return dict(answer.json())


def trust(authority: Path | None) -> ssl.SSLContext:
    """Trust in one authority, or in those of the system."""
    try:
        return ssl.create_default_context(cafile=str(authority) if authority else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            "whom to trust is not known", found=f"{authority}: {error}", needed="a PEM certificate",
            next_step="correct ca_file",
        ) from None  # fmt: skip


def _token(path: Path) -> str:
    try:
        found = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            "the token cannot be read", found=f"{path}: {getattr(error, 'strerror', error)}",
            needed="a file with the token of a service account", next_step="correct token_file",
        ) from None  # fmt: skip
    if not found or re.search(r"\s", found):
        raise ConfigurationError(
            "the token cannot be used", found=f"{path} with {'no' if not found else 'more than one'} word",
            needed="a token", next_step="write a new one",
        )  # fmt: skip
    return found


def resources(
    nodes: Iterable[Json], pod_list: Iterable[Json], quotas: Iterable[Json], tolerated: frozenset[str], version: str
) -> Resources:
    """What lists of the API mean."""
    held: dict[str, list[Json]] = {}
    waiting = Decimal()
    for pod in pod_list:
        if pod.get("status", {}).get("phase") in pods.TERMINATED:
            continue
        if name := pod["spec"].get("nodeName"):
            held.setdefault(name, []).append(pod)
        else:
            waiting += pods.requests(pod).get(GPU, Decimal())
    by_namespace: dict[str, list[Json]] = {}
    for quota in quotas:
        by_namespace.setdefault(quota["metadata"]["namespace"], []).append(quota)
    return Resources(
        product="Kubernetes",
        version=version,
        machines=[machine(node, held.get(node["metadata"]["name"], []), tolerated) for node in nodes],
        quotas={namespace: merged(found) for namespace, found in by_namespace.items()},
        gpus_waiting=int(waiting),
    )


def machine(node: Json, on_it: list[Json], tolerated: frozenset[str] = frozenset()) -> Machine:
    """A node and what the pods on it leave."""
    labels, status = node["metadata"].get("labels") or {}, node["status"]
    there, offered = amounts(status.get("capacity")), amounts(status.get("allocatable"))
    used = reduce(added, map(pods.requests, on_it), Amounts())
    usable = takes_pods(node, tolerated) and offered.get("pods", Decimal()) > len(on_it)

    def free(resource: str) -> Decimal:
        # A node whose kubelet came back with less than before is overfull.
        return max(offered.get(resource, Decimal()) - used.get(resource, Decimal()), Decimal()) if usable else Decimal()

    return Machine(
        usable=usable,
        platform=labels.get("kubernetes.io/arch", "amd64"),
        cpus=there.get("cpu", Decimal()),
        cpus_free=free("cpu"),
        memory_mib=int(there.get("memory", Decimal()) // MIB),
        memory_mib_free=int(free("memory") // MIB),
        gpus=int(there.get(GPU, Decimal())),
        gpus_free=int(free(GPU)),
        kind=gpus_of(labels),
        infiniband=labels.get(INFINIBAND) == "true"
        or any(value == "true" and PCI_INFINIBAND.fullmatch(name) for name, value in labels.items()),
    )


def takes_pods(node: Json, tolerated: frozenset[str]) -> bool:
    """Whether the scheduler puts new pods there: ready, not cordoned, and no taint that keeps them off."""
    spec = node.get("spec") or {}
    ready = {one["type"]: one["status"] for one in node["status"].get("conditions") or []}.get("Ready") == "True"
    taints = [one for one in spec.get("taints") or [] if one["effect"] != "PreferNoSchedule"]
    return ready and not spec.get("unschedulable") and all(one["key"] in tolerated for one in taints)


def gpus_of(labels: Mapping[str, str]) -> Gpus:
    """What feature discovery and our labels say of the GPUs of a node."""

    def said(name: str) -> str:
        return labels.get(f"nvidia.com/{name}", "")

    def dotted(*names: str) -> str:
        parts = [said(name) for name in names]
        return ".".join(part for part in parts if part) if parts[0] else ""

    memory = said("gpu.memory")
    return Gpus(
        model=said("gpu.product"),
        simulated=labels.get(SIMULATED) == "simulated",
        driver=said("cuda.driver-version.full") or dotted("cuda.driver.major", "cuda.driver.minor", "cuda.driver.rev"),
        cuda=said("cuda.runtime-version.full") or dotted("cuda.runtime.major", "cuda.runtime.minor"),
        memory_mib=int(memory) if memory.isdecimal() else 0,
        compute_capability=dotted("gpu.compute.major", "gpu.compute.minor"),
        sharing=labels.get(SHARING, ""),
    )


def merged(quotas: list[Json]) -> Quota:
    """The quotas of a namespace as one: of each resource, the one that leaves least.

    A quota for some pods only (with scopes) says nothing about the others and is left out.
    """
    hard, used, left = {}, {}, Amounts()
    for quota in quotas:
        spec, status = quota["spec"], quota.get("status") or {}
        if spec.get("scopes") or spec.get("scopeSelector"):
            continue
        for name, limit in (status.get("hard") or spec.get("hard") or {}).items():
            # Kubernetes lets nothing in before it has counted.
            taken = (status.get("used") or {}).get(name, limit)
            rest = max(amounts({name: limit})[name] - amounts({name: taken})[name], Decimal())
            if name not in left or rest < left[name]:
                hard[name], used[name], left[name] = limit, taken, rest
    found = {key: [left[name] for name in names if name in left] for key, names in LEFT.items()}
    return Quota(hard=hard, used=used, left={key: min(rests) for key, rests in found.items() if rests})
