"""The site's Kubernetes through its public API: generated namespaces, small pods, waits that say what they wait for."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

from tests.acceptance.probes.site import Site

ADMIN_KUBECONFIG = "/etc/kubernetes/admin.conf"
POLL = 0.2
EXECUTION_SECONDS = 30
USER = 65532
GPU = "nvidia.com/gpu"
FINISHED = ("Succeeded", "Failed")
POD_SECURITY = "pod-security.kubernetes.io/enforce"


class Cluster:
    """Administrator's access to the cluster; namespaces that it made are gone when the context ends."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.run_id = secrets.token_hex(3)
        self.control_plane = site.group("kubernetes_control_plane")[0]
        self.kubeconfig = self._fetch_kubeconfig()
        settings: Any = client.Configuration()
        load: Any = config.load_kube_config_from_dict
        load(self.kubeconfig, client_configuration=settings)
        # Any: the client's types make every field of every answer optional and do not know manifests as dictionaries.
        self.api: Any = client.ApiClient(settings)
        self.core: Any = client.CoreV1Api(self.api)
        self.apps: Any = client.AppsV1Api(self.api)
        self.batch: Any = client.BatchV1Api(self.api)
        self.runtime_classes: Any = client.NodeV1Api(self.api)
        # Name -> whether it outlives the check that made it.
        self._namespaces: dict[str, bool] = {}
        self._removed: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove_namespaces(also_kept=True)
        wait_until(self._all_removed, 60, "the namespaces of the checks are removed")
        self.api.close()

    def _all_removed(self) -> bool:
        present = {one.metadata.name for one in self.core.list_namespace().items}
        return not present & self._removed

    def remove_namespaces(self, *, also_kept: bool = False) -> None:
        """Begin to remove the namespaces of the checks, those for several checks only when asked."""
        doomed = [name for name, keep in self._namespaces.items() if also_kept or not keep]
        for name in doomed:
            self.core.delete_namespace(name)
            self._removed.add(name)
            del self._namespaces[name]

    def _fetch_kubeconfig(self) -> dict[str, Any]:
        """The administrator's file of the first control plane; its server's own name where that resolves here."""
        document = yaml.safe_load(self.site.host(self.control_plane).file(ADMIN_KUBECONFIG).content_string)
        for entry in document["clusters"]:
            parts = urlsplit(entry["cluster"]["server"])
            if not _resolves(str(parts.hostname)):
                netloc = f"{self.site.address(self.control_plane)}:{parts.port or 443}"
                entry["cluster"]["server"] = urlunsplit(parts._replace(netloc=netloc))
                entry["cluster"]["tls-server-name"] = parts.hostname
        return dict(document)

    @property
    def server(self) -> str:
        """The API's address."""
        return str(self.api.configuration.host)

    # --- nodes -----------------------------------------------------------------------------------------------------

    def nodes(self) -> list[Any]:
        """All Node objects."""
        return list(self.core.list_node().items)

    def node(self, hostname: str) -> Any:
        """The Node object of an inventory host; fails the check where the cluster does not know it."""
        nodes = {node.metadata.name: node for node in self.nodes()}
        known = nodes.get(hostname) or nodes.get(hostname.partition(".")[0])
        assert known is not None, f"{hostname} is not a node of the cluster (found: {', '.join(sorted(nodes))})"
        return known

    def gpus(self, hostname: str) -> int:
        """How many GPUs the node offers for allocation (0 where no device plugin offers any)."""
        return int((self.node(hostname).status.allocatable or {}).get(GPU, 0))

    def gpus_in_use(self, hostname: str) -> dict[str, int]:
        """``namespace/pod`` -> GPUs for every unfinished pod on the node that is not being removed."""
        name = self.node(hostname).metadata.name
        pods = self.core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={name}").items
        used = {
            f"{pod.metadata.namespace}/{pod.metadata.name}": gpus_asked(pod)
            for pod in pods
            if pod.status.phase not in FINISHED and pod.metadata.namespace not in self._removed
        }
        return {name: count for name, count in used.items() if count}

    # --- objects of the checks -------------------------------------------------------------------------------------

    def namespace(self, purpose: str, level: str | None = "restricted", *, keep: bool = False) -> str:
        """Make a namespace of a generated name with this Pod Security level (``None``: without the label).

        It is removed when the check ends, or with ``keep`` when all have.
        """
        name = f"acceptance-{purpose}-{self.run_id}"
        labels = {"app.kubernetes.io/managed-by": "deep-acceptance", **({POD_SECURITY: level} if level else {})}
        self.core.create_namespace({"metadata": {"name": name, "labels": labels}})
        self._namespaces[name] = keep
        # Pods are refused until the controller has made the namespace's account.
        wait_until(
            lambda: bool(self.core.list_namespaced_service_account(name).items),
            20,
            f"the service account of {name} exists",
        )
        return name

    def create(self, namespace: str, *manifests: Mapping[str, Any]) -> None:
        """Create pods, services, deployments and jobs."""
        makers: dict[str, Callable[..., Any]] = {
            "Pod": self.core.create_namespaced_pod,
            "Service": self.core.create_namespaced_service,
            "ConfigMap": self.core.create_namespaced_config_map,
            "Secret": self.core.create_namespaced_secret,
            "Deployment": self.apps.create_namespaced_deployment,
            "Job": self.batch.create_namespaced_job,
        }
        for manifest in manifests:
            makers[manifest["kind"]](namespace, manifest)

    def pods(self, namespace: str, selector: str = "") -> dict[str, Any]:
        """Pods of a namespace by name."""
        return {
            pod.metadata.name: pod for pod in self.core.list_namespaced_pod(namespace, label_selector=selector).items
        }

    def wait_for_pods(
        self, namespace: str, names: Iterable[str], condition: Callable[[Any], bool], seconds: float, what: str
    ) -> dict[str, Any]:
        """Wait until ``condition`` holds for every named pod; the failure says how each of the others stands."""
        wanted = list(names)
        deadline = time.monotonic() + seconds
        while True:
            pods = self.pods(namespace)
            lacking = [name for name in wanted if name not in pods or not condition(pods[name])]
            if not lacking:
                return {name: pods[name] for name in wanted}
            if time.monotonic() > deadline:
                states = "; ".join(self.describe(namespace, name) for name in lacking)
                raise AssertionError(f"after {seconds:g} s not {what}: {states}")
            time.sleep(POLL)

    def finished_logs(self, namespace: str, names: Iterable[str], seconds: float = 60) -> dict[str, str]:
        """Wait until the named pods have ended well and return what each printed."""
        pods = self.wait_for_pods(namespace, names, finished, seconds, "finished")
        failed = [self.describe(namespace, name) for name, pod in pods.items() if pod.status.phase == "Failed"]
        assert not failed, f"pods failed: {'; '.join(failed)}"
        return {name: self.log(namespace, name) for name in pods}

    def log(self, namespace: str, name: str) -> str:
        """What the pod printed."""
        return str(self.core.read_namespaced_pod_log(name, namespace, _preload_content=False).data.decode())

    def execute(self, namespace: str, name: str, command: Sequence[str]) -> str:
        """Run a command in a pod and return what it printed; fails the check when it fails."""
        running: Any = stream(
            self.core.connect_get_namespaced_pod_exec,
            name,
            namespace,
            command=list(command),
            stdout=True,
            stderr=True,
            stdin=False,
            _preload_content=False,
        )
        running.run_forever(timeout=EXECUTION_SECONDS)
        assert running.returncode == 0, f"{command[0]} in {name} failed: {running.read_stderr()}"
        return str(running.read_stdout())

    def describe(self, namespace: str, name: str) -> str:
        """One line: phase, reasons, last events and last output of a pod."""
        try:
            pod = self.core.read_namespaced_pod(name, namespace)
        except ApiException as error:
            return f"{name}: {error.reason}"
        events = self.core.list_namespaced_event(namespace, field_selector=f"involvedObject.name={name}").items
        words = [f"{event.reason}: {event.message}" for event in events[-3:]]
        if pod.status.phase in FINISHED:
            words.append(f"printed: {self.log(namespace, name).strip()[-300:]}")
        return f"{name} is {pod.status.phase} on {pod.spec.node_name or 'no node'} ({' | '.join(words)})"

    def delete_pods(self, namespace: str, names: Iterable[str]) -> None:
        """Delete pods at once and wait until they are gone."""
        doomed = list(names)
        for name in doomed:
            self.core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)
        wait_until(lambda: not set(doomed) & set(self.pods(namespace)), 30, f"{', '.join(doomed)} are gone")


