"""Three control planes: how they join, what one of them going down means, and certificates that are renewed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.support import deep_json, run_deep

pytestmark = pytest.mark.live

NAME = "e2e-ha"
NODES = ("node1", "node2", "node3")
KUBECTL = ("kubectl", "--kubeconfig=/etc/kubernetes/admin.conf")
SERIAL = ("openssl", "x509", "-noout", "-serial", "-in", "/etc/kubernetes/pki/apiserver.crt")
HEALTH = ("curl", "--silent", "--fail", "http://127.0.0.1:2381/health")


def on(node: str, *command: str) -> str:
    """What a program on a node says."""
    return run_deep("testbed", "shell", node, f"--name={NAME}", "--", *command).stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def verdict() -> Iterator[dict[str, Any]]:
    """The verdict of the acceptance suite on three control planes; they are removed afterwards."""
    run_deep("testbed", "down", f"--name={NAME}")
    yield deep_json("testbed", "up", f"--name={NAME}", "--profile=high-availability")["verdict"]
    run_deep("testbed", "down", f"--name={NAME}")


def test_every_control_plane_is_a_member(verdict: dict[str, Any]) -> None:
    """The acceptance suite passes, and each host runs an API server and a member of etcd that agree."""
    assert verdict["ok"], verdict["failures"]
    assert not verdict["simulated"]
    pods = json.loads(on("node1", *KUBECTL, "-n", "kube-system", "get", "pods", "-o", "json"))["items"]
    running = {pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Running"}
    assert {f"{component}-{node}" for component in ("etcd", "kube-apiserver") for node in NODES} <= running
    assert all(json.loads(on(node, *HEALTH))["health"] == "true" for node in NODES)


def test_certificates_are_renewed_one_control_plane_after_the_other() -> None:
    """With every certificate due, all hosts have new ones and a healthy etcd; the run after it renews nothing."""
    before = {node: on(node, *SERIAL) for node in NODES}
    due = "--set=kubernetes_control_plane_renew_days=366"  # they are made for a year
    run_deep("testbed", "up", f"--name={NAME}", "--until=deploy", due)
    after = {node: on(node, *SERIAL) for node in NODES}
    assert all(after[node] != before[node] for node in NODES)
    assert all(json.loads(on(node, *HEALTH))["health"] == "true" for node in NODES)
    run_deep("testbed", "up", f"--name={NAME}", "--until=deploy", "--set=kubernetes_control_plane_renew_days=")
    assert {node: on(node, *SERIAL) for node in NODES} == after


def test_one_control_plane_may_go_down() -> None:
    """With two of three members of etcd left the cluster still takes changes."""
    subprocess.run(["docker", "stop", "--time=2", f"deep-{NAME}-node3"], check=True, capture_output=True)
    on("node1", *KUBECTL, "create", "configmap", "written-by-two")
    assert on("node2", *KUBECTL, "get", "configmap", "written-by-two", "-o", "name") == "configmap/written-by-two"
