"""What a Job is asked for, and how long a silent API server is borne; tests/services has the fates of Jobs."""

from __future__ import annotations

import json
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

CPU, TWO_GPUS = Specification(), Specification(plan=Plan(device="gpu", gpus=2))
SERVER = "https://10.1.2.3:6443"


def backend(**options: str) -> Kubernetes:
    found = backends.load("kubernetes", {"image": "deephdc/benchmark:1", **options})
    assert isinstance(found, Kubernetes)
    return found


def pod(what: Specification = CPU, **options: str) -> Any:
    return backend(**options).manifest("deep-bench-1", what)["spec"]["template"]["spec"]


def kubeconfig() -> str:
    named = {"name": "here"}
    return json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [named | {"cluster": {"server": SERVER}}],
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


def test_without_a_cluster_it_is_told_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(DeepError, match=r"there is no cluster to ask.*needed: a kubeconfig"):
        backend(kubeconfig=str(tmp_path / "none")).submit(CPU)
