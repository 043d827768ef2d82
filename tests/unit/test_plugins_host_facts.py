"""Facts are read right from what the kernel and the distributions write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugins.modules import host_facts

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nID=debian\n'
ROCKY = 'NAME="Rocky Linux"\nVERSION="9.5 (Blue Onyx)"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.5"\n'
TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0B00FEA9:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:8AE5 0100007F:192B 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0
"""
ROUTE = "Iface\tDestination\tGateway\nlo\t0000007F\t00000000\nnone0\t00000000\t0100C6C6\n"
FIB = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 198.18.0.0
        /24 link UNICAST
     |-- 198.18.0.11
        /32 host LOCAL
"""


def test_debian_is_known() -> None:
    found = host_facts.distribution(DEBIAN)
    assert (found["distribution"], found["distribution_major_version"], found["os_family"]) == (
        "Debian",
        "12",
        "Debian",
    )
    assert found["distribution_release"] == "bookworm"


def test_a_derivative_belongs_to_its_family() -> None:
    found = host_facts.distribution(ROCKY)
    assert (found["distribution"], found["distribution_major_version"], found["os_family"]) == ("Rocky", "9", "RedHat")


def test_an_unknown_distribution_is_named() -> None:
    found = host_facts.distribution("ID=plan9\n")
    assert (found["distribution"], found["os_family"], found["distribution_version"]) == ("Plan9", "Plan9", "")


def test_memory_in_mib() -> None:
    assert host_facts.memory_mb("MemTotal:        2097152 kB\nSwapTotal: 0 kB\n", "MemTotal") == 2048
    assert host_facts.memory_mb("", "MemTotal") == 0


def test_python_is_known_by_the_file_behind_its_name(tmp_path: Path) -> None:
    (tmp_path / "python3.11").touch()
    (tmp_path / "python3").symlink_to("python3.11")
    assert host_facts.python_version(str(tmp_path / "python3")) == "3.11"
    assert host_facts.python_version(str(tmp_path / "none")) == ""


def test_capabilities_by_name() -> None:
    found = host_facts.capabilities("CapEff:\t0000000000000000\nCapBnd:\t0000000003001000\n")
    assert found == ["net_admin", "sys_resource", "sys_time"]
    assert host_facts.capabilities("") == []


@pytest.mark.parametrize(
    ("address", "expected"), [("127.0.0.11", True), ("::1", True), ("192.0.2.1", False), ("x", False)]
)
def test_loopback(address: str, expected: bool) -> None:
    assert host_facts.is_loopback(address) is expected


def test_a_resolver_on_loopback_is_not_for_pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\n", encoding="utf-8")
    monkeypatch.setattr(host_facts, "RESOLVER_FILES", (str(stub), str(real)))
    assert host_facts.resolver_file() == ""
    real.write_text("search example.test\nnameserver 192.0.2.53\n", encoding="utf-8")
    assert host_facts.resolver_file() == str(real)


def test_listening_sockets_only() -> None:
    assert host_facts.sockets(TCP, "tcp") == {"4711": {"port": 6443, "address": "169.254.0.11", "protocol": "tcp"}}


def test_an_ipv6_address() -> None:
    assert host_facts.decode_address("00000000000000000000000001000000") == "::1"


def test_the_owner_of_a_socket_is_found(tmp_path: Path) -> None:
    descriptors = tmp_path / "42" / "fd"
    descriptors.mkdir(parents=True)
    (tmp_path / "42" / "comm").write_text("etcd\n", encoding="utf-8")
    (tmp_path / "self").mkdir()
    (descriptors / "3").symlink_to("socket:[4711]")
    (descriptors / "4").symlink_to("/dev/null")
    assert host_facts.socket_owners({"4711"}, tmp_path) == {"4711": (42, "etcd")}
    assert host_facts.socket_owners({"1"}, tmp_path) == {}


def test_an_owner_that_closes_a_file_meanwhile_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = tmp_path / "42" / "fd"
    descriptors.mkdir(parents=True)
    (tmp_path / "42" / "comm").write_text("kubelet\n", encoding="utf-8")
    for number in range(3, 8):
        (descriptors / str(number)).symlink_to(f"socket:[{number}]")
    closed, readlink = descriptors / "5", os.readlink

    def closing(path: Path) -> str:
        closed.unlink(missing_ok=True)
        return readlink(path)

    monkeypatch.setattr(os, "readlink", closing)
    others = {"3", "4", "6", "7"}
    assert host_facts.socket_owners({*others, "5"}, tmp_path) == dict.fromkeys(others, (42, "kubelet"))


def test_a_socket_that_is_closed_meanwhile_is_not_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"port": 10250, "address": "::", "protocol": "tcp6"}
    readings = iter(({"1": row, "2": {**row, "port": 10248}}, {"1": row}))
    monkeypatch.setattr(host_facts, "listening_sockets", lambda: next(readings))
    monkeypatch.setattr(host_facts, "socket_owners", lambda _: {"1": (42, "kubelet")})
    assert host_facts.listening() == [{**row, "pid": 42, "program": "kubelet"}]


def test_default_route() -> None:
    assert host_facts.default_route(ROUTE) == {"interface": "none0", "gateway": "198.198.0.1", "mtu": 1500}
    assert host_facts.default_route("Iface\tDestination\n") == {}


def test_own_addresses_without_loopback() -> None:
    assert host_facts.local_addresses(FIB) == ["198.18.0.11"]


def test_installed_packages_only() -> None:
    status = (
        "Package: runc\nStatus: install ok installed\nVersion: 1\n\n"
        "Package: gone\nStatus: deinstall ok config-files\n\nPackage: held\nStatus: hold ok installed\n"
    )
    assert host_facts.packages(status) == ["held", "runc"]


def test_the_connection_table_of_a_container_cannot_be_set(tmp_path: Path) -> None:
    setting = tmp_path / "nf_conntrack_max"
    setting.write_text("1\n", encoding="utf-8")
    setting.chmod(0o444)
    assert host_facts.conntrack_settable(setting) is False
    setting.chmod(0o644)
    assert host_facts.conntrack_settable(setting) is True


def test_everything_is_gathered_here() -> None:
    found = host_facts.gather()
    assert found["memtotal_mb"] > 0
    assert found["deephdc"]["cgroup_version"] in (1, 2)
    assert found["deephdc"]["disk_free_mb"]["/"] > 0
