"""Testbeds from the first container to the last acceptance check: up, status, verify, down.

Every step looks at what is there and does what is missing, so ``up`` after an interruption at any moment finishes
what was begun, and ``down`` removes whatever it finds.
"""

from __future__ import annotations

import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import docker
import yaml

from testbed import engine, host, image, inventory, limits, network, profiles, server, sites, state
from testbed.artifacts import api
from testbed.console import err
from testbed.errors import CHECK_FAILED, DeepError
from testbed.nodes import Node, Nodes, containers, execute, testbeds
from testbed.paths import cache_dir, run_dir, state_dir
from testbed.run import Children, run
from testbed.settings import changed as changed_settings
from testbed.state import PHASES, State

DEFAULT_PROFILE = "kubernetes"
ADMIN_CONF = "/etc/kubernetes/admin.conf"
Say = Callable[[str], None]


def up(
    name: str,
    *,
    profile: str | None = None,
    nodes: int | None = None,
    image_name: str | None = None,
    settings: Sequence[str] = (),
    until: str = "verify",
    artifacts: bool = True,
    say: Say = err.print,
) -> dict[str, Any]:
    """Raise the testbed ``name`` up to the phase ``until`` (nodes, deploy, verify) and return its status.

    What is not given stays as it is, or is the profile's. ``settings`` are ``NAME=VALUE`` of variables of the site,
    kept for this testbed. ``artifacts`` off leaves the store and its server alone. ``say`` gets a line per step.
    Raises ``DeepError`` with the step that failed; the status has ``ok`` false where everything was deployed and the
    acceptance suite found something.
    """
    machine = host.preflight()
    with engine.in_use() as client, state.lock(state.check_name(name)):
        bed = _Raising(client, machine, _wanted(name, profile, nodes, image_name, settings), say)
        with _Background(bed.ensure_artifacts, bed.children.end) if artifacts else nullcontext() as store:
            bed.ensure_nodes()
            if store:
                with bed.step("artefacts"):
                    store.result()
                    server.ensure(bed.folder, bed.state.gateway)
        bed.reached("nodes")
        if until in PHASES[PHASES.index("deploy") :]:
            with bed.step("deploy"):
                sites.play(sites.TESTBED_SITE, name=name)
            bed.reached("deploy")
        verdict = _verify(bed.state) if until == "verify" else None
    return {**status(name), "ok": verdict is None or verdict["ok"], "verdict": verdict}


def down(name: str, *, purge: bool = False) -> dict[str, Any]:
    """Remove everything of the testbed ``name``, also half of one or none; ``purge`` removes images and cache too.

    Returns what was removed. An engine that does not run is started only where there is something to remove.
    """
    machine = host.preflight()
    folder = state_dir(state.check_name(name))
    removed: dict[str, Any] = {}
    if purge or folder.is_dir() or engine.answers():
        with engine.in_use() as client:
            if purge:
                _check_unused_by_others(client, name)
            with state.lock(name):
                removed = _remove(client, name, machine)
            if purge:
                removed["images"] = image.remove(client)
                shutil.rmtree(cache_dir(), ignore_errors=True)
    if not everywhere():
        removed["engine"] = engine.stop_if_ours()
    return {"ok": True, "name": name, "removed": removed}


def everywhere() -> list[str]:
    """Names of all testbeds of this machine: those with a state, and those of which Docker has a part."""
    return sorted({*state.names(), *(testbeds(engine.client()) if engine.answers() else ())})


def summaries() -> list[dict[str, Any]]:
    """Every testbed of this machine in short: its state (empty where only a part of it is left in Docker)."""
    return [
        {"name": name, **{key: getattr(known, key, None) for key in ("profile", "image", "nodes", "phase", "verified")}}
        for name, known in ((name, state.load(name)) for name in everywhere())
    ]


def _remove(client: docker.DockerClient, name: str, machine: host.Host) -> dict[str, Any]:
    folder = state_dir(name)
    bridge = network.find(client, name)
    removed: dict[str, Any] = {"server": server.stop(folder, bridge.gateway if bridge else "")}
    _close_connections(run_dir() / name)
    removed["nodes"], groups = Nodes(client, name, machine).remove()
    removed["network"] = network.remove(client, name)
    removed["limits"] = limits.release(name)
    removed["state"] = folder.is_dir()
    shutil.rmtree(folder, ignore_errors=True)
    if groups:
        raise DeepError(
            "control groups of the testbed still hold processes",
            host=host.machine_name(),
            found=", ".join(map(str, groups)),
            needed="none",
            next_step=f"end what their cgroup.procs name, then: deep testbed down --name {name}",
            exit_code=CHECK_FAILED,
        )
    return removed


