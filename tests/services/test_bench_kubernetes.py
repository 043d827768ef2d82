"""A Job as a back end, on a real API server with Kubernetes' own Job controller and a node that is played here."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, override

import kubernetes
import pytest
import urllib3

from pipelines.benchmark import backends
from pipelines.benchmark.backends.kubernetes import INSTANCE, MANAGED
from pipelines.benchmark.model import Plan, Run, Specification
from testbed.errors import DeepError
from tests.services import kube_api
from tests.services.kube_api import KubeApi
from tests.unit.bench_toys import SPECIFICATION, run

CONTROLLERS = "job-controller,garbage-collector-controller,resourcequota-controller"
NAMESPACE, NODE = "imaging", "node1"
ON_GPU = Specification(plan=Plan(device="gpu"))
RUN = run()
DONE = json.dumps({"run": RUN.model_dump(mode="json")}) + "\n"
NOTE = '{"note": "gemm-fp64, process 1 of 1"}\n'
RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
Json = dict[str, Any]
Story = Callable[["Node"], None]


def ended(status: int, reason: str = "Error", **more: Any) -> Json:
    """The state of a container that has ended."""
    return {"terminated": {"exitCode": status, "reason": reason, **more}}


class Kubelet(BaseHTTPRequestHandler):
    """Serves logs: each answer is the next list of ``answers``, the last one again and again; ``None`` breaks off."""

    protocol_version = "HTTP/1.1"
    answers: ClassVar[list[list[str | None]]]
    ended: ClassVar[threading.Event]

    def do_GET(self) -> None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for said in answer:
            if said is None:
                self.close_connection = True
                return
            self.wfile.write(f"{len(said.encode()):x}\r\n{said}\r\n".encode())
        self.ended.wait(30)
        self.wfile.write(b"0\r\n\r\n")

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class Node:
    """What a scheduler and a kubelet do to the pod of a Job."""

    def __init__(self, kube: KubeApi) -> None:
        self.kube = kube
        self.pod = ""

    def await_pod(self) -> None:
        deadline = time.monotonic() + 60
        while not self.pod:
            assert time.monotonic() < deadline, "the Job got no pod"
            found = [one for one in self.kube.get("pods") if "nodeName" not in one["spec"]]
            self.pod = found[0]["metadata"]["name"] if found else ""
            time.sleep(0.1)

    def bind(self) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": self.pod}, "target": target}
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{self.pod}/binding"
        self.kube("create", f"--raw={path}", "--filename=-", data=binding)

    def status(self, **status: Any) -> None:
        named = {"name": self.pod, "namespace": NAMESPACE}
        self.kube.status({"kind": "pod", "metadata": named, "status": status})

    def container(self, state: Json, phase: str = "Running") -> None:
        """Say how the container is."""
        one = {"name": "benchmark", "image": "i", "imageID": "i", "ready": False, "restartCount": 0, "state": state}
        self.status(phase=phase, containerStatuses=[one])

    def runs(self) -> None:
        self.bind()
        self.container(RUNNING)

    def ends(self, state: Json) -> None:
        Kubelet.ended.set()
        self.container(state, "Succeeded" if state["terminated"]["exitCode"] == 0 else "Failed")

    def delete(self, kind: str, *options: str) -> None:
        every = ("--all",) if kind == "jobs" else (self.pod,)
        self.kube("delete", kind, *every, f"--namespace={NAMESPACE}", "--wait=false", *options)


@pytest.fixture(scope="module")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    if not all(kube_api.store(*program) for program in kube_api.PROGRAMS):
        pytest.skip("Kubernetes is not in the artefact store; build it: deep artifacts build kubernetes etcd")
    folder = tmp_path_factory.mktemp("kube")
    with kube_api.running(folder, CONTROLLERS) as found, kubelet(folder) as port:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        found.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
        found.apply({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            },
        })  # fmt: skip
        yield found


@contextmanager
def kubelet(folder: Path) -> Iterator[int]:
    """A port at which logs are served."""
    key, certificate = folder / "kubelet.key", folder / "kubelet.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days=2",
         "-subj=/CN=node1", f"-keyout={key}", f"-out={certificate}"], check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Kubelet) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@pytest.fixture
def clean(kube: KubeApi) -> Iterator[KubeApi]:
    """Nothing of another test, and nothing left of this one."""
    Kubelet.answers, Kubelet.ended = [[NOTE, DONE]], threading.Event()
    yield kube
    Kubelet.ended.set()
    left = [one["metadata"].get("deletionTimestamp") for one in kube.get("jobs")]
    kube("delete", "pods", "--all", f"--namespace={NAMESPACE}", "--force", "--grace-period=0", "--wait=false")
    kube("delete", "jobs", "--all", f"--namespace={NAMESPACE}", "--timeout=30s")
    assert all(left), "a Job was left"


def backend(kube: KubeApi, **options: str) -> backends.Backend:
    given = {"image": "deephdc/benchmark:1", "kubeconfig": f"{kube.folder}/kubeconfig", "namespace": NAMESPACE}
    return backends.load("kubernetes", {**given, "patience": "20", **options})


def brought(
    kube: KubeApi, story: Story | None, notes: list[str] | None = None, what: Specification = SPECIFICATION,
    **options: str,
) -> Run:  # fmt: skip
    """The run of a job to whose pod happens what the story tells."""
    wrong: list[BaseException] = []

    def play(tell: Story) -> None:
        node = Node(kube)
        try:
            node.await_pod()
            tell(node)
        except BaseException as broken:  # pylint: disable=broad-exception-caught  # raised by the test
            wrong.append(broken)

    player = threading.Thread(target=play, args=(story,))
    if story:
        player.start()
    try:
        return backends.run(backend(kube, **options), what, (notes if notes is not None else []).append)
    finally:
        if story:
            player.join()
        assert not wrong, wrong


def test_a_pod_brings_its_run(clean: KubeApi) -> None:
    notes: list[str] = []
    done = brought(clean, Node.runs, notes, cpus="1", memory="1Gi")
    assert done.results == RUN.results
    assert done.submission is not None
    assert notes == [f"kubernetes: submitted {done.submission.job}", "gemm-fp64, process 1 of 1"]


def test_a_log_that_breaks_off_is_read_on(clean: KubeApi) -> None:
    notes: list[str] = []
    Kubelet.answers = [[NOTE, DONE[:2000], None], [NOTE, DONE]]
    assert brought(clean, Node.runs, notes).results == RUN.results
    assert notes[1:] == ["gemm-fp64, process 1 of 1"]


def test_what_was_said_before_the_end_is_read_after_it(clean: KubeApi) -> None:
    def ends_at_once(node: Node) -> None:
        node.bind()
        node.ends(ended(0, "Completed"))

    assert brought(clean, ends_at_once).results == RUN.results


def test_an_image_may_be_pulled_for_longer_than_there_is_patience(clean: KubeApi) -> None:
    def pulls(node: Node) -> None:
        complained_of(node)
        node.status(conditions=[{"type": "PodReadyToStartContainers", "status": "True"}])
        time.sleep(6)
        node.container(RUNNING)

    assert brought(clean, pulls, patience="3").results == RUN.results


def out_of_memory(node: Node) -> None:
    node.runs()
    node.ends(ended(137, "OOMKilled"))


def fails(node: Node) -> None:
    node.runs()
    node.ends(ended(1))


def cannot_start(node: Node) -> None:
    node.bind()
    node.ends(ended(128, "StartError", message='exec: "python9": not found'))


def unschedulable(node: Node) -> None:
    said = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    node.status(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}])


def no_image(node: Node) -> None:
    node.bind()
    node.container({"waiting": {"reason": "ContainerCreating"}}, "Pending")
    time.sleep(2)  # that is no end
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "deephdc/benchmark:1": not found'}
    node.container({"waiting": waiting}, "Pending")


def complained_of(node: Node) -> None:
    node.bind()
    node.kube.apply({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": node.pod, "namespace": NAMESPACE},
        "type": "Warning", "reason": "FailedCreatePodSandBox",
        "message": 'Failed to create pod sandbox: no runtime for "nvidia" is configured',
        "involvedObject": {"kind": "Pod", "name": node.pod, "namespace": NAMESPACE},
    })  # fmt: skip


def no_sandbox(node: Node) -> None:
    complained_of(node)
    node.container({"waiting": {"reason": "ContainerCreating"}}, "Pending")


def not_admitted(node: Node) -> None:
    node.bind()
    node.status(phase="Failed", reason="UnexpectedAdmissionError", message="Allocate failed: no healthy devices")


def evicted(node: Node) -> None:
    node.runs()
    disruption = {
        "type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": "by the kubelet",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    node.status(
        phase="Failed", reason="Evicted", message="The node was low on resource: memory.", conditions=[disruption]
    )


def node_lost(node: Node) -> None:
    node.runs()
    node.status(reason="NodeLost", message="Node node1 which was running pod is unresponsive")


def pod_deleted(node: Node) -> None:
    node.runs()
    node.delete("pod")


def pod_gone(node: Node) -> None:
    node.runs()
    node.delete("pod", "--force", "--grace-period=0")
    Kubelet.ended.set()


def job_deleted(node: Node) -> None:
    node.runs()
    node.delete("jobs", "--cascade=background")


def job_deleted_in_the_foreground(node: Node) -> None:
    node.runs()
    node.delete("jobs", "--cascade=foreground")


@pytest.mark.parametrize(
    ("story", "said"),
    [
        (out_of_memory, "ran out of memory.*its limit is 64Mi"),
        (fails, "failed.*exit status 1: ValueError: no luck"),
        (cannot_start, "was refused.*StartError: exec: .python9.: not found"),
        (unschedulable, "was refused.*not started within 8 s: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu"),
        (no_image, "was refused.*ImagePullBackOff: Back-off pulling image .deephdc/benchmark:1.: not found"),
        (no_sandbox, "was refused.*not started within 8 s: Failed to create pod sandbox: no runtime for .nvidia."),
        (not_admitted, "was refused.*UnexpectedAdmissionError: Allocate failed"),
        (evicted, "was lost.*TerminationByKubelet: The node was low on resource: memory"),
        (node_lost, "was lost.*NodeLost: Node node1"),
        (pod_deleted, "was lost.*somebody has deleted its pod"),
        (pod_gone, "was lost.*somebody has deleted its pod"),
        (job_deleted, "was cancelled.*somebody has deleted the Job"),
        (job_deleted_in_the_foreground, "was cancelled.*somebody has deleted the Job"),
    ],
)
def test_a_job_that_ends_otherwise_is_told_as_what_it_is(clean: KubeApi, story: Story, said: str) -> None:
    Kubelet.answers = [[NOTE, "Traceback\n", "ValueError: no luck\n", NOTE]]
    with pytest.raises(DeepError, match=said) as told:
        brought(clean, story, memory="64Mi", patience="8")
    assert told.value.exit_code == 1


def test_a_pod_that_is_never_made_is_refused_in_the_words_of_what_refuses(clean: KubeApi) -> None:
    with pytest.raises(DeepError, match=r"was refused.*RuntimeClass \\?\"?nvidia\\?\"? not found"):
        brought(clean, None, what=ON_GPU, patience="3")


def test_the_cluster_ends_a_job_itself_when_its_time_is_over(clean: KubeApi) -> None:
    Kubelet.answers = [[NOTE]]
    node = Node(clean)
    one = backend(clean, timeout="4")
    job = one.submit(SPECIFICATION)
    node.await_pod()
    node.runs()
    assert [line for line in one.lines(job) if line] == [NOTE.strip()]
    assert one.end(job).fate == "out of time"
    one.remove(job)


def test_an_interrupted_job_is_deleted_with_its_pod_and_a_left_one_can_be_found(clean: KubeApi) -> None:
    one = backend(clean)
    job = one.submit(SPECIFICATION)
    node = Node(clean)
    node.await_pod()
    (found,) = clean.get("jobs")
    assert found["metadata"]["labels"] == {**MANAGED, INSTANCE: job}
    assert found["spec"]["ttlSecondsAfterFinished"] > 0
    assert found["spec"]["activeDeadlineSeconds"] == 3600
    one.remove(job)
    deadline = time.monotonic() + 30
    while clean.get("pods") or clean.get("jobs"):
        assert time.monotonic() < deadline, "the pod was left"
        time.sleep(0.2)
    one.remove(job)  # nothing to remove is no error


def test_a_job_whose_submission_got_no_answer_is_deleted(clean: KubeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = kubernetes.client.BatchV1Api.create_namespaced_job

    made = []

    def unanswered(*words: Any, **more: Any) -> None:
        made.append(submit(*words, **more))
        raise urllib3.exceptions.ReadTimeoutError(None, "/", "timed out")  # type: ignore[arg-type]

    monkeypatch.setattr(kubernetes.client.BatchV1Api, "create_namespaced_job", unanswered)
    with pytest.raises(DeepError, match="Kubernetes does not answer"):
        brought(clean, None)
    assert len(made) == 1
    assert all("deletionTimestamp" in one["metadata"] for one in clean.get("jobs"))


@pytest.mark.parametrize(
    ("user", "namespace", "said"),
    [
        ("nobody", NAMESPACE, r"cannot create resource .*jobs.*403"),
        ("stranger", NAMESPACE, r"Unauthorized.*401"),
        ("admin", "nowhere", r"namespaces .*nowhere.* not found.*404"),
    ],
)
def test_a_server_that_refuses_is_quoted(kube: KubeApi, tmp_path: Path, user: str, namespace: str, said: str) -> None:
    text = (kube.folder / "kubeconfig").read_text()
    (tmp_path / "kubeconfig").write_text(text.replace(kube_api.TOKENS["admin"], kube_api.TOKENS.get(user, "x")))
    with pytest.raises(DeepError, match=f"Kubernetes refuses: .*{said}") as told:
        brought(kube, None, kubeconfig=str(tmp_path / "kubeconfig"), namespace=namespace)
    assert told.value.next_step
