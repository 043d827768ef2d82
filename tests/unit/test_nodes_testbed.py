"""Orchestration of ``up`` and ``down`` on a fake engine: order, repair after a cut at each step, refusals."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from testbed import (
    cgroups,
    engine,
    host,
    image,
    inventory,
    limits,
    network,
    nodes,
    profiles,
    server,
    sites,
    state,
    testbed,
)
from testbed.artifacts import api
from testbed.cli import testbed as cli
from testbed.cli.options import complete_name
from testbed.errors import DeepError
from testbed.files import write_atomic
from testbed.run import Children, stream
from tests.unit.fake_docker import FakeDocker, api_error

PASSED = {"id": "cluster::dns[node1]", "title": "Names resolve", "outcome": "passed", "seconds": 0.5, "reason": ""}
FAILED = {**PASSED, "outcome": "failed", "reason": "no answer"}
VERDICT = {
    "ok": True, "site": "local", "simulated": True, "passed": 1, "skipped": 0, "seconds": 1.0,
    "checks": [PASSED], "failures": [], "report": "/report",
}  # fmt: skip
REFUSED = {**VERDICT, "ok": False, "passed": 0, "checks": [FAILED], "failures": [FAILED]}
ADMIN_CONF = {"clusters": [{"name": "c", "cluster": {"server": "https://api.deep.test:6443"}}]}


class Killed(BaseException):
    """Stands in for SIGKILL: nothing of the program handles it."""


class World:
    """The machine that a test sees, with everything outside our code replaced."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.docker: Any = FakeDocker()
        self.steps: list[str] = []
        self.kill_at = ""
        self.verdict: dict[str, Any] = VERDICT
        self.sysctl = tmp_path / "sys"
        self.memory = tmp_path / "memory"
        self.memory.mkdir()
        self.control_paths = tmp_path / "run"
        for key in limits.NEEDED:
            (self.sysctl / key).parent.mkdir(parents=True, exist_ok=True)
            (self.sysctl / key).write_text("1\n", encoding="ascii")
        machine = host.Host("debian", "12", host.Cgroups(1, (self.memory,)), frozenset(host.CAPABILITIES), 1400)
        monkeypatch.setenv("DEEP_STATE_DIR", str(tmp_path / "state"))
        monkeypatch.setenv("DEEP_RUN_DIR", str(self.control_paths))
        monkeypatch.setenv("DEEP_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setattr(host, "preflight", lambda: machine)
        monkeypatch.setattr(host, "facts", lambda: machine)
        monkeypatch.setattr(engine, "ensure_running", lambda: self.docker)
        monkeypatch.setattr(engine, "client", lambda: self.docker)
        monkeypatch.setattr(engine, "stop_if_ours", lambda: True)
        monkeypatch.setattr(nodes, "wait_for_ssh", lambda _: None)
        monkeypatch.setattr(limits, "acquire", functools.partial(limits.acquire, sysctl=self.sysctl))
        monkeypatch.setattr(limits, "release", functools.partial(limits.release, sysctl=self.sysctl))
        monkeypatch.setattr(network, "ensure", functools.partial(network.ensure, routes=tmp_path / "no-routes"))
        monkeypatch.setattr(image, "ensure", lambda _, chosen, __: self.step(f"image {chosen.name}"))
        monkeypatch.setattr(api, "ensure", lambda *_, **__: self.step("artefacts"))
        monkeypatch.setattr(server, "ensure", lambda _, gateway: self.step(f"server {gateway}"))
        monkeypatch.setattr(sites, "play", lambda _, name: self.step(f"deploy {name}"))
        monkeypatch.setattr(sites, "verify", self._verify)

    def step(self, what: str) -> None:
        """Note that a step ran, or be killed in it."""
        if self.kill_at and what.startswith(self.kill_at):
            self.kill_at = ""
            raise Killed
        self.steps.append(what)

    def _verify(self, _: str, name: str, **__: Any) -> dict[str, Any]:
        self.step(f"verify {name}")
        return self.verdict

    def limit(self) -> int:
        """The one limit that tests look at."""
        return int((self.sysctl / "fs/inotify/max_user_instances").read_text(encoding="ascii"))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def up(name: str = "local", **options: Any) -> dict[str, Any]:
    return testbed.up(name, say=lambda _: None, **options)


def test_up_goes_from_the_image_to_the_verdict(world: World) -> None:
    found = up()
    assert world.steps[-3:] == ["server 198.18.0.1", "deploy local", "verify local"]
    assert set(world.steps[:2]) == {"image debian12", "artefacts"}
    assert found["ok"]
    assert found["running"]
    assert found["phase"] == "verify"
    assert found["verified"]
    assert [(node["name"], node["address"]) for node in found["nodes"]] == [
        ("node1", "198.18.0.11"),
        ("node2", "198.18.0.12"),
    ]
    assert world.limit() == limits.NEEDED["fs/inotify/max_user_instances"]
    assert (Path(found["state_dir"]) / inventory.HOSTS).is_file()
    assert set(found["timings"]) == {"image", "nodes", "artefacts", "deploy"}
    json.dumps(found)


def test_until_nodes_deploys_nothing_and_serves_artefacts(world: World) -> None:
    found = up(until="nodes")
    assert found["phase"] == "nodes"
    assert found["verdict"] is None
    assert not any(step.startswith(("deploy", "verify")) for step in world.steps)
    assert "server 198.18.0.1" in world.steps


def test_artefacts_can_be_left_alone(world: World) -> None:
    up(until="nodes", artifacts=False)
    assert world.steps == ["image debian12"]


def test_up_again_keeps_nodes_and_remembers_the_furthest_phase(world: World) -> None:
    up()
    world.docker.calls.clear()
    world.steps.clear()
    found = up(until="nodes")
    assert world.docker.calls == []
    assert world.steps == ["artefacts", "server 198.18.0.1"]
    assert found["phase"] == "verify"


@pytest.mark.parametrize("step", ["image", "artefacts", "server", "deploy", "verify"])
def test_up_after_a_kill_in_any_step_finishes(world: World, step: str) -> None:
    world.kill_at = step
    with pytest.raises(Killed):
        up()
    found = up()
    assert found["ok"]
    assert found["phase"] == "verify"
    assert testbed.down("local")["ok"]
    assert world.limit() == 1


@pytest.mark.parametrize("call", ["network", "create", "start"])
def test_up_after_docker_failed_in_any_call_finishes(world: World, call: str) -> None:
    world.docker.fail[call] = api_error(500, "engine went away")
    with pytest.raises(DeepError, match="Docker"):
        up()
    world.docker.fail.clear()
    assert up()["ok"]


def test_a_failure_of_the_store_is_raised_with_the_nodes_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "ensure", lambda *_, **__: (_ for _ in ()).throw(DeepError("disk full")))
    with pytest.raises(DeepError, match="disk full"):
        up()
    assert set(world.docker.all_containers) == {"deep-local-node1", "deep-local-node2"}


