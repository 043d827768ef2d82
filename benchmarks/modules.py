"""Measure modules at a site: what docs/performance.md says of deploying one, and of asking it.

On a testbed of its own, or on one that is up. The same pod is deployed by the orchestrator and by kubectl, in turns,
with its image on the node; then it is asked for predictions at its own address and through the site's ingress, from the
network of the node it runs on.
"""

from __future__ import annotations

import argparse
import json
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchmarks.identity import Load, Prepare, Request, in_turns
from benchmarks.testbed import BIN, ROOT, command, conclude, machine, parser, reached, table, timed
from testbed import engine, modules, sites, testbed
from testbed.at_address import AtAddress
from testbed.login import SITE_CA, Place

PART, NAME = "modules", "bench-modules"
MODULE, NAMESPACE, NODE = "image-classifier", "imaging", "node2"
# Half a CPU has room on a node of the testbed; the other node is kept out, so that the image is there already.
WISH = modules.Wish(cpus=0.5)
COPY = "bench-copy"
ROUNDS, BURST, BURSTS = 5, 200, 5
PATIENCE, PAUSE = 300.0, 0.1
BOUND = 1.5
# Of Kubernetes itself, which are another object's.
OWN_METADATA = ("uid", "resourceVersion", "creationTimestamp", "generation", "annotations", "managedFields")


@dataclass(frozen=True)
class Found:
    """Seconds until the first answer, one for each round, and predictions by the way they are asked for."""

    orchestrator: list[float]
    kubectl: list[float]
    predictions: dict[str, Load]

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return statistics.median(self.orchestrator) / statistics.median(self.kubectl)


@contextmanager
def place(name: str | None) -> Iterator[Place]:
    """The testbed ``name``, or one of its own; a member is logged in there."""
    own = name or NAME
    if name is None:
        command(BIN / "deep", "testbed", "up", f"--name={own}", "--until=deploy")
    try:
        command(BIN / "deep", "login", sites.TESTBED_SITE, f"--name={own}", "--as=member")
        yield Place(sites.TESTBED_SITE, own)
    finally:
        if name is None:
            command(BIN / "deep", "testbed", "down", f"--name={own}")


def kubectl(at: Place, *words: str, given: str = "") -> str:
    """What kubectl says on the control plane; ``given``: its standard input. Its failure ends the benchmark."""
    script = 'given=$1; shift; printf %s "$given" | kubectl "$@"'
    done = testbed.run_on(str(at.name), "node1", ["sh", "-euc", script, "sh", given, *words])
    if not done["ok"]:
        raise SystemExit(f"kubectl {' '.join(words)}: {done['output']}")
    return str(done["output"])


@contextmanager
def one_node(at: Place) -> Iterator[None]:
    """Have every pod on the same node."""
    kubectl(at, "cordon", "node1")
    try:
        yield
    finally:
        kubectl(at, "uncordon", "node1")


def order(at: Place) -> dict[str, Any]:
    """Have the module deployed by the orchestrator; back with its first answer."""
    told = modules.deploy(at, MODULE, WISH, lambda _: None, patience=PATIENCE)
    if not told["ok"]:
        raise SystemExit(f"the deployment has failed: {told['reason']}")
    return told


def delete(at: Place, told: dict[str, Any]) -> None:
    """Remove what was ordered, and wait until its pod is gone."""
    modules.delete(at, told["uuid"], lambda _: None)
    kubectl(at, "wait", "--for=delete", "pods", "--all", f"--namespace={NAMESPACE}", "--timeout=120s")


def copy_of(at: Place) -> str:
    """The deployment and the service that run now, as another one of the same kind."""
    found = json.loads(kubectl(at, "get", "deployments,services", f"--namespace={NAMESPACE}", "--output=json"))
    return json.dumps({**found, "items": [copied(one) for one in found["items"]]})


def copied(thing: dict[str, Any]) -> dict[str, Any]:
    """One object under another name, without what the cluster has written into it."""
    metadata = {key: value for key, value in thing["metadata"].items() if key not in OWN_METADATA}
    spec = {key: value for key, value in thing["spec"].items() if key not in {"clusterIP", "clusterIPs"}}
    if thing["kind"] == "Service":
        # Without the ingress, a port of the node is how it is asked.
        spec["type"] = "NodePort"
    text = json.dumps({**thing, "metadata": metadata, "spec": spec})
    return {key: value for key, value in json.loads(text.replace(metadata["name"], COPY)).items() if key != "status"}


def apply(at: Place, manifest: str) -> None:
    """Have the copy deployed by kubectl; back with its first answer."""
    made = json.loads(kubectl(at, "apply", "--filename=-", "--output=json", given=manifest))
    (port,) = [one["spec"]["ports"][0]["nodePort"] for one in made["items"] if one["kind"] == "Service"]
    health = modules.module(MODULE).deployment["health"]
    deadline = time.monotonic() + PATIENCE
    with httpx.Client(base_url=f"http://{address(at)}:{port}", timeout=5) as client:
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if client.get(health).is_success:
                    return
            time.sleep(PAUSE)
    raise SystemExit(f"the pod of kubectl does not answer within {PATIENCE:.0f} s")


