"""The network of a testbed: one Docker bridge with a subnet of its own out of 198.18.0.0/16 (RFC 2544)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError, NotFound
from docker.types import IPAMConfig, IPAMPool

from testbed.errors import DeepError

LABEL = "org.deephdc.testbed"
RANGE = ipaddress.IPv4Network("198.18.0.0/16")
FIRST_NODE = 11
MAX_NODES = 200
# The default route, and the halves of it that tunnels set, are wider than any network that a host is part of.
WIDEST_NETWORK = 8
ROUTES = Path("/proc/net/route")


@dataclass(frozen=True)
class Network:
    """A bridge: ``gateway`` is this host, nodes have fixed addresses from .11 on."""

    name: str
    subnet: str

    @property
    def gateway(self) -> str:
        """Address of the host on the network."""
        return str(ipaddress.ip_network(self.subnet)[1])

    def address(self, number: int) -> str:
        """Address of node ``number`` (from 1)."""
        if not 1 <= number <= MAX_NODES:
            raise DeepError("no address for the node", found=f"node {number}", needed=f"1 to {MAX_NODES}")
        return str(ipaddress.ip_network(self.subnet)[FIRST_NODE + number - 1])


def network_name(testbed: str) -> str:
    """Name of a testbed's network in Docker."""
    return f"deep-{testbed}"


def find(client: docker.DockerClient, testbed: str) -> Network | None:
    """The network of ``testbed`` if Docker has it; raises ``DeepError`` for a foreign one of that name."""
    try:
        found = client.networks.get(network_name(testbed))
    except NotFound:
        return None
    if (found.attrs.get("Labels") or {}).get(LABEL) != testbed:
        raise DeepError(
            f"a Docker network {network_name(testbed)} exists that no testbed made",
            next_step=f"choose another name (--name), or remove it: docker network rm {network_name(testbed)}",
        )
    return Network(network_name(testbed), found.attrs["IPAM"]["Config"][0]["Subnet"])


def ensure(client: docker.DockerClient, testbed: str, mtu: int, routes: Path = ROUTES) -> Network:
    """The network of ``testbed``, made in the first free subnet where there is none; ``mtu`` in bytes."""
    existing = find(client, testbed)
    if existing:
        return existing
    taken = [*_docker_subnets(client), *_host_routes(routes)]
    for subnet in RANGE.subnets(new_prefix=24):
        if any(subnet.overlaps(other) for other in taken):
            continue
        network = Network(network_name(testbed), str(subnet))
        if _create(client, testbed, network, mtu):
            return network
    raise DeepError(
        "no free subnet for a testbed",
        found=f"in use: {', '.join(sorted(str(other) for other in taken if RANGE.overlaps(other)))}",
        needed=f"one free /24 in {RANGE}",
        next_step="remove a testbed (deep testbed list, deep testbed down), or the network or route named",
    )


def remove(client: docker.DockerClient, testbed: str) -> bool:
    """Remove the network of ``testbed``; whether there was one."""
    if find(client, testbed) is None:
        return False
    client.networks.get(network_name(testbed)).remove()
    return True


def _create(client: docker.DockerClient, testbed: str, network: Network, mtu: int) -> bool:
    try:
        client.networks.create(
            network.name,
            driver="bridge",
            check_duplicate=True,
            labels={LABEL: testbed},
            options={"com.docker.network.driver.mtu": str(mtu)},
            ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=network.subnet, gateway=network.gateway)]),
        )
    except APIError as refused:
        # Another testbed took the subnet after it was looked up.
        if "overlap" in str(refused).lower():
            return False
        raise DeepError(
            f"Docker did not make the network {network.name}", found=str(refused.explanation or refused)
        ) from refused
    return True


def _docker_subnets(client: docker.DockerClient) -> list[ipaddress.IPv4Network]:
    pools = [pool for found in client.networks.list() for pool in (found.attrs.get("IPAM") or {}).get("Config") or []]
    subnets = [ipaddress.ip_network(pool["Subnet"]) for pool in pools if pool.get("Subnet")]
    return [subnet for subnet in subnets if isinstance(subnet, ipaddress.IPv4Network)]


def _host_routes(routes: Path) -> list[ipaddress.IPv4Network]:
    """Networks that the host routes to. Routes to whole parts of the internet are ways out, no networks."""
    found: list[ipaddress.IPv4Network] = []
    for line in routes.read_text(encoding="ascii").splitlines()[1:] if routes.is_file() else []:
        _, destination, _, _, _, _, _, mask, *_ = line.split()
        found.append(ipaddress.IPv4Network(f"{_dotted(destination)}/{_dotted(mask)}", strict=False))
    return [network for network in found if network.prefixlen >= WIDEST_NETWORK]


def _dotted(word: str) -> str:
    """An address as /proc prints it: hexadecimal, lowest byte first."""
    return ".".join(str(byte) for byte in reversed(bytes.fromhex(word)))
