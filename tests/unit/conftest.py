"""What the unit tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.rendering import load_plugins

# Modules of the collection import each other by its name, which only Ansible's loader knows.
load_plugins()


@pytest.fixture(autouse=True)
def run_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own for what the real one holds for the whole machine."""
    folder = tmp_path_factory.mktemp("run")
    monkeypatch.setenv("DEEP_RUN_DIR", str(folder))
    return folder