def pod(
    name: str,
    image: str,
    script: str,
    *,
    node: str | None = None,
    gpus: int = 0,
    runtime_class: str | None = None,
    labels: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    mounts: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """A pod that runs ``script`` in a shell once, as Pod Security's level "restricted" wants it.

    ``node`` pins it by the node's host name label, which leaves the decision to the scheduler. ``mounts`` are
    (path on the node, path in the pod), read-only, and need a namespace of level "privileged".
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels or {})},
        "spec": pod_spec(image, script, node=node, gpus=gpus, runtime_class=runtime_class, env=env, mounts=mounts),
    }


def pod_spec(
    image: str,
    script: str,
    *,
    node: str | None = None,
    gpus: int = 0,
    runtime_class: str | None = None,
    env: Mapping[str, str] | None = None,
    mounts: Sequence[tuple[str, str]] = (),
    restart: str = "Never",
    container: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The ``spec`` of ``pod``; ``container`` is merged over its only container."""
    resources = {"limits": {GPU: str(gpus)}} if gpus else {}
    return {
        "restartPolicy": restart,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **({"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}),
        **({"runtimeClassName": runtime_class} if runtime_class else {}),
        # A check looks at every node, whatever it is reserved for.
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            *({"name": f"host{i}", "hostPath": {"path": source}} for i, (source, _) in enumerate(mounts)),
        ],
        "containers": [
            {
                "name": "check",
                "image": image,
                "command": ["sh", "-c", script],
                "workingDir": "/scratch",
                "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
                "resources": resources,
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [
                    {"name": "scratch", "mountPath": "/scratch"},
                    *(
                        {"name": f"host{i}", "mountPath": target, "readOnly": True}
                        for i, (_, target) in enumerate(mounts)
                    ),
                ],
                **(container or {}),
            }
        ],
    }


def gpus_asked(pod_object: Any) -> int:
    """GPUs that the containers of a pod ask for."""
    return sum(int(((one.resources and one.resources.limits) or {}).get(GPU, 0)) for one in pod_object.spec.containers)


def finished(pod_object: Any) -> bool:
    """Whether a pod has ended, well or not."""
    return pod_object.status.phase in FINISHED


def ready(pod_object: Any) -> bool:
    """Whether a pod is ready and not on its way out."""
    conditions = {one.type: one.status for one in pod_object.status.conditions or []}
    return conditions.get("Ready") == "True" and pod_object.metadata.deletion_timestamp is None


def unschedulable(pod_object: Any) -> str:
    """Why the scheduler found no node for a pod; empty where it found one or has not looked yet."""
    for one in pod_object.status.conditions or []:
        if one.type == "PodScheduled" and one.status == "False" and one.reason == "Unschedulable":
            return str(one.message)
    return ""


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until ``condition`` holds; an ``AssertionError`` that says ``what`` did not happen after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {seconds:g} s: {what}")
        time.sleep(POLL)


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True
