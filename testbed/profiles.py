"""Profiles: what the nodes of a testbed are for, declared in ``testbed/profiles/NAME.yml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testbed.errors import DeepError

FOLDER = Path(__file__).resolve().parent / "profiles"


class Profile(BaseModel):
    """Groups of the first node and of every other one, how many nodes, which image and which settings by default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    image: str
    nodes: int = Field(ge=1)
    first: tuple[str, ...]
    others: tuple[str, ...] = ()
    # Names of artefact declarations that the roles of these groups install.
    artifacts: tuple[str, ...] = ()
    # Variables of the site that its testbeds begin with, as `deep testbed up --set` gives them.
    settings: dict[str, Any] = Field(default_factory=dict)

    def groups(self, number: int) -> tuple[str, ...]:
        """Inventory groups of node ``number`` (from 1)."""
        return self.first if number == 1 else self.others


def names() -> list[str]:
    """Every profile that can be asked for."""
    return sorted(path.stem for path in FOLDER.glob("*.yml"))


def load(name: str) -> Profile:
    """The profile ``name``; raises ``DeepError`` for an unknown one or one that breaks the rules."""
    if name not in names():
        raise DeepError(
            "unknown profile",
            found=name,
            needed=f"one of: {', '.join(names())}",
            next_step="deep testbed up --profile NAME",
        )
    file = FOLDER / f"{name}.yml"
    try:
        return Profile(name=name, **yaml.safe_load(file.read_text(encoding="utf-8")))
    except ValidationError as wrong:
        raise DeepError(f"profile {name} is not valid: {wrong}", next_step=f"correct {file}") from wrong