def remove_copy(at: Place) -> None:
    """Remove what kubectl has deployed."""
    kubectl(at, "delete", f"deployment/{COPY}", f"service/{COPY}", f"--namespace={NAMESPACE}", "--ignore-not-found")
    kubectl(at, "wait", "--for=delete", "pods", "--all", f"--namespace={NAMESPACE}", "--timeout=120s")


def address(at: Place) -> str:
    """Of the first node."""
    return str(at.value("{{ hostvars['node1'].node_address }}"))


def deployments(at: Place) -> tuple[list[float], list[float]]:
    """Seconds from the request to the first answer, by the orchestrator and by kubectl, in turns."""
    warm = order(at)
    manifest = copy_of(at)
    delete(at, warm)
    by_orchestrator, by_kubectl = [], []
    for _ in range(ROUNDS):
        told: dict[str, Any] = {}
        by_orchestrator.append(timed(lambda told=told: told.update(order(at))))  # type: ignore[misc]
        delete(at, told)
        by_kubectl.append(timed(partial(apply, at, manifest)))
        remove_copy(at)
        print(f"orchestrator {by_orchestrator[-1]:.1f} s, kubectl {by_kubectl[-1]:.1f} s", file=sys.stderr, flush=True)
    return by_orchestrator, by_kubectl


def predictions(at: Place) -> dict[str, Load]:
    """Predictions by the way: the pod's own address, and the address that people are given."""
    told = order(at)
    try:
        pods = json.loads(kubectl(at, "get", "pods", f"--namespace={NAMESPACE}", "--output=json"))["items"]
        ways = {"the pod itself": f"http://{pods[0]['status']['podIP']}:5000", "as people do": told["endpoint"]}
        container = engine.client().containers.get(f"deep-{at.name}-{NODE}")
        inside = ["nsenter", f"--net=/proc/{container.attrs['State']['Pid']}/ns/net"]
        program = [sys.executable, "-m", "benchmarks.modules", "--ask", json.dumps(ways), f"--testbed={at.name}"]
        said = subprocess.run([*inside, *program], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout
        return {way: Load(**load) for way, load in json.loads(said).items()}
    finally:
        delete(at, told)


def asked(at: Place, ways: dict[str, str]) -> dict[str, Load]:
    """Predictions a second at each of the addresses, over connections that are kept."""
    trust = ssl.create_default_context(cafile=sites.public_dir(at.site, at.name) / SITE_CA)
    needs = modules.module(MODULE).deployment
    path = f"/v2/models/{needs['model']}/predict/"

    def prepared(url: str) -> Request:
        name = str(urlsplit(url).hostname)
        known = {name: address(at)} if name.endswith(str(at.value("{{ site_domain }}"))) else {}
        client = httpx.Client(base_url=url, transport=AtAddress(known, trust), timeout=60)
        return lambda: client.post(path, json=needs["example"]).raise_for_status()

    each: dict[str, Prepare] = {way: partial(prepared, url) for way, url in ways.items()}
    return in_turns(each, count=BURST, rounds=BURSTS)


def render(found: Found, minutes: float) -> str:
    """What was measured, for docs/performance.md."""
    day = datetime.now(UTC).date().isoformat()
    within = reached(found.ratio, BOUND)
    title = "request to first answer, orchestrator against kubectl apply"
    times = [
        (who, f"{statistics.median(seconds):.1f}", ", ".join(f"{one:.1f}" for one in seconds))
        for who, seconds in (("orchestrator", found.orchestrator), ("kubectl apply", found.kubectl))
    ]
    asks = [
        (way, f"{load.rate:.0f}", f"{load.median_ms:.1f}", f"{load.p95_ms:.1f}")
        for way, load in found.predictions.items()
    ]
    direct, people = found.predictions.values()
    return "\n".join(
        [
            f"Measured on {day} in {minutes:.0f} minutes: {machine()}.",
            *table(
                ("ratio", "measured", "bound", ""),
                [
                    (title, f"{found.ratio:.2f}x", f"{BOUND}x", within),
                    ("predictions a second, as people do against the pod", f"{people.rate / direct.rate:.2f}x", "", ""),
                ],
            ),
            *table(("from request to first answer", "seconds (median)", "all runs"), times),
            *table(("predictions", "a second", "median, ms", "p95, ms"), asks),
        ]
    )


def main() -> None:
    """Measure, and write it into the page when told to."""
    told = parser(__doc__)
    told.add_argument("--testbed", metavar="NAME", help="one that is up")
    told.add_argument("--ask", metavar="JSON", help=argparse.SUPPRESS)
    options = told.parse_args()
    if options.ask:
        loads = asked(Place(sites.TESTBED_SITE, options.testbed), json.loads(options.ask))
        print(json.dumps({way: asdict(load) for way, load in loads.items()}))
        return

    def measure() -> Found:
        with place(options.testbed) as at, one_node(at):
            return Found(*deployments(at), predictions(at))

    conclude(PART, measure, render, write=options.write)


if __name__ == "__main__":
    main()
