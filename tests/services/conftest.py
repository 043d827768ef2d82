"""What the tests of the services share."""

from __future__ import annotations

import pytest
from dbos._dbos import _get_or_create_dbos_registry


@pytest.fixture(scope="module")
def no_deployer() -> None:
    """Have DBOS forget the deployer of another module: it takes one for each process."""
    _get_or_create_dbos_registry().instance_info_map.clear()
