"""Which hosts each playbook looks at and touches, as Ansible works it out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.paths import repo_root
from testbed.rendering import SiteVariables

ROOT = repo_root()
# node1 is control plane and registry; node2 and node3 are nodes, node3 with GPUs.
HOSTS = {
    "kubernetes_control_plane": ["node1"],
    "registry": ["node1"],
    "kubernetes_node": ["node2", "node3"],
    "gpu_simulated": ["node3"],
}
LOOK = "Look at every host"


def load(name: str) -> list[dict[str, Any]]:
    """The plays of a playbook."""
    return list(yaml.safe_load((ROOT / "playbooks" / f"{name}.yml").read_text()))


@pytest.fixture
def plays_of(tmp_path: Path) -> Any:
    """(play, its hosts) for each play of a playbook."""
    groups = {group: {"hosts": dict.fromkeys(names)} for group, names in HOSTS.items()}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))

    def look(name: str, *options: str) -> list[tuple[str, list[str]]]:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        argv = [program, "--list-hosts", "-i", "inventories/common", "-i", str(tmp_path), f"playbooks/{name}.yml"]
        shown = subprocess.run([*argv, *options], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        blocks = re.findall(
            r"^  play #\d+ \(.*?\): (.*?)\tTAGS.*?hosts \(\d+\):\n((?:      \S+\n)*)", shown, re.M | re.S
        )
        return [(play, sorted(hosts.split())) for play, hosts in blocks]

    return look


@pytest.mark.parametrize(
    ("layer", "hosts"),
    [
        ("base", ["node1", "node2", "node3"]),
        ("container_runtime", ["node1", "node2", "node3"]),
        ("gpu", ["node3"]),
        ("registry", ["node1"]),
        ("kubernetes", ["node1", "node2", "node3"]),
    ],
)
def test_a_layer_alone_checks_its_hosts_before_it_changes_any(plays_of: Any, layer: str, hosts: list[str]) -> None:
    assert plays_of(layer)[0] == (LOOK, hosts)


def test_the_whole_site_checks_every_host_once(plays_of: Any) -> None:
    looks = [hosts for play, hosts in plays_of("site") if play == LOOK]
    assert looks[0] == ["node1", "node2", "node3"]
    assert len(looks) == 10
    assert not any(looks[1:])


def test_a_node_that_is_added_is_checked_alone_and_wholly(plays_of: Any) -> None:
    found = plays_of("add_node", "--extra-vars=node=node3")
    assert (LOOK, ["node3"]) in found
    assert ("Check what will be hosts with simulated GPUs", ["node3"]) in found
    assert ("Check what will offer GPUs", ["node3"]) in found
    names = [play for play, _ in found]
    assert names.index("Check what will offer GPUs") < names.index("Prepare the host")
    others = {host for play, hosts in found[1:] for host in hosts if not play.startswith("See the node")}
    assert others == {"node3"}, "routes are the only thing that other nodes get, and those are named while it runs"


def test_a_node_that_is_removed_touches_no_other_node(plays_of: Any) -> None:
    found = dict(plays_of("remove_node", "--extra-vars=node=node3"))
    assert found["Take the host out of the cluster"] == ["node3"]
    assert found["Take back the routes to its pods"] == []


@pytest.mark.parametrize("playbook", ["add_node", "remove_node"])
def test_routes_change_with_the_bridge_only_and_a_dead_host_stops_nothing(playbook: str) -> None:
    (play,) = [play for play in load(playbook) if play.get("hosts") == f"{playbook}_connected"]
    assert play["ignore_unreachable"]
    assert "any_errors_fatal" not in play
    tasks = [task for play in load(playbook) for task in play.get("tasks", []) if "ansible.builtin.add_host" in task]
    assert [task["loop"].split(" if ")[1] for task in tasks] == ["kubernetes_network_plugin == 'bridge' else [] }}"]


def test_nodes_leave_before_control_planes(plays_of: Any) -> None:
    assert [hosts for _, hosts in plays_of("reset")][-2:] == [["node2", "node3"], ["node1"]]


def test_the_suite_runs_as_its_user() -> None:
    (play,) = load("verify")
    assert play["vars"]["ansible_become"] is False


@pytest.mark.parametrize(("given", "forgets"), [({}, False), ({"iam_key_keep_seconds": "0"}, True)])
def test_proxies_lose_their_sessions_only_where_a_key_is_believed_no_longer(
    tmp_path: Path, given: dict[str, str], forgets: bool
) -> None:
    groups: dict[str, Any] = {"iam": {"hosts": {"node1": given}}, "oidc_proxy": {"hosts": {"node1": {}, "node2": {}}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    site = SiteVariables([ROOT / "inventories/common", ROOT / "inventories/local", tmp_path])
    playbook = site.trusted_yaml(ROOT / "playbooks" / "rotate_iam_keys.yml")
    (play,) = [play for play in playbook if play["hosts"] == "oidc_proxy"]
    (task,) = play["tasks"]
    for host in groups["oidc_proxy"]["hosts"]:
        assert site.holds(task["when"], site.variables(host)) is forgets
    assert site.holds(task["when"], {**site.variables("node2"), "iam_host": ""}) is False
