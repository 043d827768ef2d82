"""The configuration of a site's provider."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from deep_cloud_info.errors import ConfigurationError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=63)]
Https = Annotated[str, StringConstraints(pattern=r"^https://[^\s/]+")]


class Strict(BaseModel):
    """Nothing that is not known is taken: a misspelt name would be a setting that is not in force."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kubernetes(Strict):
    """How to read a cluster. ``tolerated_taints``: keys of taints that what is deployed here tolerates."""

    server: Https
    ca_file: Path
    token_file: Path
    timeout_seconds: float = Field(default=20, gt=0)
    page_size: int = Field(default=500, ge=1)
    tolerated_taints: frozenset[str] = frozenset()


class Registry(Strict):
    """Where the images of a site are. ``only``: it runs no others; ``refresh_seconds``: how old the list may be."""

    url: Https
    ca_file: Path | None = None
    username: str | None = None
    password_file: Path | None = None
    timeout_seconds: float = Field(default=20, gt=0)
    refresh_seconds: int = Field(default=600, ge=0)
    only: bool = False


class Endpoint(Strict):
    """An address of the site for its users."""

    interface: str
    url: Https
    version: str | None = None
    authentication: str | None = None


class AgreementTerms(Strict):
    """What the site has promised to a virtual organisation. ``priority``: the site with the lowest comes first."""

    organisation: Name
    namespace: str | None = None
    priority: int = 100
    gpus: int | None = Field(default=None, ge=0)
    sla: str | None = None


class Configuration(Strict):
    """All of it. ``validity_seconds``: after that long, readers take a publication for stale."""

    site: Name
    kind: Literal["kubernetes"] = "kubernetes"
    quality: Literal["development", "pre-production", "production", "testing"] = "production"
    validity_seconds: int = Field(default=300, ge=1)
    output: Path | None = None
    kubernetes: Kubernetes
    registry: Registry | None = None
    endpoints: list[Endpoint] = []
    agreements: list[AgreementTerms] = []


def load(path: Path) -> Configuration:
    """Read a JSON file. Raises ConfigurationError that names every fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            "the configuration cannot be read", found=str(error), needed="a JSON file", next_step="give --config FILE"
        ) from None
    try:
        found = Configuration.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}" for one in error.errors(include_url=False)
        )
        raise ConfigurationError(
            "the configuration is not understood", found=faults, needed="what the schema of the settings allows",
            next_step=f"correct {path}",
        ) from None  # fmt: skip
    names = [terms.organisation for terms in found.agreements]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(
            "an organisation has several agreements", found=", ".join(twice), needed="one for each",
            next_step=f"correct agreements in {path}",
        )  # fmt: skip
    return found