def test_a_failed_up_does_not_wait_for_the_store(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: Any, children: Children, **__: Any) -> None:
        log = world.control_paths.parent / "build.log"
        stream(["sleep", "600"], log=log, children=children)
        stream(["sleep", "600"], log=log, children=children)

    monkeypatch.setattr(api, "ensure", build)
    world.docker.fail["network"] = api_error(500, "engine went away")
    begin = time.monotonic()
    with pytest.raises(DeepError, match="Docker"):
        up()
    assert time.monotonic() - begin < 60
    assert threading.active_count() == 1


def test_a_failed_acceptance_is_not_ok(world: World) -> None:
    world.verdict = REFUSED
    found = up()
    assert not found["ok"]
    assert found["running"]
    assert found["verified"] is False
    assert found["phase"] == "deploy"


def test_a_node_is_added_to_a_testbed_that_exists(world: World) -> None:
    up(until="nodes")
    found = up(nodes=3, until="nodes")
    assert [node["name"] for node in found["nodes"]] == ["node1", "node2", "node3"]
    hosts = yaml.safe_load((Path(found["state_dir"]) / inventory.HOSTS).read_text(encoding="utf-8"))["all"]["children"]
    assert set(hosts["kubernetes_node"]["hosts"]) == {"node2", "node3"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 1}, "more nodes"),
        ({"image_name": "debian13"}, "another image"),
        ({"profile": "gpu"}, "another profile"),
    ],
)
def test_what_cannot_be_changed_is_refused_and_changes_nothing(
    world: World, options: dict[str, Any], message: str
) -> None:
    up(until="nodes")
    before = state.load("local")
    with pytest.raises(DeepError, match=message) as refused:
        up(**options)
    assert refused.value.next_step == "deep testbed down --name local, then up again"
    assert state.load("local") == before


