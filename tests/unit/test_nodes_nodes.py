"""The life of a node's container: what Docker is asked for, and what is made of its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed import nodes
from testbed.errors import DeepError
from testbed.host import CAPABILITIES, Cgroups, Host
from testbed.image import Image
from testbed.network import LABEL, Network
from testbed.nodes import Node, Nodes
from tests.unit.fake_docker import FakeDocker, api_error

IMAGE = Image("debian13", "trixie", {"SOME": "thing"})
NETWORK = Network("deep-local", "198.18.0.0/24")
NODE = Node("node1", "198.18.0.11")
TWO = [NODE, Node("node2", "198.18.0.12")]


def machine(*, version: int = 2, mounts: tuple[Path, ...] = (), missing: str = "") -> Host:
    return Host("debian", "12", Cgroups(version, mounts), frozenset(CAPABILITIES) - {missing}, 1500)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(nodes, "wait_for_ssh", lambda _: None)
    return FakeDocker()


def raise_nodes(client: Any, host: Host | None = None, wanted: list[Node] | None = None) -> list[nodes.NodeState]:
    return Nodes(client, "local", host or machine()).ensure(wanted or [NODE], NETWORK, IMAGE, "ssh-ed25519 PUBLIC\n")


def test_a_node_is_a_container_with_label_address_and_environment(client: Any) -> None:
    states = raise_nodes(client, wanted=TWO)
    assert [(s.name, s.address, s.system, s.host_key) for s in states] == [
        ("node1", "198.18.0.11", "running", "ssh-ed25519 AAAAKEY"),
        ("node2", "198.18.0.12", "running", "ssh-ed25519 AAAAKEY"),
    ]
    config = client.all_containers["deep-local-node1"].config
    assert config["hostname"] == "node1"
    assert config["labels"] == {LABEL: "local", nodes.NODE_LABEL: "node1"}
    assert config["environment"] == {"SOME": "thing"}
    assert set(config["volumes"]) == {"/var/lib/containerd", "/var/lib/etcd", "/var/lib/kubelet"}
    endpoint = config["networking_config"]["EndpointsConfig"]["deep-local"]
    assert (endpoint["IPAMConfig"]["IPv4Address"], endpoint["Aliases"]) == ("198.18.0.11", ["node1"])


def test_no_node_is_privileged_and_no_port_is_published(client: Any) -> None:
    raise_nodes(client)
    host_config = client.all_containers["deep-local-node1"].config["host_config"]
    assert not host_config.get("Privileged")
    assert not host_config.get("PortBindings")
    assert host_config["RestartPolicy"] == {"Name": "no"}
    assert host_config["MaskedPaths"] == host_config["ReadonlyPaths"] == []
    assert set(host_config["CapAdd"]) == set(nodes.CAPABILITIES)
    assert [limit["Name"] for limit in host_config["Ulimits"]] == ["nofile"]


def test_a_capability_that_the_host_lacks_is_not_asked_for(client: Any) -> None:
    raise_nodes(client, machine(missing="SYS_RESOURCE"))
    host_config = client.all_containers["deep-local-node1"].config["host_config"]
    assert "SYS_RESOURCE" not in host_config["CapAdd"]
    assert not host_config.get("Ulimits")


def test_a_host_that_cannot_run_nodes_is_told_so_before_anything_is_made(client: Any) -> None:
    with pytest.raises(DeepError, match="cannot run nodes") as refused:
        raise_nodes(client, machine(missing="SYS_ADMIN"))
    assert refused.value.found == "no SYS_ADMIN among its capabilities"
    assert client.calls == []


def test_version_2_gives_each_node_a_tree_of_its_own(client: Any) -> None:
    raise_nodes(client)
    host_config = client.all_containers["deep-local-node1"].config["host_config"]
    assert host_config["CgroupnsMode"] == "private"
    assert not host_config.get("Binds")
    assert set(host_config["Tmpfs"]) == {"/run", "/run/lock"}


def test_version_1_shares_the_hierarchies_but_not_the_folder_around_them(client: Any, tmp_path: Path) -> None:
    mounts = (tmp_path / "memory", tmp_path / "unified")
    for mount in mounts:
        mount.mkdir()
    raise_nodes(client, machine(version=1, mounts=mounts))
    host_config = client.all_containers["deep-local-node1"].config["host_config"]
    assert host_config["CgroupnsMode"] == "host"
    assert host_config["Binds"] == [f"{mount}:{mount}:rw" for mount in mounts]
    assert "ro" in host_config["Tmpfs"]["/sys/fs/cgroup"]
    assert (mounts[0] / "deep-local/node1").is_dir()
    assert not (mounts[1] / "deep-local").exists()
    assert Nodes(client, "local", machine(version=1, mounts=mounts)).remove() == (["node1"], [])
    assert not (mounts[0] / "deep-local").exists()


def test_the_key_is_in_place_before_the_first_start(client: Any) -> None:
    raise_nodes(client)
    container = client.all_containers["deep-local-node1"]
    assert container.files["/root/.ssh"][0] == 0o700
    assert container.files["/root/.ssh/authorized_keys"] == (0o600, b"ssh-ed25519 PUBLIC\n")


def test_a_running_node_is_left_alone(client: Any) -> None:
    raise_nodes(client)
    client.calls.clear()
    raise_nodes(client)
    assert client.calls == []


def test_a_stopped_node_is_started(client: Any) -> None:
    raise_nodes(client)
    client.all_containers["deep-local-node1"].stop_now()
    client.calls.clear()
    assert raise_nodes(client)[0].status == "running"
    assert [what for what, _ in client.calls] == ["start", "reload"]


def test_a_node_whose_creation_was_cut_short_is_made_again(client: Any) -> None:
    client.fail["start"] = api_error(500, "killed")
    with pytest.raises(DeepError):
        raise_nodes(client)
    half = client.all_containers["deep-local-node1"]
    half.files.clear()
    client.fail.clear()
    raise_nodes(client)
    made = client.all_containers["deep-local-node1"]
    assert made is not half
    assert "/root/.ssh/authorized_keys" in made.files


def test_a_third_node_does_not_touch_the_first_two(client: Any) -> None:
    raise_nodes(client, wanted=TWO)
    client.calls.clear()
    raise_nodes(client, wanted=[*TWO, Node("node3", "198.18.0.13")])
    assert {name for _, name in client.calls} == {"deep-local-node3"}


def test_what_docker_refuses_names_the_node(client: Any) -> None:
    client.fail["start"] = api_error(500, "Address already in use")
    with pytest.raises(DeepError, match="does not start the node") as refused:
        raise_nodes(client)
    assert (refused.value.host, refused.value.found) == ("node1", "Address already in use")


def test_a_foreign_container_of_the_same_name_is_not_touched(client: Any) -> None:
    client.create_container("other", name="deep-local-node1", labels={})
    client.calls.clear()
    with pytest.raises(DeepError, match="no testbed made"):
        raise_nodes(client)
    assert client.calls == []


def test_a_node_of_another_image_is_kept_and_said(client: Any) -> None:
    raise_nodes(client)
    client.all_containers["deep-local-node1"].config["image"] = "deep-node:debian12"
    with pytest.raises(DeepError, match="another image") as refused:
        raise_nodes(client)
    assert (refused.value.found, refused.value.needed) == ("deep-node:debian12", "deep-node:debian13")


def test_a_node_that_does_not_boot_shows_its_last_words(client: Any) -> None:
    client.status_after_start = "exited"
    with pytest.raises(DeepError, match="systemd did not start: Failed to mount") as refused:
        raise_nodes(client)
    assert (refused.value.host, refused.value.found, refused.value.exit_code) == ("node1", "exited", 1)


@pytest.mark.parametrize(
    "lost", [(126, b"OCI runtime exec failed"), (0, b""), (0, b"key ssh-ed25519 K\nend\n"), (0, b"state running\n")]
)
def test_a_node_in_which_nothing_can_be_run_is_asked_again(
    client: Any, monkeypatch: pytest.MonkeyPatch, lost: tuple[int, bytes]
) -> None:
    raise_nodes(client)
    container = client.all_containers["deep-local-node1"]
    container.answers["ready"] = lost
    monkeypatch.setattr("testbed.nodes.time.sleep", lambda _: container.answers.pop("ready", None))
    assert raise_nodes(client)[0].system == "running"
    container.answers["ready"] = (126, b"OCI runtime exec failed")
    monkeypatch.setattr("testbed.nodes.time.sleep", lambda _: None)
    with pytest.raises(DeepError, match="systemd did not start") as refused:
        raise_nodes(client)
    assert refused.value.found == "OCI runtime exec failed"


def test_failed_units_are_reported_and_do_not_stop_the_node(client: Any) -> None:
    client.ready = b"state degraded\nkey ssh-ed25519 K\nfailed cron.service\nfailed x.mount\nend\n"
    state = raise_nodes(client)[0]
    assert (state.system, state.failed_units) == ("degraded", ("cron.service", "x.mount"))


def test_a_node_that_stops_while_it_is_asked_is_shown_as_it_is(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raise_nodes(client)
    container = client.all_containers["deep-local-node1"]

    def gone(*_: Any) -> None:
        container.stop_now()
        raise api_error(409, "not running")

    monkeypatch.setattr(container, "exec_run", gone)
    assert Nodes(client, "local", machine()).states()[0].status == "exited"


def test_removal_takes_volumes_and_can_be_repeated(client: Any) -> None:
    raise_nodes(client, wanted=TWO)
    everything = Nodes(client, "local", machine())
    assert everything.remove() == (["node1", "node2"], [])
    assert client.removed["deep-local-node1"] == {"force": True, "v": True}
    assert everything.remove() == ([], [])


def test_only_containers_of_this_testbed_are_removed(client: Any) -> None:
    raise_nodes(client)
    client.create_container("x", name="deep-other-node1", labels={LABEL: "other", nodes.NODE_LABEL: "node1"})
    Nodes(client, "local", machine()).remove()
    assert list(client.all_containers) == ["deep-other-node1"]


def test_an_unknown_node_is_answered_with_those_that_exist(client: Any) -> None:
    raise_nodes(client, wanted=TWO)
    everything = Nodes(client, "local", machine())
    with pytest.raises(DeepError, match="no such node") as refused:
        everything.get("node9")
    assert refused.value.needed == "one of: node1, node2"
    client.all_containers["deep-local-node2"].stop_now()
    with pytest.raises(DeepError, match="not running"):
        everything.running("node2")
    with pytest.raises(DeepError, match="there is no testbed"):
        Nodes(client, "none", machine()).get("node1")


def test_known_hosts_hold_address_and_name(client: Any) -> None:
    assert nodes.known_hosts(raise_nodes(client)) == "198.18.0.11,node1 ssh-ed25519 AAAAKEY\n"


def test_testbeds_are_found_by_their_labels(client: Any) -> None:
    raise_nodes(client)
    client.add_network("deep-half", "198.18.3.0/24", {LABEL: "half"})
    client.add_network("bridge", "172.17.0.0/16", {})
    assert nodes.testbeds(client) == {"local", "half"}


def test_a_node_that_cannot_be_reached_is_an_error_with_its_address() -> None:
    # Port 22 of an address of this host that nobody listens on.
    with pytest.raises(DeepError, match="cannot be reached") as refused:
        nodes.wait_for_ssh(Node("node1", "127.77.66.55"), timeout=0.2)
    assert refused.value.host == "node1"
    assert refused.value.found
    assert "127.77.66.55 port 22" in refused.value.found
