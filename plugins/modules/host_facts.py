#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Facts of a host that decide how the roles configure it, gathered in one quick look at /proc and /etc."""

from __future__ import annotations

import ipaddress
import json
import os
import platform
import re
import shutil
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_facts
short_description: Gather the few facts of a host that the roles decide by
description:
  - Reads only files and kernel state and starts no program, so it costs a fraction of M(ansible.builtin.setup).
  - Facts that M(ansible.builtin.setup) has too carry the same name. What it does not know is under C(deephdc).
  - Meant for the C(ansible_facts_modules) variable, so that every play that gathers facts uses it.
options: {}
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Nothing is changed.
author: deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Look at the host
  deephdc.testbed.host_facts:
"""

RETURN = r"""
ansible_facts:
  description: >-
    distribution, distribution_version, distribution_major_version, distribution_release, os_family,
    architecture, kernel, hostname, nodename, memtotal_mb, swaptotal_mb, processor_vcpus, pkg_mgr, service_mgr,
    default_ipv4, and deephdc.
  returned: always
  type: dict
  contains:
    deephdc:
      description: >-
        cgroup_version (1 or 2), capabilities (names that services can have), kernel_modules (whether modules
        can be loaded), bridge_netfilter, conntrack_settable, nameservers, resolver_file (a resolv.conf that
        names no loopback address, or empty), addresses (IPv4 of the host), disk_free_mb (by path), listening
        (port, address, protocol, pid, program), cluster_member (what M(deephdc.testbed.kubeadm) keeps of a member
        of a cluster, or empty), packages (names of the installed ones; empty where the package
        manager is not dpkg), python (version of the distribution's Python, as 3.11).
      type: dict
"""

OS_FAMILIES = {
    "debian": "Debian",
    "ubuntu": "Debian",
    "rhel": "RedHat",
    "centos": "RedHat",
    "fedora": "RedHat",
    "rocky": "RedHat",
    "almalinux": "RedHat",
    "ol": "RedHat",
}
DISTRIBUTIONS = {
    "debian": "Debian",
    "ubuntu": "Ubuntu",
    "rhel": "RedHat",
    "centos": "CentOS",
    "fedora": "Fedora",
    "rocky": "Rocky",
    "almalinux": "AlmaLinux",
    "ol": "OracleLinux",
}
PACKAGE_MANAGERS = (("apt", "/usr/bin/apt-get"), ("dnf", "/usr/bin/dnf"), ("zypper", "/usr/bin/zypper"))
# Bit numbers of include/uapi/linux/capability.h.
CAPABILITIES = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
]
RESOLVER_FILES = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf")
DISK_PATHS = ("/", "/var/lib", "/var/lib/containerd", "/opt")
MEMBER = "/etc/kubernetes/deephdc/member.json"
CONNTRACK_MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")
TCP_LISTEN = "0A"


def read(path: str) -> str:
    """The text of ``path``; empty when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def distribution(os_release: str) -> dict[str, str]:
    """Names and versions from the text of /etc/os-release, as the setup module spells them."""
    pairs = re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', os_release, flags=re.MULTILINE)
    fields = dict(pairs)
    name = fields.get("ID", "")
    families = [OS_FAMILIES[word] for word in [name, *fields.get("ID_LIKE", "").split()] if word in OS_FAMILIES]
    version = fields.get("VERSION_ID", "")
    return {
        "distribution": DISTRIBUTIONS.get(name, name.capitalize()),
        "distribution_version": version,
        "distribution_major_version": version.split(".", maxsplit=1)[0],
        "distribution_release": fields.get("VERSION_CODENAME", ""),
        "os_family": families[0] if families else name.capitalize(),
    }


def packages(dpkg_status: str) -> list[str]:
    """Names of the installed packages in a /var/lib/dpkg/status text."""
    found = re.findall(r"^Package: (\S+)\nStatus: \S+ ok installed$", dpkg_status, flags=re.MULTILINE)
    return sorted(found)


def python_version(program: str) -> str:
    """Major and minor version in the name of the file that a program is; empty when it is none of Python's."""
    found = re.search(r"/python(3\.[0-9]+)$", os.path.realpath(program))
    return found.group(1) if found else ""


def memory_mb(meminfo: str, field: str) -> int:
    """A field of /proc/meminfo in MiB; 0 when it is missing."""
    found = re.search(rf"^{field}:\s+(\d+) kB", meminfo, flags=re.MULTILINE)
    return int(found.group(1)) // 1024 if found else 0


def capabilities(status: str) -> list[str]:
    """Names of the capabilities in the bounding set of a /proc/PID/status text."""
    found = re.search(r"^CapBnd:\s+([0-9a-f]+)", status, flags=re.MULTILINE)
    bits = int(found.group(1), 16) if found else 0
    return [name for bit, name in enumerate(CAPABILITIES) if bits >> bit & 1]


def nameservers(resolv_conf: str) -> list[str]:
    """Addresses after ``nameserver`` in a resolv.conf text."""
    return re.findall(r"^\s*nameserver\s+(\S+)", resolv_conf, flags=re.MULTILINE)


def is_loopback(address: str) -> bool:
    """Whether an address is of this host only; text that is no address is not."""
    try:
        return ipaddress.ip_address(address.split("%", maxsplit=1)[0]).is_loopback
    except ValueError:
        return False


def resolver_file() -> str:
    """The first resolv.conf that names servers and no loopback one: pods cannot reach a loopback one."""
    for path in RESOLVER_FILES:
        servers = nameservers(read(path))
        if servers and not any(is_loopback(server) for server in servers):
            return path
    return ""


def decode_address(hexadecimal: str) -> str:
    """The address that /proc/net/tcp writes as little-endian 32-bit words."""
    raw = b"".join(bytes.fromhex(hexadecimal[start : start + 8])[::-1] for start in range(0, len(hexadecimal), 8))
    return str(ipaddress.ip_address(raw))


def sockets(table: str, protocol: str) -> dict[str, dict[str, Any]]:
    """Listening sockets of a /proc/net/tcp text by inode: port, address, protocol."""
    found: dict[str, dict[str, Any]] = {}
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == TCP_LISTEN:
            address, port = fields[1].split(":")
            found[fields[9]] = {"port": int(port, 16), "address": decode_address(address), "protocol": protocol}
    return found


def open_sockets(descriptors: Path) -> set[str]:
    """Inodes of the sockets that a process has open; a file that it closes meanwhile is none of them."""
    inodes = set()
    for descriptor in descriptors.iterdir():
        with suppress(FileNotFoundError):
            target = os.readlink(descriptor)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    return inodes


def socket_owners(inodes: set[str], proc: Path = Path("/proc")) -> dict[str, tuple[int, str]]:
    """Process id and name of the owner of each socket inode that can be found."""
    owners: dict[str, tuple[int, str]] = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            owned = open_sockets(entry / "fd") & inodes
        except OSError:
            continue  # the process ended meanwhile
        for inode in owned:
            owners.setdefault(inode, (int(entry.name), read(str(entry / "comm")).strip()))
    return owners


def listening_sockets() -> dict[str, dict[str, Any]]:
    """Every TCP socket that is listened on, by inode."""
    return {**sockets(read("/proc/net/tcp"), "tcp"), **sockets(read("/proc/net/tcp6"), "tcp6")}


def listening() -> list[dict[str, Any]]:
    """Every TCP port that is listened on, with the program that does; sorted by port."""
    found = listening_sockets()
    owners = socket_owners(set(found))
    rows = []
    # One that was closed before its owner was found is nobody's any more.
    for inode in found.keys() & listening_sockets().keys():
        pid, program = owners.get(inode, (0, ""))
        rows.append({**found[inode], "pid": pid, "program": program})
    return sorted(rows, key=lambda row: (row["port"], row["address"]))


def default_route(table: str) -> dict[str, Any]:
    """Interface, its MTU and gateway of the default route in a /proc/net/route text; empty without one."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 2 and fields[1] == "00000000":
            mtu = int(read(f"/sys/class/net/{fields[0]}/mtu") or 1500)
            return {"interface": fields[0], "gateway": decode_address(fields[2]), "mtu": mtu}
    return {}


def local_addresses(trie: str) -> list[str]:
    """IPv4 addresses of the host itself from a /proc/net/fib_trie text, without loopback."""
    found = re.findall(r"\|-- (\d+\.\d+\.\d+\.\d+)\n\s+/32 host LOCAL", trie)
    return sorted({address for address in found if not is_loopback(address)})


def source_address() -> str:
    """The address that packets to the outside carry; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def conntrack_settable(setting: Path = CONNTRACK_MAX) -> bool:
    """Whether the size of the connection table can be set: only the host itself can, not a container on it."""
    try:
        return bool(setting.stat().st_mode & stat.S_IWUSR)
    except OSError:
        return "container" not in os.environ and not Path("/run/systemd/container").exists()


def cluster_member(marker: str) -> dict[str, Any]:
    """What the text of a member's marker says; empty without a readable one."""
    try:
        return dict(json.loads(marker))
    except ValueError:
        return {}


def disk_free() -> dict[str, int]:
    """Free MiB by path, for the paths that exist."""
    return {path: shutil.disk_usage(path).free // 2**20 for path in DISK_PATHS if os.path.isdir(path)}


def gather() -> dict[str, Any]:
    """All facts as one dictionary."""
    meminfo, kernel = read("/proc/meminfo"), platform.release()
    nodename = platform.node()
    return {
        **distribution(read("/etc/os-release")),
        "architecture": platform.machine(),
        "kernel": kernel,
        "nodename": nodename,
        "hostname": nodename.split(".", maxsplit=1)[0],
        "memtotal_mb": memory_mb(meminfo, "MemTotal"),
        "swaptotal_mb": memory_mb(meminfo, "SwapTotal"),
        "processor_vcpus": len(os.sched_getaffinity(0)),
        "pkg_mgr": next((name for name, program in PACKAGE_MANAGERS if os.path.exists(program)), "unknown"),
        "service_mgr": "systemd" if os.path.isdir("/run/systemd/system") else "unknown",
        "default_ipv4": {**default_route(read("/proc/net/route")), "address": source_address()},
        "deephdc": {
            "cgroup_version": 2 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1,
            "capabilities": capabilities(read("/proc/1/status")),
            "kernel_modules": os.path.isdir(f"/lib/modules/{kernel}"),
            "conntrack_settable": conntrack_settable(),
            "bridge_netfilter": os.path.isdir("/proc/sys/net/bridge"),
            "nameservers": nameservers(read("/etc/resolv.conf")),
            "resolver_file": resolver_file(),
            "addresses": local_addresses(read("/proc/net/fib_trie")),
            "disk_free_mb": disk_free(),
            "listening": listening(),
            "cluster_member": cluster_member(read(MEMBER)),
            "packages": packages(read("/var/lib/dpkg/status")),
            "python": python_version("/usr/bin/python3"),
        },
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(changed=False, ansible_facts=gather())


if __name__ == "__main__":
    main()
