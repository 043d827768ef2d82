"""Measure the PaaS chain: what docs/performance.md says of the orchestrator.

The orchestrator runs as a program of its own, as a site runs it; the identity provider signs tokens and does nothing
else.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.testbed import ROOT, conclude, machine, parser, table
from tests.services.signing_issuer import SigningIssuer
from tests.unit.login_issuer import Authority, serving

DEPLOYMENTS = 100
# Clients that send orders at the same time.
SENDERS = 16
PATIENCE = 300.0
PERCENTILES = 20  # so that the last of the cut points is the 95th percentile
PART = "orchestrator"
HOST = "localhost"
TEMPLATE = ROOT / "services/tosca/deep_tosca/templates/kubernetes.yaml"


@dataclass(frozen=True)
class Orders:
    """What became of many orders at once.

    ``rate``: deployments that are complete a second, from the first order on; medians and 95th percentiles of the time
    until an order was answered and until it was complete (ms); ``memory_mib``: the most that the process ever had.
    """

    count: int
    rate: float
    answered_ms: float
    answered_p95_ms: float
    complete_ms: float
    complete_p95_ms: float
    memory_mib: float


@contextmanager
def orchestrator(
    folder: Path, issuer: SigningIssuer, authority: Authority
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """An orchestrator with one site, a folder where everything is ready at once; its address and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    authority.context(HOST, folder)
    (folder / "ca.pem").write_bytes(authority.pem)
    url = f"https://{HOST}:{port}"
    offer = {"site": "null", "cpus_free": 1e6, "memory_mib_free": 10**9, "agreements": {"bench": {}}}
    said = {
        "database": f"sqlite:///{folder}/orchestrator.sqlite", "executor": "bench", "url": url, "port": port,
        "certificate": str(folder / "server.pem"), "key": str(folder / "server.pem"),
        "identity": {
            "issuer": issuer.url, "authority": str(folder / "ca.pem"),
            "organisations": [{"name": "bench", "members": ["bench"]}],
        },
        "sites": {"null": {"kind": "null", "folder": str(folder / "site"), "offer": offer}},
    }  # fmt: skip
    settings = folder / "settings.json"
    settings.touch(0o600)
    settings.write_text(json.dumps(said), encoding="utf-8")
    path = os.pathsep.join(str(ROOT / "services" / name) for name in ("orchestrator", "tosca"))
    program = [sys.executable, "-m", "deep_orchestrator", str(settings)]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(program, env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log) as process,
    ):
        try:
            yield url, process
        finally:
            process.terminate()


def order(http: httpx.Client, template: str) -> tuple[str, float]:
    """Order one deployment; its uuid and the seconds until the answer."""
    begin = time.perf_counter()
    answer = http.post(
        "/deployments", json={"template": template, "parameters": {"image": "bench/tiny:1"}}
    ).raise_for_status()
    return str(answer.json()["uuid"]), time.perf_counter() - begin


def completed(http: httpx.Client, uuids: set[str]) -> list[dict[str, Any]]:
    """Wait until every deployment is complete; raises SystemExit where one fails or it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = http.get("/deployments", params={"size": 500}).raise_for_status().json()["content"]
        failed = [one["statusReason"] for one in found if one["status"] == "CREATE_FAILED"]
        if failed:
            raise SystemExit(f"{len(failed)} deployments have failed, the first: {failed[0]}")
        done = [one for one in found if one["status"] == "CREATE_COMPLETE" and one["uuid"] in uuids]
        if len(done) == len(uuids):
            return done
        time.sleep(0.5)
    raise SystemExit(f"not all of {len(uuids)} deployments were complete within {PATIENCE:.0f} s")


def started(http: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the orchestrator answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            http.get("/health").raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit(f"the orchestrator does not answer:\n{log.read_text(encoding='utf-8')[-4000:]}")


def measure() -> Orders:
    """Order many deployments at once."""
    template = TEMPLATE.read_text(encoding="utf-8")
    authority = Authority()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            serving(SigningIssuer(HOST), authority.context(HOST, folder)) as issuer,
            orchestrator(folder, issuer, authority) as (url, process),
            httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=folder / "ca.pem"), timeout=60) as http,
        ):
            started(http, process, folder / "log")
            http.headers["Authorization"] = f"Bearer {issuer.token('bench', 'bench', exp=int(time.time()) + 600)}"
            # The first one finds nothing in memory.
            completed(http, {order(http, template)[0]})
            begin = datetime.now(UTC)
            with ThreadPoolExecutor(SENDERS) as senders:
                sent = list(senders.map(lambda _: order(http, template), range(DEPLOYMENTS)))
            done = completed(http, {uuid for uuid, _ in sent})
            memory = peak_mib(process.pid)
    ended = {one["uuid"]: datetime.fromisoformat(one["attempts"][-1]["ended"]) for one in done}
    taken = [(ended[one["uuid"]] - datetime.fromisoformat(one["creationTime"])).total_seconds() * 1000 for one in done]
    answers = [seconds * 1000 for _, seconds in sent]
    return Orders(
        count=DEPLOYMENTS,
        rate=DEPLOYMENTS / (max(ended.values()) - begin).total_seconds(),
        answered_ms=statistics.median(answers),
        answered_p95_ms=statistics.quantiles(answers, n=PERCENTILES)[-1],
        complete_ms=statistics.median(taken),
        complete_p95_ms=statistics.quantiles(taken, n=PERCENTILES)[-1],
        memory_mib=memory,
    )


def peak_mib(pid: int) -> float:
    """The most memory that a process has had (VmHWM), in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def render(found: Orders, minutes: float) -> str:
    """What was measured, for docs/performance.md."""
    day = datetime.now(UTC).date().isoformat()
    rows = [
        (f"deployments complete a second, {found.count} ordered at once", f"{found.rate:.1f}"),
        ("until an order is answered, median and p95, ms", f"{found.answered_ms:.0f}, {found.answered_p95_ms:.0f}"),
        ("until a deployment is complete, median and p95, ms", f"{found.complete_ms:.0f}, {found.complete_p95_ms:.0f}"),
        ("memory of the process at its peak, MiB", f"{found.memory_mib:.0f}"),
    ]
    head = f"Measured on {day} in {minutes:.0f} minutes: {machine()}."
    return "\n".join([head, *table(("orders to the orchestrator", "measured"), rows)])


def main() -> None:
    """Measure, and write it into the page when told to."""
    conclude(PART, measure, render, write=parser(__doc__).parse_args().write)


if __name__ == "__main__":
    main()
