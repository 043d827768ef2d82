"""Section ``[deep]`` of IM's configuration, and what its own section has to say for it."""

from __future__ import annotations

import json
from configparser import ConfigParser
from dataclasses import dataclass
from typing import Any

OWN, IM = "deep", "im"


class SettingsError(Exception):
    """A message for whoever wrote the configuration: what, found, needed."""


@dataclass(frozen=True)
class Settings:
    """Who may come in, and where IM may go.

    ``groups``: of the IAM, one of which somebody has to be in. ``sites``: (type of the connector, address without a
    slash at the end; empty for connectors that have none). ``tosca_types``: the one file that templates may import;
    empty for none.
    """

    groups: frozenset[str]
    sites: frozenset[tuple[str, str]]
    tosca_types: str = ""


def read(config: ConfigParser) -> Settings:
    """The settings in a configuration; raises ``SettingsError`` for one that lets in more than it should."""
    _check_own_options(config)
    groups = _list(config, "groups")
    if not groups:
        raise SettingsError(f"[{OWN}] groups: nobody may use this (found none, needed a group of the IAM)")
    sites = frozenset((str(site["type"]), address(str(site.get("host", "")))) for site in _list(config, "sites"))
    return Settings(frozenset(map(str, groups)), sites, config.get(OWN, "tosca_types", fallback=""))


def address(host: str) -> str:
    """An address in the form in which addresses are compared."""
    return host.rstrip("/")


def _list(config: ConfigParser, option: str) -> list[Any]:
    text = config.get(OWN, option, fallback="[]")
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise SettingsError(f"[{OWN}] {option} is not understood (found {text}, needed a list in JSON)")
    return found


def _check_own_options(config: ConfigParser) -> None:
    """Without these IM believes passwords of anybody, or whoever answers in the name of the IAM."""
    for option in ("FORCE_OIDC_AUTH", "VERIFI_SSL"):
        if not config.getboolean(IM, option, fallback=False):
            raise SettingsError(f"[{IM}] {option} (found it off, needed True)")
    issuers = [issuer for issuer in config.get(IM, "OIDC_ISSUERS", fallback="").split(",") if issuer]
    if not issuers or not all(issuer.startswith("https://") for issuer in issuers):
        raise SettingsError(f"[{IM}] OIDC_ISSUERS (found {', '.join(issuers) or 'none'}, needed https addresses)")
    if not config.get(IM, "OIDC_AUDIENCE", fallback=""):
        raise SettingsError(f"[{IM}] OIDC_AUDIENCE (found none, needed the audience of tokens for this service)")
    if config.get(IM, "OIDC_GROUPS", fallback=""):
        raise SettingsError(
            f"[{IM}] OIDC_GROUPS asks for all groups (found some, needed none). Next: use [{OWN}] groups"
        )
