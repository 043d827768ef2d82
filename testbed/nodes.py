"""Nodes: containers that run systemd and look like machines to Ansible and Kubernetes.

No container is privileged: a host that lacks a capability itself could not start it. Each gets the capabilities
that it needs, as far as the host has them.
"""

from __future__ import annotations

import io
import socket
import tarfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import Ulimit

from testbed import cgroups
from testbed.errors import CHECK_FAILED, DeepError
from testbed.host import Host, machine_name
from testbed.image import Image
from testbed.network import LABEL, Network

NODE_LABEL = "org.deephdc.node"
# SYS_RESOURCE is what ordinary hosts have and some build machines lack: without it limits are the host's.
CAPABILITIES = (
    "AUDIT_WRITE", "DAC_READ_SEARCH", "IPC_LOCK", "LINUX_IMMUTABLE", "MKNOD", "NET_ADMIN", "NET_RAW", "SETFCAP",
    "SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PTRACE", "SYS_RESOURCE",
)  # fmt: skip
REQUIRED = frozenset({"MKNOD", "NET_ADMIN", "SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE"})
OPEN_FILES = 1048576
# Overlay file systems do not stack, and etcd's fsync is slow on one.
VOLUMES = ("/var/lib/containerd", "/var/lib/etcd", "/var/lib/kubelet")
READY = "/usr/local/lib/deep-node/ready"
READY_TRIES = 30
SSH_PORT = 22
SSH_TIMEOUT = 30.0


@dataclass(frozen=True)
class Node:
    """A node as it shall be: its name and address on the testbed's network."""

    name: str
    address: str