def _check_unused_by_others(client: docker.DockerClient, name: str) -> None:
    """Images and cache are every testbed's, also of one that is still being raised."""
    others = ({*state.names()} | testbeds(client)) - {name}
    if others:
        raise DeepError(
            "the images and the cache are in use",
            found=f"testbeds: {', '.join(sorted(others))}",
            needed="no other testbed",
            next_step=f"deep testbed down --name {min(others)}",
        )


def status(name: str) -> dict[str, Any]:
    """The testbed as it is: what it was asked to be, its nodes, its server and whether all of it runs (``running``)."""
    known = state.need(name)
    client = engine.client()
    states = Nodes(client, name, host.facts()).states(versions=True)
    pid = server.running(state_dir(name))
    running = len(states) == known.nodes and all(node.system == "running" for node in states)
    return {
        **state.as_dict(known),
        "ok": running,
        "running": running,
        "nodes": [node.as_dict() for node in states],
        "inventory": [str(path) for path in sites.inventory_sources(sites.TESTBED_SITE, name)],
        "server": {"running": pid is not None, "pid": pid, "url": known.artifact_mirror},
    }


def verify(name: str, *, select: str | None = None) -> dict[str, Any]:
    """Run the acceptance suite against a testbed that is deployed and return its verdict."""
    state.need(name)
    with state.lock(name):
        return _verify(state.need(name), select)


def kubeconfig(name: str) -> str:
    """The admin's kubeconfig, with the address under which this host reaches the API server."""
    known = state.need(name)
    node = _nodes(known)[0]
    container = Nodes(engine.client(), name, host.facts()).running(node.name)
    code, said = execute(container, ["cat", ADMIN_CONF])
    if code != 0:
        raise DeepError(
            "Kubernetes is not deployed",
            host=node.name,
            found=f"no {ADMIN_CONF}",
            next_step=f"deep testbed up --name {name}",
            exit_code=CHECK_FAILED,
        )
    config = yaml.safe_load(said)
    for cluster in config["clusters"]:
        address = urlsplit(cluster["cluster"]["server"])
        cluster["cluster"]["server"] = urlunsplit(address._replace(netloc=f"{node.address}:{address.port or 443}"))
    return str(yaml.safe_dump(config, sort_keys=False))


def shell_command(name: str, node: str, command: Sequence[str], *, terminal: bool) -> list[str]:
    """The program that runs ``command`` (a login shell when empty) on a node and ends with its exit status."""
    known = state.need(name)
    container = Nodes(engine.client(), name, host.facts()).running(node)
    wanted = list(command) or ["bash", "--login"]
    docker_client = shutil.which("docker")
    if docker_client:
        flags = ["--interactive", "--tty"] if terminal else ["--interactive"]
        return [docker_client, "exec", *flags, "--workdir", "/root", str(container.name), *wanted]
    return [*ssh_command(known, node, terminal=terminal), "--", shlex.join(wanted)]


def run_on(name: str, node: str, command: Sequence[str]) -> dict[str, Any]:
    """Run ``command`` on a node to its end: exit ``status`` and the ``output`` of both streams."""
    container = Nodes(engine.client(), state.need(name).name, host.facts()).running(node)
    code, said = execute(container, command)
    return {"ok": code == 0, "node": node, "status": code, "output": said}


def ssh_command(known: State, node: str, *, terminal: bool) -> list[str]:
    """The ssh call that reaches a node as Ansible does."""
    folder = state_dir(known.name)
    address = next(item.address for item in _nodes(known) if item.name == node)
    flags = [part for option in inventory.ssh_options(folder) for part in ("-o", option)]
    return ["ssh", "-i", str(folder / inventory.KEY), *flags, *(["-t"] if terminal else []), f"root@{address}"]


def logs_command(unit: str | None, *, lines: int, follow: bool) -> list[str]:
    """The journalctl call that shows a node's log, or that of one unit."""
    return [
        "journalctl",
        "--no-pager",
        f"--lines={lines}",
        *(["--unit", unit] if unit else []),
        *(["--follow"] if follow else []),
    ]


def logs(name: str, node: str, unit: str | None, *, lines: int) -> list[str]:
    """The last ``lines`` lines of a node's log."""
    container = Nodes(engine.client(), state.need(name).name, host.facts()).running(node)
    _, said = execute(container, logs_command(unit, lines=lines, follow=False))
    return said.splitlines()


def node_names(name: str) -> list[str]:
    """Names of the nodes of a testbed, for completion."""
    known = state.load(name)
    return [node.name for node in _nodes(known)] if known else []


