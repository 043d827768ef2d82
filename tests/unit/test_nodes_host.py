"""Facts of the host, read from trees of files that look like other machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import host
from testbed.errors import DeepError

V1 = """\
24 23 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw
25 24 0:23 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
26 24 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
27 24 0:25 / /proc rw - proc proc rw
"""
V2 = "24 23 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def machine(
    root: Path, *, release: str = 'ID=debian\nVERSION_ID="12"\n', mountinfo: str = V2, capabilities: str = "1ffffffffff"
) -> Path:
    files = {
        "etc/os-release": release,
        "proc/self/mountinfo": mountinfo,
        "proc/self/status": f"Name:\tx\nCapBnd:\t{capabilities}\n",
        "proc/net/route": "Iface\tDestination\tGateway\ndocker0\t000011AC\t0\neth0\t00000000\t010200C0\n",
        "sys/class/net/eth0/mtu": "1400\n",
        "sys/class/net/docker0/mtu": "9000\n",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    return root


def as_root(monkeypatch: pytest.MonkeyPatch, uid: int = 0) -> None:
    monkeypatch.setattr("os.geteuid", lambda: uid)


def test_hierarchies_of_version_1_are_listed_with_the_unified_one(tmp_path: Path) -> None:
    found = host.cgroups(machine(tmp_path, mountinfo=V1))
    assert found.version == 1
    assert found.mounts == (Path("/sys/fs/cgroup/cpuset"), Path("/sys/fs/cgroup/unified"))


def test_version_2_needs_no_mounts(tmp_path: Path) -> None:
    assert host.cgroups(machine(tmp_path)) == host.Cgroups(version=2)


def test_mtu_is_that_of_the_default_route(tmp_path: Path) -> None:
    assert host.default_mtu(machine(tmp_path)) == 1400


def test_mtu_without_a_route_is_the_usual_one(tmp_path: Path) -> None:
    assert host.default_mtu(tmp_path) == 1500


def test_capabilities_follow_the_mask(tmp_path: Path) -> None:
    everything = host.capabilities(machine(tmp_path / "all"))
    without = host.capabilities(machine(tmp_path / "less", capabilities="1fffeffffff"))
    assert everything == frozenset(host.CAPABILITIES)
    assert everything - without == {"SYS_RESOURCE"}


@pytest.mark.parametrize(
    "release",
    [
        'ID=debian\nVERSION_ID="13"\n',
        "ID=debian\n",
        'ID=ubuntu\nVERSION_ID="24.04"\n',
        'ID=ubuntu\nVERSION_ID="22.04"\n',
    ],
)
def test_supported_distributions_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    as_root(monkeypatch)
    assert host.preflight(machine(tmp_path, release=release)).distribution in release


@pytest.mark.parametrize(
    ("release", "found"),
    [
        ('ID="rhel"\nVERSION_ID="9.4"\n', "rhel 9.4"),
        ('ID=debian\nVERSION_ID="11"\n', "debian 11"),
        ('ID=ubuntu\nVERSION_ID="20.04"\n', "ubuntu 20.04"),
        ("", "no os-release"),
    ],
)
def test_other_distributions_are_named_with_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, found: str
) -> None:
    as_root(monkeypatch)
    with pytest.raises(DeepError, match="unsupported distribution") as refused:
        host.preflight(machine(tmp_path, release=release))
    assert refused.value.found == found
    assert refused.value.needed == "debian 12, ubuntu 22.04 or newer"
    assert refused.value.next_step
    assert refused.value.exit_code == 2


def test_an_ordinary_user_is_told_to_be_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_root(monkeypatch, uid=1000)
    monkeypatch.setattr("sys.argv", ["/there/bin/deep", "testbed", "down", "--name", "x"])
    with pytest.raises(DeepError, match="root") as refused:
        host.preflight(machine(tmp_path))
    assert refused.value.found == "user id 1000"
    # With its path: sudo has another PATH than the user.
    assert refused.value.next_step == "sudo /there/bin/deep testbed down --name x"


def test_another_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(DeepError, match="Linux") as refused:
        host.preflight(tmp_path)
    assert refused.value.found == "darwin"


def pem(number: int) -> str:
    body = f"CERT{number:04d}"  # base64 of something; nobody parses it
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----"


def test_only_what_the_distribution_does_not_bring_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    bundle = tmp_path / "etc/ssl/certs/ca-certificates.crt"
    shipped = tmp_path / "usr/share/ca-certificates/mozilla/one.crt"
    for file, content in ((bundle, f"{pem(1)}\n# comment\n{pem(2)}\n{pem(3)}\n"), (shipped, pem(1))):
        file.parent.mkdir(parents=True)
        file.write_text(content, encoding="utf-8")
    assert host.local_certificates(tmp_path) == [pem(2), pem(3)]


def test_the_bundle_that_the_environment_names_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.pem"
    own.write_text(pem(9), encoding="utf-8")
    monkeypatch.setenv("SSL_CERT_FILE", str(own))
    assert host.local_certificates(tmp_path) == [pem(9)]


def test_no_bundle_means_no_local_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert host.local_certificates(tmp_path) == []
