"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.support import NAME, host_snapshot, run_deep


@pytest.fixture(scope="session")
def host_before() -> dict[str, object]:
    """What of the machine a testbed may change while it is up."""
    return host_snapshot()


@pytest.fixture(scope="session", autouse=True)
def removed_afterwards() -> Iterator[None]:
    """No testbed of an earlier, broken run; none left by this one."""
    run_deep("testbed", "down", f"--name={NAME}")
    yield
    run_deep("testbed", "down", f"--name={NAME}")
