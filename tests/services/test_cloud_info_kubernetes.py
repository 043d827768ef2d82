"""What is published of a cluster, held against kubectl's own sums while pods come and go on a real API server."""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from deep_cloud_info import publish, schema
from deep_cloud_info.__main__ import main
from deep_cloud_info.config import Configuration
from deep_cloud_info.quantities import parse
from tests.services import kube_api
from tests.services.kube_api import KubeApi

GPU = "nvidia.com/gpu"
NODES = {"gpu-a": "Tesla-T4", "gpu-b": "Tesla-T4", "gpu-c": "A100", "plain": ""}
GPUS_EACH = 4
Json = dict[str, Any]


@pytest.fixture(scope="module")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    if not all(kube_api.store(*program) for program in kube_api.PROGRAMS):
        pytest.skip("Kubernetes is not in the artefact store; build it: deep artifacts build kubernetes etcd")
    with kube_api.running(tmp_path_factory.mktemp("kube")) as found:
        found.apply(*(node(name, model) for name, model in NODES.items()))
        found.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "imaging"}})
        limits = {f"requests.{GPU}": "3", "requests.cpu": "6", "pods": "200"}
        named = {"name": "organisation", "namespace": "imaging"}
        found.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": named, "spec": {"hard": limits}})
        yield found


def node(name: str, model: str) -> Json:
    gpus = {GPU: str(GPUS_EACH)} if model else {}
    amounts = {"cpu": "16", "memory": "64Gi", "pods": "110", **gpus}
    labels = {"nvidia.com/gpu.product": model, "deephdc.org/gpu": "simulated"} if model else {}
    conditions = [{"type": "Ready", "status": "True"}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/arch": "amd64", **labels}},
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": conditions},
    }


def container(name: str, gpus: int, cpu: int, **more: Any) -> Json:
    amounts = {"cpu": f"{cpu}m", "memory": f"{cpu}Ki", **({GPU: str(gpus)} if gpus else {})}
    resources = {"requests": amounts, **({"limits": {GPU: str(gpus)}} if gpus else {})}
    return {"name": name, "image": "none", "resources": resources, **more}


def pod(name: str, gpus: int = 1, on: str | None = "gpu-a", namespace: str = "default", **more: Any) -> Json:
    spec = {"containers": [container("one", gpus, 100)], **({"nodeName": on} if on else {}), **more}
    named = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": spec}


@dataclass
class Publisher:
    """The provider on the cluster, as a given user."""

    kube: KubeApi
    folder: Path

    def settings(self, user: str = "reader", **changed: Any) -> Json:
        cluster = {
            "server": self.kube.server, "ca_file": str(self.kube.folder / "ca.crt"),
            "token_file": str(self.kube.token_file(user)), "page_size": 3, **changed,
        }  # fmt: skip
        return {
            "site": "here",
            "output": str(self.folder / "here.json"),
            "kubernetes": cluster,
            "endpoints": [{"interface": "org.kubernetes.api", "url": self.kube.server}],
            "agreements": [{"organisation": "imaging", "priority": 7, "gpus": 2, "sla": "https://sla.example/1"}],
        }

    def config(self, user: str = "reader", **changed: Any) -> Path:
        path = self.folder / "config.json"
        path.write_text(json.dumps(self.settings(user, **changed)))
        return path

    def document(self) -> Any:
        return publish.document(Configuration.model_validate(self.settings()))

    def totals(self) -> Json:
        return dict(self.document()["CloudComputingManager"][0]["OtherInfo"])


