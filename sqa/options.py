"""What ``sqa.yml`` says to one check, held against what that check takes."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, ValidationError

from sqa.check import EVERY_CHECK_TAKES, InconclusiveError, Look
from sqa.wrong import explained

STANDARDS = {"software": "QC.", "service": "SvcQC."}


class Options(BaseModel):
    """What a check takes; without fields: nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def taken[Taken: Options](look: Look, model: type[Taken]) -> Taken:
    """The check's own settings; raises ``InconclusiveError`` that names each one that is unknown or wrong."""
    try:
        return model.model_validate(
            {key: value for key, value in look.settings.items() if key not in EVERY_CHECK_TAKES}
        )
    except ValidationError as wrong:
        raise InconclusiveError(
            f"sqa.yml: checks: {look.check}: {explained(wrong, model)}; next: correct it there"
        ) from wrong


def asked(look: Look, criteria: Iterable[str]) -> list[str]:
    """Those of the criteria that belong to a standard which the repository is held against."""
    prefixes = tuple(STANDARDS[name] for name in look.standards)
    return [name for name in criteria if name.startswith(prefixes)]
