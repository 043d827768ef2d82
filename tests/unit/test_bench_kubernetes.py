"""What a Job is asked for, and how long a silent API server is borne; tests/services has the fates of Jobs."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import urllib3

from pipelines.benchmark import backends
from pipelines.benchmark.backends import kubernetes
from pipelines.benchmark.backends.kubernetes import Kubernetes, Seen
from pipelines.benchmark.model import Plan, Specification
from testbed import login
from testbed.errors import DeepError
from tests.unit.login_issuer import listening

CPU, TWO_GPUS = Specification(), Specification(plan=Plan(device="gpu", gpus=2))
SERVER = "https://10.1.2.3:6443"


def backend(**options: str) -> Kubernetes:
    found = backends.load("kubernetes", {"image": "deephdc/benchmark:1", **options})
    assert isinstance(found, Kubernetes)
    return found


def pod(what: Specification = CPU, **options: str) -> Any:
    return backend(**options).manifest("deep-bench-1", what)["spec"]["template"]["spec"]


def kubeconfig(server: str = SERVER) -> str:
    named = {"name": "here"}
    return json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [named | {"cluster": {"server": server}}],
        "users": [named | {"user": {"token": "t"}}],
        "contexts": [named | {"context": {"cluster": "here", "user": "here"}}],
    })  # fmt: skip


def test_gpus_are_asked_for_by_number_and_with_their_runtime() -> None:
    asked = pod(TWO_GPUS, cpus="4", memory="8Gi")
    amounts = {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "2"}
    assert asked["containers"][0]["resources"] == {"limits": amounts, "requests": amounts}
    assert asked["runtimeClassName"] == "nvidia"
    assert "runtimeClassName" not in pod(TWO_GPUS, runtime_class="")
    without = pod(CPU)
    assert without["containers"][0]["resources"] == {"limits": {}, "requests": {}}
    assert "runtimeClassName" not in without


@pytest.mark.parametrize("amount", ["4", "0.5", ".5", "1.", "+2", "500m", "8Gi", "2k", "1e3", "15E-1", "100n"])
def test_amounts_are_as_kubernetes_has_them(amount: str) -> None:
    asked = pod(CPU, cpus=amount, memory=amount)
    assert asked["containers"][0]["resources"]["limits"] == {"cpu": amount, "memory": amount}


@pytest.mark.parametrize("amount", ["", "much", "4gb", "8GiB", "0", "0.00", "-1", "m", "1m2", "inf", "nan", "1_0", "."])
@pytest.mark.parametrize("option", ["cpus", "memory"])
def test_amounts_that_are_none_are_refused(option: str, amount: str) -> None:
    with pytest.raises(DeepError, match=f"{option}: found '{amount}', needed an amount such as"):
        backend(**{option: amount})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"site": "local", "kubeconfig": "admin.conf"}, "either site, or kubeconfig and context"),
        ({"site": "local", "context": "here"}, "either site, or kubeconfig and context"),
        ({"testbed": "mine"}, "it needs site=local"),
        ({"testbed": "mine", "kubeconfig": "admin.conf"}, "it needs site=local"),
    ],
)
def test_options_that_name_two_clusters_or_half_of_one_are_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(DeepError, match=said):
        backend(**options)


def test_a_pod_goes_where_it_is_told_to() -> None:
    asked = pod(node_selector="kubernetes.io/hostname=node2,zone=a", tolerations="dedicated=gpu,spare")
    assert asked["nodeSelector"] == {"kubernetes.io/hostname": "node2", "zone": "a"}
    assert asked["tolerations"][:2] == [
        {"key": "dedicated", "operator": "Equal", "value": "gpu"},
        {"key": "spare", "operator": "Exists"},
    ]
    # Soon given up where its node does not answer.
    assert {one["key"].rpartition("/")[2] for one in asked["tolerations"][2:]} == {"not-ready", "unreachable"}
    assert all(one["tolerationSeconds"] < 60 for one in asked["tolerations"][2:])
    with pytest.raises(DeepError, match=r"node_selector: found 'node2', needed KEY=VALUE"):
        backend(node_selector="node2")


def test_the_specification_goes_with_it() -> None:
    variables = {one["name"]: one.get("value") for one in pod(TWO_GPUS)["containers"][0]["env"]}
    assert Specification.model_validate_json(variables["DEEP_BENCH_SPECIFICATION"]) == TWO_GPUS
    assert "DEEP_BENCH_HOST" in variables


def silent(*_: object) -> NoReturn:
    raise urllib3.exceptions.ProtocolError("connection reset")


def connected(monkeypatch: pytest.MonkeyPatch, folder: Path, **options: str) -> Kubernetes:
    """Of a server that is never reached."""
    monkeypatch.setattr(kubernetes, "PAUSE", 0.001)
    (folder / "kubeconfig").write_text(kubeconfig())
    return backend(kubeconfig=str(folder / "kubeconfig"), **options)


def test_a_server_that_is_silent_for_a_while_is_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = connected(monkeypatch, tmp_path)
    answers: list[Any] = [silent, silent, lambda *_: Seen(None, None)]
    monkeypatch.setattr(Kubernetes, "_seen", lambda *_: answers.pop(0)())
    assert list(one.lines("job")) == [None, None]
    assert not answers


def test_a_server_that_stays_silent_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = connected(monkeypatch, tmp_path, patience="0")
    monkeypatch.setattr(Kubernetes, "_seen", silent)
    with pytest.raises(DeepError, match=f"{SERVER}: Kubernetes does not answer.*connection reset"):
        list(one.lines("job"))


def test_a_site_is_asked_as_whoever_is_logged_in_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[login.Place] = []

    def given(place: login.Place) -> str:
        asked.append(place)
        return kubeconfig()

    monkeypatch.setattr(login, "kubeconfig", given)
    one = backend(site="local", testbed="mine")
    assert one._client.configuration.host == SERVER
    assert asked == [login.Place("local", "mine")]
    refused = SimpleNamespace(status=401, reason="Unauthorized", body=None)
    assert one._refused(refused).next_step == "deep login local --name mine --as USER"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no such file"),
        (b"a: [\n\t", "not YAML in line 2: found character"),
        (b"\x89PNG", "'utf-8' codec can't decode"),
        (b"", "file is empty"),
        (b"- a", "list indices"),
        (b"hello", "does not support item assignment"),
        (b"kind: Config", "Expected key current-context"),
        (kubeconfig().replace("token", "client-key-data").encode(), "Invalid base64-encoded string"),
    ],
)
def test_what_is_no_kubeconfig_is_named(tmp_path: Path, text: bytes | None, said: str) -> None:
    file = tmp_path / "kubeconfig"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(DeepError, match=f"there is no cluster to ask .found: {file}: .*{said}.*a kubeconfig") as told:
        backend(kubeconfig=str(file)).submit(CPU)
    assert told.value.next_step == "--option site=SITE, or --option kubeconfig=FILE"


def test_the_contexts_that_there_are_are_told(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(kubeconfig())
    with pytest.raises(DeepError, match=f"no such context .found: there, in {file}; needed: one of here"):
        backend(kubeconfig=str(file), context="there").submit(CPU)


class Page(BaseHTTPRequestHandler):
    """Answers everything with a page to log in."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>\nlog in</html>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the library's
        pass


def test_what_answers_and_is_not_kubernetes_is_told(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    with listening(Page, None) as port:
        file.write_text(kubeconfig(f"http://127.0.0.1:{port}"))
        with pytest.raises(DeepError, match=f":{port}: what answers is not Kubernetes .found: .*<html> log in") as told:
            backend(kubeconfig=str(file)).submit(CPU)
    assert told.value.exit_code == 1
    assert told.value.next_step


def test_a_server_that_cannot_be_reached_is_told_in_plain_words(tmp_path: Path) -> None:
    file, server = tmp_path / "kubeconfig", "https://127.0.0.1:9"
    file.write_text(kubeconfig(server))
    with pytest.raises(DeepError, match=f"{server}: Kubernetes does not answer .found: Connection refused; n") as told:
        backend(kubeconfig=str(file)).submit(CPU)
    assert "kubectl" in str(told.value.next_step)
