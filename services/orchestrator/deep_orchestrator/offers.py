"""What sites publish, read for the selection: GLUE 2.1 documents of their Cloud Info Providers, from files or https.

What is stale, invalid or of another site is not believed; the site then stays in the selection with the reason.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

import httpx
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from deep_orchestrator.selection import Agreement, Gpus, Offer, Room

# However long a site says that its document is valid.
MAXIMUM_AGE = timedelta(minutes=15)
# What clocks may differ by.
TOLERANCE = timedelta(minutes=1)
MAXIMUM_BYTES = 32 * 1024**2
TIMEOUT = 10
READERS = 8
LOG = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


class OfferError(Exception):
    """Nothing is known of a site: the text says why."""


class _Part(BaseModel):
    # A document says more than is read here.
    model_config = ConfigDict(frozen=True, extra="ignore")


class _SiteInfo(_Part):
    site: str
    only_images_of_registry: bool = False


class _Service(_Part):
    Type: Literal["org.deephdc.containers"]
    CreationTime: AwareDatetime
    Validity: Annotated[int, Field(ge=1)]
    OtherInfo: _SiteInfo


class _Totals(_Part):
    cpus_free: Amount
    memory_mib_free: Count
    gpus_total: Count
    gpus_free: Count


class _Manager(_Part):
    OtherInfo: _Totals


class _GpuInfo(_Part):
    free: Count
    simulated: bool


class _Accelerator(_Part):
    Model: str | None = None
    Number: Count
    OtherInfo: _GpuInfo


class _RoomInfo(_Part):
    cpus: Amount
    gpus: Count
    gpu_model: str | None = None


class _InstanceType(_Part):
    RAM: Count
    OtherInfo: _RoomInfo


class _ImageInfo(_Part):
    repository: str
    digest: str


class _Image(_Part):
    Name: str
    OtherInfo: _ImageInfo


class _Left(_Part):
    gpus: Count | None = None
    cpus: Amount | None = None
    memory_mib: Count | None = None
    pods: Count | None = None


class _Quota(_Part):
    left: _Left


class _Terms(_Part):
    organisation: str
    priority: int
    gpus_agreed: Count | None = None
    quota: _Quota


class _Share(_Part):
    OtherInfo: _Terms


class Document(_Part):
    """The parts of a document that the selection reads."""

    CloudComputingService: Annotated[list[_Service], Field(min_length=1, max_length=1)]
    CloudComputingManager: Annotated[list[_Manager], Field(min_length=1, max_length=1)]
    CloudComputingVirtualAccelerator: list[_Accelerator]
    CloudComputingInstanceType: list[_InstanceType]
    CloudComputingImage: list[_Image]
    Share: list[_Share]


class Source(BaseModel):
    """Where a site's document is: a file, or an https address with the certificates to hold its server's against."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path | None = None
    url: Annotated[str, Field(pattern=r"^https://[^\s/]+")] | None = None
    authority: Path | None = None

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.file is None) == (self.url is None):
            raise ValueError("found both or none of file and url, needed one of them")
        return self


def read(source: Source) -> bytes:
    """The text of a document. Raises OfferError."""
    try:
        return _file(source.file) if source.file else _fetch(str(source.url), source.authority)
    except (OSError, ssl.SSLError, httpx.HTTPError) as error:
        found = str(error) or type(error).__name__
        raise OfferError(
            f"its information cannot be read (found {found}; needed {source.file or source.url})"
        ) from None


def _file(path: Path) -> bytes:
    with path.open("rb") as stream:
        return _limited(stream.read(MAXIMUM_BYTES + 1))


def _fetch(url: str, authority: Path | None) -> bytes:
    verify = ssl.create_default_context(cafile=str(authority) if authority else None)
    found = b""
    with httpx.Client(verify=verify, timeout=TIMEOUT) as client, client.stream("GET", url) as answer:
        if answer.status_code != httpx.codes.OK:
            raise OfferError(f"its information cannot be read (found status {answer.status_code}; needed 200 of {url})")
        for piece in answer.iter_bytes():
            found = _limited(found + piece)
    return found


