"""What kubeadm is asked to do on a host, from what the host already is; and when certificates end."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.certificates import days_left, due
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


PARTS = {"pods": "a", "kubelet": "b"}
CONFIG = """\
kind: InitConfiguration
nodeRegistration:
  ignorePreflightErrors: [Swap]
---
kind: ClusterConfiguration
apiServer:
  certSANs: [localhost]
---
kind: KubeletConfiguration
maxPods: 110
---
kind: KubeProxyConfiguration
mode: iptables
"""


def state(name: str, parts: dict[str, str] | None = None) -> dict[str, Any]:
    return {"state": name, "parts": PARTS if parts is None else parts}


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
        ("init", state(kubeadm.DONE, {**PARTS, "pods": "c"}), CLUSTER, "reconfigure"),
        ("join_control_plane", state(kubeadm.DONE, {**PARTS, "pods": "c"}), CLUSTER, "reconfigure"),
        ("join", state(kubeadm.DONE, {"pods": "a"}), JOINED, "reconfigure"),
        ("join", state(kubeadm.DONE), JOINED, "none"),
        ("reset", {}, [], "none"),
        ("reset", {}, CLUSTER, "foreign"),
        ("reset", state(kubeadm.DONE), CLUSTER, "reset"),
        ("reset", state(kubeadm.STARTED), [], "reset"),
    ],
)
def test_the_action_follows_from_the_host(phase: str, member: dict[str, Any], found: list[str], action: str) -> None:
    assert kubeadm.decide(phase, member, found, PARTS) == action


def test_the_marker_of_a_finished_run_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeadm, "MEMBER", tmp_path / "member.json")
    monkeypatch.setattr(kubeadm, "UNFINISHED", tmp_path / "unfinished.json")
    assert kubeadm.marker() == {}
    (tmp_path / "unfinished.json").write_text(json.dumps({"parts": PARTS}))
    assert kubeadm.marker() == state(kubeadm.STARTED)
    (tmp_path / "member.json").write_text(json.dumps({"parts": {}}))
    assert kubeadm.marker() == state(kubeadm.DONE, {})
    (tmp_path / "member.json").write_text("{")
    assert kubeadm.marker() == state(kubeadm.STARTED)


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("[Swap]", "[Swap, SystemVerification]", []),
        ("[localhost]", "[localhost, api.example.test]", ["names", "pods"]),
        ("maxPods: 110", "maxPods: 50", ["kubelet"]),
        ("mode: iptables", "mode: nftables", ["proxy"]),
    ],
)
def test_a_change_belongs_to_the_part_that_it_shapes(old: str, new: str, changed: list[str]) -> None:
    before, after = kubeadm.cluster_parts(CONFIG, []), kubeadm.cluster_parts(CONFIG.replace(old, new), [])
    assert kubeadm.outdated({"parts": before}, after) == changed


def test_a_watched_file_shapes_the_pods(tmp_path: Path) -> None:
    patch = tmp_path / "patch.yaml"
    before = kubeadm.cluster_parts(CONFIG, [str(patch)])
    patch.write_text("x")
    assert kubeadm.outdated({"parts": before}, kubeadm.cluster_parts(CONFIG, [str(patch)])) == ["pods"]


class Host:
    """Stands in for the module: remembers what is run on the host, with what on the pipe."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, phase: str, output: str = "", **params: Any) -> None:
        self.ran: list[str] = []
        self.piped: list[str] = []
        self.params = {"phase": phase, "config": "", "cluster": CONFIG, "watch": [], "kubelet": "", **params}
        self.output = output
        monkeypatch.setattr(kubeadm, "path_of", lambda _module, name, required=True: name if required else "")

    def run_command(self, argv: list[str], data: str | None = None, **_: Any) -> tuple[int, str, str]:
        self.ran.append(" ".join(argv))
        self.piped.append(data or "")
        return 0, self.output, ""

    def reconfigure(self, *outdated: str) -> list[str]:
        """What is run to put parts into force."""
        member = kubeadm.Kubeadm(self)
        member.outdated = list(outdated)
        member.reconfigure()
        return self.ran


