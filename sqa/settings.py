"""``sqa.yml`` in the root of a repository: the standards it is held against, and what is known about it beforehand."""

from __future__ import annotations

import datetime
import io
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from sqa import standard
from sqa.standard import Strict
from sqa.tree import valid_patterns
from sqa.wrong import explained, not_yaml
from testbed.errors import DeepError
from testbed.files import write_atomic

NAME = "sqa.yml"
LONGEST = datetime.timedelta(days=731)  # of a waiver or an attestation: for longer, correct the code or the standard

Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=15)]
Role = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3)]


def limit(since: datetime.date, expires: datetime.date) -> None:
    """Raise ``ValueError`` for what ends before it begins, or lasts longer than ``LONGEST``."""
    if not since <= expires <= since + LONGEST:
        raise ValueError(f"expires: found {expires}, needed a day from {since} to {since + LONGEST}")


class Waiver(Strict):
    """A defect, or a criterion that is not met, that is accepted for a time.

    ``criterion``: the id, for the whole of it; or ``check``, and if wanted ``rule`` and ``path`` (a pattern of
    .gitignore's kind), for findings. ``owner``: the role that answers for it. It counts until the end of ``expires``.
    """

    id: str
    criterion: str | None = None
    check: str | None = None
    rule: str | None = None
    path: str | None = None
    reason: Reason
    owner: Role
    since: datetime.date
    expires: datetime.date

    @field_validator("id")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", value):
            raise ValueError(f"found {value!r}, needed small letters, digits and dashes, a letter or digit first")
        return value

    @field_validator("path")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        valid_patterns([value] if value else [])
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Waiver:
        if (self.criterion is None) == (self.check is None):
            raise ValueError("name either a criterion or a check")
        if self.criterion is not None and (self.rule or self.path):
            raise ValueError("rule and path are of a check's findings")
        limit(self.since, self.expires)
        return self


class Settings(Strict):
    """The whole file.

    ``gate``: the badge that a run has to reach to be good. ``exclude``: what no check looks at. ``checks``: settings of
    single checks, which say themselves what they take (``exclude`` and ``timeout`` are for every one).
    ``not_applicable``: criterion to the reason. ``attestations``: the folder of signed statements. ``signers``: the
    file of those who may sign, as ssh-keygen reads it. ``plugins``: a folder of checks of the repository's own.
    """

    standards: tuple[str, ...] = ("software",)
    gate: Literal["none", "bronze", "silver", "gold"] = "bronze"
    exclude: tuple[str, ...] = ()
    checks: dict[str, dict[str, Any]] = Field(default_factory=dict)
    not_applicable: dict[str, Reason] = Field(default_factory=dict)
    waivers: tuple[Waiver, ...] = ()
    attestations: str = ".sqa/attestations"
    signers: str = ".sqa/signers"
    baseline: str = ".sqa/baseline.json"
    plugins: str | None = None
    largest_file: Annotated[int, Field(gt=0)] = 10 << 20

    @field_validator("standards")
    @classmethod
    def _known_standards(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = set(value) - set(standard.names())
        if unknown or not value:
            raise ValueError(
                f"found {', '.join(sorted(unknown)) or 'none'}, needed some of {', '.join(standard.names())}"
            )
        return value

    @field_validator("exclude")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        valid_patterns(value)
        return value

    @field_validator("attestations", "signers", "baseline", "plugins")
    @classmethod
    def _inside(cls, value: str | None) -> str | None:
        if value is not None and (value.startswith("/") or ".." in value.split("/")):
            raise ValueError(f"found {value!r}, needed a path inside of the repository")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        known = {one.id for name in self.standards for one in standard.load(name).criteria}
        named = [*self.not_applicable, *(one.criterion for one in self.waivers if one.criterion)]
        unknown = sorted(set(named) - known)
        if unknown:
            raise ValueError(f"no such criterion in {', '.join(self.standards)}: {', '.join(unknown)}")
        ids = [one.id for one in self.waivers]
        if len(set(ids)) < len(ids):
            raise ValueError("waivers: an id is used twice")
        return self


def add_waiver(path: Path, waiver: Waiver, known: Settings) -> None:
    """Write a waiver into a file of settings, leaving everything else in it as it is.

    Where there is none yet, one is begun with the standards and the gate of ``known``, those that count without it.
    Raises ``DeepError`` where the file would then be wrong; it is left as it was.
    """
    from ruamel.yaml import YAML  # a run need not wait for it

    editor = YAML()
    first = f"---\nstandards: [{', '.join(known.standards)}]\ngate: {known.gate}\n"
    before = path.read_text(encoding="utf-8") if path.is_file() else first
    editor.width = 1000  # it folds no line of others
    editor.preserve_quotes = True
    editor.explicit_start = before.startswith("---")
    editor.indent(mapping=2, sequence=4, offset=2)
    data = editor.load(before) or {}
    data.setdefault("waivers", []).append(waiver.model_dump(exclude_none=True))
    text = io.StringIO()
    editor.dump(data, text)
    _parsed(path, text.getvalue())
    write_atomic(path, text.getvalue())


def load(root: Path, name: str = NAME, default: Settings | None = None) -> Settings:
    """The settings of the repository ``root``, the defaults where it has none.

    Raises ``DeepError`` that names each wrong field.
    """
    path = root / name
    try:
        return _parsed(path, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default or Settings()
    except UnicodeDecodeError as broken:
        raise DeepError(f"{path}: not UTF-8: {broken}", next_step="correct the file") from broken


def _parsed(path: Path, text: str) -> Settings:
    try:
        data = yaml.safe_load(text)
        return Settings.model_validate({} if data is None else data)
    except ValidationError as wrong:
        said = explained(wrong, Settings)
        raise DeepError(f"{path}: {said}", next_step="correct the file; docs/sqa.md describes it") from wrong
    except yaml.YAMLError as broken:
        raise DeepError(f"{path}: {not_yaml(broken)}", next_step="correct the file") from broken
