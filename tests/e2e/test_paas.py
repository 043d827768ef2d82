"""The PaaS as people use it: log in, have a module deployed where there is room, ask it; and what goes wrong.

Two namespaces of one cluster are two sites, each with room for one GPU.
"""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from testbed import sites
from testbed.artifacts import api
from testbed.at_address import AtAddress
from testbed.login import Place
from testbed.modules import image as image_of
from tests.acceptance.probes.identity import issuer_of
from tests.acceptance.probes.site import Site
from tests.e2e.support import DEEP, ROOT, deep_json, run_deep, wait_for

pytestmark = pytest.mark.live

NAME = "e2e-paas"
CLASSIFIER, DETECTOR = "image-classifier", "anomaly-detector"
FIRST, SECOND = "imaging", "imaging-b"
TEN = 10
# The IAM first: what needs it waits for it for a minute.
SERVICES = ("keycloak", "docker-registry", "deep-orchestrator", "deephdc-infrastructure-manager")
ISSUER = "https://iam.deep.test:8443/realms/deep/.well-known/openid-configuration"


def organisation(name: str, gpus: int, **more: Any) -> dict[str, Any]:
    """As ``site_organisations`` has it."""
    quota = {"requests.cpu": "4", "requests.memory": "8Gi", "requests.nvidia.com/gpu": str(gpus), "pods": "20"}
    return {"name": name, "quota": quota, **more}


SETTINGS = {
    "registry_more_images": ["modules", "benchmark"],
    "site_organisations": [
        organisation(FIRST, 1),
        organisation(SECOND, 1, members=["imaging"], readers=["imaging-readers"]),
        organisation("climate", 0),
    ],
    # For the orchestrator, both namespaces are the same organisation's.
    "orchestrator_organisations": [
        {"name": name, "members": [name], "readers": [f"{name}-readers"]} for name in ("imaging", "climate")
    ],
    "orchestrator_sites": {
        "local": "{{ orchestrator_own_site }}",
        "second": "{{ orchestrator_own_site | combine({'namespace': '{organisation}-b',"
        " 'information': {'file': '/var/lib/deephdc/cloud-info/second.json'}}) }}",
    },
}
# What the second site publishes is made by the same unit, from settings of its own: $1.
PUBLISH_SECOND = r"""
unit=/etc/systemd/system/deephdc-cloud-info.service settings=/etc/deephdc/cloud-info/second.json
install -m 0640 -g deephdc-cloud-info /dev/null "$settings"
printf %s "$1" >"$settings"
install -d "$unit.d"
(echo '[Service]'; sed -n '/^ExecStart=/,/[^\\]$/p' "$unit" | sed s/config.json/second.json/) >"$unit.d/second.conf"
systemctl daemon-reload
"""


def log_in(person: str) -> None:
    run_deep("login", "local", f"--name={NAME}", f"--as={person}")


@contextmanager
def logged_in_as(person: str) -> Iterator[None]:
    """Be somebody else for a while."""
    log_in(person)
    try:
        yield
    finally:
        log_in("member")


def modules(*arguments: str, status: int = 0) -> Any:
    """The JSON object of ``deep modules``."""
    return deep_json("modules", *arguments, f"--name={NAME}", status=status)


def deploy(module: str, *options: str, status: int = 0) -> dict[str, Any]:
    """Have a module deployed; two of them have room on a node of the testbed."""
    return dict(modules("deploy", module, "--cpus=0.5", *options, status=status))


def state(uuid: str) -> str:
    """What the orchestrator says of a deployment; empty while it cannot."""
    return str(
        json.loads(run_deep("modules", "status", uuid, f"--name={NAME}", "--json", status=None).stdout).get("status")
    )


def on_node(*command: str) -> str:
    """What a program on the first node says."""
    return run_deep("testbed", "shell", "node1", f"--name={NAME}", "--", *command).stdout


def listed(kinds: str, namespace: str) -> list[dict[str, Any]]:
    """What there is, as the administrator of the cluster sees it."""
    return list(json.loads(on_node("kubectl", "get", kinds, f"--namespace={namespace}", "--output=json"))["items"])


