"""A Job of a Kubernetes cluster, in one pod that Pod Security's profile "restricted" lets in."""

from __future__ import annotations

import math
import secrets
import shlex
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple, override

import kubernetes
import urllib3
import yaml
from pydantic import BeforeValidator, Field

from pipelines.benchmark.backends import COMMAND, SCRATCH, USER, Backend, End, environment, last_words, ticking
from pipelines.benchmark.job import HOST
from pipelines.benchmark.model import Specification
from testbed import cluster, login
from testbed.errors import CHECK_FAILED, DeepError

# Labels that find a Job and its pod.
MANAGED = {"app.kubernetes.io/managed-by": "deep-testbed", "app.kubernetes.io/name": "deep-bench"}
INSTANCE = "app.kubernetes.io/instance"
GPU = "nvidia.com/gpu"
CONTAINER = "benchmark"
# Seconds: between two looks; for one answer; until the cluster removes a finished Job that nobody has; until a pod is
# given up whose node does not answer.
PAUSE, ANSWER, KEPT, NODE_LOST = 1.0, 10.0, 600, 30
LINES = 20
# Why a container waits that will never start.
UNSTARTABLE = {
    "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull", "ImageInspectError", "ImagePullBackOff",
    "InvalidImageName", "RunContainerError",
}  # fmt: skip
# Why a kubelet takes a pod that it had; for any other reason of its own it has never let it in.
TAKEN = {"Evicted", "NodeLost", "NodeShutdown", "Preempting", "Shutdown", "Terminated"}
HTTP_NOT_ALLOWED, HTTP_NOT_FOUND, HTTP_TOO_MANY, HTTP_SERVER = (401, 403), 404, 429, 500
# A pod is given up soon after its node has stopped answering; Kubernetes' own patience is five minutes.
NODE_TAINTS: list[dict[str, Any]] = [
    {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_LOST}
    for what in ("not-ready", "unreachable")
]


class NoAnswerError(DeepError):
    """The API server cannot be reached, or cannot answer now."""


def _pairs(text: Any) -> Any:
    """``KEY=VALUE,...`` as a dictionary."""
    if not isinstance(text, str):
        return text
    pairs = [one.partition("=") for one in text.split(",")]
    if not all(key and equals for key, equals, _ in pairs):
        raise ValueError(f"found {text!r}, needed KEY=VALUE, several apart by commas")
    return {key: value for key, _, value in pairs}


def _words(text: Any) -> Any:
    return tuple(text.split(",")) if isinstance(text, str) else text


class Seen(NamedTuple):
    """What there is of a job: the Job, and its pod. It never has a second one."""

    job: Any
    pod: Any

    @property
    def placed(self) -> bool:
        """Whether its pod has a node."""
        return bool(self.pod and self.pod.spec.node_name)

    @property
    def state(self) -> Any:
        """Of the container, as far as a node says it."""
        statuses = self.pod.status.container_statuses if self.pod else None
        return statuses[0].state if statuses else None

    @property
    def started(self) -> bool:
        """Whether the container has said, or will say, something."""
        return bool(self.state and (self.state.running or self.state.terminated))

    @property
    def ended(self) -> End | None:
        """How it ended, nothing while it may go on."""
        if self.job is None or self.job.metadata.deletion_timestamp:
            return End("cancelled", "somebody has deleted the Job")
        failed = _condition(self.job, "Failed") or _condition(self.job, "FailureTarget")
        if failed and failed.reason == "DeadlineExceeded":
            return End("out of time", failed.message)
        if self.pod is None:
            return End("lost", "somebody has deleted its pod") if failed else None
        return self._taken() or self._stopped()

    def _taken(self) -> End | None:
        """Where the cluster, or somebody, has taken the pod from the Job."""
        status, disruption = self.pod.status, _condition(self.pod, "DisruptionTarget")
        if disruption:
            return End("lost", f"{disruption.reason}: {status.message or disruption.message}")
        if status.reason:
            return End("lost" if status.reason in TAKEN else "refused", f"{status.reason}: {status.message}")
        return End("lost", "somebody has deleted its pod") if self.pod.metadata.deletion_timestamp else None

    def _stopped(self) -> End | None:
        """Where the container has ended, or cannot start."""
        stopped = self.state and (self.state.terminated or self.state.waiting)
        if not stopped:
            return None
        said = ": ".join(filter(None, (stopped.reason, stopped.message)))
        if self.state.waiting:
            return End("refused", said) if stopped.reason in UNSTARTABLE else None
        if stopped.reason in ("StartError", "ContainerCannotRun"):
            return End("refused", said)
        if stopped.reason == "OOMKilled":
            limits = self.pod.spec.containers[0].resources.limits or {}
            return End("out of memory", f"its limit is {limits.get('memory', 'that of its node')}")
        return End("failed", f"exit status {stopped.exit_code}")


