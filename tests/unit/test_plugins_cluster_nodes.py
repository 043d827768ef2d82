"""Nodes are waited for until they are what the next step needs; only their own serving certificates are approved."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from plugins.modules import cluster_nodes
from plugins.modules.cluster_nodes import (
    Cluster,
    dns_ready,
    node_facts,
    objection,
    pending_requests,
    request_names,
    serving_fault,
)

NODES = {"node1": "192.0.2.11"}
TEXT = """Certificate Request:
        Subject: O = system:nodes, CN = system:node:node1
            X509v3 Subject Alternative Name:
                DNS:node1, IP Address:192.0.2.11
"""


def node(name: str = "node1", *, ready: bool = True, cidr: str = "10.244.0.0/24") -> dict[str, Any]:
    return {
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDR": cidr} if cidr else {},
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "addresses": [{"type": "InternalIP", "address": "192.0.2.11"}],
        },
    }


def request(**spec: Any) -> dict[str, Any]:
    usages = ["digital signature", "server auth"]
    own = {"signerName": cluster_nodes.SIGNER, "username": "system:node:node1", "usages": usages, "request": "eA=="}
    return {"kind": "CertificateSigningRequest", "metadata": {"name": "csr-1"}, "spec": {**own, **spec}}


def dns(replicas: int) -> dict[str, Any]:
    return {"kind": "Deployment", "metadata": {"name": "coredns"}, "status": {"availableReplicas": replicas}}


class Module:
    """As much of an Ansible module as a cluster needs."""

    check_mode = False

    def __init__(self) -> None:
        self.params = {
            "nodes": NODES,
            "until": "ready",
            "ca": "/nowhere",
            "kubeconfig": "k",
            "timeout": 0,
            "interval": 0.0,
        }
        self.commands: list[list[str]] = []
        self.failed: dict[str, Any] = {}

    def get_bin_path(self, name: str, **_: Any) -> str:
        return f"/bin/{name}"

    def run_command(self, argv: list[str], data: str | None = None) -> tuple[int, str, str]:
        self.commands.append(argv)
        return 0, TEXT if argv[0] == "openssl" else "", ""

    def fail_json(self, **result: Any) -> None:
        self.failed = result
        raise SystemExit(1)


@pytest.fixture
def module() -> Module:
    return Module()


def test_what_the_cluster_says_of_a_node() -> None:
    assert node_facts(node()) == {"ready": True, "pod_cidr": "10.244.0.0/24", "address": "192.0.2.11"}
    assert node_facts(node(ready=False, cidr="")) == {"ready": False, "pod_cidr": "", "address": "192.0.2.11"}


def test_only_undecided_serving_requests_are_pending() -> None:
    decided = {**request(), "status": {"conditions": [{"type": "Approved"}]}}
    client = request(signerName="kubernetes.io/kube-apiserver-client-kubelet")
    assert pending_requests([request(), decided, client, node()]) == [request()]


def test_names_in_a_request() -> None:
    assert request_names(TEXT) == {"node1", "192.0.2.11"}


def test_a_request_of_our_node_for_itself_is_good() -> None:
    assert objection(request(), NODES, TEXT) == ""


@pytest.mark.parametrize(
    ("spec", "text", "said"),
    [
        ({"username": "system:node:stranger"}, TEXT, "no node of the inventory"),
        ({"username": "admin"}, TEXT, "no node of the inventory"),
        ({"usages": ["client auth"]}, TEXT, "client auth"),
        ({}, TEXT.replace("DNS:node1", "DNS:node1, DNS:kubernetes"), "kubernetes"),
        ({}, TEXT.replace("192.0.2.11", "192.0.2.12"), "192.0.2.12"),
        ({}, TEXT.replace("CN = system:node:node1", "CN = system:node:node2"), "subject"),
    ],
)
def test_any_other_request_is_refused(spec: dict[str, Any], text: str, said: str) -> None:
    assert said in objection(request(**spec), NODES, text)


def test_dns_is_ready_with_one_replica() -> None:
    assert dns_ready([dns(1)])
    assert not dns_ready([dns(0)])
    assert dns_ready([])


def test_a_good_request_is_approved_and_a_bad_one_named(module: Module) -> None:
    cluster = Cluster(module)
    bad = {**request(username="admin"), "metadata": {"name": "csr-2"}}
    cluster.decide([request(), bad])
    assert cluster.approved == ["csr-1"]
    assert module.commands[-1][-3:] == ["certificate", "approve", "csr-1"]
    assert cluster.result([])["pending"] == ["csr-2: admin is no node of the inventory"]
    assert cluster.result([])["changed"] is True


def test_check_mode_approves_nothing(module: Module) -> None:
    module.check_mode = True
    cluster = Cluster(module)
    cluster.decide([request()])
    assert cluster.approved == []
    assert all("approve" not in command for command in module.commands)


def test_what_is_lacking_is_named(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_nodes, "serving_fault", lambda *_: "")
    cluster = Cluster(module)
    assert cluster.lacking([], "no connection", "ready") == ["no connection"]
    assert cluster.lacking([], "", "registered") == ["node1 is not registered"]
    assert cluster.lacking([node(cidr="")], "", "registered") == ["node1 has no pod network"]
    assert cluster.lacking([node(ready=False)], "", "registered") == []
    assert cluster.lacking([node(ready=False), dns(0)], "", "ready") == [
        "node1 is not Ready",
        "no replica of CoreDNS is available",
    ]
    assert cluster.lacking([node(), dns(1)], "", "ready") == []
    monkeypatch.setattr(cluster_nodes, "serving_fault", lambda *_: "no certificate")
    assert cluster.lacking([node(), dns(1)], "", "ready") == ["node1: no certificate"]


def test_the_timeout_says_what_is_lacking(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(module)
    monkeypatch.setattr(Cluster, "objects", lambda *_: ([], ""))
    with pytest.raises(SystemExit):
        cluster_nodes.settle(cluster)
    assert "node1 is not registered" in module.failed["msg"]


def test_a_settled_cluster_is_said_to_be_so(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    module.params["until"] = "registered"
    cluster = Cluster(module)
    monkeypatch.setattr(cluster_nodes, "serving_fault", lambda *_: "")
    monkeypatch.setattr(Cluster, "objects", lambda *_: ([node(), dns(1)], ""))
    assert cluster_nodes.settle(cluster)["settled"] is True
    monkeypatch.setattr(Cluster, "objects", lambda *_: ([node(), dns(0)], ""))
    assert cluster_nodes.settle(cluster)["settled"] is False


def test_a_port_without_tls_is_no_serving_certificate(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert "does not serve" in serving_fault("127.0.0.1", "/etc/ssl/certs/ca-certificates.crt", port)
    assert "does not serve" in serving_fault("127.0.0.1", str(tmp_path / "missing.crt"), port)
