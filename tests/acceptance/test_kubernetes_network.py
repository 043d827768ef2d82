"""Names and services across nodes, and a service that stays up while its pods change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.probes.cluster import Cluster, pod, pod_spec, ready, wait_until
from tests.acceptance.probes.requests import SteadyRequests
from tests.acceptance.probes.requests import answers as answers_well
from tests.acceptance.probes.site import Site

PORT = 8080
REPLICAS = 2
REQUESTS = 200
PACE = 0.03
NEIGHBOURS = 5
# Seconds that a pod waits for one service to answer.
PATIENCE = 15
# busybox httpd runs in the background; then every address is asked until it answers, and each answer is printed.
SERVE_AND_ASK = """
mkdir www && echo "$NODE" > www/index.html && httpd -p {port} -h www
for name in {targets}; do
  answer=none
  end=$(($(date +%s) + {patience}))
  while [ "$(date +%s)" -lt "$end" ]; do
    answer=$(wget -q -T 2 -O - "http://$name:{port}/" 2>/dev/null) && break
    answer=none; sleep 0.25
  done
  address=$(nslookup -type=a "$name.$DOMAIN" 2>/dev/null | sed -n 's/^Address[^:]*: *//p' | tail -n 1)
  echo "$name $answer $address"
done
echo done
sleep 600
"""
# Ready only while it serves; on its way out it goes on serving until every node has heard that it leaves.
WEB = 'mkdir www && echo "$VERSION $HOSTNAME" > www/index.html && exec httpd -f -p {port} -h www'


@pytest.fixture(scope="module")
def answers(cluster: Cluster, acceptance_image: str) -> dict[str, dict[str, tuple[str, str]]]:
    """Node -> service name -> (who answered, resolved address): one serving and asking pod on each node."""
    namespace = cluster.namespace("network", keep=True)
    nodes = sorted(node.metadata.name for node in cluster.nodes())
    for index, node in enumerate(nodes):
        # On a large site each node asks its next neighbours: together they still cross every node.
        targets = [nodes[(index + step) % len(nodes)] for step in range(min(NEIGHBOURS, len(nodes)))]
        names = " ".join(_service(target, nodes) for target in targets)
        env = {"NODE": node, "DOMAIN": f"{namespace}.svc.cluster.local"}
        script = SERVE_AND_ASK.format(port=PORT, targets=names, patience=PATIENCE)
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": _service(node, nodes)},
            "spec": {"selector": {"serves": f"node-{index}"}, "ports": [{"port": PORT}]},
        }
        cluster.create(
            namespace,
            service,
            pod(f"web-{index}", acceptance_image, script, node=node, env=env, labels={"serves": f"node-{index}"}),
        )
    pods = [f"web-{index}" for index in range(len(nodes))]
    cluster.wait_for_pods(namespace, pods, lambda one: one.status.phase == "Running", 90, "running")
    wait_until(
        lambda: all("done" in cluster.log(namespace, name) for name in pods),
        30 + NEIGHBOURS * (PATIENCE + 2),
        "every pod has asked every service",
    )
    return {node: _parse(cluster.log(namespace, f"web-{index}")) for index, node in enumerate(nodes)}


def _service(node: str, nodes: list[str]) -> str:
    return f"on-{nodes.index(node)}"


def _parse(log: str) -> dict[str, tuple[str, str]]:
    rows = [(*line.split(), "", "")[:3] for line in log.splitlines() if line.startswith("on-")]
    return {name: (answer, address) for name, answer, address in rows}


def test_services_reach_every_node(answers: dict[str, dict[str, tuple[str, str]]]) -> None:
    """A pod on each node reaches services whose pod runs on another node."""
    nodes = sorted(answers)
    wrong = [
        f"{node} asked {name}: {answer}"
        for node, found in answers.items()
        for name, (answer, _) in found.items()
        if answer != nodes[int(name.removeprefix("on-"))]
    ]
    assert not wrong, "; ".join(wrong)
    assert all(found for found in answers.values()), "a pod asked nobody"
    if len(nodes) < 2:
        pytest.skip("one node only: nothing was routed between nodes")


def test_names_resolve_on_every_node(cluster: Cluster, answers: dict[str, dict[str, tuple[str, str]]]) -> None:
    """A pod on each node resolves services to their cluster address."""
    addresses = {
        one.metadata.name: one.spec.cluster_ip
        for one in cluster.core.list_namespaced_service(f"acceptance-network-{cluster.run_id}").items
    }
    wrong = [
        f"{node}: {name} is {address or 'unknown'}, not {addresses[name]}"
        for node, found in answers.items()
        for name, (_, address) in found.items()
        if address != addresses[name]
    ]
    assert not wrong, "; ".join(wrong)


@pytest.fixture(scope="module")
def web(cluster: Cluster, acceptance_image: str) -> tuple[str, int]:
    """A Deployment of two replicas behind a NodePort: (namespace, port on every node)."""
    namespace = cluster.namespace("rolling", keep=True)
    labels = {"app": "web"}
    container = {
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "3"]}}},
        "env": [{"name": "VERSION", "value": "one"}],
    }
    spec = pod_spec(acceptance_image, WEB.format(port=PORT), restart="Always", container=container)
    spec["terminationGracePeriodSeconds"] = 4
    spec["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels},
        }
    ]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"type": "NodePort", "selector": labels, "ports": [{"port": PORT}]},
    }
    cluster.create(namespace, deployment, service)
    wait_until(lambda: len(_ready(cluster, namespace)) == REPLICAS, 60, "both replicas are ready")
    return namespace, int(cluster.core.read_namespaced_service("web", namespace).spec.ports[0].node_port)


def _ready(cluster: Cluster, namespace: str) -> list[str]:
    return sorted(name for name, one in cluster.pods(namespace, "app=web").items() if ready(one))


@pytest.fixture(scope="module")
def requests(cluster: Cluster, site: Site, web: tuple[str, int]) -> Iterator[SteadyRequests]:
    """Requests at a fixed pace to the NodePort, to the site's own Kubernetes nodes in turn and nowhere else."""
    urls = [f"http://{site.address(host)}:{web[1]}/" for host in site.group("kubernetes")]
    # Ready pods are routed to a moment later: the count begins once every node does.
    wait_until(lambda: all(answers_well(url) for url in urls), 30, f"every node answers on its port {web[1]}")
    with SteadyRequests(urls, pace=PACE, most=3000) as running:
        yield running