def _condition(of: Any, name: str) -> Any:
    """The condition of this name, where it is true."""
    return next((one for one in of.status.conditions or [] if one.type == name and one.status == "True"), None)


class Kubernetes(Backend):
    """``image``: with Python and this package, which ``command`` starts; by digest where it has to be a certain one.

    The cluster is that of a ``site``, asked as whoever is logged in there (``testbed``: which one, for the site
    ``local``), else of a ``kubeconfig`` and its ``context``. ``tolerations``: taints, each ``KEY`` or ``KEY=VALUE``.
    ``patience``: seconds that a pod may wait for a node and its sandbox, and the API server may be silent.
    """

    name = "kubernetes"
    image: str = Field(min_length=1)
    command: str = COMMAND
    site: str | None = None
    testbed: str | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str = "default"
    memory: str | None = None
    cpus: float | None = Field(default=None, gt=0)
    runtime_class: str = "nvidia"
    node_selector: Annotated[dict[str, str], BeforeValidator(_pairs)] = Field(default_factory=dict)
    tolerations: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    patience: float = Field(default=60.0, ge=0)

    @override
    def submit(self, specification: Specification) -> str:
        job = f"deep-bench-{secrets.token_hex(4)}"
        with self._asking():
            self._batch.create_namespaced_job(
                self.namespace, self.manifest(job, specification), _request_timeout=ANSWER
            )  # fmt: skip
        return job

    @override
    def lines(self, job: str) -> Iterator[str | None]:
        pod = yield from self._begun(job)
        count = 0
        while pod:
            # Only a log that is read after the end is known to be whole.
            over = (yield from self._look(job)).ended
            read = 0
            try:
                for line in ticking(self._log(pod)):
                    if line is None:
                        yield None
                        if (yield from self._look(job)).ended:
                            break
                        continue
                    read += 1
                    if read > count:
                        yield line
            except kubernetes.client.ApiException as refused:
                if refused.status in HTTP_NOT_ALLOWED:
                    raise self._refused(refused) from refused
            except urllib3.exceptions.HTTPError:
                pass  # the next look tells whether the way to the pod is closed, or the pod has gone
            count = max(count, read)
            if over:
                return
            yield None
            time.sleep(PAUSE)

    @override
    def end(self, job: str) -> End:
        with self._asking():
            seen = self._seen(job)
            ended = seen.ended
            if ended is None:
                return End("refused", self._waits_for(job, seen))
            if ended.fate != "failed":
                return ended
            log = self._core.read_namespaced_pod_log(
                seen.pod.metadata.name, self.namespace, tail_lines=LINES, _request_timeout=ANSWER
            )  # fmt: skip
        return End("failed", f"{ended.reason}: {last_words(log) or 'it said nothing'}")

    @override
    def remove(self, job: str) -> None:
        with self._asking():
            try:
                self._batch.delete_namespaced_job(
                    job, self.namespace, propagation_policy="Foreground", _request_timeout=ANSWER
                )  # fmt: skip
            except kubernetes.client.ApiException as refused:
                if refused.status != HTTP_NOT_FOUND:
                    raise

    def manifest(self, job: str, specification: Specification) -> dict[str, Any]:
        """The Job: tried once, ended by the cluster after ``timeout`` whatever becomes of this process."""
        variables: list[dict[str, Any]] = [
            {"name": name, "value": value} for name, value in environment(specification).items()
        ]
        variables.append({"name": HOST, "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})
        amounts = {"cpu": f"{self.cpus:g}" if self.cpus else None, "memory": self.memory}
        plan = specification.plan
        if plan.device == "gpu":
            amounts[GPU] = str(plan.gpus)
        limits = {name: amount for name, amount in amounts.items() if amount}
        container = {
            "name": CONTAINER,
            "image": self.image,
            "command": shlex.split(self.command),
            "imagePullPolicy": "IfNotPresent",
            "env": variables,
            "resources": {"limits": limits, "requests": limits},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            },
            "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH}, {"name": "shared", "mountPath": "/dev/shm"}],  # nosec B108  # in the pod
        }
        pod = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "nodeSelector": self.node_selector,
            "tolerations": [_toleration(one) for one in self.tolerations] + NODE_TAINTS,
            "containers": [container],
            "volumes": [
                {"name": "scratch", "emptyDir": {}},
                {"name": "shared", "emptyDir": {"medium": "Memory"}},
            ],
        }
        if plan.device == "gpu" and self.runtime_class:
            pod["runtimeClassName"] = self.runtime_class
        labels = MANAGED | {INSTANCE: job}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job, "labels": labels},
            "spec": {
                "backoffLimit": 0,
                "activeDeadlineSeconds": math.ceil(self.timeout),
                "ttlSecondsAfterFinished": KEPT,
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }

    def _begun(self, job: str) -> Generator[None, None, str | None]:
        """The name of the pod once its container has started, nothing where it will not."""
        deadline = time.monotonic() + self.patience
        while True:
            seen = yield from self._look(job)
            if seen.started:
                return str(seen.pod.metadata.name)
            if seen.ended or (time.monotonic() > deadline and self._stuck(job, seen)):
                return None
            yield None
            time.sleep(PAUSE)

    def _look(self, job: str) -> Generator[None, None, Seen]:
        """What there is of the job; a server that does not answer is asked again while there is patience."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                with self._asking():
                    return self._seen(job)
            except NoAnswerError:
                if time.monotonic() > deadline:
                    raise
            yield None
            time.sleep(PAUSE)

    def _seen(self, job: str) -> Seen:
        # The pod first: one that goes because its Job has been deleted is then seen together with that.
        pods = self._core.list_namespaced_pod(
            self.namespace, label_selector=f"{INSTANCE}={job}", _request_timeout=ANSWER
        ).items  # fmt: skip
        try:
            found = self._batch.read_namespaced_job(job, self.namespace, _request_timeout=ANSWER)
        except kubernetes.client.ApiException as refused:
            if refused.status != HTTP_NOT_FOUND:
                raise
            found = None
        return Seen(found, pods[0] if pods else None)

    def _log(self, pod: str) -> Iterator[bytes]:
        answer = self._core.read_namespaced_pod_log(pod, self.namespace, follow=True, _preload_content=False)
        try:
            yield from answer.stream()
        finally:
            answer.close()

    def _stuck(self, job: str, seen: Seen) -> bool:
        """Whether it has no node, or one that cannot make its sandbox; the image is pulled after that, for long."""
        if not seen.placed:
            return True
        return not _condition(seen.pod, "PodReadyToStartContainers") and bool(self._warnings(job, seen))

    def _waits_for(self, job: str, seen: Seen) -> str:
        """What keeps it from starting, in the words of the scheduler, the kubelet or what makes pods."""
        said = self._warnings(job, seen)
        if seen.pod and not seen.placed:
            said = [one.message for one in seen.pod.status.conditions or [] if one.type == "PodScheduled"]
        return f"not started within {self.patience:g} s: {(said and said[-1]) or 'nothing is said of the reason'}"

    def _warnings(self, job: str, seen: Seen) -> list[str]:
        """Events of its pod, or where there is none of the Job; nothing where one may not read them."""
        about = seen.pod.metadata.name if seen.pod else job
        try:
            found = self._core.list_namespaced_event(
                self.namespace, field_selector=f"involvedObject.name={about},type=Warning", _request_timeout=ANSWER
            )  # fmt: skip
        except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError):
            return []
        return [one.message for one in found.items]

    @cached_property
    def _client(self) -> Any:
        if self.site:
            settings = yaml.safe_load(login.kubeconfig(login.Place(self.site, self.testbed)))
            return cluster.connected(settings)
        return cluster.connected(self.kubeconfig, self.context)

    @property
    def _core(self) -> Any:
        return kubernetes.client.CoreV1Api(self._client)

    @property
    def _batch(self) -> Any:
        return kubernetes.client.BatchV1Api(self._client)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """What the library raises becomes a ``DeepError``."""
        try:
            yield
        except kubernetes.client.ApiException as refused:
            raise self._refused(refused) from refused
        except urllib3.exceptions.HTTPError as failed:
            raise NoAnswerError(
                "Kubernetes does not answer", host=self._client.configuration.host, found=str(failed),
                exit_code=CHECK_FAILED,
            ) from failed  # fmt: skip
        except kubernetes.config.ConfigException as wrong:
            raise DeepError(
                "there is no cluster to ask", found=str(wrong), needed="a kubeconfig",
                next_step="--option site=SITE, or --option kubeconfig=FILE",
            ) from wrong  # fmt: skip

    def _refused(self, refused: Any) -> DeepError:
        kind = DeepError
        if refused.status == HTTP_TOO_MANY or refused.status >= HTTP_SERVER:
            kind = NoAnswerError
        again = login.Place(self.site, self.testbed).again if self.site else "get a valid credential"
        steps = {
            401: again,
            403: f"ask for the right to create Jobs in namespace {self.namespace}, and to read its pods",
        }
        return kind(
            f"Kubernetes refuses: {cluster.said(refused)}", host=self._client.configuration.host,
            found=f"HTTP status {refused.status}", exit_code=CHECK_FAILED,
            next_step=steps.get(refused.status, "correct the options of the back end"),
        )  # fmt: skip


def _toleration(taint: str) -> dict[str, str]:
    key, equals, value = taint.partition("=")
    return {"key": key, "operator": "Equal", "value": value} if equals else {"key": key, "operator": "Exists"}