def made(namespace: str) -> list[str]:
    """What there is in an organisation's namespace, besides what each has from the beginning."""
    kinds = "deployments,replicasets,pods,services,ingresses,persistentvolumeclaims,secrets"
    return [f"{one['kind']}/{one['metadata']['name']}" for one in listed(kinds, namespace)]


def publish_second() -> None:
    """Let the second namespace be a site, which comes after the first one."""
    said = json.loads(on_node("cat", "/etc/deephdc/cloud-info/config.json"))
    said |= {
        "site": "second",
        "output": "/var/lib/deephdc/cloud-info/second.json",
        "agreements": [{"organisation": "imaging", "namespace": SECOND, "priority": 200}],
    }
    on_node("sh", "-euc", PUBLISH_SECOND, "sh", json.dumps(said))


def publish() -> None:
    """Have what the sites have published now; the timer would do it within a minute."""
    on_node("systemctl", "start", "deephdc-cloud-info.service")


@pytest.fixture(scope="module", autouse=True)
def testbed() -> Iterator[None]:
    """The default testbed with two sites, and a member who is logged in."""
    run_deep("testbed", "down", f"--name={NAME}")
    api.ensure(["benchmark"])
    settings = [f"--set={name}={json.dumps(value)}" for name, value in SETTINGS.items()]
    run_deep("testbed", "up", f"--name={NAME}", "--until=deploy", *settings)
    publish_second()
    publish()
    log_in("member")
    yield
    run_deep("testbed", "down", f"--name={NAME}")


@pytest.fixture(scope="module")
def site(testbed: None) -> Site:
    """The testbed as its inventory describes it."""
    folders = [sites.inventories() / "common", sites.inventories() / "local", sites.generated_inventory(NAME)]
    return Site("local", folders, sites.vault_password_file("local", NAME))


@pytest.fixture(scope="module")
def classifier(testbed: None) -> dict[str, Any]:
    """A module with a GPU, deployed while both sites have one."""
    return deploy(CLASSIFIER, "--gpus=1")


@pytest.fixture(scope="module")
def detector(classifier: dict[str, Any]) -> dict[str, Any]:
    """Another one, deployed while the first site has no GPU left."""
    assert classifier["ok"]
    publish()
    return deploy(DETECTOR, "--gpus=1")


def ask(site: Site, endpoint: str, path: str, headers: dict[str, str], authority: str = "ca.crt") -> int:
    """The status that a service of the first node answers with; its certificate is verified."""
    name, _, port = str(site.value("node1", endpoint)).rpartition(":")
    trust = ssl.create_default_context(cafile=sites.public_dir("local", NAME) / authority)
    transport = AtAddress({name: site.address("node1")}, trust)
    with httpx.Client(base_url=f"https://{name}:{port}", transport=transport, timeout=30) as client:
        return client.get(path, headers={"Accept": "application/json", **headers}).status_code


def token(site: Site, person: str, scope: str) -> str:
    with issuer_of(site, "node1") as iam:
        return iam.token(person, scope=f"openid {scope}")


def ask_manager(site: Site, path: str, person: str) -> int:
    line = f"type = InfrastructureManager; token = {token(site, person, 'im')}"
    return ask(site, "infrastructure_manager_endpoint", path, {"Authorization": line})


# Benchmarks, while nobody else computes


def bench(*options: str) -> tuple[str, ...]:
    """The words that measure one workload at the first site."""
    image = image_of(Place("local", NAME), "deephdc/benchmark")
    given = {"site": "local", "testbed": NAME, "namespace": FIRST, "image": image, "cpus": "1"}
    words = [f"--option={name}={value}" for name, value in given.items()]
    return ("bench", "run", "--on=kubernetes", *words, "--processes=1", "--repeats=20", *options)


def test_a_member_measures_a_node_of_the_cluster(tmp_path: Path) -> None:
    done = deep_json(*bench("gemm-fp64", "--option=memory=1Gi", f"--store={tmp_path}"))["run"]
    (result,) = done["results"]
    assert result["summary"]["median"] > 0
    assert (done["machine"]["container"], done["submission"]["backend"]) == ("kubernetes", "kubernetes")
    assert done["machine"]["host"] == "node2"
    wait_for(lambda: not listed("jobs", FIRST), "no Job is left")