@pytest.fixture
def publisher(kube: KubeApi, tmp_path: Path) -> Iterator[Publisher]:
    yield Publisher(kube, tmp_path)
    kube("delete", "pods", "--all", "--all-namespaces", "--force", "--grace-period=0", "--wait=false")
    deadline = time.monotonic() + 10
    while kube.get("pods"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def sums_of_kubectl(kube: KubeApi, name: str) -> dict[str, Decimal]:
    """What ``kubectl describe node`` says that the pods of a node ask for."""
    shown = kube("describe", "node", name).partition("Allocated resources:")[2]
    rows = re.findall(r"^  (cpu|memory|nvidia\.com/gpu) +(\S+)", shown, re.M)
    assert rows, shown
    return {resource: parse(amount) for resource, amount in rows}


def free_by_kubectl(kube: KubeApi) -> tuple[int, Decimal, int]:
    """GPUs, CPUs and MiB that are free on nodes that take pods, by kubectl's own sums."""
    gpus, cpus, memory = 0, Decimal(), 0
    for one in kube.get("nodes"):
        conditions = {it["type"]: it["status"] for it in one["status"]["conditions"]}
        hard = [it for it in one["spec"].get("taints", []) if it["effect"] != "PreferNoSchedule"]
        if conditions["Ready"] != "True" or one["spec"].get("unschedulable") or hard:
            continue
        offered, used = one["status"]["allocatable"], sums_of_kubectl(kube, one["metadata"]["name"])
        gpus += int(offered.get(GPU, 0)) - int(used.get(GPU, 0))
        cpus += parse(offered["cpu"]) - used["cpu"]
        memory += int(parse(offered["memory"]) - used["memory"]) // 1024**2
    return gpus, cpus, memory


def same_as_kubectl(publisher: Publisher) -> tuple[int, Decimal, int]:
    totals, expected = publisher.totals(), free_by_kubectl(publisher.kube)
    published = (totals["gpus_free"], Decimal(str(totals["cpus_free"])), totals["memory_mib_free"])
    assert published == expected
    return expected


def random_pod(chance: random.Random, number: int) -> Json:
    def some(name: str, **more: Any) -> Json:
        return container(name, chance.choice([0, 0, 0, 1]), chance.randrange(1, 400), **more)

    init = [
        some(f"init-{i}", **({"restartPolicy": "Always"} if chance.random() < 0.4 else {}))
        for i in range(chance.randrange(4))
    ]
    containers = [some(f"main-{i}") for i in range(chance.randrange(1, 3))]
    whole: Json = {"resources": {"requests": {"cpu": "4"}}} if chance.random() < 0.2 else {}
    on = chance.choice([*NODES, None])
    return pod(f"random-{number}", on=on, containers=containers, initContainers=init, **whole)


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_free_is_what_kubectl_sums_up(publisher: Publisher, seed: int) -> None:
    chance, seen = random.Random(seed), set()  # nosec B311 # to be repeated
    publisher.kube.apply(*(random_pod(chance, number) for number in range(14)))
    seen.add(same_as_kubectl(publisher))
    for number in chance.sample(range(14), 4):
        phase = chance.choice(["Succeeded", "Failed", "Running"])
        publisher.kube.status({**pod(f"random-{number}"), "status": {"phase": phase}})
    seen.add(same_as_kubectl(publisher))
    doomed = [f"random-{number}" for number in chance.sample(range(14), 5)]
    publisher.kube("delete", "pod", *doomed, "--force", "--grace-period=0", "--wait=false")
    seen.add(same_as_kubectl(publisher))
    assert len(seen) == 3, "nothing came or went"


def test_a_gpu_is_taken_and_comes_back(publisher: Publisher) -> None:
    kube = publisher.kube
    before = publisher.totals()["gpus_free"]
    assert before == 3 * GPUS_EACH
    kube.apply(pod("one"))
    assert publisher.totals()["gpus_free"] == before - 1
    kube.apply(pod("two", gpus=2, on=None))
    assert (publisher.totals()["gpus_free"], publisher.totals()["gpus_waiting"]) == (before - 1, 2)
    kube.status({**pod("one"), "status": {"phase": "Succeeded"}})
    assert publisher.totals()["gpus_free"] == before


def test_each_model_and_the_largest_rooms_are_published(publisher: Publisher) -> None:
    publisher.kube.apply(pod("one"), pod("three", gpus=3, on="gpu-b"))
    found = publisher.document()
    gpus = {
        one["Model"]: (one["Number"], one["OtherInfo"]["free"]) for one in found["CloudComputingVirtualAccelerator"]
    }
    assert gpus == {"Tesla-T4": (8, 4), "A100": (4, 4)}
    assert all(one["OtherInfo"]["simulated"] for one in found["CloudComputingVirtualAccelerator"])
    rooms = [one["OtherInfo"] for one in found["CloudComputingInstanceType"]]
    # The plain node is as large as the one with all its A100 free; gpu-b has the same CPUs as gpu-a and fewer GPUs.
    assert sorted((one["gpus"], one["gpu_model"]) for one in rooms) == [(3, "Tesla-T4"), (4, "A100")]
    (endpoint,) = found["CloudComputingEndpoint"]
    assert (endpoint["URL"], endpoint["HealthState"]) == (publisher.kube.server, "ok")
    assert found["CloudComputingManager"][0]["ProductVersion"].startswith("v1.")


@pytest.mark.parametrize(
    ("patch", "back"),
    [
        ({"spec": {"unschedulable": True}}, {"spec": {"unschedulable": None}}),
        ({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}, {"spec": {"taints": None}}),
    ],
)
def test_a_node_that_takes_nothing_is_not_free(publisher: Publisher, patch: Json, back: Json) -> None:
    kube, before = publisher.kube, publisher.totals()
    kube("patch", "node", "gpu-c", "--type=merge", f"--patch={json.dumps(patch)}")
    try:
        after = publisher.totals()
        same_as_kubectl(publisher)
    finally:
        kube("patch", "node", "gpu-c", "--type=merge", f"--patch={json.dumps(back)}")
    assert (before["gpus_free"] - after["gpus_free"], after["gpus_total"]) == (GPUS_EACH, before["gpus_total"])
    assert before["machines_usable"] - after["machines_usable"] == 1


def test_a_node_that_is_not_ready_is_not_free(publisher: Publisher) -> None:
    def ready(said: str) -> None:
        conditions = [{"type": "Ready", "status": said}]
        publisher.kube.status({"kind": "Node", "metadata": {"name": "gpu-c"}, "status": {"conditions": conditions}})

    ready("Unknown")
    try:
        assert publisher.totals()["gpus_free"] == 2 * GPUS_EACH
        same_as_kubectl(publisher)
    finally:
        ready("True")


def test_what_an_organisation_has_left_is_what_its_quota_says(publisher: Publisher) -> None:
    kube = publisher.kube
    kube.apply(pod("one", namespace="imaging"), pod("two", on=None, namespace="imaging"))

    def used() -> Any:
        (found,) = kube.get("resourcequotas")
        return found["status"]["used"].get(f"requests.{GPU}")

    deadline = time.monotonic() + 20
    while used() != "2":
        assert time.monotonic() < deadline, used()
        time.sleep(0.2)
    (share,) = publisher.document()["Share"]
    assert share["SLA"] == "https://sla.example/1"
    assert share["OtherInfo"]["quota"]["used"] == kube.get("resourcequotas")[0]["status"]["used"]
    assert share["OtherInfo"]["quota"]["left"] == {"gpus": 1, "cpus": 5.8, "pods": 198}
    assert (share["OtherInfo"]["priority"], share["OtherInfo"]["gpus_agreed"]) == (7, 2)


def test_pages_are_put_together(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher.kube.apply(*(pod(f"p{number}", gpus=0) for number in range(10)))
    small = Configuration.model_validate(publisher.settings(page_size=1))
    large = Configuration.model_validate(publisher.settings(page_size=500))
    free = [publish.document(one)["CloudComputingManager"][0]["OtherInfo"]["cpus_free"] for one in (small, large)]
    assert free == [63.0, 63.0]


# --- the command line ---------------------------------------------------------------------------------------------


def test_it_publishes_what_is_valid_and_says_so(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(publisher.config())]) == 0
    assert capsys.readouterr().out.startswith("here: published in ")
    path = publisher.folder / "here.json"
    found = json.loads(path.read_text())
    assert schema.problems(found) == []
    assert path.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in publisher.folder.iterdir() if one.name.startswith(".")] == []
    assert kube_api.TOKENS["reader"] not in path.read_text()


