"""What declared.yml and a site's own variables say, held against what the suite understands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from sqa.wrong import explained


class Declaration(BaseModel):
    """One entry; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _path(given: str) -> str:
    if not given.startswith("/"):
        raise ValueError(f'found {given!r}, needed a path that begins with "/"')
    return given


def _reason(given: str) -> str:
    if not given.strip():
        raise ValueError("without a reason")
    return given


def _listed(given: object) -> object:
    return given if isinstance(given, list) else [given]


UrlPath = Annotated[str, AfterValidator(_path)]
Reason = Annotated[str, AfterValidator(_reason)]


class Http(Declaration):
    """What an endpoint answers: ``public`` is path or pattern to the reason why anybody may read it."""

    port: Annotated[list[int], BeforeValidator(_listed)]
    paths: list[UrlPath] = []
    public: dict[UrlPath, Reason] = {}


class Inlet(Declaration):
    """A way into the cluster; ``name`` may be a pattern, a port ``host-network``."""

    kind: Literal["Service", "Pod"]
    namespace: str
    name: str
    port: Annotated[list[int | str], BeforeValidator(_listed)]


class NotHttp(Declaration):
    """Of a listener, that it speaks something else than HTTP: the reason why it need not be asked who it lets in."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    port: Annotated[list[int], BeforeValidator(_listed)]
    not_http: Reason


def read[Entry: Declaration](model: type[Entry], kind: str, entries: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """The entries of a ``kind`` such as ``http``; raises ``ValueError`` that names what is wrong with one."""
    return [_read(model, kind, entry) for entry in entries]


def _read[Entry: Declaration](model: type[Entry], kind: str, entry: Mapping[str, Any]) -> Entry:
    try:
        return model.model_validate(entry)
    except ValidationError as wrong:
        raise ValueError(
            f"declared_{kind}, or {kind} in tests/acceptance/declared.yml: {explained(wrong, model)}; in {entry}"
        ) from wrong