def test_a_simulated_gpu_is_given_to_a_job_and_not_measured(tmp_path: Path) -> None:
    refused = deep_json(*bench("--device=gpu", "--option=memory=1Gi", f"--store={tmp_path}"), status=2)
    assert refused["error"]["message"] == "a simulated GPU computes nothing and is not measured"
    assert "Simulated" in refused["error"]["found"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("gemm-fp64", "--option=memory=32Mi"), "ran out of memory"),
        (("--device=gpu", "--gpus=2", "--option=memory=1Gi", "--option=patience=5"), "exceeded quota"),
    ],
)
def test_a_job_that_cannot_be_is_told_in_the_words_of_the_cluster(
    options: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    refused = deep_json(*bench(*options, f"--store={tmp_path}"), status=1)["error"]
    assert said in f"{refused['message']} {refused['found']}"


def test_a_job_whose_pod_is_deleted_is_lost(tmp_path: Path) -> None:
    argv = [str(DEEP), *bench("gemm-fp64", "--option=memory=1Gi", "--processes=20", f"--store={tmp_path}")]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
        wait_for(lambda: [one["status"]["phase"] for one in listed("pods", FIRST)] == ["Running"], "a running pod")
        on_node("kubectl", "delete", "pods", "--all", f"--namespace={FIRST}")
        _, said = running.communicate(timeout=120)
    assert running.returncode == 1
    assert "the job was lost" in said
    wait_for(lambda: not listed("jobs", FIRST), "no Job is left")


# One module after the other


def test_a_member_deploys_a_module_with_a_gpu(classifier: dict[str, Any]) -> None:
    assert (classifier["status"], classifier["site"]) == ("CREATE_COMPLETE", "local")
    first, second = classifier["selection"]
    assert (first["site"], first["rank"], second["site"], second["rank"]) == ("local", 1, "second", 2)
    assert any("2 of 2 GPUs free (simulated)" in reason for reason in first["reasons"])
    (pod,) = listed("pods", FIRST)
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["spec"]["runtimeClassName"] == "nvidia"
    assert "@sha256:" in container["image"]


def test_it_knows_ten_digits_and_says_what_it_computed_on(classifier: dict[str, Any]) -> None:
    answer = modules("predict", classifier["uuid"])["predictions"]
    assert len(answer["truth"]) == TEN
    assert [digit["label"] for digit in answer["digits"]] == answer["truth"]
    assert answer["computed_on"] == "cpu"
    assert len(answer["gpus"]["devices"]) == 1
    assert answer["gpus"]["simulated"] is True
    refused = modules("predict", classifier["uuid"], "samples=[-1]", status=1)
    assert "422" in refused["error"]["found"]
    assert modules("logs", classifier["uuid"])["pods"][0]["log"]


def test_an_outsider_is_refused_at_each_door(site: Site, classifier: dict[str, Any]) -> None:
    with logged_in_as("outsider"):
        for what in ("status", "delete", "predict", "logs"):
            assert modules(what, classifier["uuid"], status=1)["error"]["found"] == "HTTP status 404"
    infrastructure = f"/infrastructures/{classifier['infrastructure']}"
    assert ask_manager(site, infrastructure, "member") == httpx.codes.OK
    assert ask_manager(site, infrastructure, "outsider") == httpx.codes.FORBIDDEN
    assert ask_manager(site, "/infrastructures", "guest") == httpx.codes.UNAUTHORIZED
    pods = f"/api/v1/namespaces/{FIRST}/pods"
    for person, status in (("member", httpx.codes.OK), ("outsider", httpx.codes.FORBIDDEN)):
        bearer = {"Authorization": f"Bearer {token(site, person, 'kubernetes')}"}
        assert ask(site, "kubernetes_control_plane_endpoint", pods, bearer, "kubernetes-ca.crt") == status
    for headers in ({}, {"Authorization": f"Bearer {token(site, 'outsider', 'registry')}"}):
        assert ask(site, "registry_endpoint", "/v2/_catalog", headers) == httpx.codes.UNAUTHORIZED


def test_where_the_first_site_is_full_the_second_is_taken(detector: dict[str, Any]) -> None:
    assert (detector["status"], detector["site"]) == ("CREATE_COMPLETE", "second")
    by_name = {one["site"]: one for one in detector["selection"]}
    assert by_name["local"]["rank"] is None
    assert any("GPU" in reason for reason in by_name["local"]["reasons"])
    assert modules("predict", detector["uuid"])["ok"]


def test_where_both_are_full_it_is_said_what_is_missing(detector: dict[str, Any]) -> None:
    assert detector["ok"]
    publish()
    failed = deploy(CLASSIFIER, "--gpus=1", status=1)
    assert failed["status"] == "CREATE_FAILED"
    for name in ("local", "second"):
        assert f"{name}: " in failed["reason"]
    assert "1 GPUs asked, 0 of 2 free" in failed["reason"]
    assert failed["attempts"] == []
    assert modules("delete", failed["uuid"])["ok"]


def test_what_is_deleted_leaves_nothing(site: Site, classifier: dict[str, Any], detector: dict[str, Any]) -> None:
    for deployment, namespace in ((classifier, FIRST), (detector, SECOND)):
        assert made(namespace)
        assert modules("delete", deployment["uuid"])["status"] == "DELETE_COMPLETE"
        wait_for(lambda namespace=namespace: not made(namespace), "nothing is left", seconds=60)  # type: ignore[misc]
        path = f"/infrastructures/{deployment['infrastructure']}"
        assert ask_manager(site, path, "member") == httpx.codes.NOT_FOUND
    assert modules("status")["deployments"] == []


# What goes wrong


@contextmanager
def no_more_services(namespace: str) -> Iterator[None]:
    """Have Kubernetes refuse what the Infrastructure Manager makes behind the container."""
    on_node("kubectl", "create", "quota", "drill", f"--namespace={namespace}", "--hard=services=0")
    try:
        yield
    finally:
        on_node("kubectl", "delete", "quota", "drill", f"--namespace={namespace}")


def test_what_fails_in_the_middle_is_recovered_at_the_second_site() -> None:
    publish()
    with no_more_services(FIRST):
        recovered = deploy(DETECTOR)
    assert (recovered["status"], recovered["site"]) == ("CREATE_COMPLETE", "second")
    failed, good = recovered["attempts"]
    assert (failed["site"], failed["outcome"]) == ("local", "removed")
    assert "exceeded quota: drill" in failed["reason"]
    assert (good["site"], good["outcome"]) == ("second", "complete")
    wait_for(lambda: not made(FIRST), "what failed is removed", seconds=60)
    assert modules("predict", recovered["uuid"])["ok"]
    assert modules("delete", recovered["uuid"])["status"] == "DELETE_COMPLETE"
    wait_for(lambda: not made(SECOND), "nothing is left", seconds=60)


@contextmanager
def nothing_is_scheduled() -> Iterator[None]:
    """Keep new pods waiting, while the sites go on offering what they offered before."""
    publish()
    on_node("systemctl", "stop", "deephdc-cloud-info.timer")
    on_node("kubectl", "cordon", "node1", "node2")
    try:
        yield
    finally:
        on_node("kubectl", "uncordon", "node1", "node2")
        on_node("systemctl", "start", "deephdc-cloud-info.timer")


def test_restarts_in_the_middle_lose_nothing() -> None:
    with nothing_is_scheduled():
        uuid = deploy(CLASSIFIER, "--no-wait")["uuid"]
        wait_for(lambda: bool(listed("pods", FIRST)), "the pod is made", seconds=60)
        for service in SERVICES:
            on_node("systemctl", "kill", "--signal=KILL", f"{service}.service")
            on_node("systemctl", "restart", f"{service}.service")
            if service == "keycloak":
                on_node(
                    "curl", "--silent", "--fail", "--output", "/dev/null", "--retry", "60", "--retry-all-errors", ISSUER
                )
        wait_for(lambda: state(uuid) == "CREATE_IN_PROGRESS", "everything answers again")
    wait_for(lambda: state(uuid) == "CREATE_COMPLETE", "it is gone on with")
    assert len(listed("deployments", FIRST)) == 1
    told = modules("status", uuid)
    assert [attempt["site"] for attempt in told["attempts"]] == ["local"]
    assert modules("predict", uuid)["ok"]
    assert modules("delete", uuid)["status"] == "DELETE_COMPLETE"
    wait_for(lambda: not made(FIRST), "nothing is left", seconds=60)