def test_a_check_writes_nothing(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(publisher.config()), "--check"]) == 0
    assert "here: valid: 12 of 12 GPUs" in capsys.readouterr().out
    assert not (publisher.folder / "here.json").exists()
    assert main(["--config", str(publisher.config()), "--output", "-"]) == 0
    assert schema.problems(json.loads(capsys.readouterr().out)) == []


def refused(publisher: Publisher, config: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    """Exit status and message of a run that has to fail; the publication before has to be there afterwards."""
    before = publisher.folder / "here.json"
    before.write_text("the one before")
    status = main(["--config", str(config), *more])
    assert before.read_text() == "the one before"
    assert [one.name for one in publisher.folder.iterdir() if one.name.startswith(".")] == []
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Next: " in message
    assert not set(kube_api.TOKENS.values()) & set(message.split())
    return status, message


def test_a_token_without_rights_is_told_which_are_missing(
    publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    status, message = refused(publisher, publisher.config("nobody"), capsys)
    assert status == 1
    assert "403 Forbidden to list nodes, list pods, list resourcequotas" in message


def test_only_the_right_that_is_missing_is_named(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    kube = publisher.kube
    patch = [{"op": "replace", "path": "/rules/0/resources", "value": ["nodes", "pods"]}]
    kube("patch", "clusterrole", "reader", "--type=json", f"--patch={json.dumps(patch)}")
    try:
        deadline = time.monotonic() + 10
        while main(["--config", str(publisher.config()), "--check"]) == 0:
            assert time.monotonic() < deadline
        capsys.readouterr()
        status, message = refused(publisher, publisher.config(), capsys)
    finally:
        kube("replace", "--filename=-", data=kube_api.READER)
    assert (status, "403 Forbidden to list resourcequotas;" in message) == (1, True)
    while main(["--config", str(publisher.config()), "--check"]) != 0:
        time.sleep(0.1)


def test_a_token_that_is_not_known(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = publisher.folder / "token"
    wrong.write_text("wrong")
    status, message = refused(publisher, publisher.config(token_file=str(wrong)), capsys)
    assert (status, "401 Unauthorized" in message) == (1, True)


@pytest.mark.parametrize(("content", "what"), [(None, "No such file"), ("", "no word"), ("a b", "more than one")])
def test_a_token_that_cannot_be_used(
    publisher: Publisher, capsys: pytest.CaptureFixture[str], content: str | None, what: str
) -> None:
    path = publisher.folder / "token"
    if content is not None:
        path.write_text(content)
    status, message = refused(publisher, publisher.config(token_file=str(path)), capsys)
    assert (status, what in message) == (2, True), message


def test_a_server_that_is_away_or_another(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = kube_api.free_ports(1)
    status, message = refused(publisher, publisher.config(server=f"https://127.0.0.1:{port}"), capsys)
    assert (status, f"answers at https://127.0.0.1:{port}" in message) == (1, True)
    other = publisher.folder / "other.crt"
    subject = ["-subj", "/CN=other", "-keyout", "/dev/null", "-out", str(other)]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", *subject], check=True, capture_output=True
    )
    status, message = refused(publisher, publisher.config(ca_file=str(other)), capsys)
    assert (status, "CERTIFICATE_VERIFY_FAILED" in message) == (1, True)


def test_a_folder_that_is_not_there(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    path = publisher.folder / "none" / "here.json"
    status, message = refused(publisher, publisher.config(), capsys, "--output", str(path))
    assert (status, "cannot be written" in message) == (1, True)


def test_a_disk_without_room_leaves_the_file_before(publisher: Publisher) -> None:
    before = publisher.folder / "here.json"
    before.write_text("the one before")
    argv = [sys.executable, "-m", "deep_cloud_info", "--config", str(publisher.config())]
    # Python itself would leave its compiled files cut short.
    environment = {"PYTHONPATH": str(Path(publish.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}

    def limited() -> None:
        """No file may be longer than this, which ends a write as a full disk does."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))

    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, preexec_fn=limited)
    assert (done.returncode, "cannot be written" in done.stderr) == (1, True), done.stderr
    assert before.read_text() == "the one before"
    assert [one.name for one in publisher.folder.iterdir() if one.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"sites": 1}, "sites: Extra inputs"),
        ({"site": ""}, "site: String should"),
        ({"kind": "mesos"}, "kind: Input should be 'kubernetes'"),
        ({"validity_seconds": 0}, "validity_seconds"),
        ({"endpoints": [{"interface": "x", "url": "http://plain.example"}]}, "endpoints.0.url"),
        ({"agreements": [{"organisation": "a"}, {"organisation": "a"}]}, "several agreements (found a;"),
    ],
)
def test_a_wrong_configuration(
    publisher: Publisher, capsys: pytest.CaptureFixture[str], change: Json, what: str
) -> None:
    config = publisher.folder / "wrong.json"
    config.write_text(json.dumps({**publisher.settings(), **change}))
    status, message = refused(publisher, config, capsys)
    assert (status, what in message) == (2, True), message


@pytest.mark.parametrize("text", [None, "{", "[]", "\xff"])
def test_a_configuration_that_cannot_be_read(
    publisher: Publisher, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    config = publisher.folder / "wrong.json"
    if text is not None:
        config.write_text(text, encoding="latin-1")
    assert refused(publisher, config, capsys)[0] == 2


def test_what_is_not_valid_is_not_published(
    publisher: Publisher, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deep_cloud_info.glue.share_id", lambda *given: "")
    status, message = refused(publisher, publisher.config(), capsys)
    assert (status, "$.Share[0].ID" in message) == (1, True), message


def test_egis_program_renders_the_same(publisher: Publisher) -> None:
    why = "EGI's cloud-info-provider and its clients of OpenStack are no requirement of the tests"
    pytest.importorskip("cloud_info_provider", reason=why)
    from cloud_info_provider.formatters.glue import GLUE21Json

    from deep_cloud_info import egi

    publisher.kube.apply(pod("one"))
    path = publisher.folder / "egi.json"
    found = egi.KubernetesPlugin(argparse.Namespace(site_config=str(publisher.config()))).fetch()
    egi.CheckedFilePublisher(argparse.Namespace(checked_file=str(path))).publish(GLUE21Json().format(None, found))
    rendered, ours = json.loads(path.read_text()), publisher.document()
    assert set(rendered) == set(ours)
    for kind, objects in ours.items():
        for mine, theirs in zip(objects, rendered[kind], strict=True):
            assert {**theirs, **mine, "CreationTime": ""} == {**theirs, "CreationTime": ""}, kind
