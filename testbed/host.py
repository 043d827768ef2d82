"""Facts of the machine that testbeds run on: distribution, control groups, capabilities, network, trusted CAs."""

from __future__ import annotations

import os
import platform
import re
import shlex
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import DeepError

ROOT = Path("/")
CGROUP_FILESYSTEM = Path("sys/fs/cgroup")
DEFAULT_MTU = 1500
# The oldest release of each distribution that has the programs the nodes are made with.
SUPPORTED = {"debian": (12,), "ubuntu": (22, 4)}
CA_BUNDLES = ("etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/ca-bundle.pem")
DISTRIBUTION_CAS = Path("usr/share/ca-certificates")
PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
# capability.h, in the order of the bits.
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip


@dataclass(frozen=True)
class Cgroups:
    """Control groups of the machine: ``version`` 1 or 2, and for version 1 where each hierarchy is mounted."""

    version: int
    mounts: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Host:
    """What node creation has to know about the machine."""

    distribution: str
    release: str
    cgroups: Cgroups
    capabilities: frozenset[str]
    mtu: int


def machine_name() -> str:
    """What this machine calls itself, for messages about it."""
    return platform.node()


def facts(root: Path = ROOT) -> Host:
    """Read every fact from ``root`` (the machine itself, or a tree of files in a test)."""
    release = os_release(root)
    return Host(
        distribution=release.get("ID", ""),
        release=release.get("VERSION_ID", ""),
        cgroups=cgroups(root),
        capabilities=capabilities(root),
        mtu=default_mtu(root),
    )


def preflight(root: Path = ROOT) -> Host:
    """Facts of a machine that can hold a testbed; raises ``DeepError`` with the next step for one that cannot."""
    if not sys.platform.startswith("linux"):
        raise DeepError(
            "testbeds need Linux",
            host=machine_name(),
            found=sys.platform,
            needed="linux",
            next_step="run it in a Debian or Ubuntu machine",
        )
    if os.geteuid() != 0:
        raise DeepError(
            "testbeds are raised and removed by root",
            host=machine_name(),
            found=f"user id {os.geteuid()}",
            needed="user id 0",
            next_step=f"sudo {shlex.join([str(Path(sys.argv[0]).absolute()), *sys.argv[1:]])}",
        )
    host = facts(root)
    _check_distribution(host)
    return host


def _check_distribution(host: Host) -> None:
    minimum = SUPPORTED.get(host.distribution)
    version = tuple(int(part) for part in re.findall(r"\d+", host.release))
    # Debian's testing and unstable have no version: they are newer than what is asked for.
    if minimum is not None and (not version or version >= minimum):
        return
    needed = ", ".join(
        f"{name} {'.'.join(f'{n:02d}' if i else str(n) for i, n in enumerate(v))}" for name, v in SUPPORTED.items()
    )
    raise DeepError(
        "unsupported distribution",
        host=machine_name(),
        found=f"{host.distribution or 'no os-release'} {host.release}".strip(),
        needed=f"{needed} or newer",
        next_step="raise the testbed on a Debian or Ubuntu machine, or deploy a site from here: deep site deploy SITE",
    )


def os_release(root: Path = ROOT) -> dict[str, str]:
    """os-release(5) as a dictionary, empty where there is none."""
    for candidate in ("etc/os-release", "usr/lib/os-release"):
        file = root / candidate
        if file.is_file():
            pairs = (line.split("=", 1) for line in file.read_text(encoding="utf-8").splitlines() if "=" in line)
            return {key.strip(): value.strip().strip("\"'") for key, value in pairs}
    return {}


def cgroups(root: Path = ROOT) -> Cgroups:
    """Version 2 where the unified hierarchy is mounted at /sys/fs/cgroup itself, else the hierarchies below it."""
    base = f"/{CGROUP_FILESYSTEM}"
    below: list[Path] = []
    for line in (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        mount, _, filesystem = line.partition(" - ")
        where, kind = mount.split()[4], filesystem.split()[0]
        if where == base and kind == "cgroup2":
            return Cgroups(version=2)
        if where.startswith(f"{base}/") and kind in {"cgroup", "cgroup2"}:
            below.append(Path(where))
    return Cgroups(version=1, mounts=tuple(sorted(below)))


def capabilities(root: Path = ROOT) -> frozenset[str]:
    """Names, without CAP_, of the capabilities that a process of this machine can have at most."""
    status = (root / "proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    mask = int(found.group(1), 16) if found else 0
    return frozenset(name for bit, name in enumerate(CAPABILITIES) if mask & (1 << bit))


def default_mtu(root: Path = ROOT) -> int:
    """MTU in bytes of the interface with the default route (1500 without one)."""
    route = root / "proc/net/route"
    lines = route.read_text(encoding="utf-8").splitlines()[1:] if route.is_file() else []
    for interface, destination, *_ in (line.split() for line in lines if line.strip()):
        mtu = root / "sys/class/net" / interface / "mtu"
        if destination == "00000000" and mtu.is_file():
            return int(mtu.read_text(encoding="ascii"))
    return DEFAULT_MTU


def ca_bundle(root: Path = ROOT) -> Path | None:
    """The file with every CA that programs of this machine trust ($SSL_CERT_FILE, else the distribution's)."""
    named = os.environ.get("SSL_CERT_FILE")
    candidates = [Path(named)] if named else []
    candidates += [root / path for path in CA_BUNDLES]
    return next((path for path in candidates if path.is_file()), None)


def local_certificates(root: Path = ROOT) -> list[str]:
    """PEM of the CAs that the machine trusts beyond its distribution's own, in a stable order."""
    bundle = ca_bundle(root)
    if bundle is None:
        return []
    known = {
        _der(pem)
        for file in (root / DISTRIBUTION_CAS).rglob("*.crt")
        for pem in PEM.findall(file.read_text(encoding="utf-8"))
    }
    trusted = {_der(pem): pem for pem in PEM.findall(bundle.read_text(encoding="utf-8", errors="replace"))}
    return [trusted[der] for der in sorted(set(trusted) - known)]


def _der(pem: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem)