def _limited(text: bytes) -> bytes:
    if len(text) > MAXIMUM_BYTES:
        raise OfferError(f"its information is too long (found more than {MAXIMUM_BYTES} bytes; needed no more)")
    return text


def parsed(text: bytes) -> Document:
    """A document. Raises OfferError that names the first fault."""
    try:
        return Document.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise OfferError(f"its information is not valid (found {place}: {first['msg']}; needed GLUE 2.1)") from None


def check_age(document: Document, now: datetime) -> None:
    """Raise OfferError where a document is stale, or made by a clock that is ahead of ours."""
    (service,) = document.CloudComputingService
    age = (now - service.CreationTime).total_seconds()
    allowed = min(service.Validity, MAXIMUM_AGE.total_seconds())
    if age > allowed:
        raise OfferError(f"its information is stale (found {age:.0f} s old; needed {allowed:.0f} s or less)")
    if age < -TOLERANCE.total_seconds():
        raise OfferError(f"its information is from the future (found {-age:.0f} s ahead; needed one time everywhere)")


def offer(document: Document, site: str) -> Offer:
    """What a site offers. Raises OfferError where the document is another site's."""
    (service,), (manager,) = document.CloudComputingService, document.CloudComputingManager
    if service.OtherInfo.site != site:
        raise OfferError(f"its information is another site's (found {service.OtherInfo.site}; needed {site})")
    kinds = tuple(
        Gpus(model=one.Model, total=one.Number, free=one.OtherInfo.free, simulated=one.OtherInfo.simulated)
        for one in document.CloudComputingVirtualAccelerator
    )
    return Offer(
        site=site,
        gpus_total=manager.OtherInfo.gpus_total,
        gpus_free=manager.OtherInfo.gpus_free,
        gpu_model=kinds[0].model if len(kinds) == 1 else None,
        gpus=kinds,
        cpus_free=manager.OtherInfo.cpus_free,
        memory_mib_free=manager.OtherInfo.memory_mib_free,
        rooms=tuple(
            Room(
                gpus=one.OtherInfo.gpus, gpu_model=one.OtherInfo.gpu_model, cpus=one.OtherInfo.cpus, memory_mib=one.RAM
            )
            for one in document.CloudComputingInstanceType
        ),
        images=_images(document) if service.OtherInfo.only_images_of_registry else None,
        agreements={share.OtherInfo.organisation: _agreement(share.OtherInfo) for share in document.Share},
    )


def _images(document: Document) -> frozenset[str]:
    """Names by tag and by digest: an order may use either."""
    by_digest = {f"{one.OtherInfo.repository}@{one.OtherInfo.digest}" for one in document.CloudComputingImage}
    return frozenset({one.Name for one in document.CloudComputingImage} | by_digest)


def _agreement(terms: _Terms) -> Agreement:
    left = terms.quota.left
    return Agreement(
        priority=terms.priority,
        gpus=terms.gpus_agreed,
        gpus_left=left.gpus,
        cpus_left=left.cpus,
        memory_mib_left=left.memory_mib,
        pods_left=left.pods,
    )


class Offers:
    """What all sites offer now, read anew at each call. ``sources`` by the name of the site."""

    def __init__(
        self, sources: Mapping[str, Source], clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._sources, self._clock = dict(sources), clock

    def __call__(self) -> list[Offer]:
        """One offer for each site; of a site that is left out, one that says why."""
        if not self._sources:
            return []
        with ThreadPoolExecutor(max_workers=READERS) as readers:
            return list(readers.map(self._one, self._sources))

    def _one(self, site: str) -> Offer:
        try:
            document = parsed(read(self._sources[site]))
            check_age(document, self._clock())
            return offer(document, site)
        except OfferError as error:
            LOG.warning("%s is left out: %s", site, error)
            return Offer(site=site, unknown=str(error))