def test_settings_are_kept_for_the_testbed_until_they_are_taken_back(world: World) -> None:
    file = Path(up(until="nodes", settings=["gpu_sharing=time_slicing", "gpu_sharing_replicas=3"])["state_dir"])
    file /= inventory.SETTINGS
    begun = profiles.load("kubernetes").settings
    wanted = {**begun, "gpu_sharing": "time_slicing", "gpu_sharing_replicas": 3}
    mirror = {"artifact_mirror": "http://198.18.0.1:8480", "artifact_checksums": str(api.mirror_dir())}
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == mirror | wanted
    assert up(until="nodes")["settings"] == wanted
    assert "set: gpu_sharing_replicas=3" in deep("status").stdout
    left = {**begun, "gpu_sharing_replicas": 3}
    assert up(until="nodes", settings=["gpu_sharing="])["settings"] == left
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == mirror | left
    own = up(until="nodes", settings=["artifact_mirror=file:///mnt/mirror"])
    assert own["settings"]["artifact_mirror"] == "file:///mnt/mirror"
    assert yaml.safe_load(file.read_text(encoding="utf-8"))["artifact_mirror"] == "file:///mnt/mirror"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("gpu_sharing", "not a setting (found: gpu_sharing; needed: NAME=VALUE)"),
        ("gpu_shareing=mig", "no such variable (found: gpu_shareing; needed: one of: gpu_sharing"),
        ("qqq=1", "no such variable (found: qqq; needed: a variable of the site)"),
        ("gpu_sharing=[mig", "the value of gpu_sharing is not YAML (found: [mig"),
    ],
)
def test_a_wrong_setting_is_refused_and_changes_nothing(world: World, setting: str, message: str) -> None:
    with pytest.raises(DeepError) as refused:
        up(settings=[setting])
    assert message in str(refused.value)
    assert refused.value.exit_code == 2
    assert state.names() == []
    assert world.docker.calls == []


def test_unknown_profile_and_image_are_refused_before_anything_is_made(world: World) -> None:
    for options in ({"profile": "mesos"}, {"image_name": "fedora"}):
        with pytest.raises(DeepError, match="unknown"):
            up(**options)
    assert state.names() == []
    assert world.docker.calls == []


def test_two_testbeds_live_side_by_side_and_go_one_by_one(world: World) -> None:
    first, second = up("one", until="nodes"), up("two", until="nodes", profile="gpu")
    assert (first["subnet"], second["subnet"]) == ("198.18.0.0/24", "198.18.1.0/24")
    assert [node["image"] for node in second["nodes"]] == ["deep-node:debian12"]
    testbed.down("one")
    assert set(world.docker.all_containers) == {"deep-two-node1"}
    assert world.limit() > 1
    assert testbed.status("two")["running"]
    testbed.down("two")
    assert world.limit() == 1


def test_down_removes_everything_and_can_be_repeated(world: World) -> None:
    folder = Path(up()["state_dir"])
    removed = testbed.down("local")["removed"]
    assert removed["nodes"] == ["node1", "node2"]
    assert removed["network"]
    assert removed["state"]
    assert not folder.exists()
    assert not (world.control_paths / "local").exists()
    assert world.docker.all_containers == {}
    assert world.docker.all_networks == {}
    assert not any(world.memory.iterdir())
    assert world.limit() == 1
    again = testbed.down("local")
    assert again["ok"]
    assert again["removed"]["nodes"] == []
    assert not again["removed"]["state"]


