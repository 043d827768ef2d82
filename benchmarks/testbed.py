"""Measure the figures of docs/performance.md on this machine, each part in a block of its own there.

Every figure is a ratio of two things measured in one run, or a time stated together with the machine. The testbeds
raised here have names of their own and are removed afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from kubernetes.client import ApiClient, VersionApi
from kubernetes.config import new_client_from_config_dict

from benchmarks.identity import Load, Prepare, Provider, Request, in_turns
from benchmarks.memory import MIB, MemoryPeak
from plugins.filter.secrets import derived_secret
from testbed import secrets, testbed
from testbed.inventory import SECRETS, VAULT_PASSWORD
from testbed.paths import repo_root, state_dir
from testbed.sites import facts_dir, inventory_args

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ROOT = repo_root()
BIN = Path(sys.executable).parent
PAGE = ROOT / "docs" / "performance.md"
SCRIPT = ROOT / "benchmarks" / "kubernetes.sh"
END = "<!-- end -->"
LAYERS_BELOW = ("base", "container_runtime", "gpu", "registry")
# Environment of benchmarks/kubernetes.sh, each as the playbook works it out.
SCRIPT_VALUES = {
    "CONTROL": "hostvars[groups['kubernetes_control_plane'] | first].node_address",
    "WORKER": "hostvars[groups['kubernetes_node'] | first].node_address",
    "MIRROR": "artifact_mirror",
    "VERSION": "kubernetes_version",
    "REPOSITORY": "kubernetes_control_plane_repository",
    "ETCD_TAG": "kubernetes_control_plane_etcd_tag",
    "DNS_TAG": "kubernetes_control_plane_dns_tag",
    "PLUGIN_IMAGE": "nvidia_device_plugin_image",
    "IGNORED_CHECKS": "kubernetes_control_plane_ignored_checks | to_json",
}
IMAGES = ("debian12", "debian13")
WARM, COLD = "deep testbed up, warm", "deep testbed up, cold"
# What two nodes on two cores should need: minutes, and memory (3 GB).
AIM_MINUTES = {WARM: 3, COLD: 14}
AIM_MIB = 3e9 / MIB
SCALE = (50, 200)
# Requests of one burst, and bursts of each kind.
BURST, ROUNDS = 400, 5
ABAC_LINES = (0, 10, 100, 1000)
# More bursts than of tokens: they are short, and the cluster has just started.
ABAC_ROUNDS = 20
DECISIONS = re.compile(r'^authorization_duration_seconds_(sum|count){result="allowed"} (\S+)$', re.MULTILINE)
PLAIN = ROOT / "benchmarks" / "plain-keycloak.sh"
PLAIN_PORT = 9443
IAM_NAME, IAM_PORT = "iam.deep.test", 8443
# Who gets tokens, and introspects them: since 26.6.2 Keycloak calls only those valid whose audience is who asks.
BENCH_CLIENT = "bench"
BENCH_CLIENTS = {
    "iam_clients": [{"name": BENCH_CLIENT, "kind": "confidential", "flows": ["service"], "scopes": [BENCH_CLIENT]}],
    "iam_more_audiences": [BENCH_CLIENT],
}
# A name under which no testbed is ever raised.
NO_TESTBED = "bench-none"
# A line of ansible.posix.profile_tasks.
TASK_TIME = re.compile(r"^(\S.*?) -{2,} +([0-9.]+)s$", re.MULTILINE)


@dataclass
class Report:
    """What was measured of one part.

    ``seconds`` by name, one for each run; ``ratios`` with their bound, if any; ``memory_mib`` at its peak; ``spent``:
    where the seconds of a play over so many hosts go; ``loads``: requests under load; ``decisions``: requests to an
    API server with so many ABAC lines, and the mean time of its decision (s); ``minutes`` that measuring it took.
    """

    machine: str
    day: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    ratios: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    memory_mib: dict[str, float] = field(default_factory=dict)
    spent: dict[int, dict[str, float]] = field(default_factory=dict)
    loads: dict[str, Load] = field(default_factory=dict)
    decisions: dict[int, tuple[Load, float]] = field(default_factory=dict)
    minutes: float = 0

    def add(self, name: str, seconds: float) -> None:
        """Record one measurement and show it."""
        self.seconds.setdefault(name, []).append(round(seconds, 2))
        print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)

    def median(self, name: str) -> float:
        """The median in seconds of what was recorded under ``name``."""
        return statistics.median(self.seconds[name])

    def compare(self, title: str, measured: str, reference: str, bound: float | None = None) -> None:
        """Record the ratio of two medians and the bound that it should not pass, if there is one."""
        self.ratios[title] = (round(self.median(measured) / self.median(reference), 2), bound)


def timed(action: Callable[[], object]) -> float:
    """Seconds that ``action`` takes."""
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def command(*argv: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a program in the checkout and return its output; its failure ends the benchmark."""
    done = subprocess.run(
        [str(part) for part in argv],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0:
        raise SystemExit(f"{argv[0]} failed with exit status {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


@contextmanager
def nodes(name: str, count: int = 2, image: str | None = None, profile: str | None = None) -> Iterator[str]:
    """Running nodes without any layer, removed afterwards; the image and the artefact store are there as well then."""
    asked = {"nodes": None if profile else count, "image": image, "profile": profile}
    up: list[str | Path] = [BIN / "deep", "testbed", "up", f"--name={name}", "--until=nodes"]
    up += [f"--{option}={value}" for option, value in asked.items() if value]
    command(*up)
    try:
        yield name
    finally:
        command(BIN / "deep", "testbed", "down", f"--name={name}")


def play(name: str, playbook: str, *arguments: str) -> None:
    """Run one playbook of the checkout on the testbed ``name``."""
    command(BIN / "ansible-playbook", *inventory_args("local", name), playbook, *arguments, env=facts_cache(name))


def facts_cache(name: str) -> dict[str, str]:
    """The environment in which Ansible keeps the facts of the testbed ``name`` apart from others."""
    return {"ANSIBLE_CACHE_PLUGIN_CONNECTION": str(facts_dir("local", name))}


def layers_below(name: str) -> None:
    """Deploy what the Kubernetes layer stands on."""
    for layer in LAYERS_BELOW:
        play(name, f"playbooks/{layer}.yml")


def site_values(name: str) -> dict[str, str]:
    """What the playbook knows of the testbed ``name`` and the yardstick script has to be told."""
    expressions = ", ".join(f"{key!r}: {expression}" for key, expression in SCRIPT_VALUES.items())
    files = ("kubernetes_control_plane/defaults", "nvidia_device_plugin/vars", "nvidia_device_plugin/defaults")
    known = [f"--extra-vars=@roles/{folder}/main.yml" for folder in files]
    argument = json.dumps({"msg": f"{{{{ {{{expressions}}} }}}}"})
    said = command(
        BIN / "ansible", "node1", *inventory_args("local", name), *known,
        "--module-name=ansible.builtin.debug", "--args", argument,
        env={**facts_cache(name), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )  # fmt: skip
    return dict(json.loads(said.partition(" => ")[2])["msg"])


def kubernetes_layer(report: Report, repeats: int) -> None:
    """The Kubernetes layer by playbook against the same steps as a shell script, in turns on fresh nodes."""
    for _ in range(repeats):
        with nodes("bench-playbook") as name:
            layers_below(name)
            report.add("Kubernetes layer by playbook", timed(partial(play, name, "playbooks/kubernetes.yml")))
        with nodes("bench-script") as name:
            layers_below(name)
            script = partial(command, SCRIPT, state_dir(name), name, env=site_values(name))
            report.add("Kubernetes layer by shell script", timed(script))
    report.compare(
        "Kubernetes layer, playbook against script",
        "Kubernetes layer by playbook",
        "Kubernetes layer by shell script",
        2.0,
    )


def second_run(report: Report, repeats: int) -> None:
    """`site.yml` on running nodes, and again with nothing to change."""
    for _ in range(repeats):
        with nodes("bench-site") as name:
            report.add("site.yml, first run", timed(partial(play, name, "playbooks/site.yml")))
            report.add("site.yml, second run", timed(partial(play, name, "playbooks/site.yml")))
    report.compare("site.yml, second run against first", "site.yml, second run", "site.yml, first run", 0.35)


def added_node(report: Report, repeats: int) -> None:
    """A third node added to two, against a second node added to one."""
    for before, label in ((1, "to a one-node cluster"), (2, "to a two-node cluster")) * repeats:
        with nodes("bench-add", before + 1) as name:
            new = f"node{before + 1}"
            play(name, "playbooks/site.yml", f"--limit=all:!{new}")
            report.add(
                f"add_node.yml, {label}", timed(partial(play, name, "playbooks/add_node.yml", "-e", f"node={new}"))
            )
    report.compare(
        "add_node.yml, third node against second",
        "add_node.yml, to a two-node cluster",
        "add_node.yml, to a one-node cluster",
        1.25,
    )


def connections(report: Report, repeats: int) -> None:
    """The same modules over ssh, as the inventory says, and over the docker connection, in turns on the same nodes."""
    docker = {
        "ansible_connection": "community.docker.docker",
        "ansible_host": "deep-bench-connection-{{ inventory_hostname }}",
    }
    with nodes("bench-connection") as name:
        over_ssh = partial(play, name, "benchmarks/connection.yml")
        # Short runs: twice as many, so that the first, which also opens the connections, is not half of the median.
        for _ in range(2 * repeats):
            report.add("20 modules on two nodes, ssh", timed(over_ssh))
            report.add(
                "20 modules on two nodes, docker connection", timed(partial(over_ssh, f"-e{json.dumps(docker)}"))
            )
    report.compare(
        "20 modules on two nodes, ssh against docker connection",
        "20 modules on two nodes, ssh",
        "20 modules on two nodes, docker connection",
        1.0,
    )


def images(report: Report, repeats: int) -> None:
    """The first run of `site.yml` on nodes of the one Debian and of the other, in turns."""
    for image in IMAGES * repeats:
        with nodes("bench-image", image=image) as name:
            report.add(f"site.yml on {image}", timed(partial(play, name, "playbooks/site.yml")))
    first, second = IMAGES
    report.compare(f"site.yml, {first} against {second}", f"site.yml on {first}", f"site.yml on {second}")


def whole_testbed(report: Report, cold: bool) -> None:
    """`deep testbed up` as a tester runs it, acceptance suite included, with its peak memory."""
    if cold:
        with tempfile.TemporaryDirectory() as empty:
            caches = {
                "DEEP_CACHE_DIR": empty,
                "GOCACHE": f"{empty}/go-build",
                "GOMODCACHE": f"{empty}/go-mod",
            }
            # Of this cache and the node images; the artefacts of the user's own cache stay.
            command(BIN / "deep", "testbed", "down", "--purge", "--name=bench-up", env=caches)
            raise_testbed(report, COLD, caches)
    with nodes("bench-up"):
        # The store and the image are filled.
        pass
    raise_testbed(report, WARM, {})


def raise_testbed(report: Report, title: str, env: dict[str, str]) -> None:
    """Time one `deep testbed up` and watch its memory; the testbed is removed afterwards."""
    try:
        with MemoryPeak("bench-up") as memory:
            report.add(title, timed(partial(command, BIN / "deep", "testbed", "up", "--name=bench-up", env=env)))
        report.memory_mib[title] = round(memory.mib())
    finally:
        command(BIN / "deep", "testbed", "down", "--name=bench-up")


def scale(report: Report) -> None:
    """What the first layer costs on the controller alone: in check mode over many hosts that answer at once."""
    for count in (1, *SCALE):
        with tempfile.TemporaryDirectory() as folder:
            inventory = Path(folder) / "hosts.json"
            inventory.write_text(json.dumps(silent_hosts(count)), encoding="utf-8")
            environment = {
                "ANSIBLE_CONNECTION_PLUGINS": str(ROOT / "benchmarks" / "connection_plugins"),
                "ANSIBLE_CACHE_PLUGIN": "memory",
            }
            argv: list[str | Path] = [
                sys.executable, "-m", "benchmarks.controller", *inventory_args("local", NO_TESTBED), "-i", inventory,
                "--check", "playbooks/base.yml",
            ]  # fmt: skip
            begin = time.monotonic()
            output = command(*argv, env=environment)
            report.add(f"base.yml over {hosts(count)}", time.monotonic() - begin)
            report.spent[count] = spent(output)
    few, many = SCALE
    report.ratios[f"base.yml, each further host of {many} against of {few}"] = (
        growth({count: report.median(f"base.yml over {hosts(count)}") for count in (1, few, many)}),
        1.25,
    )


def identity(report: Report) -> None:
    """Tokens and introspection: the site's IAM against a Keycloak as it is shipped, on one host, in turns."""
    with nodes("bench-iam", profile="iam") as name:
        for layer in ("base", "iam"):
            play(name, f"playbooks/{layer}.yml", f"--extra-vars={json.dumps(BENCH_CLIENTS)}")
        (node,) = testbed.status(name)["nodes"]
        ca = testbed.run_on(name, node["name"], ["cat", "/etc/deephdc/ca/ca.crt"])["output"]
        folder = state_dir(name)
        seed = secrets.read(folder / SECRETS, folder / VAULT_PASSWORD)["iam_seed"]
        ours = Provider(node["address"], IAM_NAME, IAM_PORT, "deep", ca)
        plain = Provider(node["address"], IAM_NAME, PLAIN_PORT, "plain", ca)
        secret = start_plain(name, node, plain)
        both = {
            "ours": requests_to(ours, derived_secret(seed, "client", BENCH_CLIENT)),
            "plain Keycloak": requests_to(plain, secret),
        }
        requests = {f"{what}, {whose}": one for whose, asked in both.items() for what, one in asked.items()}
        report.loads = in_turns(requests, count=BURST, rounds=ROUNDS)
    for what in ("token", "introspection"):
        mine, theirs = report.loads[f"{what}, ours"], report.loads[f"{what}, plain Keycloak"]
        report.ratios[f"{what}: requests a second, plain Keycloak against ours"] = (
            round(theirs.rate / mine.rate, 2),
            1.1,
        )
        report.ratios[f"{what}: p95 latency, ours against plain Keycloak"] = (
            round(mine.p95_ms / theirs.p95_ms, 2),
            1.1,
        )


def requests_to(provider: Provider, secret: str) -> dict[str, Prepare]:
    """The two requests that are measured."""

    def token() -> Request:
        return partial(provider.token, BENCH_CLIENT, secret)

    def introspection() -> Request:
        return partial(provider.introspect, BENCH_CLIENT, secret, provider.token(BENCH_CLIENT, secret))

    return {"token": token, "introspection": introspection}


def start_plain(name: str, node: dict[str, Any], plain: Provider) -> str:
    """Start a Keycloak as it is shipped on a node, with a realm and the client; returns its secret."""
    values = {"ADDRESS": node["address"], "NAME": IAM_NAME, "PORT": str(PLAIN_PORT)}
    words = ["env", *(f"{key}={value}" for key, value in values.items()), "sh", "-euc", PLAIN.read_text("utf-8")]
    done = testbed.run_on(name, node["name"], words)
    if not done["ok"]:
        raise SystemExit(f"no plain Keycloak: {done['output'][-2000:]}")
    secret = str(done["output"].split()[-1])
    audience = {
        "name": "audience",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": {"included.custom.audience": BENCH_CLIENT, "access.token.claim": "true"},
    }
    client = {
        "clientId": BENCH_CLIENT,
        "secret": secret,
        "serviceAccountsEnabled": True,
        "standardFlowEnabled": False,
        "protocolMappers": [audience],
    }
    realm = {"realm": "plain", "enabled": True, "clients": [client]}
    token = plain.started("admin", secret, "master")
    plain.post("/admin/realms", json=realm, headers={"Authorization": f"Bearer {token}"})
    return secret


def decisions(report: Report) -> None:
    """What ABAC lines that do not match cost a request to the API server."""
    with nodes("bench-abac", count=1) as name:
        play(name, "playbooks/site.yml")
        client = new_client_from_config_dict(yaml.safe_load(testbed.kubeconfig(name)))  # type: ignore[no-untyped-call]
        version = VersionApi(client)
        for lines in ABAC_LINES:
            # As organisations' are: for a group, so that each line is held against every group of who asks.
            rules = [
                {"group": f"oidc:bench-{number}", "namespace": "bench", "apiGroup": "", "resource": "configmaps"}
                for number in range(lines)
            ]
            extra = {"kubernetes_control_plane_organisations": [], "kubernetes_control_plane_abac_rules": rules}
            with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                json.dump(extra, file)
                file.flush()
                play(name, "playbooks/kubernetes.yml", f"--extra-vars=@{file.name}")
            before = decided(client)
            found = in_turns({"request": lambda: version.get_code}, count=BURST, rounds=ABAC_ROUNDS)
            after = decided(client)
            mean = (after["sum"] - before["sum"]) / (after["count"] - before["count"])
            report.decisions[lines] = found["request"], mean


def decided(client: ApiClient) -> dict[str, float]:
    """How many requests an API server has allowed since it started (``count``), and the seconds that took (``sum``)."""
    answer = client.call_api("GET", f"{client.configuration.host}/metrics")
    return {what: float(value) for what, value in DECISIONS.findall(str(answer.response.data, "utf-8"))}


def growth(seconds: dict[int, float]) -> float:
    """What a host more costs among the most hosts, against among few: 1.0 is linear.

    ``seconds`` by number of hosts, the first of them 1: what that run takes would hide how the rest grows.
    """
    (_, alone), *others = seconds.items()
    few, many = ((taken - alone) / (count - 1) for count, taken in others)
    return round(many / few, 2)


def hosts(count: int) -> str:
    """A number of hosts in words."""
    return f"{count} host{'' if count == 1 else 's'}"


def silent_hosts(count: int) -> dict[str, Any]:
    """An inventory of hosts, in no group, that answer every module at once, see benchmarks/connection_plugins."""
    names = {f"host{number:03}": f"198.18.{number // 200}.{number % 200 + 1}" for number in range(count)}
    return {
        "all": {
            "hosts": {name: {"ansible_host": address} for name, address in names.items()},
            "vars": {"ansible_connection": "nothing", "ansible_python_interpreter": "/usr/bin/python3"},
        }
    }


def spent(output: str) -> dict[str, float]:
    """Where the time of a play went: seconds of each task, and CPU seconds of the controller and of its workers."""
    tasks = {task: float(seconds) for task, seconds in TASK_TIME.findall(output)}
    used = json.loads(output.splitlines()[-1])
    return tasks | {f"CPU of the {who}": round(seconds, 1) for who, seconds in used.items()}


def machine() -> str:
    """The machine in one line."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if "model name" in line
        ),
        "",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MIB / 1024
    cores = f"{os.cpu_count()} cores ({model or platform.machine()})"
    return f"{cores}, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"


def reached(value: float, bound: float | None) -> str:
    """Whether a bound or an aim was reached; empty where there is none."""
    if bound is None:
        return ""
    return "reached" if value <= bound else "**not reached**"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """The lines of a table and an empty one before it; none without rows."""
    body = [f"| {' | '.join(map(str, row))} |" for row in rows]
    titles = tuple(head)
    return ["", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *body] if body else []


def render(report: Report) -> str:
    """What was measured of one part, for docs/performance.md."""
    lines = [
        f"Measured on {report.day} in {report.minutes:.0f} minutes: {report.machine}.",
    ]
    lines += table(
        ("ratio", "measured", "bound", ""),
        (
            (title, f"{value}x", "" if bound is None else f"{bound}x", reached(value, bound))
            for title, (value, bound) in report.ratios.items()
        ),
    )
    lines += table(
        ("two nodes", "minutes", "aim", "", "peak memory, MiB", "aim", ""),
        (memory_row(report, title, peak) for title, peak in report.memory_mib.items()),
    )
    lines += table(
        ("what", "seconds (median)", "all runs"),
        ((name, f"{report.median(name):.1f}", ", ".join(map(str, runs))) for name, runs in report.seconds.items()),
    )
    lines += table(
        ("requests to an identity provider", "per second", "median, ms", "p95, ms"),
        (
            (name, f"{load.rate:.0f}", f"{load.median_ms:.1f}", f"{load.p95_ms:.1f}")
            for name, load in report.loads.items()
        ),
    )
    lines += table(
        ("ABAC lines", "a decision, µs", "added, µs", "requests per second", "median, ms", "p95, ms"),
        (decision_row(report, count) for count in report.decisions),
    )
    if report.spent:
        lines += table(
            ("where a play's seconds go", *map(hosts, report.spent)),
            ((what, *(f"{spent[what]:.1f}" for spent in report.spent.values())) for what in report.spent[SCALE[0]]),
        )
    return "\n".join(lines)


def memory_row(report: Report, title: str, peak: float) -> tuple[object, ...]:
    """One way to raise a testbed: its minutes and memory beside what they should be."""
    minutes, aim = report.median(title) / 60, AIM_MINUTES[title]
    return (
        title,
        f"{minutes:.1f}",
        aim,
        reached(minutes, aim),
        f"{peak:.0f}",
        f"{AIM_MIB:.0f} (3 GB)",
        reached(peak, AIM_MIB),
    )


def decision_row(report: Report, count: int) -> tuple[object, ...]:
    """The decisions with so many ABAC lines, against those with none."""
    load, seconds = report.decisions[count]
    _, without = report.decisions[ABAC_LINES[0]]
    decision = (f"{seconds * 1e6:.1f}", f"{(seconds - without) * 1e6:+.1f}")
    return count, *decision, f"{load.rate:.0f}", f"{load.median_ms:.2f}", f"{load.p95_ms:.2f}"


def write(page: str, part: str, measured: str) -> str:
    """The page with the block of one part replaced."""
    before, begin, rest = page.partition(f"<!-- measured: {part} -->\n")
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{PAGE} has no block for the part {part!r}")
    return f"{before}{begin}{measured}\n{end}{after}"


def record(part: str, measured: str) -> None:
    """Write what was measured of one part into the page."""
    PAGE.write_text(write(PAGE.read_text(encoding="utf-8"), part, measured), encoding="utf-8")


def parser(about: str | None) -> argparse.ArgumentParser:
    """What every script that measures can be told."""
    made = argparse.ArgumentParser(description=about)
    made.add_argument("--write", action="store_true", help=f"write what was measured into {PAGE.relative_to(ROOT)}")
    return made


def conclude[Found: DataclassInstance](
    part: str, measure: Callable[[], Found], render: Callable[[Found, float], str], *, write: bool
) -> None:
    """Measure, print it as JSON, and write it into the page when told to; ``render`` is told the minutes it took."""
    began = time.monotonic()
    found = measure()
    print(json.dumps({"part": part, **asdict(found)}), flush=True)
    if write:
        record(part, render(found, (time.monotonic() - began) / 60))


PARTS: dict[str, Callable[[Report, argparse.Namespace], None]] = {
    "layer": lambda report, options: kubernetes_layer(report, options.repeats),
    "second": lambda report, options: second_run(report, options.repeats),
    "add": lambda report, options: added_node(report, options.repeats),
    "up": lambda report, options: whole_testbed(report, options.cold),
    "scale": lambda report, _: scale(report),
    "iam": lambda report, _: identity(report),
    "abac": lambda report, _: decisions(report),
    "connection": lambda report, options: connections(report, options.repeats),
    "image": lambda report, options: images(report, options.repeats),
}


def main() -> None:
    """Measure the parts asked for, one after the other, and write each into the page when told to."""
    asked = parser(__doc__)
    asked.add_argument("parts", nargs="*", choices=[*PARTS, []], help="what to measure (default: everything)")
    asked.add_argument("--repeats", type=int, default=2, help="fresh nodes for each figure (default 2)")
    asked.add_argument(
        "--cold", action=argparse.BooleanOptionalAction, default=True, help="also raise a testbed with empty caches"
    )
    options = asked.parse_args()
    for part in options.parts or PARTS:
        report = Report(machine(), datetime.now(UTC).date().isoformat())
        report.minutes = timed(partial(PARTS[part], report, options)) / 60
        print(json.dumps({"part": part, **asdict(report)}), flush=True)
        if options.write:
            record(part, render(report))


if __name__ == "__main__":
    main()
