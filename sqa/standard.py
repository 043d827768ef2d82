"""``sqa/standards/*.yml``: criteria of published standards as data, checked here before anything judges by them."""

from __future__ import annotations

import datetime
import difflib
import re
from collections import Counter
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from testbed.errors import DeepError

FOLDER = Path(__file__).resolve().parent / "standards"
ID = re.compile(r"(?P<family>(?:QC|SvcQC)\.[A-Z][a-z]{2})(?P<number>[0-9]{2})(?:\.(?P<part>[1-9][0-9]?))?")

Level = Literal["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "RECOMMENDED", "MAY", "none"]
# What a machine can run. A criterion that names none of these can only be attested by people.
Check = Literal[
    # of code
    "ruff",
    "pylint",
    "mypy",
    "bandit",
    "ansible-lint",
    "yamllint",
    "shellcheck",
    "hadolint",
    "semgrep",
    "checkov",
    "secrets",
    # of what a repository consists of
    "pip-audit",
    "licences",
    "coverage",
    "diff-cover",
    "doc-links",
    "sbom",
    "world-writable",
    "files",
    "git-history",
    # of what was deployed
    "molecule",
    "acceptance",
    "idempotence",
    "tls",
    "ssh",
    "hardening",
    "image-scan",
]
# The parser in C where there is one: the standards are long.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CHECKS: tuple[str, ...] = get_args(Check)
BINDING = ("MUST", "MUST NOT")  # levels that hold a tree back
LEVELS: tuple[str, ...] = get_args(Level)

CriterionId = Annotated[str, Field(pattern=rf"^{ID.pattern}$")]
FamilyId = Annotated[str, Field(pattern=r"^(QC|SvcQC)\.[A-Z][a-z]{2}$")]
Title = Annotated[str, Field(min_length=8, max_length=80, pattern=r"^\S.*[^\s.]$")]
Sentences = Annotated[str, Field(min_length=20, max_length=240, pattern=r"^[A-Z].*\.$")]
HttpsUrl = Annotated[str, Field(pattern=r"^https://\S+$")]


class Strict(BaseModel):
    """A model that refuses keys it does not know and is never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Criterion(Strict):
    """One criterion: what is asked for, how firmly, and what would show that it is met.

    ``inherited``: it has no keyword of its own, and ``level`` is the one with which its parent introduces it.
    ``source_id``: as the source writes it, where that breaks the source's own rule.
    ``note``: how a keyword was read that can be read in two ways.
    """

    id: CriterionId
    source_id: Annotated[str, Field(min_length=1)] | None = None
    level: Level
    inherited: bool = False
    title: Title
    evidence: Sentences
    checks: tuple[Check, ...]
    note: Sentences | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Criterion:
        if self.inherited and (self.parent is None or self.level == "none"):
            raise ValueError("inherited: there is no parent, or no level, to inherit")
        if len(set(self.checks)) != len(self.checks):
            raise ValueError("checks: one is named twice")
        return self

    @property
    def family(self) -> str:
        """The family it belongs to: ``QC.Lic`` of ``QC.Lic01.1``."""
        return self._id_part("family")

    @property
    def parent(self) -> str | None:
        """The criterion that it is a part of: ``QC.Lic01`` of ``QC.Lic01.1``, nothing of ``QC.Lic01``."""
        return self.family + self._id_part("number") if self._id_part("part") else None

    @property
    def place(self) -> tuple[int, int]:
        """Its place in the family: (1, 0) of ``QC.Lic01``, (1, 2) of ``QC.Lic01.2``."""
        return int(self._id_part("number")), int(self._id_part("part") or 0)

    def _id_part(self, name: str) -> str:
        found = ID.fullmatch(self.id)
        return (found[name] or "") if found else ""


class Source(Strict):
    """Where the standard is published, and the revision of its text that was read."""

    title: Annotated[str, Field(min_length=8)]
    repository: HttpsUrl
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    identifier: HttpsUrl


class Standard(Strict):
    """A published standard: where it is from, its families and its criteria, both in the order of the source."""

    name: Annotated[str, Field(min_length=8, max_length=80)]
    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+$")]
    date: datetime.date
    source: Source
    licence: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$")]
    families: dict[FamilyId, Annotated[str, Field(min_length=4, max_length=40)]]
    criteria: tuple[Criterion, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Standard:
        ids = [criterion.id for criterion in self.criteria]
        repeated = [name for name, times in Counter(ids).items() if times > 1]
        if repeated:
            raise ValueError(f"criteria: declared twice: {', '.join(repeated)}")
        orphans = [one.id for one in self.criteria if one.parent is not None and one.parent not in ids]
        if orphans:
            raise ValueError(f"criteria: no parent declared for {', '.join(orphans)}")
        self._check_order()
        return self

    def _check_order(self) -> None:
        """Raise ``ValueError`` unless criteria stand by family, in the order of ``families``, and by number in it."""
        used = list(dict.fromkeys(criterion.family for criterion in self.criteria))
        if used != list(self.families):
            raise ValueError(f"families: declared {', '.join(self.families)}, but criteria are of {', '.join(used)}")
        for before, after in pairwise(self.criteria):
            places = [(used.index(one.family), *one.place) for one in (before, after)]
            if places[0] > places[1]:
                raise ValueError(f"criteria: {after.id} comes after {before.id}")


def names() -> list[str]:
    """The standards that can be asked for: ``service``, ``software``."""
    return sorted(path.stem for path in FOLDER.glob("*.yml"))


def load(name: str) -> Standard:
    """The standard ``name``; raises ``DeepError`` for an unknown one or one whose file is wrong."""
    if name not in names():
        raise DeepError("unknown standard", found=name, needed=f"one of: {', '.join(names())}", next_step="name one")
    return _read_once(FOLDER / f"{name}.yml")


def load_all() -> dict[str, Standard]:
    """Every standard by its name; raises ``DeepError`` for one whose file is wrong."""
    return {name: load(name) for name in names()}


def find(identifier: str, standards: dict[str, Standard] | None = None) -> Criterion:
    """The criterion called ``identifier``, also as its source mistyped it, in ``standards`` (all when not given).

    Raises ``DeepError`` for an id that no standard has, with those that look like it.
    """
    loaded = load_all() if standards is None else standards
    criteria = [criterion for standard in loaded.values() for criterion in standard.criteria]
    for criterion in criteria:
        if identifier in (criterion.id, criterion.source_id):
            return criterion
    similar = difflib.get_close_matches(identifier, [criterion.id for criterion in criteria])
    raise DeepError(
        "unknown criterion",
        found=identifier,
        needed=f"an id such as {' or '.join(similar or ['QC.Lic01', 'SvcQC.Sec01.1'])}",
        next_step="see docs/sqa.md for how an id is read",
    )


def read(path: Path) -> Standard:
    """The standard that the file ``path`` declares; raises ``DeepError`` that names the file and each wrong field."""
    data: Any = None
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)  # nosec B506 # both are safe loaders
        return Standard.model_validate(data)
    except ValidationError as wrong:
        raise _error(path, "; ".join(_explain(one["loc"], one["msg"], data) for one in wrong.errors())) from wrong
    except yaml.YAMLError as broken:
        raise _error(path, f"not YAML: {broken}") from broken
    except UnicodeDecodeError as garbled:
        raise _error(path, "not UTF-8") from garbled
    except OSError as unreadable:
        raise _error(path, f"cannot be read: {unreadable.strerror}") from unreadable


_read_once = lru_cache(read)


def _error(path: Path, message: str) -> DeepError:
    return DeepError(f"{path}: {message}", next_step="correct the file")


def _explain(location: tuple[int | str, ...], reason: str, data: Any) -> str:
    """``FIELD: REASON``; a criterion is named by its id too, since nobody counts to the 57th."""
    field = [str(part) for part in location]
    if field[:1] == ["criteria"] and len(field) > 1:
        entry = data["criteria"][int(field[1])]
        if isinstance(entry, dict) and "id" in entry:
            field[1] += f" ({entry['id']})"
    return f"{'.'.join(field) or '(whole file)'}: {reason.removeprefix('Value error, ')}"
