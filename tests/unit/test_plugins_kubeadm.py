"""What kubeadm is asked to do on a host, from what the host already is; and when certificates end."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from plugins.module_utils.certificates import component_processes, days_left, due
from plugins.modules import kubeadm

CLUSTER = ["/etc/kubernetes/admin.conf", "/etc/kubernetes/pki/ca.crt"]
JOINED = ["/etc/kubernetes/kubelet.conf", kubeadm.CLIENT_CERTIFICATE]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
REPORT = {
    "certificates": [
        {"name": "apiserver", "expirationDate": "2026-01-11T00:00:00Z", "externallyManaged": False, "missing": False},
        {"name": "admin.conf", "expirationDate": "2026-12-01T00:00:00Z", "externallyManaged": False, "missing": False},
        {"name": "etcd-server", "expirationDate": "2026-01-02T00:00:00Z", "externallyManaged": True, "missing": False},
    ],
    "certificateAuthorities": [{"name": "ca", "expirationDate": "2026-01-03T00:00:00Z", "missing": False}],
}


def state(name: str, sha256: str = "a") -> dict[str, str]:
    return {"state": name, "config_sha256": sha256}


@pytest.mark.parametrize(
    ("phase", "member", "found", "action"),
    [
        ("init", {}, [], "init"),
        ("join", {}, [], "join"),
        ("join_control_plane", {}, [], "join"),
        ("init", {}, CLUSTER, "foreign"),
        ("join", {}, JOINED, "foreign"),
        ("init", state(kubeadm.STARTED), CLUSTER, "init"),
        ("join", state(kubeadm.STARTED), ["/var/lib/kubelet/config.yaml"], "join"),
        ("join", state(kubeadm.STARTED), JOINED, "adopt"),
        ("join_control_plane", state(kubeadm.STARTED), JOINED, "join"),
        ("init", state(kubeadm.DONE), CLUSTER, "none"),
        ("init", state(kubeadm.DONE, "b"), CLUSTER, "reconfigure"),
        ("join", state(kubeadm.DONE, "b"), JOINED, "none"),
        ("reset", {}, [], "none"),
        ("reset", {}, CLUSTER, "reset"),
        ("reset", state(kubeadm.STARTED), [], "reset"),
    ],
)
def test_the_action_follows_from_the_host(phase: str, member: dict[str, str], found: list[str], action: str) -> None:
    assert kubeadm.decide(phase, member, found, "a") == action


def test_the_marker_of_a_finished_run_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeadm, "MEMBER", tmp_path / "member.json")
    monkeypatch.setattr(kubeadm, "UNFINISHED", tmp_path / "unfinished.json")
    assert kubeadm.marker() == {}
    (tmp_path / "unfinished.json").write_text(json.dumps({"config_sha256": "a"}))
    assert kubeadm.marker() == state(kubeadm.STARTED)
    (tmp_path / "member.json").write_text(json.dumps({"config_sha256": "b"}))
    assert kubeadm.marker() == state(kubeadm.DONE, "b")
    (tmp_path / "member.json").write_text("{")
    assert kubeadm.marker() == state(kubeadm.STARTED)


def test_the_digest_covers_what_shapes_the_pods(tmp_path: Path) -> None:
    patch = tmp_path / "patch.yaml"
    before = kubeadm.digest("config", [str(patch)])
    patch.write_text("x")
    assert kubeadm.digest("config", [str(patch)]) != before
    assert kubeadm.digest("other", [str(patch)]) != kubeadm.digest("config", [str(patch)])


def test_traces_are_found(tmp_path: Path) -> None:
    assert kubeadm.traces(tmp_path) == []
    (tmp_path / "etc/kubernetes").mkdir(parents=True)
    (tmp_path / "etc/kubernetes/admin.conf").touch()
    assert kubeadm.traces(tmp_path) == ["/etc/kubernetes/admin.conf"]


def test_a_kubeadm_of_an_interrupted_run_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = tmp_path / "42"
    process.mkdir()
    (process / "comm").write_text("kubeadm\n")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        (process / "comm").write_text("sh\n")

    monkeypatch.setattr("plugins.modules.kubeadm.time.sleep", sleep)
    kubeadm.wait_for_others(proc=tmp_path)
    assert slept == [0.5, 1]
    kubeadm.wait_for_others(proc=tmp_path)
    assert slept == [0.5, 1]


def test_the_reason_is_the_telling_line_and_secrets_are_hidden() -> None:
    lines = ["[preflight] Running", "\t[ERROR Port-6443]: Port 6443 is in use", "more"]
    assert kubeadm.reason(lines) == "[ERROR Port-6443]: Port 6443 is in use"
    assert kubeadm.reason(["first", "last"]) == "last"
    assert kubeadm.reason([]) == "no output"
    assert kubeadm.SECRET.sub("***", "token abcdef.0123456789abcdef sha256:" + "a" * 64) == "token *** sha256:***"


def test_days_left_of_each_certificate() -> None:
    left = days_left(REPORT, NOW)
    assert left == {"apiserver": 10, "admin.conf": 334, "etcd-server": 1, "ca": 2}
    assert days_left({"certificates": [{"name": "x", "missing": True}]}, NOW) == {"x": -1}


def test_only_what_kubeadm_can_renew_is_due() -> None:
    left = days_left(REPORT, NOW)
    assert due(REPORT, left, 30) == ["apiserver"]
    assert due(REPORT, left, 5) == []


def test_the_processes_of_the_control_plane(tmp_path: Path) -> None:
    for number, name in {"7": "kube-apiserver", "8": "kube-controller", "9": "kubelet"}.items():
        (tmp_path / number).mkdir()
        (tmp_path / number / "comm").write_text(f"{name}\n")
    (tmp_path / "10").mkdir()
    assert sorted(component_processes(tmp_path)) == [7, 8]
