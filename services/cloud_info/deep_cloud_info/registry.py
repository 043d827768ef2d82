"""Images of a site's registry, by the distribution API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from deep_cloud_info.config import Registry
from deep_cloud_info.errors import CloudInfoError, ConfigurationError
from deep_cloud_info.kubernetes import trust

MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.list.v2",
        "docker.distribution.manifest.v2",
    )
)
PAGE = 100


@dataclass(frozen=True)
class Image:
    """``name``: REGISTRY/REPOSITORY:TAG as it is pulled; ``digest``: of its manifest."""

    name: str
    digest: str


def images(settings: Registry) -> list[Image]:
    """Every tagged image, by name. Raises CloudInfoError where the registry does not answer."""
    options: dict[str, Any] = {"base_url": settings.url, "timeout": settings.timeout_seconds}
    if settings.username:
        options["auth"] = (settings.username, _password(settings.password_file))
    host = urlsplit(settings.url).netloc
    try:
        with httpx.Client(**options, verify=trust(settings.ca_file)) as client:
            return sorted(_images(client, host), key=lambda image: image.name)
    except (httpx.HTTPError, ValueError) as error:
        raise CloudInfoError(
            "the registry cannot be read", found=str(error) or type(error).__name__,
            needed=f"a registry that answers at {settings.url}",
            next_step="see whether it runs, and correct url, ca_file and password_file",
        ) from None  # fmt: skip


def _images(client: httpx.Client, host: str) -> Iterator[Image]:
    for repository in _listed(client, "/v2/_catalog", "repositories"):
        for tag in _listed(client, f"/v2/{repository}/tags/list", "tags"):
            answer = client.head(f"/v2/{repository}/manifests/{tag}", headers={"Accept": MANIFESTS})
            # Removed since it was listed.
            if answer.status_code == httpx.codes.NOT_FOUND:
                continue
            answer.raise_for_status()
            yield Image(f"{host}/{repository}:{tag}", answer.headers.get("Docker-Content-Digest", ""))


def _listed(client: httpx.Client, path: str, key: str) -> Iterator[str]:
    following = f"{path}?n={PAGE}"
    while following:
        answer = client.get(following)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return
        answer.raise_for_status()
        # A repository whose images were all removed has null.
        yield from answer.json()[key] or []
        following = answer.links.get("next", {}).get("url", "")


def _password(path: Path | None) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() if path else ""
    except OSError as error:
        raise ConfigurationError(
            "the registry's password cannot be read", found=f"{path}: {error.strerror}", needed="a file with it",
            next_step="correct password_file",
        ) from None  # fmt: skip
