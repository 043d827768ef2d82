"""What a site says of its orchestrator: one JSON file, which holds secrets and belongs to the service alone."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from deep_orchestrator.offers import Source
from deep_orchestrator.selection import Offer
from deep_orchestrator.steps import Limits

Https = Annotated[str, Field(pattern=r"^https://[^\s/]+")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=63)]
HOST = re.compile(r"[a-z0-9.-]+")


class SettingsError(Exception):
    """The file cannot be used: what was found, what is needed, and what to do next."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Organisation(_Section):
    """A virtual organisation: groups whose members may deploy, and groups whose members may look."""

    name: str
    members: frozenset[str]
    readers: frozenset[str] = frozenset()


class Identity(_Section):
    """Whose tokens count, and what their holders may do.

    ``authority``: file with the certificates that the issuer's is held against; the system's by default.
    """

    issuer: Https
    audience: str = "orchestrator"
    authority: Path | None = None
    username_claim: str = "preferred_username"
    groups_claim: str = "groups"
    organisations: list[Organisation] = Field(default_factory=list)
    administrators: str = ""


class Delegation(_Section):
    """The client of the issuer that exchanges people's tokens for ones that sites take.

    ``scopes``: what those are for. ``secret``: what tokens are encrypted with in the database, 32 characters or more.
    """

    client_id: str
    client_secret: str = Field(repr=False, min_length=1)
    scopes: list[str]
    secret: str = Field(repr=False, min_length=32)


class NullSite(_Section):
    """A site that is a folder, for measuring the orchestrator: what it offers, and seconds until something is ready."""

    kind: Literal["null"]
    folder: Path
    seconds: float = 0
    offer: Offer


class InfrastructureManager(_Section):
    """A Kubernetes behind an Infrastructure Manager.

    ``url``: of the Infrastructure Manager, ``authority`` the file that its certificate is held against; ``kubernetes``:
    of the API server, as it reaches it; ``namespace`` of an organisation there, with ``{organisation}`` in it;
    ``ingress_domain``: under which its ingress publishes names, with ``{namespace}`` in it, on ``ingress_port``;
    ``information``: where the site publishes what it has. Needs ``delegation``: it is used with people's own rights.
    """

    kind: Literal["infrastructure_manager"]
    url: Https
    authority: Path
    kubernetes: Https
    namespace: str = "{organisation}"
    ingress_domain: str = Field(default="", pattern=r"^([a-z0-9.-]|\{namespace\})*$")
    ingress_port: int = Field(default=443, gt=0, lt=65536)
    information: Source


Site = Annotated[NullSite | InfrastructureManager, Field(discriminator="kind")]


class Settings(_Section):
    """The whole file.

    ``database``: a URL of SQLAlchemy. ``executor``: the name of this process among those that share the database.
    ``url``: where people reach the service. ``callback_hosts``: where callbacks may go, nowhere by default.
    """

    database: str = Field(repr=False)
    executor: str = Field(min_length=1)
    url: Https
    address: str = "127.0.0.1"
    port: int = Field(default=8443, gt=0, lt=65536)
    certificate: Path
    key: Path
    identity: Identity
    delegation: Delegation | None = None
    sites: dict[Name, Site] = Field(default_factory=dict)
    callback_hosts: frozenset[str] = frozenset()
    limits: Limits = Field(default_factory=Limits)

    @field_validator("callback_hosts")
    @classmethod
    def _names(cls, value: frozenset[str]) -> frozenset[str]:
        odd = sorted(name for name in value if not HOST.fullmatch(name))
        if odd:
            raise ValueError(f"found {', '.join(odd)}, needed names of hosts in small letters")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [one.name for one in self.identity.organisations]
        if len(set(names)) < len(names):
            raise ValueError(f"found organisations {', '.join(names)}, needed each once")
        owned = sorted(name for name, site in self.sites.items() if isinstance(site, InfrastructureManager))
        if owned and self.delegation is None:
            raise ValueError(f"found no delegation, needed one for {', '.join(owned)}")
        return self


def load(path: Path) -> Settings:
    """Read the file; raises SettingsError where it is missing, open to others, or wrong."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}). Next: deploy the orchestrator again") from None
    if mode & 0o027:
        raise SettingsError(
            f"{path}: holds secrets (found mode {mode:04o}, needed 0640 or less). Next: chmod 0600 {path}"
        )
    try:
        return Settings.model_validate_json(text)
    except ValidationError as error:
        # Without the values, some of which are secret.
        faults = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}" for one in error.errors(include_input=False)
        )
        raise SettingsError(f"{path}: {faults}. Next: correct the role's variables and deploy again") from None
