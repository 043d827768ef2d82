"""Sites are chosen for reasons, and each reason is said."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from deep_orchestrator.selection import Agreement, Ask, Offer, order

ASK = Ask(organisation="imaging", gpus=1, cpus=2, memory_mib=4096)


def offer(site: str, *, priority: int = 100, agreed_gpus: int | None = None, **changed: Any) -> Offer:
    has: dict[str, Any] = {"gpus_total": 4, "gpus_free": 2, "gpu_model": "T4", "cpus_free": 8, "memory_mib_free": 16384}
    agreements = {"imaging": Agreement(priority=priority, gpus=agreed_gpus)}
    return Offer(**{"site": site, "agreements": agreements, **has, **changed})


def ranks(*offers: Offer, ask: Ask = ASK, failures: dict[str, int] | None = None) -> list[str]:
    return [candidate.site for candidate in order(ask, offers, failures or {}) if candidate.rank]


@pytest.mark.parametrize(
    ("changed", "asked", "reason"),
    [
        ({"gpus_free": 0}, {}, "1 GPUs asked, 0 of 4 free"),
        ({"agreed_gpus": 0}, {}, "1 GPUs asked, 0 agreed with imaging"),
        ({}, {"gpu_model": "A100"}, "GPU A100 asked, has T4"),
        ({"gpu_model": None}, {"gpu_model": "A100"}, "GPU A100 asked, has none that it names"),
        ({"cpus_free": 1.5}, {}, "2 CPUs asked, 1.5 free"),
        ({"memory_mib_free": 1024}, {}, "4096 MiB of memory asked, 1024 free"),
        ({"images": frozenset({"one"})}, {"image": "other"}, "has no image other"),
        ({"agreements": {}}, {}, "has no agreement with imaging"),
    ],
)
def test_a_site_that_cannot_take_it_says_why(changed: dict[str, Any], asked: dict[str, Any], reason: str) -> None:
    (found,) = order(ASK.model_copy(update=asked), [offer("one", **changed)], {})
    assert (found.rank, found.reasons) == (None, [reason])


def test_everything_that_stands_in_the_way_is_said() -> None:
    (found,) = order(ASK, [offer("one", gpus_free=0, cpus_free=0)], {})
    assert len(found.reasons) == 2


def test_whoever_asks_for_no_gpu_needs_no_model() -> None:
    assert ranks(offer("one", gpus_free=0), ask=ASK.model_copy(update={"gpus": 0, "gpu_model": "A100"})) == ["one"]


def test_what_counts_and_in_which_order() -> None:
    plain, free = offer("plain"), offer("free", gpus_free=4)
    assert ranks(plain, free) == ["free", "plain"]
    near = ASK.model_copy(update={"near": "plain"})
    assert ranks(plain, free, ask=near) == ["plain", "free"]
    assert ranks(plain, free, ask=near, failures={"plain": 1}) == ["free", "plain"]
    assert ranks(plain, offer("free", priority=1), ask=near, failures={"free": 9}) == ["free", "plain"]
    assert ranks(offer("b"), offer("a")) == ["a", "b"]


def test_sites_that_can_take_it_come_first_with_what_speaks_for_them() -> None:
    found = order(ASK.model_copy(update={"near": "b"}), [offer("a", gpus_free=0), offer("b")], {"b": 2})
    assert [(candidate.site, candidate.rank) for candidate in found] == [("b", 1), ("a", None)]
    assert found[0].reasons == [
        "priority 100 agreed with imaging", "2 attempts failed of late", "has the data", "2 of 4 GPUs free",
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [{"gpus": -1}, {"gpus": "two"}, {"gpu": 1}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Ask.model_validate({"organisation": "imaging", **wrong})
