"""The ports of a host that others can reach: what they speak, and whether they ask who somebody is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import httpx

from tests.acceptance.probes import declarations, exposure, listeners, strangers
from tests.acceptance.probes.site import Site


@dataclass(frozen=True)
class Endpoint:
    """A port of a host that others can reach."""

    host: str
    address: str
    port: int
    process: str

    def __str__(self) -> str:
        return f"{self.host}:{self.port} ({self.process or 'unknown process'})"

    @property
    def place(self) -> str:
        """Address and port, as a URL has them."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @cached_property
    def speaks(self) -> str:
        """How it speaks: ``tls``, ``ssh`` or ``plain``; fails where it cannot be reached."""
        try:
            return exposure.speaks(self.address, self.port)
        except OSError as failed:
            raise AssertionError(
                f"{self}: {self.place} cannot be reached from here ({failed}), so nothing is known of it. Next: assess "
                "from a machine that others' requests may come from, or have it listen for its own host only"
            ) from failed

    @property
    def url(self) -> str:
        """Where it is asked over HTTP."""
        return f"{'https' if self.speaks == 'tls' else 'http'}://{self.place}"


def of_host(site: Site, hostname: str) -> Iterator[Endpoint]:
    """Every TCP port of a host that is not its own alone."""
    done = site.host(hostname).run("ss -Hltnup")
    assert done.rc == 0, f"{hostname}: ss could not look: {done.stderr}"
    found = [one for one in listeners.parse(done.stdout) if one.protocol == "tcp" and one.width != "loopback"]
    assert found, f"{hostname}: ss reports no socket at all, not even that of ssh"
    addressed = {(one.address if one.width == "host" else site.address(hostname), one.port): one for one in found}
    for (address, port), one in addressed.items():
        yield Endpoint(hostname, address, port, one.process)


def not_http(site: Site, hostname: str) -> list[int]:
    """Ports that are declared, with a reason, to speak something else than HTTP."""
    entries = [entry for entry in site.declared_for(hostname, "listeners") if "not_http" in entry]
    return [port for entry in declarations.read(declarations.NotHttp, "listeners", entries) for port in entry.port]


def plain(site: Site, hostname: str) -> list[int]:
    """Ports that are declared to speak without TLS."""
    return [
        port
        for entry in site.declared_for(hostname, "listeners")
        if entry.get("plain")
        for port in (entry["port"] if isinstance(entry["port"], list) else [entry["port"]])
    ]


def open_or_unknown(site: Site, hostname: str, found: Sequence[Endpoint]) -> list[str]:
    """Endpoints of a host that let strangers in, or of which nothing is known: each by its name, with what is wrong.

    What is declared to speak HTTP has to be among those that were ``found``.
    """
    declared = declarations.read(declarations.Http, "http", site.declared_for(hostname, "http"))
    ways = strangers.logins(str(site.value(hostname, "iam_issuer")) if site.has(hostname, "iam_issuer") else "")
    others = not_http(site, hostname)
    absent = {port for entry in declared for port in entry.port} - {one.port for one in found}
    wrong = [f"{hostname}:{port} is declared to speak HTTP, but is not there for others" for port in sorted(absent)]
    with strangers.stranger() as client:
        for one in found:
            wrong += _complaints(client, one, declared, ways, other=one.port in others)
    return wrong


def _complaints(
    client: httpx.Client,
    endpoint: Endpoint,
    declared: list[declarations.Http],
    ways: dict[str, dict[str, str]],
    *,
    other: bool,
) -> Iterator[str]:
    """What is wrong with an endpoint; ``other``: it is declared to speak something else than HTTP."""
    paths, public = strangers.declared_at(declared, endpoint.port)
    try:
        if endpoint.speaks == "ssh":
            return
        answers = list(strangers.ask(client, endpoint.url, [*strangers.PATHS, *paths], ways))
    except AssertionError as unknown:
        yield f"{endpoint}: {unknown}"
        return
    if let_in := strangers.open_to_strangers(answers, public):
        yield f"{endpoint}: open to anybody: {', '.join(let_in)}"
    if not answers and not other and not exposure.wants_certificate(endpoint.address, endpoint.port):
        yield f"{endpoint}: gives no answer in HTTP, so nothing is known of it"
    if statuses := strangers.tells_nothing(answers):
        yield f"{endpoint}: answers {statuses} everywhere, so nothing is known of it"