def test_service_survives_deletion_and_rolling_change(
    cluster: Cluster, web: tuple[str, int], requests: SteadyRequests
) -> None:
    """No request fails while a pod is deleted and while a new version rolls out."""
    namespace = web[0]
    first = _ready(cluster, namespace)
    requests.wait_for(20)
    cluster.core.delete_namespaced_pod(first[0], namespace)
    wait_until(
        lambda: first[0] not in cluster.pods(namespace) and len(_ready(cluster, namespace)) == REPLICAS,
        60,
        "the deleted pod is replaced",
    )
    second = _ready(cluster, namespace)
    change: dict[str, Any] = {
        "spec": {
            "template": {"spec": {"containers": [{"name": "check", "env": [{"name": "VERSION", "value": "two"}]}]}}
        }
    }
    cluster.apps.patch_namespaced_deployment("web", namespace, change)
    wait_until(lambda: _rolled_out(cluster, namespace, second), 90, "the new version has replaced the old one")
    requests.wait_for(max(REQUESTS, requests.count + 20))
    requests.stop()
    assert not requests.failures, (
        f"{len(requests.failures)} of {requests.count} requests failed: {requests.failures[:3]}"
    )
    assert requests.count >= REQUESTS
    versions = {answer.split()[0] for answer in requests.answers}
    assert versions == {"one", "two"}, f"answers came from versions {versions}: the change was not seen"
    servers = {answer.split()[1] for answer in requests.answers}
    assert len(servers) > REPLICAS, f"answers came from {servers} only: no pod was replaced"


def _rolled_out(cluster: Cluster, namespace: str, old: list[str]) -> bool:
    pods = cluster.pods(namespace, "app=web")
    return len(_ready(cluster, namespace)) == REPLICAS == len(pods) and not set(old) & set(pods)


def test_service_without_pods_fails_requests(
    cluster: Cluster, site: Site, web: tuple[str, int], requests: SteadyRequests
) -> None:
    """Requests do fail once the service has no pod: the count above can count."""
    requests.stop()
    namespace, port = web
    cluster.apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 0}})
    wait_until(lambda: not cluster.pods(namespace, "app=web"), 30, "no replica is left")
    with SteadyRequests([f"http://{site.address(site.group('kubernetes')[0])}:{port}/"], pace=PACE, most=5) as last:
        deadline = time.monotonic() + 30
        while last.count < 5 and time.monotonic() < deadline:
            time.sleep(PACE)
    assert last.count == 5
    assert len(last.failures) == 5, f"answers without a pod: {set(last.answers)}"
