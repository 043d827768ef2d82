"""Real nodes: what boots in them, what they do to the host, and what is left after a kill at a bad moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import engine, host, image, limits, nodes
from testbed.paths import cache_dir, state_dir, state_root

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
DEEP = [sys.executable, "-c", "from testbed.cli import main; main()", "testbed"]
FIRST, SECOND = "live-one", "live-two"
UP = ("--until=nodes", "--no-artifacts")
RELEASES = ("debian12", "debian13")
# A root file system of the essential packages: made in seconds, and enough to be killed in the making.
SMALL_IMAGE = """\
packages: [zstd]
excluded_paths: [/usr/share/doc/*]
disabled_units: []
masked_units: []
releases: {killed: {suite: bookworm, environment: {}}}
"""
MAKE_SMALL = """\
import sys
from pathlib import Path
from testbed import engine, image
image.DEFINITION = Path(sys.argv[1]) / "definition"
image.ensure(engine.client(), image.named("killed"), Path(sys.argv[1]) / "log")
"""


def deep(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*DEEP, *arguments], cwd=ROOT, check=False, text=True, capture_output=True)
    assert done.returncode == status, f"deep {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def up(name: str, *options: str) -> dict[str, Any]:
    return dict(json.loads(deep("up", f"--name={name}", *UP, *options, "--json").stdout))


def down(name: str) -> None:
    deep("down", f"--name={name}")


def on(name: str, node: str, script: str) -> str:
    """What a script on a node says; by Docker's client, which starts faster than ours."""
    argv = ["docker", "exec", f"deep-{name}-{node}", "sh", "-ec", script]
    return subprocess.run(argv, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def wait_until(holds: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "this did not happen in time"
        time.sleep(0.02)


def docker_names(kind: str, *arguments: str) -> set[str]:
    """Names (of volumes: ids) of what Docker has."""
    field = "{{.Names}}" if kind == "container" else "{{.Name}}"
    done = subprocess.run(
        ["docker", kind, "ls", *arguments, "--format", field], check=True, text=True, capture_output=True
    )
    return set(done.stdout.split())


def volumes_of_ours() -> set[str]:
    """Volumes that containers of these tests use."""
    ours = [container for name in (FIRST, SECOND) for container in nodes.containers(engine.client(), name)]
    return {mount["Name"] for container in ours for mount in container.attrs["Mounts"] if mount["Type"] == "volume"}


def cgroup_folders() -> set[str]:
    """What of the host's control groups could be ours, and the hierarchies themselves."""
    base = Path("/sys/fs/cgroup")
    ours = [path for name in (FIRST, SECOND) for path in base.glob(f"*/deep-{name}")]
    return {str(path) for path in [*base.iterdir(), *ours]}


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    """Images of both releases, and nothing of these tests before and after."""
    assert os.geteuid() == 0, "the tests of nodes are run by root"
    client = engine.ensure_running()
    for release in RELEASES:
        image.ensure(client, image.named(release), cache_dir() / "images" / f"{release}.log")
    for name in (FIRST, SECOND):
        down(name)
    yield
    for name in (FIRST, SECOND):
        down(name)


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """The test starts without testbeds and must leave no container, network, volume, control group or state."""
    for name in (FIRST, SECOND):
        down(name)
    folders = cgroup_folders()
    yield
    volumes = volumes_of_ours()
    for name in (FIRST, SECOND):
        down(name)
    assert not [
        found for found in docker_names("container", "--all") if found.startswith(("deep-live-one", "deep-live-two"))
    ]
    assert not {"deep-live-one", "deep-live-two"} & docker_names("network")
    assert not docker_names("volume") & volumes
    assert cgroup_folders() <= folders
    assert not state_dir(FIRST).exists()
    assert not (state_root() / f"{FIRST}.lock").exists()


@pytest.fixture(scope="module", params=RELEASES)
def pair(request: pytest.FixtureRequest, machine: None) -> Iterator[dict[str, Any]]:
    """Two nodes of each release."""
    found = up(FIRST, f"--image={request.param}")
    yield found
    down(FIRST)


def test_two_nodes_run_and_no_unit_failed(pair: dict[str, Any]) -> None:
    assert pair["ok"]
    assert pair["phase"] == "nodes"
    assert [node["system"] for node in pair["nodes"]] == ["running", "running"]
    assert all(node["failed_units"] == [] for node in pair["nodes"])
    release = {"debian12": "Debian GNU/Linux 12", "debian13": "Debian GNU/Linux 13"}[pair["image"]]
    assert all(release in node["versions"]["system"] for node in pair["nodes"])


def test_ansible_reaches_them_with_host_keys_checked(pair: dict[str, Any]) -> None:
    folder = Path(pair["state_dir"])
    program = Path(sys.executable).with_name("ansible")
    sources = [part for source in pair["inventory"] for part in ("-i", source)]
    argv = [
        program,
        *sources,
        "--vault-password-file",
        folder / "vault-password",
        "all",
        "-m",
        "ansible.builtin.ping",
        "-o",
    ]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(folder / "facts"),
    }
    done = subprocess.run(argv, cwd=ROOT, env=environment, check=False, text=True, capture_output=True)
    assert (done.returncode, done.stdout.count('"pong"')) == (0, 2), done.stdout + done.stderr

    known_hosts = folder / "ssh" / "known_hosts"
    right = known_hosts.read_text(encoding="utf-8")
    keys = {line.split()[2] for line in right.splitlines()}
    assert len(keys) == 2, "every node has a key of its own"
    try:
        lines = right.splitlines()
        swapped = [lines[0].replace(lines[0].split()[2], lines[1].split()[2]), lines[1]]
        known_hosts.write_text("\n".join(swapped) + "\n", encoding="utf-8")
        argv = [*argv, "-e", "ansible_control_path_dir=/run/deep-testbed/none", "--limit", "node1"]
        refused = subprocess.run(argv, cwd=ROOT, env=environment, check=False, text=True, capture_output=True)
        assert refused.returncode != 0
        assert "UNREACHABLE" in refused.stdout
    finally:
        known_hosts.write_text(right, encoding="utf-8")