@pytest.fixture
def control_plane(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[int]]:
    """A control plane whose API server alone gets another manifest; the processes that were waited for."""
    waited: list[list[int]] = []
    texts = iter([{"kube-apiserver": "a", "etcd": "x"}, {"kube-apiserver": "b", "etcd": "x"}])
    monkeypatch.setattr(kubeadm, "SERVING", (str(tmp_path / "apiserver.crt"),))
    monkeypatch.setattr("plugins.modules.kubeadm.static_pods.processes", lambda: {7: "kube-apiserver", 8: "etcd"})
    monkeypatch.setattr("plugins.modules.kubeadm.static_pods.manifests", lambda: next(texts))
    monkeypatch.setattr("plugins.modules.kubeadm.static_pods.wait", lambda ended: waited.append(list(ended)))
    return waited


RENDER = "kubeadm init phase control-plane all --config /dev/stdin"
TAKE_OVER = ["kubeadm upgrade node phase kubelet-config", "systemctl restart kubelet"]


def test_every_control_plane_renders_its_pods(monkeypatch: pytest.MonkeyPatch, control_plane: list[list[int]]) -> None:
    assert Host(monkeypatch, "join_control_plane").reconfigure("pods", "kubelet") == [RENDER, *TAKE_OVER]
    assert control_plane == [[7]]


def test_the_first_control_plane_publishes_what_members_read(
    monkeypatch: pytest.MonkeyPatch, control_plane: list[list[int]]
) -> None:
    ran = Host(monkeypatch, "init").reconfigure("pods", "kubelet", "proxy")
    assert ran == [
        "kubeadm init phase upload-config kubelet --config /dev/stdin",
        "kubeadm init phase addon kube-proxy --config /dev/stdin",
        f"kubectl --kubeconfig {kubeadm.ADMIN} --namespace kube-system rollout restart daemonset/kube-proxy",
        "kubeadm init phase upload-config kubeadm --config /dev/stdin",
        RENDER,
        *TAKE_OVER,
    ]
    assert control_plane


def test_new_names_make_a_new_certificate(
    monkeypatch: pytest.MonkeyPatch, control_plane: list[list[int]], tmp_path: Path
) -> None:
    (tmp_path / "apiserver.crt").touch()
    ran = Host(monkeypatch, "join_control_plane").reconfigure("names")
    assert ran == ["kubeadm init phase certs apiserver --config /dev/stdin"]
    assert not (tmp_path / "apiserver.crt").exists()
    assert not control_plane


def test_a_node_takes_over_the_kubelets_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Host(monkeypatch, "join", cluster="", kubelet="b").reconfigure("kubelet") == TAKE_OVER
    assert kubeadm.wanted_parts({"cluster": "", "kubelet": "b"}) == {"kubelet": "b"}
    assert kubeadm.wanted_parts({"cluster": "", "kubelet": ""}) == {}


def test_an_invitation_has_no_secret_on_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "0b" * 32
    line = f"kubeadm join a:6443 --token t.u --discovery-token-ca-cert-hash sha256:0a --certificate-key\n{key}\n"
    host = Host(monkeypatch, "invite", output=line)
    assert kubeadm.Kubeadm(host).invite() == {"token": "t.u", "ca_hash": "sha256:0a", "certificate_key": key}
    assert not [argv for argv in host.ran if key in argv or "t.u" in argv]
    assert host.piped == ["", CONFIG]
    host = Host(monkeypatch, "invite", output=line, cluster="")
    assert set(kubeadm.Kubeadm(host).invite()) == {"token", "ca_hash"}


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
    # On every control plane but the first: nothing is to be renewed, and nothing restarted, for what is not there.
    lacking = {"certificates": [*REPORT["certificates"], {"name": "super-admin.conf", "missing": True}]}
    assert due(lacking, days_left(lacking, NOW), 30) == ["apiserver"]
