"""``syntax.yml`` and ``credentials.yml``: what Jenkinsfiles may say, as data that is checked before it judges."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, TypeAdapter

from sqa.standard import LOADER, Strict

SYNTAX = Path(__file__).with_name("syntax.yml")
CREDENTIALS = Path(__file__).parents[1] / "credentials.yml"

Type = str | tuple[str, ...]
Kind = Literal["certificate", "docker certificate", "secret file", "secret text", "ssh key", "user name and password"]


class Signature(Strict):
    """What a call takes; the head of ``syntax.yml`` says what each key means."""

    takes: dict[str, Type] = Field(default_factory=dict)
    needs: tuple[str, ...] = ()
    alone: str | None = None
    block: bool = False
    node: bool = False
    gives_node: bool = False
    stage: bool = False
    open: bool = False
    plugin: str = ""
    kind: Kind | None = None

    @property
    def unnamed(self) -> str | None:
        """The argument that may be given without its name."""
        return self.needs[0] if len(self.needs) == 1 else self.alone


class Directive(Strict):
    """A block whose directives are named here."""

    takes: tuple[str, ...]
    needs: tuple[str, ...] = ()


class Syntax(Strict):
    """All of ``syntax.yml``."""

    directives: dict[str, Directive]
    contents: tuple[str, ...]
    post: tuple[str, ...]
    tools: tuple[str, ...]
    agents: dict[str, Signature]
    options: dict[str, Signature]
    triggers: dict[str, Signature]
    parameters: dict[str, Signature]
    input: Signature
    when: dict[str, Signature]
    when_groups: tuple[str, ...]
    when_flags: tuple[str, ...]
    steps: dict[str, Signature]
    refused_steps: dict[str, str]
    values: dict[str, Signature]


class Credential(Strict):
    """What a pipeline asks Jenkins for."""

    kind: Kind
    purpose: str = Field(alias="for")


@lru_cache
def syntax() -> Syntax:
    """What Jenkinsfiles may say."""
    return Syntax.model_validate(_loaded(SYNTAX))


@lru_cache
def credentials() -> Mapping[str, Credential]:
    """The credentials that pipelines may ask for, by their ids."""
    return TypeAdapter(dict[str, Credential]).validate_python(_loaded(CREDENTIALS))


def _loaded(path: Path) -> Any:
    return yaml.load(path.read_bytes(), Loader=LOADER)  # nosec B506 # it is a safe one