def test_passwords_are_refused(pair: dict[str, Any]) -> None:
    settings = on(FIRST, "node1", "sshd -T | grep -E '^(passwordauthentication|permitrootlogin) '")
    assert set(settings.splitlines()) == {"passwordauthentication no", "permitrootlogin without-password"}


def test_nothing_starts_unasked(pair: dict[str, Any]) -> None:
    asked = "systemctl is-active docker-registry chrony nftables || true; /usr/sbin/policy-rc.d || echo $?"
    assert on(FIRST, "node1", asked).split() == ["inactive", "inactive", "inactive", "101"]
    assert "docker-registry" not in on(FIRST, "node1", "ss -ltnpH")


def test_a_node_has_what_kubernetes_looks_for(pair: dict[str, Any]) -> None:
    script = """
    test -c /dev/kmsg -a -c /dev/net/tun -a -c /dev/fuse
    findmnt -no PROPAGATION / | grep -q shared
    test -w /proc/sys/net/ipv4/ip_forward -a -w /sys/module
    for folder in containerd etcd kubelet; do findmnt -no FSTYPE /var/lib/$folder; done | grep -c overlay || true
    command -v iptables nft conntrack socat ethtool runc catatonit openssl curl >/dev/null
    test -x /usr/lib/cni/bridge
    hostname
    """
    assert on(FIRST, "node2", script).split() == ["0", "node2"]


def test_nodes_know_each_other_and_the_way_out(pair: dict[str, Any]) -> None:
    first, second = pair["nodes"]
    assert on(FIRST, "node1", "getent hosts node2").split()[0] == second["address"]
    assert on(FIRST, "node2", f"ping -c1 -W2 {first['address']} >/dev/null && echo reached") == "reached"
    assert int(on(FIRST, "node1", "cat /sys/class/net/eth0/mtu")) == host.default_mtu()