@dataclass(frozen=True)
class NodeState:
    """A node as it is: container status, systemd's state, units that failed, the ssh host key."""

    name: str
    address: str
    image: str
    container: str
    status: str
    system: str = ""
    failed_units: tuple[str, ...] = ()
    host_key: str = ""
    versions: dict[str, str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The state as a JSON object."""
        return {**asdict(self), "failed_units": list(self.failed_units)}


def container_name(testbed: str, node: str) -> str:
    """Name of a node's container in Docker."""
    return f"deep-{testbed}-{node}"


def containers(client: docker.DockerClient, testbed: str) -> list[Container]:
    """Every container of ``testbed`` in whatever state, in the order of the nodes' numbers."""
    found = client.containers.list(all=True, filters={"label": f"{LABEL}={testbed}"})
    return sorted(found, key=lambda container: (len(str(container.name)), str(container.name)))


def testbeds(client: docker.DockerClient) -> set[str]:
    """Names of the testbeds of which Docker has a container or a network."""
    labels = [container.labels for container in client.containers.list(all=True, filters={"label": LABEL})]
    labels += [network.attrs.get("Labels") or {} for network in client.networks.list(filters={"label": LABEL})]
    return {label[LABEL] for label in labels if LABEL in label}


def check_capabilities(host: Host) -> None:
    """Raise ``DeepError`` where the host cannot give a node what it cannot do without."""
    missing = sorted(REQUIRED - host.capabilities)
    if missing:
        raise DeepError(
            "this machine cannot run nodes",
            host=machine_name(),
            found=f"no {', '.join(missing)} among its capabilities",
            needed=", ".join(sorted(REQUIRED)),
            next_step="run it on a machine, or in a container that has these capabilities",
        )


class Nodes:
    """The nodes of one testbed: creates, starts, inspects and removes their containers."""

    def __init__(self, client: docker.DockerClient, testbed: str, host: Host) -> None:
        self.client = client
        self.testbed = testbed
        self.host = host

    def ensure(self, wanted: Sequence[Node], network: Network, image: Image, authorized_key: str) -> list[NodeState]:
        """Bring every wanted node up and return their states, in the same order.

        A container that exists is kept, and started where it is stopped; one whose creation was cut short is made
        again. Raises ``DeepError`` naming the node that does not come up.
        """
        check_capabilities(self.host)
        if self.host.cgroups.version == 1:
            for node in wanted:
                cgroups.create(self.testbed, node.name, self._controllers())
        with ThreadPoolExecutor(max_workers=8) as pool:
            return list(pool.map(lambda node: self._bring_up(node, network, image, authorized_key), wanted))

    def states(self, *, versions: bool = False) -> list[NodeState]:
        """Every node as it is now; ``versions`` also asks for those of the programs installed."""
        found = containers(self.client, self.testbed)
        with ThreadPoolExecutor(max_workers=8) as pool:
            return list(pool.map(lambda container: self._state(container, versions=versions), found))

    def remove(self) -> tuple[list[str], list[Path]]:
        """Remove every container with its volumes and control groups.

        Returns the names of the nodes removed, and the control groups that still hold a process.
        """
        found = containers(self.client, self.testbed)
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(_remove, found))
        left: list[Path] = []
        if self.host.cgroups.version == 1:
            left = cgroups.remove(self.testbed, self.host.cgroups.mounts)
            left += [
                path
                for container in found
                for path in cgroups.remove_container(str(container.id), self.host.cgroups.mounts)
            ]
        return [container.labels[NODE_LABEL] for container in found], left

    def get(self, node: str) -> Container:
        """The container of ``node``; raises ``DeepError`` with the names that exist."""
        found = {container.labels[NODE_LABEL]: container for container in containers(self.client, self.testbed)}
        if not found:
            raise DeepError(f"there is no testbed {self.testbed}", next_step=f"deep testbed up --name {self.testbed}")
        if node not in found:
            raise DeepError(
                f"testbed {self.testbed} has no such node", found=node, needed=f"one of: {', '.join(found)}"
            )
        return found[node]

    def running(self, node: str) -> Container:
        """The container of ``node``, which must be running."""
        container = self.get(node)
        if container.status != "running":
            raise DeepError(
                "the node is not running",
                host=node,
                found=container.status,
                needed="running",
                next_step=f"deep testbed up --name {self.testbed}",
            )
        return container

    def _controllers(self) -> list[Path]:
        """Hierarchies in which the kubelet makes groups: all but the unified one."""
        return [mount for mount in self.host.cgroups.mounts if mount.name != "unified"]

    def _bring_up(self, node: Node, network: Network, image: Image, authorized_key: str) -> NodeState:
        try:
            container = self._existing(node, image) or self._create(node, network, image, authorized_key)
            if container.status != "running":
                container.start()
                container.reload()
        except APIError as refused:
            raise DeepError(
                "Docker does not start the node",
                host=node.name,
                found=refused.explanation or str(refused),
                next_step="see docs/troubleshooting.md, or Docker's log",
            ) from refused
        state = self._state(container)
        if state.system not in {"running", "degraded"}:
            raise self._not_booted(state, container)
        wait_for_ssh(node)
        return state

    def _existing(self, node: Node, image: Image) -> Container | None:
        try:
            found = self.client.containers.get(container_name(self.testbed, node.name))
        except NotFound:
            return None
        if found.labels.get(LABEL) != self.testbed:
            raise DeepError(
                f"a container {found.name} exists that no testbed made",
                next_step=f"choose another --name, or: docker rm -f {found.name}",
            )
        # Created but never started: the key may not be in it yet.
        if found.status == "created":
            _remove(found)
            return None
        if found.attrs["Config"]["Image"] != image.tag:
            raise DeepError(
                "the node runs another image",
                host=node.name,
                found=found.attrs["Config"]["Image"],
                needed=image.tag,
                next_step=f"deep testbed down --name {self.testbed}, then up again",
            )
        return found

    def _create(self, node: Node, network: Network, image: Image, authorized_key: str) -> Container:
        api = self.client.api
        endpoint = api.create_endpoint_config(ipv4_address=node.address, aliases=[node.name])
        networking = api.create_networking_config({network.name: endpoint})  # type: ignore[arg-type]  # wrong in the stub
        created = api.create_container(
            image.tag,
            name=container_name(self.testbed, node.name),
            hostname=node.name,
            environment=image.environment,
            labels={LABEL: self.testbed, NODE_LABEL: node.name},
            volumes=list(VOLUMES),
            host_config=self._host_config(),
            networking_config=networking,
            stop_signal="SIGRTMIN+3",
        )
        container = self.client.containers.get(created["Id"])
        container.put_archive("/", _key_archive(authorized_key))
        return container

    def _host_config(self) -> dict[str, Any]:
        available = [name for name in CAPABILITIES if name in self.host.capabilities]
        limits = [Ulimit(name="nofile", soft=OPEN_FILES, hard=OPEN_FILES)] if "SYS_RESOURCE" in available else []
        config: dict[str, Any] = self.client.api.create_host_config(
            cap_add=available,
            security_opt=["seccomp=unconfined", "apparmor=unconfined"],
            device_cgroup_rules=["a *:* rwm"],
            restart_policy={"Name": "no"},
            tmpfs={"/run": "exec,mode=755", "/run/lock": "", **self._cgroup_tmpfs()},
            binds=[f"{mount}:{mount}:rw" for mount in self.host.cgroups.mounts],
            ulimits=limits,
        )
        # What the client of Docker calls systempaths=unconfined: /proc/sys can be written, nothing is masked.
        config |= {"MaskedPaths": [], "ReadonlyPaths": []}
        config["CgroupnsMode"] = "host" if self.host.cgroups.version == 1 else "private"
        return config

    def _cgroup_tmpfs(self) -> dict[str, str]:
        """A file system of the node's own around the hierarchies of version 1.

        With the host's, a node's systemd would add mount points to it and leave it read-only for the host.
        """
        return {"/sys/fs/cgroup": "ro,mode=755"} if self.host.cgroups.version == 1 else {}

    def _state(self, container: Container, *, versions: bool = False) -> NodeState:
        settings = container.attrs["NetworkSettings"]["Networks"].values()
        address = next((network["IPAMConfig"] or {}).get("IPv4Address", "") for network in settings) if settings else ""
        common = {
            "name": container.labels[NODE_LABEL], "address": address, "image": container.attrs["Config"]["Image"],
            "container": container.name, "status": container.status,
        }  # fmt: skip
        if container.status != "running":
            return NodeState(**common)
        try:
            said = _ready(container)
            found = _versions(container) if versions else None
        except APIError:  # ended between the two questions
            container.reload()
            return NodeState(**{**common, "status": container.status})
        facts = [line.split(" ", 1) for line in said.splitlines() if " " in line]
        answers = {key: value for key, value in facts if key != "failed"}
        failed = tuple(value for key, value in facts if key == "failed")
        key = " ".join(answers.get("key", "").split()[:2])
        system = answers.get("state", said.strip())
        return NodeState(**common, system=system, failed_units=failed, host_key=key, versions=found)

    def _not_booted(self, state: NodeState, container: Container) -> DeepError:
        last = container.logs(tail=5).decode("utf-8", errors="replace").strip()
        return DeepError(
            "systemd did not start" + (f": {last}" if last else ""),
            host=state.name,
            found=state.system or state.status,
            needed="running",
            next_step=f"deep testbed logs {state.name} --name {self.testbed}",
            exit_code=CHECK_FAILED,
        )


