"""What a site publishes becomes an offer; what cannot be believed is left out and says why."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from deep_cloud_info import schema
from deep_cloud_info.config import Configuration
from deep_cloud_info.glue import Images, Writer
from deep_cloud_info.resources import Gpus, Machine, Quota, Resources
from deep_orchestrator.offers import Offers, Source
from deep_orchestrator.selection import Ask, Offer, order
from tests.unit.login_issuer import listening

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GIB = 1024**3
CLUSTER = dict.fromkeys(("ca_file", "token_file"), "somewhere") | {"server": "https://api.example"}
REGISTRY = {"url": "https://registry.example:5000", "only": True}
AGREEMENTS = [{"organisation": "imaging", "priority": 5, "gpus": 3}, {"organisation": "climate"}]
ASK = Ask(organisation="imaging", gpus=1, cpus=1, memory_mib=1024)
DIGEST = f"sha256:{'1' * 64}"


def machine(gpus: int, free: int, model: str = "T4", cpus: int = 8) -> Machine:
    amounts = {"cpus": Decimal(16), "cpus_free": Decimal(cpus), "memory_mib": 4096, "memory_mib_free": 2048}
    return Machine(usable=True, gpus=gpus, gpus_free=free, kind=Gpus(model, simulated=True), **amounts)  # type: ignore[arg-type]


def published(*machines: Machine, site: str = "here", left: Any = None, made: datetime = NOW, **changed: Any) -> Any:
    """A document as the provider makes it."""
    settings = {"site": site, "kubernetes": CLUSTER, "registry": REGISTRY, "agreements": AGREEMENTS, **changed}
    writer = Writer(Configuration.model_validate(settings), made)
    quotas = {"imaging": Quota({"pods": "1"}, {"pods": "0"}, left or {})}
    images = Images([writer.image("registry.example:5000/deephdc/one:1", DIGEST)])
    found = writer.document(Resources("Kubernetes", "v1", list(machines), quotas), images)
    assert schema.problems(found) == []
    return found


@pytest.fixture
def site(tmp_path: Path) -> Any:
    """Write a document and read its offer."""

    def look(document: Any, now: datetime = NOW) -> Offer:
        path = tmp_path / "here.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        (found,) = Offers({"here": Source(file=path)}, clock=lambda: now)()
        return found

    return look


def decided(offer: Offer, **changed: Any) -> tuple[int | None, list[str]]:
    (found,) = order(ASK.model_copy(update=changed), [offer], {})
    return found.rank, found.reasons


def test_an_offer_has_what_the_site_has(site: Any) -> None:
    left = {"gpu": Decimal(2), "cpu": Decimal("1.5"), "memory": Decimal(GIB), "pods": Decimal(4)}
    offer = site(published(machine(4, 3), machine(2, 1, "A100"), left=left))
    assert (offer.gpus_total, offer.gpus_free, offer.models) == (6, 4, ["A100", "T4"])
    assert (offer.cpus_free, offer.memory_mib_free) == (16, 4096)
    agreement = offer.agreements["imaging"]
    assert (agreement.priority, agreement.gpus, agreement.gpus_left, agreement.pods_left) == (5, 3, 2, 4)
    assert (agreement.cpus_left, agreement.memory_mib_left) == (1.5, 1024)
    rank, reasons = decided(offer)
    assert rank == 1
    assert reasons[-2:] == ["4 of 6 GPUs free (simulated)", "2 GPUs left of the quota of imaging"]


@pytest.mark.parametrize(
    ("left", "asked", "reason"),
    [
        ({"gpu": Decimal(0)}, {}, "1 GPUs asked, 0 left of the quota of imaging"),
        ({"cpu": Decimal("0.5")}, {}, "1 CPUs asked, 0.5 left of the quota of imaging"),
        ({"memory": Decimal(GIB // 2)}, {}, "1024 MiB of memory asked, 512 left of the quota of imaging"),
        ({"pods": Decimal(0)}, {}, "1 pods asked, 0 left of the quota of imaging"),
        ({}, {"gpu_model": "A100", "gpus": 2}, "2 GPUs A100 asked, 1 of 2 free"),
        ({}, {"gpu_model": "H100"}, "GPU H100 asked, has A100, T4"),
        ({}, {"image": "registry.example:5000/deephdc/other:1"}, "has no image registry.example:5000/deephdc/other:1"),
    ],
)
def test_what_an_organisation_cannot_have_is_said(site: Any, left: Any, asked: Any, reason: str) -> None:
    assert decided(site(published(machine(4, 3), machine(2, 1, "A100"), left=left)), **asked) == (None, [reason])


def test_what_is_free_on_several_machines_only_does_not_fit(site: Any) -> None:
    offer = site(published(machine(2, 2, cpus=1), machine(2, 1, cpus=8)))
    assert decided(offer, gpus=2, cpus=1)[0] == 1
    assert decided(offer, gpus=1, cpus=8)[0] == 1
    for asked in ({"gpus": 3, "cpus": 1}, {"gpus": 2, "cpus": 2}):
        rank, reasons = decided(offer, **asked)
        assert (rank, reasons[0].endswith("asked, free on several machines only")) == (None, True), reasons


def test_images_are_found_by_tag_and_by_digest(site: Any) -> None:
    offer = site(published(machine(4, 3)))
    for image in ("registry.example:5000/deephdc/one:1", f"registry.example:5000/deephdc/one@{DIGEST}"):
        assert decided(offer, image=image)[0] == 1
    assert decided(site(published(machine(4, 3), registry=None)), image="anything")[0] == 1


def test_the_site_that_leaves_the_organisation_more_comes_first(tmp_path: Path) -> None:
    sources = {}
    for name, free, left in (("many", 4, 1), ("few", 2, 2)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(published(machine(4, free), site=name, left={"gpu": Decimal(left)})))
        sources[name] = Source(file=path)
    found = order(ASK, Offers(sources, clock=lambda: NOW)(), {})
    assert [one.site for one in found] == ["few", "many"]


@pytest.mark.parametrize(
    ("age", "validity", "fresh"),
    [
        (0, 300, True), (300, 300, True), (301, 300, False), (900, 86400, True), (901, 86400, False), (-59, 300, True),
        (-61, 300, False),
    ],
)  # fmt: skip
def test_what_is_stale_is_left_out(site: Any, age: int, validity: int, fresh: bool) -> None:
    offer = site(published(machine(1, 1), validity_seconds=validity), NOW + timedelta(seconds=age))
    rank, reasons = decided(offer)
    assert (rank == 1) is fresh
    assert fresh or ("stale" in reasons[0] or "future" in reasons[0])


def broken(change: Any) -> Any:
    document = published(machine(1, 1))
    change(document)
    return document


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("", "not valid (found the document"),
        ("{", "not valid (found the document"),
        ("[]", "not valid"),
        (broken(lambda it: it.pop("Share")), "found Share: Field required"),
        (broken(lambda it: it["CloudComputingService"][0].update(Type="other")), "CloudComputingService.0.Type"),
        (broken(lambda it: it["CloudComputingService"][0].update(CreationTime="2026-01-02T03:04")), "CreationTime"),
        (broken(lambda it: it["CloudComputingManager"][0]["OtherInfo"].update(gpus_free=-1)), "gpus_free"),
        (published(machine(1, 1), site="other"), "is another site's (found other; needed here)"),
    ],
)  # fmt: skip
def test_what_cannot_be_believed_is_left_out(site: Any, document: Any, reason: str) -> None:
    rank, reasons = decided(site(document))
    assert rank is None
    assert reason in reasons[0]


def test_a_site_that_says_nothing_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "here.json"
    path.write_text(json.dumps(published(machine(1, 1))))
    sources = {"gone": Source(file=tmp_path / "gone.json"), "here": Source(file=path)}
    found = order(ASK, Offers(sources, clock=lambda: NOW)(), {})
    assert [(one.site, one.rank) for one in found] == [("here", 1), ("gone", None)]
    assert "No such file" in found[1].reasons[0]
    assert Offers({})() == []


def test_what_is_too_long_is_not_read(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deep_orchestrator.offers.MAXIMUM_BYTES", 100)
    assert "too long" in decided(site(published(machine(1, 1))))[1][0]


@pytest.mark.parametrize("wrong", [{}, {"file": "a", "url": "https://b"}, {"url": "http://plain.example"}])
def test_a_source_is_a_file_or_https(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Source.model_validate(wrong)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A folder over https on loopback: its address, and the folder with ``ca.crt`` in it."""
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "ca.crt")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", *subject, *files], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.crt", tmp_path / "key")
    with listening(partial(SimpleHTTPRequestHandler, directory=str(tmp_path)), context) as port:
        yield f"https://127.0.0.1:{port}", tmp_path


def test_documents_come_over_verified_https(served: tuple[str, Path]) -> None:
    address, folder = served
    (folder / "here.json").write_text(json.dumps(published(machine(1, 1))))
    sources = {
        "here": Source(url=f"{address}/here.json", authority=folder / "ca.crt"),
        "untrusted": Source(url=f"{address}/here.json"),
        "missing": Source(url=f"{address}/none.json", authority=folder / "ca.crt"),
    }
    found = {one.site: one for one in Offers(sources, clock=lambda: NOW)()}
    assert decided(found["here"])[0] == 1
    assert "CERTIFICATE_VERIFY_FAILED" in found["untrusted"].unknown
    assert "found status 404" in found["missing"].unknown