def test_a_node_trusts_what_the_host_trusts_and_installs_from_its_archive(pair: dict[str, Any]) -> None:
    bundle = on(FIRST, "node1", "cat /etc/ssl/certs/ca-certificates.crt")
    assert all(pem.replace("\n", "") in bundle.replace("\n", "") for pem in host.local_certificates())
    assert "Candidate: 0" in on(
        FIRST, "node1", "apt-get update -qq && apt-cache policy tree | grep Candidate | sed 's/:.*/: 0/'"
    )


def test_the_control_groups_of_the_host_are_not_disturbed(pair: dict[str, Any]) -> None:
    found = host.cgroups()
    if found.version == 2:
        assert "/sys/fs/cgroup rw" in on(FIRST, "node1", "findmnt -no TARGET,OPTIONS /sys/fs/cgroup | tr , ' '")
        return
    expected = {mount.name for mount in found.mounts}
    assert expected == {path.name for path in Path("/sys/fs/cgroup").iterdir() if not path.is_symlink()}
    assert os.access("/sys/fs/cgroup", os.W_OK)
    root = Path("/sys/fs/cgroup/cpuset") / f"deep-{FIRST}" / "node1"
    assert (root / "cpuset.cpus").read_text(encoding="ascii").strip()
    on(
        FIRST,
        "node1",
        f"mkdir /sys/fs/cgroup/memory/deep-{FIRST}/node1/pod && rmdir /sys/fs/cgroup/memory/deep-{FIRST}/node1/pod",
    )


def test_limits_are_raised_while_nodes_are_up(pair: dict[str, Any]) -> None:
    for key, needed in limits.NEEDED.items():
        assert int((limits.SYSCTL / key).read_text(encoding="ascii")) >= needed


@pytest.mark.parametrize("status", [0, 1, 42])
def test_shell_ends_with_the_status_of_the_command(pair: dict[str, Any], status: int) -> None:
    deep("shell", "node1", f"--name={FIRST}", "--", "sh", "-c", f"exit {status}", status=status)


def test_logs_are_those_of_the_node(pair: dict[str, Any]) -> None:
    on(FIRST, "node1", "logger -t probe 'a line to find'")
    lines = json.loads(deep("logs", "node1", f"--name={FIRST}", "--json").stdout)["lines"]
    assert any("a line to find" in line for line in lines)
    assert "sshd" in deep("logs", "node2", "ssh", f"--name={FIRST}").stdout


def test_an_unknown_node_is_wrong_usage(pair: dict[str, Any]) -> None:
    said = deep("shell", "node9", f"--name={FIRST}", "--", "true", status=2).stderr
    assert "one of: node1, node2" in said


def test_a_stopped_node_is_started_with_the_key_it_had(pair: dict[str, Any]) -> None:
    subprocess.run(["docker", "kill", f"deep-{FIRST}-node2"], check=True, capture_output=True)
    assert json.loads(deep("status", f"--name={FIRST}", "--json", status=1).stdout)["nodes"][1]["status"] == "exited"
    again = up(FIRST)
    assert again["ok"]
    assert again["nodes"][1]["host_key"] == pair["nodes"][1]["host_key"]


def test_a_node_without_sshd_is_named_with_its_address(pair: dict[str, Any]) -> None:
    on(FIRST, "node2", "systemctl stop ssh")
    try:
        said = json.loads(deep("up", f"--name={FIRST}", *UP, "--json", status=1).stdout)["error"]
    finally:
        on(FIRST, "node2", "systemctl start ssh")
    assert said["host"] == "node2"
    assert said["message"] == "the node cannot be reached"
    assert pair["nodes"][1]["address"] in said["found"]


# --- several testbeds, and interruptions -----------------------------------------------------------------------------


def test_two_testbeds_side_by_side(nothing_left: None) -> None:
    first, second = up(FIRST, "--nodes=1"), up(SECOND, "--nodes=1", "--image=debian13")
    assert first["subnet"] != second["subnet"]
    down(FIRST)
    assert json.loads(deep("status", f"--name={SECOND}", "--json").stdout)["running"]
    assert int((limits.SYSCTL / "fs/inotify/max_user_instances").read_text(encoding="ascii")) >= 8192
    down(SECOND)
    others = nodes.testbeds(engine.client())
    if not others:
        assert not (state_root() / "host-limits.json").exists()