def test_down_removes_a_testbed_whose_state_was_lost(world: World) -> None:
    folder = Path(up(until="nodes")["state_dir"])
    (folder / state.FILE).write_text("{", encoding="utf-8")
    with pytest.raises(DeepError, match="cannot be read"):
        up()
    assert testbed.down("local")["removed"]["nodes"] == ["node1", "node2"]


def test_purge_also_removes_images_and_cache(world: World, tmp_path: Path) -> None:
    up(until="nodes")
    (tmp_path / "cache").mkdir(exist_ok=True)
    assert testbed.down("local", purge=True)["removed"]["images"] == []
    assert not (tmp_path / "cache").exists()


def test_purge_spares_what_another_testbed_uses(world: World) -> None:
    up("one", until="nodes")
    up("two", until="nodes")
    with pytest.raises(DeepError, match="in use") as refused:
        testbed.down("one", purge=True)
    assert refused.value.found == "testbeds: two"


def test_status_is_not_ok_when_a_node_is_down_or_degraded(world: World) -> None:
    up(until="nodes")
    world.docker.all_containers["deep-local-node2"].stop_now()
    found = testbed.status("local")
    assert not found["ok"]
    assert [node["status"] for node in found["nodes"]] == ["running", "exited"]
    world.docker.all_containers["deep-local-node2"].start()
    assert testbed.status("local")["ok"]
    world.docker.ready = b"state degraded\nkey ssh-ed25519 K\nfailed x.service\nend\n"
    assert not testbed.status("local")["ok"]


def test_kubeconfig_has_the_address_that_this_host_reaches(world: World) -> None:
    up(until="nodes")
    node1 = world.docker.all_containers["deep-local-node1"]
    node1.answers["cat"] = (0, yaml.safe_dump(ADMIN_CONF).encode())
    assert yaml.safe_load(testbed.kubeconfig("local"))["clusters"][0]["cluster"]["server"] == "https://198.18.0.11:6443"
    node1.answers["cat"] = (1, b"No such file")
    with pytest.raises(DeepError, match="not deployed") as refused:
        testbed.kubeconfig("local")
    assert (refused.value.host, refused.value.exit_code) == ("node1", 1)


@pytest.mark.parametrize("client", ["/usr/bin/docker", None])
def test_a_shell_needs_a_node_that_runs(world: World, monkeypatch: pytest.MonkeyPatch, client: str | None) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: client)
    with pytest.raises(DeepError, match="there is no testbed"):
        testbed.shell_command("local", "node1", [], terminal=True)
    up(until="nodes")
    command = testbed.shell_command("local", "node2", ["echo", "a b"], terminal=False)
    if client:
        assert command == [client, "exec", "--interactive", "--workdir", "/root", "deep-local-node2", "echo", "a b"]
    else:
        assert command[0] == "ssh"
        assert command[-3:] == ["root@198.18.0.12", "--", "echo 'a b'"]
    assert testbed.shell_command("local", "node1", [], terminal=True)[-1].endswith(
        "bash --login" if not client else "--login"
    )


def test_shared_connections_are_closed_before_the_nodes_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    up(until="nodes")
    (world.control_paths / "local" / "abc").touch()
    asked: list[list[str]] = []
    monkeypatch.setattr(testbed, "run", lambda argv, **_: asked.append([str(part) for part in argv]))
    testbed.down("local")
    assert asked == [["ssh", "-O", "exit", "-o", f"ControlPath={world.control_paths / 'local' / 'abc'}", "node"]]


def test_more_nodes_than_addresses_change_nothing(world: World) -> None:
    up(until="nodes")
    with pytest.raises(DeepError, match="too many nodes") as refused:
        up(nodes=network.MAX_NODES + 1)
    assert refused.value.needed == "1 to 200"
    assert state.need("local").nodes == 2
    assert up(until="nodes", nodes=2)["ok"]


