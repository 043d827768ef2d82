"""The parts of the acceptance suite that judge: each must be able to say no."""

from __future__ import annotations

import base64
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from testbed.paths import repo_root
from tests.acceptance.probes import certificates, gpu, listeners
from tests.acceptance.probes.requests import SteadyRequests, answers

SS = """\
tcp   LISTEN 0      128          0.0.0.0:22         0.0.0.0:*    users:(("sshd",pid=77,fd=3))
tcp   LISTEN 0      128             [::]:22            [::]:*    users:(("sshd",pid=77,fd=4))
tcp   LISTEN 0      4096               *:10250            *:*    users:(("kubelet",pid=9,fd=14))
tcp   LISTEN 0      4096   198.18.1.11:2379       0.0.0.0:*    users:(("etcd",pid=8,fd=9),("etcd",pid=8,fd=10))
udp   UNCONN 0      0    127.0.0.53%lo:53         0.0.0.0:*    users:(("systemd-resolve",pid=5,fd=1))
tcp   LISTEN 0      4096    127.0.0.11:34567      0.0.0.0:*
tcp   LISTEN 0      5          [::1]:9999            [::]:*    users:(("python3",pid=3,fd=3))
"""


def test_sockets_are_read_with_address_width_and_process() -> None:
    found = [(one.protocol, one.address, one.port, one.process, one.width) for one in listeners.parse(SS)]
    assert found == [
        ("tcp", "0.0.0.0", 22, "sshd", "any"),
        ("tcp", "::", 22, "sshd", "any"),
        ("tcp", "*", 10250, "kubelet", "any"),
        ("tcp", "198.18.1.11", 2379, "etcd", "host"),
        ("udp", "127.0.0.53", 53, "systemd-resolve", "loopback"),
        ("tcp", "127.0.0.11", 34567, "", "loopback"),
        ("tcp", "::1", 9999, "python3", "loopback"),
    ]


def test_an_unreadable_line_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a line of ss"):
        listeners.parse("tcp LISTEN\n")


@pytest.mark.parametrize(
    ("declared", "covered"),
    [
        ({"port": 2379, "width": "host", "process": "etcd"}, True),
        ({"port": 2379, "width": "any"}, True),
        ({"port": "2379", "width": "any", "process": ["x", "etcd"]}, True),
        ({"port": [2379, 2380], "width": "any"}, True),
        ({"port": [2380, 2381], "width": "any"}, False),
        ({"port": 2379, "width": "loopback", "process": "etcd"}, False),
        ({"port": 2379}, False),
        ({"port": 2380, "width": "any"}, False),
        ({"port": 2379, "width": "any", "protocol": "udp"}, False),
        ({"port": 2379, "width": "any", "process": "other"}, False),
        ({"port": 2379, "width": "any", "process": ""}, False),
        ({"port": "any", "width": "any", "process": "etcd"}, False),
    ],
)
def test_a_declaration_covers_no_more_than_it_says(declared: dict[str, Any], covered: bool) -> None:
    etcd = listeners.Listener("tcp", "198.18.1.11", 2379, "etcd")
    assert listeners.covers(declared, etcd) is covered
    assert (listeners.undeclared([etcd], [declared]) == []) is covered


def test_any_port_is_for_loopback_only() -> None:
    entry = {"port": "any", "width": "loopback", "process": "containerd"}
    assert listeners.covers(entry, listeners.Listener("tcp", "127.0.0.1", 40000, "containerd"))
    assert not listeners.covers(entry, listeners.Listener("tcp", "198.18.1.11", 40000, "containerd"))


