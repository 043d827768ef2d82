"""What counts as left on a machine."""

from __future__ import annotations

import copy

import pytest

from tests.machine.state import State, left, now

CLEAN: State = {"groups": [], "links": ["eth0"], "servers": [], "testbeds": [], "settings": {"fs/aio-max-nr": "1"}}


@pytest.mark.parametrize("what", ["groups", "links", "servers", "testbeds"])
def test_what_is_new_is_left_and_what_went_is_not(what: str) -> None:
    after = copy.deepcopy(CLEAN)
    after[what].append("new")  # type: ignore[literal-required]
    assert left(CLEAN, after) == {what: ["new"]}
    assert left(after, CLEAN) == {}


def test_a_setting_counts_where_no_testbed_needs_it() -> None:
    after: State = {**CLEAN, "settings": {"fs/aio-max-nr": "2"}}
    assert left(CLEAN, after) == {"settings": {"fs/aio-max-nr": "2"}}
    assert left({**CLEAN, "testbeds": ["local"]}, after) == {}


def test_this_machine_can_be_looked_at() -> None:
    found = now()
    assert found["links"]
    assert any(found["settings"].values())
    assert left(found, found) == {}
