"""Which processes are those of the static pods, and when they are healthy again."""

from __future__ import annotations

import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from plugins.module_utils import static_pods

STATIC = (
    "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod9f31d8a26defc1d5f4647b78b35dd601.slice/a.scope"
)
OF_A_USER = "4:cpu:/kubepods/besteffort/pod23181e85-9225-4de3-9d40-a93a64eae1b6/490ded15"
OF_A_USER_BY_SYSTEMD = "0::/kubepods-besteffort-pod23181e85_9225_4de3_9d40_a93a64eae1b6.slice/a.scope"


def test_only_static_pods_are_of_the_control_plane(tmp_path: Path) -> None:
    rows = [
        (7, "kube-apiserver", STATIC),
        (8, "kube-controller", STATIC),
        (9, "kubelet", STATIC),
        (10, "etcd", OF_A_USER),
        (11, "etcd", OF_A_USER_BY_SYSTEMD),
        (12, "etcd", "0::/system.slice/etcd.service"),
    ]
    for number, name, group in rows:
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "comm").write_text(f"{name}\n")
        (tmp_path / str(number) / "cgroup").write_text(f"{group}\n")
    (tmp_path / "13").mkdir()
    assert static_pods.processes(tmp_path) == {7: "kube-apiserver", 8: "kube-controller"}


def test_manifests_are_named_as_the_kernel_names_their_programs(tmp_path: Path) -> None:
    (tmp_path / "kube-controller-manager.yaml").write_text("kind: Pod\n")
    assert static_pods.manifests(tmp_path) == {"kube-controller": "kind: Pod"}


def test_the_old_process_has_to_end_and_the_new_one_to_be_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.module_utils.static_pods.time.sleep", lambda _seconds: None)
    running = iter([{7: "etcd"}, {}, {8: "etcd"}])
    looks = iter([["etcd does not run"], []])
    assert static_pods.wait([7], look=lambda: next(looks), running=lambda: next(running)) == []
    assert next(running, None) is None


def test_what_is_lacking_at_the_end_is_told() -> None:
    assert static_pods.wait([7], 0, list, lambda: {7: "etcd"}) == ["etcd of before still runs"]
    assert static_pods.wait([], 0, lambda: ["etcd does not run"], dict) == ["etcd does not run"]


class Sick(BaseHTTPRequestHandler):
    """Healthy under /health only."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 500)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_health_is_what_the_component_answers() -> None:
    with HTTPServer(("127.0.0.1", 0), Sick) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        assert static_pods.complaint("etcd", HTTPConnection("127.0.0.1", port), "/health") == ""
        assert "status 500" in static_pods.complaint("etcd", HTTPConnection("127.0.0.1", port), "/readyz")
        server.shutdown()
    assert "does not answer" in static_pods.complaint("etcd", HTTPConnection("127.0.0.1", port), "/health")