def test_declarations_of_the_suite_are_well_formed() -> None:
    declared = yaml.safe_load((repo_root() / "tests" / "acceptance" / "declared.yml").read_text())
    groups = yaml.safe_load((repo_root() / "inventories" / "common" / "hosts.yml").read_text())["all"]["children"]
    known = {"all", *groups, *(child for group in groups.values() for child in (group or {}).get("children") or {})}
    assert declared.pop("image")
    assert set(declared) <= known
    for group in declared.values():
        assert set(group) <= {"listeners", "http", "inlets", "units", "certificates"}
        for entry in group.get("listeners", []):
            if isinstance(entry, dict):
                assert entry["width"] in listeners.WIDTHS
                assert set(entry) <= {"port", "protocol", "width", "process", "plain", "not_http"}


def certificate(days: float) -> bytes:
    """A self-signed certificate (PEM) that holds for ``days``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    )
    builder = builder.not_valid_before(now - timedelta(days=400)).not_valid_after(now + timedelta(days=days))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_days_left_of_every_certificate_in_a_file() -> None:
    text = (certificate(5) + certificate(400)).decode()
    days = [round(one.days_left()) for one in certificates.in_file("/x.pem", f"a comment\n{text}")]
    assert days == [5, 400]
    (expired,) = certificates.in_file("/x.pem", certificate(-2).decode())
    assert expired.days_left() < 0


def test_certificates_in_a_kubeconfig_are_found() -> None:
    def encoded(days: float) -> str:
        return base64.b64encode(certificate(days)).decode()

    document = {
        "clusters": [{"cluster": {"certificate-authority-data": encoded(3000)}}],
        "users": [{"user": {"client-certificate-data": encoded(20)}}, {"user": {"client-certificate": "/file.pem"}}],
    }
    found = certificates.in_file("/admin.conf", yaml.safe_dump(document))
    assert [round(one.days_left()) for one in found] == [3000, 20]


@pytest.mark.parametrize("text", ["", "just words", "{}", "users: []"])
def test_a_file_without_a_certificate_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="no certificate in /x"):
        list(certificates.in_file("/x", text))


class FakeHost:
    """Runs the probe's command here."""

    def run(self, command: str) -> Any:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=30)
        return type("Result", (), {"rc": done.returncode, "stdout": done.stdout, "stderr": done.stderr})


def test_a_pattern_without_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "a.crt").write_bytes(certificate(100))
    (one,) = certificates.on_host(FakeHost(), [f"{tmp_path}/*.crt"])
    assert one.path == str(tmp_path / "a.crt")
    with pytest.raises(AssertionError, match=r"no file matches .*\.pem"):
        certificates.on_host(FakeHost(), [f"{tmp_path}/*.crt", f"{tmp_path}/*.pem"])
    (tmp_path / "folder.crt").mkdir()
    with pytest.raises(AssertionError, match="could not look"):
        certificates.on_host(FakeHost(), [f"{tmp_path}/*.crt"])


def test_overlapping_jobs_are_counted_by_their_own_clock() -> None:
    def log(start: float, end: float) -> str:
        return f"start {start}\nnvidia0\nend {end}\n"

    def most(*logs: str) -> int:
        return gpu.Intervals.of(logs).most_at_once

    assert most(log(0, 1), log(1, 2), log(2, 3)) == 1
    assert most(log(0, 2), log(1, 3), log(2, 4)) == 2
    assert most(log(0, 9), log(1, 9), log(2, 9)) == 3
    with pytest.raises(AssertionError, match="did not tell when it ran"):
        most("start 1.0\nnvidia0\n")


def test_devices_that_a_pod_lists() -> None:
    assert gpu.own_devices("nvidia0\nnvidia1\nnvidiactl\nnvidia-uvm\nGPU 0: NVIDIA\n") == {"nvidia0", "nvidia1"}
    assert gpu.own_devices("no-device\n") == set()


class Flaky(http.server.BaseHTTPRequestHandler):
    """Answers every third request with 503."""

    count = 0

    def do_GET(self) -> None:
        type(self).count += 1
        status = 503 if self.count % 3 == 0 else 200
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"one pod-a\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the base class names it
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flaky) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def test_failed_requests_are_counted(server: str) -> None:
    Flaky.count = 0
    with SteadyRequests([server], pace=0.005, most=30) as running:
        running.wait_for(30)
    assert running.count == 30
    assert len(running.failures) == 10
    assert "503" in running.failures[0]
    assert set(running.answers) == {"one pod-a"}


