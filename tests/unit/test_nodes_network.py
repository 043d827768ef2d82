"""Networks of testbeds: first free subnet, never someone else's network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed import network
from testbed.errors import DeepError
from tests.unit.fake_docker import FakeDocker, api_error

NO_ROUTES = Path("/nonexistent")


@pytest.fixture
def client() -> Any:
    return FakeDocker()


def test_the_first_subnet_is_taken_with_the_mtu_of_the_host(client: Any) -> None:
    made = network.ensure(client, "local", 1400, NO_ROUTES)
    assert made == network.Network("deep-local", "198.18.0.0/24")
    assert (made.gateway, made.address(1), made.address(2)) == ("198.18.0.1", "198.18.0.11", "198.18.0.12")
    created = client.all_networks["deep-local"].attrs
    assert created["Options"] == {"com.docker.network.driver.mtu": "1400"}
    assert created["Labels"] == {network.LABEL: "local"}


def test_two_testbeds_have_two_subnets(client: Any) -> None:
    first, second = (network.ensure(client, name, 1500, NO_ROUTES) for name in ("one", "two"))
    assert (first.subnet, second.subnet) == ("198.18.0.0/24", "198.18.1.0/24")


def test_an_existing_network_is_kept(client: Any) -> None:
    client.add_network("deep-local", "198.18.7.0/24", {network.LABEL: "local"})
    assert network.ensure(client, "local", 1500, NO_ROUTES).subnet == "198.18.7.0/24"
    assert client.calls == []


def test_a_subnet_that_the_host_routes_to_is_left_out(client: Any, tmp_path: Path) -> None:
    routes = tmp_path / "route"
    header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    routes.write_text(
        header + "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth1\t000012C6\t00000000\t0001\t0\t0\t0\t0000FEFF\t0\t0\t0\n",  # 198.18.0.0/15
        encoding="ascii",
    )
    with pytest.raises(DeepError, match="no free subnet") as refused:
        network.ensure(client, "local", 1500, routes)
    assert refused.value.found == "in use: 198.18.0.0/15"
    halves = "tun0\t000000{}\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n"  # 0.0.0.0/1 and 128.0.0.0/1
    routes.write_text(header + halves.format("00") + halves.format("80"), encoding="ascii")
    assert network.ensure(client, "tunnelled", 1500, routes).subnet == "198.18.0.0/24"
    client.all_networks.clear()
    routes.write_text(header + "eth1\t000012C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", encoding="ascii")
    assert network.ensure(client, "local", 1500, routes).subnet == "198.18.1.0/24"


def test_a_subnet_lost_to_another_testbed_is_passed_over(client: Any) -> None:
    def taken(subnet: str) -> None:
        if subnet == "198.18.0.0/24":
            raise api_error(403, "Pool overlaps with other one on this address space")

    client.on_network_create = taken
    assert network.ensure(client, "local", 1500, NO_ROUTES).subnet == "198.18.1.0/24"


def test_no_free_subnet_says_what_to_do(client: Any) -> None:
    client.add_network("all", "198.18.0.0/16", {})
    with pytest.raises(DeepError, match="no free subnet") as refused:
        network.ensure(client, "local", 1500, NO_ROUTES)
    assert refused.value.next_step
    assert "deep testbed down" in refused.value.next_step


def test_what_docker_refuses_is_passed_on(client: Any) -> None:
    client.fail["network"] = api_error(500, "no more devices")
    with pytest.raises(DeepError, match="did not make the network") as refused:
        network.ensure(client, "local", 1500, NO_ROUTES)
    assert refused.value.found == "no more devices"


def test_a_foreign_network_of_the_same_name_is_not_touched(client: Any) -> None:
    client.add_network("deep-local", "10.0.0.0/24", {})
    for action in (lambda: network.ensure(client, "local", 1500, NO_ROUTES), lambda: network.remove(client, "local")):
        with pytest.raises(DeepError, match="no testbed made"):
            action()
    assert "deep-local" in client.all_networks


def test_removing_an_absent_network_is_no_error(client: Any) -> None:
    assert not network.remove(client, "local")
    network.ensure(client, "local", 1500, NO_ROUTES)
    assert network.remove(client, "local")
    assert client.all_networks == {}


def test_there_are_addresses_for_200_nodes(client: Any) -> None:
    made = network.ensure(client, "local", 1500, NO_ROUTES)
    assert made.address(200) == "198.18.0.210"
    with pytest.raises(DeepError, match="no address"):
        made.address(201)