class _Raising:
    """One run of ``up``: the steps and what they pass on."""

    def __init__(self, client: docker.DockerClient, machine: host.Host, wanted: State, say: Say) -> None:
        self.client = client
        self.machine = machine
        self.state = wanted
        self.say = say
        self.profile = profiles.load(wanted.profile)
        self.folder = state_dir(wanted.name)
        self.children = Children()
        self.state.save()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Time a step and say when it is done."""
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        self.state.timings[what] = round(seconds, 2)
        self.say(f"{what}: done in {seconds:.1f} s")

    def reached(self, phase: str) -> None:
        """Remember how far the testbed is; never less far than before."""
        self.state.phase = max(self.state.phase, phase, key=PHASES.index)
        self.state.save()

    def ensure_artifacts(self) -> None:
        """Make what the profile's roles install present in the store."""
        with api.Display() as display:
            api.ensure(self.profile.artifacts, display, children=self.children)

    def ensure_nodes(self) -> None:
        """Image, limits, network, containers, inventory."""
        chosen = image.named(self.state.image)
        # Nodes that are there keep the image they were made of, even where it would be made differently today.
        if len(containers(self.client, self.state.name)) < self.state.nodes:
            with self.step("image"):
                image.ensure(self.client, chosen, self.folder / "logs" / "image.log")
        with self.step("nodes"):
            limits.acquire(self.state.name)
            bridge = network.ensure(self.client, self.state.name, self.machine.mtu)
            self._remember(bridge)
            wanted = _nodes(self.state)
            key = inventory.ensure_key(self.folder)
            states = Nodes(self.client, self.state.name, self.machine).ensure(wanted, bridge, chosen, key)
            inventory.write(self.folder, self.state, self.profile, wanted, states, self.machine.cgroups.version)
        for node in states:
            if node.failed_units:
                self.say(f"{node.name}: failed units: {', '.join(node.failed_units)}")

    def _remember(self, bridge: network.Network) -> None:
        # Sockets of ssh's shared connections: short enough for a socket's name, and gone after a reboot.
        control_path = run_dir() / self.state.name
        control_path.mkdir(parents=True, mode=0o700, exist_ok=True)
        self.state.subnet, self.state.gateway = bridge.subnet, bridge.gateway
        self.state.artifact_mirror = server.url(bridge.gateway)
        self.state.control_path = str(control_path)
        self.state.save()


class _Background:
    """A function in a thread of its own; where the block around it fails, ``cancel`` cuts the function short."""

    def __init__(self, work: Callable[[], None], cancel: Callable[[], None]) -> None:
        self._error: BaseException | None = None
        self._work = work
        self._cancel = cancel
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is not None:
            self._cancel()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # pylint: disable=broad-exception-caught  # raised again by result()
            self._error = error

    def result(self) -> None:
        """Wait for the end and raise what the function raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error


def _wanted(
    name: str, profile: str | None, nodes: int | None, image_name: str | None, settings: Sequence[str]
) -> State:
    """The state that ``up`` works towards: what is asked, completed by what is there and by the profile."""
    known = state.load(name)
    if known is None:
        chosen = profiles.load(profile or DEFAULT_PROFILE)
        made = datetime.now(UTC).isoformat(timespec="seconds")
        known = State(name, chosen.name, image.named(image_name or chosen.image).name, nodes or chosen.nodes, made=made)
        known.settings = dict(chosen.settings)
    again = f"deep testbed down --name {name}, then up again"
    for what, asked, there in (("profile", profile, known.profile), ("image", image_name, known.image)):
        if asked not in {None, there}:
            raise DeepError(
                f"testbed {name} exists with another {what}", found=there, needed=str(asked), next_step=again
            )
    if (nodes or known.nodes) < known.nodes:
        raise DeepError(f"testbed {name} has more nodes", found=str(known.nodes), needed=str(nodes), next_step=again)
    known.nodes = nodes or known.nodes
    if known.nodes > network.MAX_NODES:
        raise DeepError(
            "too many nodes for a testbed",
            found=str(known.nodes),
            needed=f"1 to {network.MAX_NODES}",
            next_step="ask for fewer --nodes",
        )
    known.settings = changed_settings(known.settings, settings)
    return known


def _nodes(known: State) -> list[Node]:
    """The nodes of a testbed whose network is known."""
    if not known.subnet:
        return []
    bridge = network.Network(network.network_name(known.name), known.subnet)
    return [Node(f"node{number}", bridge.address(number)) for number in range(1, known.nodes + 1)]


def _verify(known: State, select: str | None = None) -> dict[str, Any]:
    verdict = sites.verify(sites.TESTBED_SITE, name=known.name, select=select)
    known.verified = bool(verdict["ok"])
    known.phase = "verify" if known.verified else known.phase
    known.save()
    return verdict


def _close_connections(folder: Path) -> None:
    """End ssh's shared connections: they would wait for nodes that are gone."""
    for control in folder.iterdir() if folder.is_dir() else ():
        run(["ssh", "-O", "exit", "-o", f"ControlPath={control}", "node"], check=False, timeout=10)
    shutil.rmtree(folder, ignore_errors=True)