def test_requests_stay_below_their_bound_and_nobody_answering_fails(server: str) -> None:
    with SteadyRequests([server, "http://127.0.0.1:9/"], pace=0.001, most=4) as running:
        running.wait_for(4)
        running.wait_for(100, seconds=1)
    assert running.count == 4
    assert len([text for text in running.failures if "127.0.0.1:9/" in text]) == 2
    assert not answers("http://127.0.0.1:9/")


SUITE = '''
import pytest

def test_good():
    """What holds."""

@pytest.mark.parametrize("hostname", ["node1"])
def test_bad(hostname):
    """What does not hold."""
    assert hostname == "node2", "node1 is not node2"

def test_unable():
    """What cannot be seen."""
    pytest.skip("no GPU here")

@pytest.fixture
def broken():
    raise RuntimeError("no way in")

def test_error(broken):
    """What cannot be reached."""

@pytest.fixture
def untidy():
    yield
    raise RuntimeError("left behind")

def test_teardown(untidy):
    """What cannot be cleaned up."""
'''
CONFTEST = """
from pathlib import Path
from tests.acceptance.probes.verdict import VerdictRecorder

def pytest_configure(config):
    here = Path(__file__).parent
    config.pluginmanager.register(VerdictRecorder(here / "verdict.json", "here", True, here / "progress"))
"""


def verdict(folder: Path, suite: str, *arguments: str) -> dict[str, Any]:
    """The verdict of a run of ``suite``."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(suite)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        "/dev/null",
        "--rootdir",
        str(folder),
        str(folder),
        *arguments,
    ]
    subprocess.run(command, cwd=repo_root(), capture_output=True, check=False, timeout=60)
    return dict(json.loads((folder / "verdict.json").read_text()))


def test_verdict_tells_every_outcome(tmp_path: Path) -> None:
    found = verdict(tmp_path, SUITE)
    assert not found["ok"]
    assert (found["site"], found["simulated"]) == ("here", True)
    outcomes = {check["id"]: (check["outcome"], check["reason"]) for check in found["checks"]}
    assert outcomes["it::good"] == ("passed", "")
    assert outcomes["it::unable"] == ("skipped", "no GPU here")
    assert outcomes["it::bad[node1]"][0] == "failed"
    assert "node1 is not node2" in outcomes["it::bad[node1]"][1]
    assert outcomes["it::error"] == ("failed", "RuntimeError: no way in")
    assert outcomes["it::teardown"] == ("failed", "RuntimeError: left behind")
    assert {check["id"] for check in found["failures"]} == {"it::bad[node1]", "it::error", "it::teardown"}
    assert {check["title"] for check in found["checks"]} >= {"What holds", "What does not hold"}
    assert (tmp_path / "progress").read_text() == "5 of 5 checks, 3 failed\n"


@pytest.mark.parametrize(
    ("suite", "arguments"),
    [
        ("", ()),
        ("def test_good(): pass\n", ("-k", "zzz")),
        ("import pytest\ndef test_skip(): pytest.skip('no')\n", ()),
        ("import nowhere_to_be_found\n", ()),
        ("def test_good(): pass\ndef test_end():\n    import os; os.kill(os.getpid(), 2)\n", ()),
    ],
)
def test_nothing_seen_is_not_ok(tmp_path: Path, suite: str, arguments: tuple[str, ...]) -> None:
    assert not verdict(tmp_path, suite, *arguments)["ok"]


def test_all_good_is_ok(tmp_path: Path) -> None:
    found = verdict(tmp_path, "def test_good(): pass\ndef test_skip():\n    import pytest; pytest.skip('why')\n")
    assert found["ok"]
    assert (found["passed"], found["skipped"], found["failures"]) == (1, 1, [])
