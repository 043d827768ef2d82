"""What every test shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed import engine


@pytest.fixture(scope="session", autouse=True)
def running_engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Docker Engine for live tests: one for all of them, stopped at the end if it was started here."""
    if not any(item.get_closest_marker("live") for item in request.session.items):
        yield
        return
    with engine.in_use():
        yield
    engine.stop_if_ours()