def test_what_works_on_the_nodes_keeps_others_out(world: World) -> None:
    up(until="nodes")
    with state.lock("local"):
        with pytest.raises(DeepError, match="another command is working on testbed local"):
            testbed.verify("local")
        with pytest.raises(DeepError, match="another command"), sites.alone("local", "local"):
            pass
        with pytest.raises(DeepError, match="another command"):
            testbed.down("local")
    assert testbed.verify("local")["ok"]
    assert state.need("local").verified


def test_the_password_of_a_site_is_no_testbed_s(world: World) -> None:
    password = sites.vault_password_file("ifca")
    write_atomic(password, "secret", 0o600)
    for name in ("ifca", "site-ifca", "sites"):
        testbed.down(name)
    assert password.read_text(encoding="utf-8") == "secret"


def test_purge_spares_what_another_testbed_needs(world: World, tmp_path: Path) -> None:
    up(until="nodes")
    (tmp_path / "cache").mkdir()
    # Still without a node: it is being raised.
    state.State("other", "kubernetes", "debian12", 2).save()
    with pytest.raises(DeepError, match="in use") as refused:
        testbed.down("local", purge=True)
    assert refused.value.found == "testbeds: other"
    assert (tmp_path / "cache").exists()
    assert testbed.status("local")["running"]


def test_groups_that_are_still_busy_are_named_and_everything_else_goes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    up(until="nodes")
    busy = world.memory / "deep-local"
    monkeypatch.setattr(cgroups, "remove", lambda *_: [busy])
    with pytest.raises(DeepError, match="still hold processes") as refused:
        testbed.down("local")
    assert refused.value.found == str(busy)
    assert world.limit() == 1
    assert world.docker.all_networks.keys() == set()
    assert state.load("local") is None


# --- the command line ------------------------------------------------------------------------------------------------


def deep(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, list(arguments))


def test_list_shows_every_testbed(world: World) -> None:
    assert "no testbed" in deep("list").stdout
    up(until="nodes")
    up("other", until="nodes", profile="gpu")
    assert [one["name"] for one in json.loads(deep("list", "--json").stdout)["testbeds"]] == ["local", "other"]
    assert "debian12" in deep("list").stdout


def test_down_all_leaves_no_testbed(world: World) -> None:
    up(until="nodes")
    up("other", until="nodes")
    assert "testbed other: removed" in deep("down", "--all").stdout
    assert testbed.everywhere() == []
    assert world.docker.all_containers == {}
    assert deep("down", "--all").exit_code == 0


def test_a_profile_s_settings_are_the_testbed_s_first_ones(world: World) -> None:
    found = up(until="nodes", profile="high-availability", settings=["kubernetes_control_plane_endpoint="])
    assert set(found["settings"]) == {"common_host_aliases"}
    assert found["inventory"]
    groups = yaml.safe_load((Path(found["state_dir"]) / inventory.HOSTS).read_text(encoding="utf-8"))["all"]["children"]
    assert list(groups["kubernetes_control_plane"]["hosts"]) == ["node1", "node2", "node3"]