def test_a_second_command_on_the_same_testbed_is_refused(nothing_left: None) -> None:
    with subprocess.Popen([*DEEP, "up", f"--name={FIRST}", *UP], cwd=ROOT, stderr=subprocess.DEVNULL) as running:
        wait_until((state_dir(FIRST) / "testbed.json").exists)
        said = deep("up", f"--name={FIRST}", *UP, status=2).stderr
        assert f"another command is working on testbed {FIRST}" in said
        assert f"process {running.pid}" in said
        assert running.wait() == 0


def killed_at(holds: Callable[[], object]) -> None:
    """Start ``up`` and kill it, with all that it started, as soon as ``holds``."""
    with subprocess.Popen(
        [*DEEP, "up", f"--name={FIRST}", *UP], cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        wait_until(lambda: holds() or process.poll() is not None)
        assert process.poll() is None, "it had ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)


MOMENTS: dict[str, Callable[[], object]] = {
    "the state is written": (state_dir(FIRST) / "testbed.json").exists,
    "the network is made": lambda: f"deep-{FIRST}" in docker_names("network"),
    "a container is made": lambda: [n for n in docker_names("container", "--all") if n.startswith(f"deep-{FIRST}-")],
    "a node runs": lambda: [n for n in docker_names("container") if n.startswith(f"deep-{FIRST}-")],
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_up_after_a_kill_when(nothing_left: None, moment: str) -> None:
    killed_at(MOMENTS[moment])
    found = up(FIRST)
    assert found["ok"]
    assert len(found["nodes"]) == 2
    assert (state_dir(FIRST) / "inventory" / "hosts.yml").is_file()


@pytest.mark.parametrize("moment", ["the network is made", "a container is made"])
def test_down_after_a_kill_when(nothing_left: None, moment: str) -> None:
    killed_at(MOMENTS[moment])
    down(FIRST)
    assert not (state_dir(FIRST)).exists()


def test_an_image_build_that_is_killed_leaves_no_process_no_mount_and_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = "deep-node:killed"  # may be there from a run of this test that was interrupted itself
    subprocess.run(["docker", "image", "rm", "--force", tag], check=False, capture_output=True)
    definition = tmp_path / "definition"
    (definition / "rootfs" / "etc").mkdir(parents=True)
    (definition / "rootfs" / "etc" / "marker").write_text("x\n", encoding="utf-8")
    (definition / "image.yml").write_text(SMALL_IMAGE, encoding="utf-8")
    (definition / "finish.sh").write_text("test -s /etc/marker\n", encoding="utf-8")
    monkeypatch.setenv("DEEP_CACHE_DIR", str(tmp_path / "cache"))
    builds = tmp_path / "cache" / "images"
    argv = [sys.executable, "-c", MAKE_SMALL, str(tmp_path)]
    with subprocess.Popen(argv, cwd=ROOT) as process:
        wait_until(lambda: list(builds.glob("build-*/mmdebstrap.*/usr/bin/dpkg")) or process.poll() is not None)
        assert process.poll() is None
        # The program alone, as an impatient user does it, not what it started.
        os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not processes_below(builds), 10)
    assert str(builds) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    assert subprocess.run(["docker", "image", "inspect", tag], check=False, capture_output=True).returncode != 0

    subprocess.run(argv, cwd=ROOT, check=True)
    try:
        assert not any(builds.glob("build-*"))
        inspected = subprocess.run(
            ["docker", "run", "--rm", tag, "cat", "/etc/marker"], check=True, capture_output=True
        )
        assert inspected.stdout == b"x\n"
    finally:
        subprocess.run(["docker", "image", "rm", "--force", tag], check=True, capture_output=True)


def processes_below(folder: Path) -> list[str]:
    """Command lines of processes that work on files of ``folder``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(folder) in command:
            found.append(command)
    return found
