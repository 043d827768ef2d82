"""A look at the machine before and after all tests."""

from __future__ import annotations

import pytest

from tests.e2e.support import host_snapshot

BEFORE = pytest.StashKey[dict[str, object]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember how the machine is before any test; workers of pytest-xdist leave that to who started them."""
    if not hasattr(session.config, "workerinput"):
        session.config.stash[BEFORE] = host_snapshot()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when the machine is not as it was: while testbeds are raised side by side no test can tell."""
    before = session.config.stash.get(BEFORE, None)
    if before is None:
        return
    left = {
        what: (was, now)
        for (what, was), now in zip(before.items(), host_snapshot().values(), strict=True)
        if was != now
    }
    if left:
        print(f"\nthe machine is not as it was before the tests (found before and after: {left})")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
