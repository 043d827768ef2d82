"""Fetch files over HTTP: in parallel, continued after an interruption, verified, retried."""

from __future__ import annotations

import hashlib
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

from testbed import files
from testbed.artifacts.declaration import Declaration, Upstream
from testbed.errors import CHECK_FAILED, DeepError

ATTEMPTS = 3
PAUSE_SECONDS = 1.0
PARALLEL = 4
TIMEOUT = httpx.Timeout(30.0, connect=15.0)
# Bytes as they are stored: a part that is continued, and a hash, mean nothing for a compressed transfer.
HEADERS = {"User-Agent": "deep-testbed", "Accept-Encoding": "identity"}

Amount = Callable[[int, int], None]


@dataclass(frozen=True)
class Wanted:
    """One download: address, the hash it must have, and where the finished file goes."""

    url: str
    sha256: str
    target: Path


def client() -> httpx.Client:
    """A client that follows redirects, though never from https to http, and honours the proxy settings."""
    hooks = {"response": [_refuse_downgrade]}
    return httpx.Client(follow_redirects=True, timeout=TIMEOUT, headers=HEADERS, event_hooks=hooks)


def _refuse_downgrade(response: httpx.Response) -> None:
    target = response.url.join(response.headers.get("Location", ""))
    if response.has_redirect_location and response.url.scheme == "https" != target.scheme:
        raise httpx.UnsupportedProtocol(f"redirected to {target}, needed an https address")


def fetch(wanted: Wanted, partial: Path, amount: Amount, http: httpx.Client, *, pause: float = PAUSE_SECONDS) -> None:
    """Download ``wanted``, continuing ``partial`` where it exists.

    What arrives with a wrong hash is thrown away and fetched anew. Raises ``DeepError`` naming the
    address, and the hash found and needed, when it does not succeed in three attempts.
    """
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(pause * attempt)
        try:
            _transfer(wanted.url, partial, amount, http)
        except httpx.HTTPStatusError as failure:
            problem = f"HTTP {failure.response.status_code}"
            if failure.response.status_code < 500:
                break
            continue
        except httpx.HTTPError as failure:
            problem = f"{type(failure).__name__}: {failure}"
            continue
        found = files.sha256_of(partial)
        if found == wanted.sha256:
            partial.replace(wanted.target)
            return
        partial.unlink()
        problem = f"sha256 {found}"
    raise DeepError(
        f"download failed: {wanted.url}",
        found=problem,
        needed=f"sha256 {wanted.sha256}",
        next_step="check the network and the declaration; what arrived is kept and continued by the next run",
        exit_code=CHECK_FAILED,
    )


def _transfer(url: str, partial: Path, amount: Amount, http: httpx.Client) -> None:
    partial.parent.mkdir(parents=True, exist_ok=True)
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with http.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            # Nothing is left to fetch, or the part is longer than the file: the hash decides.
            return
        response.raise_for_status()
        continued = response.status_code == httpx.codes.PARTIAL_CONTENT
        done = have if continued else 0
        total = done + int(response.headers.get("Content-Length", 0))
        with partial.open("ab" if continued else "wb") as sink:
            for block in response.iter_raw():
                sink.write(block)
                done += len(block)
                amount(done, max(total, done))


def fetch_upstream(declaration: Declaration, downloads: Path, work: Path, amount: Amount) -> dict[str, Path]:
    """Download the official files of ``declaration`` into ``work``; returns ``{file: path}``."""
    upstream = declaration.sources.upstream
    if upstream is None:
        raise DeepError(
            f"artifacts/{declaration.name}.yml: sources.upstream is not declared",
            next_step="build it: 'deep artifacts build'",
        )
    names = [file.name for file in declaration.files]
    urls = {name: declaration.expand(upstream.url, name) for name in names}
    with client() as http:
        wanted = {
            url: Wanted(url, _published_hash(declaration, upstream, name, url, http), work / _key(url))
            for name, url in urls.items()
        }
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(
                pool.map(lambda item: fetch(item, downloads / f"{_key(item.url)}.part", amount, http), wanted.values())
            )
    return {name: _extract(declaration, upstream, name, wanted[urls[name]].target, work) for name in names}


def _key(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def _published_hash(declaration: Declaration, upstream: Upstream, name: str, url: str, http: httpx.Client) -> str:
    base = url.rsplit("/", 1)[-1]
    declared = upstream.sha256.get(name) or upstream.sha256.get(base)
    if declared:
        return declared
    address = declaration.expand(upstream.checksum_url or "", name)
    try:
        response = http.get(address)
        response.raise_for_status()
    except httpx.HTTPError as failure:
        raise DeepError(
            f"no checksum: {address}", found=str(failure), next_step="check the network", exit_code=CHECK_FAILED
        ) from failure
    digest = files.parse_checksums(response.text, base)
    if digest is None:
        raise DeepError(
            f"no checksum of {base} in {address}",
            needed="a line 'SHA256  NAME'",
            next_step="correct checksum_url",
            exit_code=CHECK_FAILED,
        )
    return digest


def _extract(declaration: Declaration, upstream: Upstream, name: str, archive: Path, work: Path) -> Path:
    target = work / name
    if upstream.member is None:
        archive.replace(target)
        return target
    member = declaration.expand(upstream.member, name)
    with tarfile.open(archive) as content:
        try:
            found = content.extractfile(member)
        except KeyError:
            found = None
        if found is None:
            raise DeepError(
                f"{name}: not in the archive {declaration.expand(upstream.url, name)}",
                needed=member,
                next_step="correct 'member' of the declaration",
                exit_code=CHECK_FAILED,
            )
        target.write_bytes(found.read())
    return target