def wait_for_ssh(node: Node, timeout: float = SSH_TIMEOUT) -> None:
    """Return once the node takes connections; raise ``DeepError`` where it has not after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            with socket.create_connection((node.address, SSH_PORT), timeout=2):
                return
        except OSError as refused:
            if time.monotonic() > deadline:
                raise DeepError(
                    "the node cannot be reached",
                    host=node.name,
                    found=f"{node.address} port {SSH_PORT}: {refused}",
                    needed="an answer of sshd",
                    next_step="look for a firewall of this machine that drops what goes to 198.18.0.0/16",
                    exit_code=CHECK_FAILED,
                ) from refused
            time.sleep(0.1)


def execute(container: Container, command: Sequence[str]) -> tuple[int, str]:
    """Run ``command`` in a node through Docker: its exit status and what it said."""
    done = container.exec_run(list(command))
    return done.exit_code or 0, cast("bytes", done.output).decode("utf-8", errors="replace")


def _ready(container: Container) -> str:
    """What a node says of itself, or why it says nothing: Docker loses an answer or its first lines at times."""
    status, said = execute(container, [READY])
    for _ in range(READY_TRIES):
        if status == 0 and said.startswith("state ") and said.endswith("end\n"):
            break
        time.sleep(1)
        status, said = execute(container, [READY])
    return said


def known_hosts(states: Iterable[NodeState]) -> str:
    """Lines of an ssh known_hosts file from the keys that the nodes gave through Docker."""
    return "".join(f"{state.address},{state.name} {state.host_key}\n" for state in states if state.host_key)


def _versions(container: Container) -> dict[str, str]:
    """Versions of the programs that a deployment brings, as far as they are installed."""
    script = (
        "for p in kubelet containerd runc nvidia-ctk; do command -v $p >/dev/null && "
        "echo $p $($p --version 2>/dev/null | grep -oEm1 'v?[0-9]+\\.[0-9]+\\.[0-9]+'); done; "
        ". /etc/os-release; echo system $PRETTY_NAME"
    )
    _, said = execute(container, ["sh", "-c", script])
    return dict(line.split(" ", 1) for line in said.splitlines() if " " in line)


def _key_archive(authorized_key: str) -> bytes:
    """A tar with /root/.ssh/authorized_keys (0700, 0600)."""
    buffer = io.BytesIO()
    content = authorized_key.encode()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folder = tarfile.TarInfo("root/.ssh")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        tar.addfile(folder)
        entry = tarfile.TarInfo("root/.ssh/authorized_keys")
        entry.mode, entry.size = 0o600, len(content)
        tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _remove(container: Container) -> None:
    try:
        container.remove(force=True, v=True)
    except NotFound:
        return
    except APIError as refused:
        # Another command is removing it; what counts is that it is gone.
        if refused.status_code != 409:
            raise
        container.wait(condition="removed")
