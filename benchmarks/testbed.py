"""Measure the figures of docs/performance.md on this machine and write them there.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks.memory import MIB, MemoryPeak
from testbed.paths import repo_root, state_dir
from testbed.sites import facts_dir, inventory_args

ROOT = repo_root()
BIN = Path(sys.executable).parent
PAGE = ROOT / "docs" / "performance.md"
SCRIPT = ROOT / "benchmarks" / "kubernetes.sh"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
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
SCALE = (50, 200)
# A line of ansible.posix.profile_tasks.
TASK_TIME = re.compile(r"^(\S.*?) -{2,} +([0-9.]+)s$", re.MULTILINE)


@dataclass
class Report:
    """What was measured.

    ``seconds`` by name, one for each run; ``ratios`` with their bound; ``memory_mib`` at its peak; ``spent``: where the
    seconds of a play over so many hosts go.
    """

    machine: str
    day: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    ratios: dict[str, tuple[float, float]] = field(default_factory=dict)
    memory_mib: dict[str, float] = field(default_factory=dict)
    spent: dict[int, dict[str, float]] = field(default_factory=dict)

    def add(self, name: str, seconds: float) -> None:
        """Record one measurement and show it."""
        self.seconds.setdefault(name, []).append(round(seconds, 2))
        print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)

    def median(self, name: str) -> float:
        """The median in seconds of what was recorded under ``name``."""
        return statistics.median(self.seconds[name])

    def compare(self, title: str, measured: str, reference: str, bound: float) -> None:
        """Record the ratio of two medians and the bound that it should not pass."""
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
def nodes(name: str, count: int = 2, profile: str = "kubernetes") -> Iterator[str]:
    """Running nodes without any layer, removed afterwards."""
    up: list[str | Path] = [
        BIN / "deep",
        "testbed",
        "up",
        f"--name={name}",
        f"--profile={profile}",
        f"--nodes={count}",
        "--until=nodes",
    ]
    command(*up)
    try:
        yield name
    finally:
        command(BIN / "deep", "testbed", "down", f"--name={name}")


def play(name: str, playbook: str, *arguments: str) -> None:
    """Run one playbook of the project on the testbed ``name``."""
    argv = [BIN / "ansible-playbook", *inventory_args("local", name), f"playbooks/{playbook}.yml", *arguments]
    command(*argv, env=facts_cache(name))


def facts_cache(name: str) -> dict[str, str]:
    """The environment in which Ansible keeps the facts of the testbed ``name`` apart from others."""
    return {"ANSIBLE_CACHE_PLUGIN_CONNECTION": str(facts_dir("local", name))}


def layers_below(name: str) -> None:
    """Deploy what the Kubernetes layer stands on."""
    for layer in LAYERS_BELOW:
        play(name, layer)


def site_values(name: str) -> dict[str, str]:
    """What the playbook knows of the testbed ``name`` and the yardstick script has to be told."""
    expressions = ", ".join(f"{key!r}: {expression}" for key, expression in SCRIPT_VALUES.items())
    files = ("kubernetes_control_plane/defaults", "nvidia_device_plugin/vars", "nvidia_device_plugin/defaults")
    known = [f"--extra-vars=@roles/{folder}/main.yml" for folder in files]
    argument = json.dumps({"msg": f"{{{{ {{{expressions}}} }}}}"})
    argv = [BIN / "ansible", "node1", *inventory_args("local", name), *known, "--module-name=ansible.builtin.debug"]
    said = command(*argv, "--args", argument, env={**facts_cache(name), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"})
    return dict(json.loads(said.partition(" => ")[2])["msg"])


def kubernetes_layer(report: Report, repeats: int) -> None:
    """The Kubernetes layer by playbook against the same steps as a shell script, in turns on fresh nodes."""
    for _ in range(repeats):
        with nodes("bench-playbook") as name:
            layers_below(name)
            report.add("Kubernetes layer by playbook", timed(partial(play, name, "kubernetes")))
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
            report.add("site.yml, first run", timed(partial(play, name, "site")))
            report.add("site.yml, second run", timed(partial(play, name, "site")))
    report.compare("site.yml, second run against first", "site.yml, second run", "site.yml, first run", 0.35)


def added_node(report: Report, repeats: int) -> None:
    """A third node added to two, against a second node added to one."""
    for before, label in ((1, "to a one-node cluster"), (2, "to a two-node cluster")) * repeats:
        with nodes("bench-add", before + 1) as name:
            new = f"node{before + 1}"
            play(name, "site", f"--limit=all:!{new}")
            report.add(f"add_node.yml, {label}", timed(partial(play, name, "add_node", "-e", f"node={new}")))
    report.compare(
        "add_node.yml, third node against second",
        "add_node.yml, to a two-node cluster",
        "add_node.yml, to a one-node cluster",
        1.25,
    )


def whole_testbed(report: Report, cold: bool) -> None:
    """`deep testbed up` as a tester runs it, acceptance suite included, with its peak memory."""
    with tempfile.TemporaryDirectory() as empty:
        caches = {
            "DEEP_CACHE_DIR": empty,
            "GOCACHE": f"{empty}/go-build",
            "GOMODCACHE": f"{empty}/go-mod",
            "GOFLAGS": "-modcacherw",
        }
        for label, env in (("cold", caches), ("warm", {})) if cold else (("warm", {}),):
            sampler = MemoryPeak("bench-up")
            try:
                up: list[str | Path] = [BIN / "deep", "testbed", "up", "--name=bench-up"]
                if label == "cold":
                    # Of this cache and the node images; the artefacts of the user's own cache stay.
                    command(BIN / "deep", "testbed", "down", "--purge", "--name=bench-up", env=env)
                report.add(f"deep testbed up, {label}", timed(partial(command, *up, env=env)))
            finally:
                report.memory_mib[f"deep testbed up, {label}"] = round(sampler.stop())
                command(BIN / "deep", "testbed", "down", "--name=bench-up")


def scale(report: Report) -> None:
    """What a play costs on the controller alone: one role in check mode over many hosts that answer at once."""
    facts = {
        "os_family": "Debian",
        "distribution": "Debian",
        "distribution_version": "12",
        "distribution_major_version": "12",
        "architecture": "x86_64",
        "memtotal_mb": 8192,
        "virtualization_type": "kvm",
        "service_mgr": "systemd",
        "pkg_mgr": "apt",
    }
    for count in SCALE:
        with tempfile.TemporaryDirectory() as folder:
            inventory = Path(folder) / "hosts.json"
            hosts = {f"host{number:03}": {"ansible_facts": facts} for number in range(count)}
            inventory.write_text(
                json.dumps({"all": {"hosts": hosts, "vars": {"ansible_connection": "nothing"}}}), encoding="utf-8"
            )
            environment = {
                "ANSIBLE_CONNECTION_PLUGINS": str(ROOT / "benchmarks" / "connection_plugins"),
                "ANSIBLE_CACHE_PLUGIN": "memory",
            }
            argv: list[str | Path] = [
                sys.executable, "-m", "benchmarks.controller", "-i", inventory, "--check", "benchmarks/scale.yml",
            ]  # fmt: skip
            begin = time.monotonic()
            output = command(*argv, env=environment)
            report.add(f"play over {count} hosts", time.monotonic() - begin)
            report.spent[count] = spent(output)
    per_host = [report.median(f"play over {count} hosts") / count for count in SCALE]
    report.ratios[f"seconds per host at {SCALE[1]} hosts against {SCALE[0]}"] = (
        round(per_host[1] / per_host[0], 2),
        1.25,
    )


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


def render(report: Report) -> str:
    """The measured part of docs/performance.md."""
    lines = [
        f"Measured on {report.day}: {report.machine}. Times are medians.",
        "",
        "| ratio | measured | bound | |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {title} | {value}x | {bound}x | {'reached' if value <= bound else '**not reached**'} |"
        for title, (value, bound) in report.ratios.items()
    ]
    lines += ["", "| what | seconds | all runs |", "|---|---|---|"]
    lines += [
        f"| {name} | {report.median(name):.1f} | {', '.join(map(str, runs))} |" for name, runs in report.seconds.items()
    ]
    if report.memory_mib:
        lines += ["", "| peak memory of the nodes | MiB |", "|---|---|"]
        lines += [f"| {name} | {peak:.0f} |" for name, peak in report.memory_mib.items()]
    if report.spent:
        lines += ["", f"| where a play's seconds go | {' | '.join(f'{count} hosts' for count in report.spent)} |"]
        lines += ["|---|" + "---|" * len(report.spent)]
        lines += [
            f"| {what} | {' | '.join(f'{report.spent[count][what]:.1f}' for count in report.spent)} |"
            for what in report.spent[SCALE[0]]
        ]
    return "\n".join(lines)


PARTS: dict[str, Callable[[Report, argparse.Namespace], None]] = {
    "layer": lambda report, options: kubernetes_layer(report, options.repeats),
    "second": lambda report, options: second_run(report, options.repeats),
    "add": lambda report, options: added_node(report, options.repeats),
    "up": lambda report, options: whole_testbed(report, options.cold),
    "scale": lambda report, _: scale(report),
}


def main() -> None:
    """Measure the parts asked for; write the page only when all of them were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, []], help="what to measure (default: everything, written to the page)"
    )
    parser.add_argument("--repeats", type=int, default=2, help="fresh nodes for each figure (default 2)")
    parser.add_argument("--cold", action="store_true", help="also raise a testbed with empty caches")
    options = parser.parse_args()
    report = Report(machine(), datetime.now(UTC).date().isoformat())
    for part in options.parts or PARTS:
        PARTS[part](report, options)
    print(json.dumps(asdict(report), indent=2))
    if not options.parts:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{render(report)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