def test_status_in_json_is_one_object(world: World) -> None:
    up(until="nodes")
    done = deep("status", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["nodes"][0]["name"] == "node1"


def test_status_shows_each_node(world: World) -> None:
    up(until="nodes")
    shown = deep("status").stdout
    assert "198.18.0.11" in shown
    assert "node2" in shown
    assert "not served" in shown


def test_exit_status_1_says_that_something_does_not_run(world: World) -> None:
    up(until="nodes")
    world.docker.all_containers["deep-local-node1"].stop_now()
    assert deep("status").exit_code == 1
    world.verdict = REFUSED
    done = deep("verify")
    assert done.exit_code == 1
    assert "Names resolve (node1)" in done.stdout
    assert "no answer" in done.stdout


def test_up_prints_status_and_verdict(world: World) -> None:
    done = deep("up", "--profile", "gpu", "--nodes", "2", "--image", "debian12")
    assert done.exit_code == 0, done.output
    assert "local with simulated GPUs: ok; 1 passed, 0 skipped in 1 s" in done.stdout


def test_logs_come_from_the_unit_that_was_asked(world: World) -> None:
    up(until="nodes")
    world.docker.all_containers["deep-local-node1"].answers["journalctl"] = (0, b"one\n[two]\n")
    assert deep("logs", "node1", "ssh").stdout == "one\n[two]\n"
    assert json.loads(deep("logs", "node1", "ssh", "--json").stdout)["lines"] == ["one", "[two]"]
    assert testbed.logs_command("ssh", lines=5, follow=True) == [
        "journalctl", "--no-pager", "--lines=5", "--unit", "ssh", "--follow",
    ]  # fmt: skip


def test_kubeconfig_is_written_for_its_owner_only(world: World, tmp_path: Path) -> None:
    up(until="nodes")
    world.docker.all_containers["deep-local-node1"].answers["cat"] = (0, yaml.safe_dump(ADMIN_CONF).encode())
    target = tmp_path / "kubeconfig"
    assert f"export KUBECONFIG={target}" in deep("kubeconfig", "--output", str(target)).stdout
    assert target.stat().st_mode & 0o777 == 0o600
    assert yaml.safe_load(deep("kubeconfig").stdout) == yaml.safe_load(target.read_text(encoding="utf-8"))


def test_shell_becomes_the_program_on_the_node(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    up(until="nodes")
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda _, argv: became.append(argv))
    assert deep("shell", "node1", "--", "ls", "-la").exit_code == 0
    assert became[0][-2:] == ["ls", "-la"]


def test_shell_in_json_gives_status_and_output(world: World) -> None:
    up(until="nodes")
    world.docker.all_containers["deep-local-node1"].answers["ls"] = (2, b"no such file\n")
    done = deep("shell", "node1", "--json", "--", "ls", "/none")
    assert done.exit_code == 2
    assert json.loads(done.stdout) == {"ok": False, "node": "node1", "status": 2, "output": "no such file\n"}
    with pytest.raises(DeepError, match="needs a command"):
        shell_without_command()


def shell_without_command() -> None:
    CliRunner().invoke(cli.app, ["shell", "node1", "--json"], catch_exceptions=False)


def test_down_says_what_was_there(world: World) -> None:
    up(until="nodes")
    assert "removed node1, node2; network; limits; state" in deep("down").stdout
    assert json.loads(deep("down", "--json").stdout)["removed"]["nodes"] == []


def test_down_starts_no_engine_where_there_is_nothing_to_remove(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise DeepError("Docker Engine does not answer")

    monkeypatch.setattr(engine, "client", absent)
    monkeypatch.setattr(engine, "stop_if_ours", lambda: False)
    assert testbed.down("local") == {"ok": True, "name": "local", "removed": {"engine": False}}
    assert "nothing, there was none" in deep("down").stdout
    state.State("local", "kubernetes", "debian12", 2).save()
    assert testbed.down("local")["removed"]["state"]


def test_names_are_completed(world: World) -> None:
    up("alpha", until="nodes")
    assert complete_name("al") == ["alpha"]
    assert testbed.node_names("alpha") == ["node1", "node2"]
    assert testbed.node_names("none") == []
    assert cli.complete_profile("ku") == ["kubernetes"]
    assert cli.complete_image("debian1") == ["debian12", "debian13"]
    assert cli.complete_setting("gpu_sharing_") == ["gpu_sharing_replicas="]


def test_ssh_reaches_the_node_as_ansible_does(world: World) -> None:
    up(until="nodes")
    known = state.need("local")
    command = testbed.ssh_command(known, "node2", terminal=True)
    assert command[-1] == "root@198.18.0.12"
    assert "-t" in command
    parsed = subprocess.run([*command[:-2], "-G", command[-1]], check=True, capture_output=True, text=True).stdout
    assert "stricthostkeychecking true" in parsed


def test_the_network_of_the_testbed_has_the_mtu_of_the_host(world: World) -> None:
    up(until="nodes")
    options = world.docker.all_networks[network.network_name("local")].attrs["Options"]
    assert options == {"com.docker.network.driver.mtu": "1400"}
