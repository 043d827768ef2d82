"""A Job of a Kubernetes cluster, in one pod that Pod Security's profile "restricted" lets in."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self, override

import kubernetes
import urllib3
import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from pipelines.benchmark.backends import (
    COMMAND,
    LONGEST_WORDS,
    SCRATCH,
    USER,
    Backend,
    Command,
    End,
    environment,
    last_words,
    ticking,
)
from pipelines.benchmark.job import HOST
from pipelines.benchmark.model import Specification
from sqa import wrong
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
# What Kubernetes takes for an amount, but none: 4, 0.5, 500m, 8Gi, 1e9.
QUANTITY = r"^\+?(0*[1-9][0-9]*(\.[0-9]*)?|0*\.0*[1-9][0-9]*)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
# What the library raises for a kubeconfig that is none; it checks little of what it reads.
NO_KUBECONFIG = (
    kubernetes.config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, AttributeError, KeyError,
)  # fmt: skip
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
    command: Command = COMMAND
    site: str | None = None
    testbed: str | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str = "default"
    memory: str | None = Field(default=None, pattern=QUANTITY, description="an amount such as 8Gi")
    cpus: str | None = Field(default=None, pattern=QUANTITY, description="an amount such as 4 or 500m")
    runtime_class: str = "nvidia"
    node_selector: Annotated[dict[str, str], BeforeValidator(_pairs)] = Field(default_factory=dict)
    tolerations: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    patience: float = Field(default=60.0, ge=0)

    @model_validator(mode="after")
    def _one_cluster(self) -> Self:
        if self.site and (self.kubeconfig or self.context):
            raise ValueError("a site has a cluster of its own: give either site, or kubeconfig and context")
        if self.testbed and not self.site:
            raise ValueError("testbed says which one of the site local: it needs site=local")
        return self

    @override
    def submit(self, specification: Specification) -> str:
        job = f"deep-bench-{secrets.token_hex(4)}"
        try:
            with self._asking():
                self._batch.create_namespaced_job(
                    self.namespace, self.manifest(job, specification), _request_timeout=ANSWER
                )  # fmt: skip
        except NoAnswerError:
            with contextlib.suppress(DeepError):
                self.remove(job)  # it may be there all the same
            raise
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
        amounts = {"cpu": self.cpus, "memory": self.memory}
        plan = specification.plan
        if plan.device == "gpu":
            amounts[GPU] = str(plan.gpus)
        limits = {name: amount for name, amount in amounts.items() if amount}
        container = {
            "name": CONTAINER,
            "image": self.image,
            "command": list(self.command),
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
        try:
            return cluster.connected(self.kubeconfig, self.context)
        except NO_KUBECONFIG as broken:
            raise self._no_cluster(broken) from broken

    def _no_cluster(self, broken: Exception) -> DeepError:
        where = str(self.kubeconfig or kubernetes.config.KUBE_CONFIG_DEFAULT_LOCATION)
        contexts = _contexts(where)
        if self.context and contexts and self.context not in contexts:
            return DeepError(
                "the kubeconfig has no such context", found=f"{self.context}, in {where}",
                needed=f"one of {', '.join(contexts)}", next_step="--option context=NAME",
            )  # fmt: skip
        why = str(broken)
        if not any(Path(one).expanduser().exists() for one in where.split(os.pathsep)):
            why = "there is no such file"
        elif isinstance(broken, yaml.YAMLError):
            why = wrong.not_yaml(broken)
        return DeepError(
            "there is no cluster to ask", found=f"{where}: {why}", needed="a kubeconfig",
            next_step="--option site=SITE, or --option kubeconfig=FILE",
        )  # fmt: skip

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
                "Kubernetes does not answer", host=self._client.configuration.host, found=_reason(failed),
                needed="an API server that this machine reaches and trusts",
                next_step="see what kubectl says: kubectl cluster-info", exit_code=CHECK_FAILED,
            ) from failed  # fmt: skip
        except ValueError as strange:  # of the library's models too
            said = strange.errors()[0]["input"] if isinstance(strange, ValidationError) else strange
            raise DeepError(
                "what answers is not Kubernetes", host=self._client.configuration.host,
                found=" ".join(str(said).split())[:LONGEST_WORDS], needed="the API server of a cluster",
                next_step="correct 'server' in the kubeconfig", exit_code=CHECK_FAILED,
            ) from strange  # fmt: skip

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


def _contexts(where: str) -> list[str]:
    """The contexts of a kubeconfig, as far as it is one."""
    listed: Any = kubernetes.config.list_kube_config_contexts  # untyped, as the whole library is
    try:
        return [one["name"] for one in listed(where)[0]]
    except NO_KUBECONFIG:
        return []


def _reason(failed: BaseException) -> str:
    """What the operating system or TLS says, which the libraries above wrap into words of their own."""
    while failed.__cause__:
        failed = failed.__cause__
    return str(getattr(failed, "strerror", None) or failed)


def _toleration(taint: str) -> dict[str, str]:
    key, equals, value = taint.partition("=")
    return {"key": key, "operator": "Equal", "value": value} if equals else {"key": key, "operator": "Exists"}
