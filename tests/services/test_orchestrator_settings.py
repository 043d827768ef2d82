"""The settings of the orchestrator: what is wrong with them is said, without the secrets in them, before it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from deep_orchestrator import service
from deep_orchestrator.settings import InfrastructureManager, SettingsError, load
from deep_orchestrator.steps import Limits
from tests.services.crashing_worker import ROOT

SECRET = "0123456789" * 4  # nosec B105 # of nothing
MANAGED = {
    "kind": "infrastructure_manager", "url": "https://im.deep.test:8800", "authority": "/ca.crt",
    "kubernetes": "https://192.0.2.1:6443", "information": {"file": "/var/lib/site.json"},
}  # fmt: skip


def settings(**changed: Any) -> dict[str, Any]:
    said: dict[str, Any] = {
        "database": "sqlite:///orchestrator.sqlite", "executor": "one", "url": "https://orchestrator.deep.test:8444",
        "certificate": "/tls.crt", "key": "/tls.key", "identity": {"issuer": "https://iam.deep.test"},
        "delegation": {"client_id": "orchestrator", "client_secret": "s" * 20, "scopes": ["openid"], "secret": SECRET},
        "sites": {"here": MANAGED},
    }  # fmt: skip
    return {name: value for name, value in (said | changed).items() if value is not None}


def written(folder: Path, said: object, mode: int = 0o600) -> Path:
    path = folder / "settings.json"
    path.write_text(json.dumps(said), encoding="utf-8")
    path.chmod(mode)
    return path


def test_what_is_right_is_taken(tmp_path: Path) -> None:
    found = load(written(tmp_path, settings(), 0o640))
    site = found.sites["here"]
    assert isinstance(site, InfrastructureManager)
    assert site.namespace == "{organisation}"
    assert found.limits == Limits(attempt=1800, stuck=120, removal=300, sites=3)
    assert SECRET not in repr(found)


def test_limits_of_the_site_are_those_of_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = settings(
        database=f"sqlite:///{tmp_path}/db", sites={}, delegation=None, limits={"attempt": 600, "stuck": 30, "sites": 1}
    )
    begun = []
    monkeypatch.setattr(service, "Steps", lambda *given: begun.append(given[4]))
    monkeypatch.setattr(service, "working", lambda _engine, _executor, deployer, chore: nullcontext(deployer()))
    monkeypatch.setattr(service, "Deployer", lambda steps: steps)
    with service.serving(load(written(tmp_path, said))):
        assert begun == [Limits(attempt=600, stuck=30, removal=300, sites=1)]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"url": "http://orchestrator.deep.test"}, "url"),
        ({"identity": None}, "identity: Field required"),
        ({"prot": 1}, "prot: Extra inputs"),
        ({"port": 0}, "port"),
        ({"delegation": None}, "found no delegation, needed one for here"),
        ({"delegation": {"client_id": "o", "client_secret": "x" * 20, "scopes": [], "secret": SECRET[:20]}}, "secret"),
        ({"sites": {"here": {**MANAGED, "kind": "other"}}}, "sites.here"),
        ({"sites": {"here": {**MANAGED, "information": {}}}}, "found both or none of file and url"),
        ({"limits": {"attempt": 0}}, "limits.attempt: Input should be greater than 0"),
        ({"limits": {"sites": 1.5}}, "limits.sites"),
        ({"limits": {"tries": 1}}, "limits.tries: Extra inputs"),
        ({"callback_hosts": ["https://x"]}, "needed names of hosts"),
        (
            {"identity": {"issuer": "https://i", "organisations": [{"name": "a", "members": []}] * 2}},
            "needed each once",
        ),
    ],
)
def test_what_is_wrong_is_named_without_its_value(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        load(written(tmp_path, settings(**changed)))
    assert said in str(error.value)
    assert SECRET[:20] not in str(error.value)


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o644])
def test_settings_that_others_may_read_or_change_are_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SettingsError, match=f"found mode {mode:04o}"):
        load(written(tmp_path, settings(), mode))


def test_the_program_says_so_and_ends(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "deep_orchestrator", str(tmp_path / "nothing.json")]
    path = os.pathsep.join(str(ROOT / "services" / name) for name in ("orchestrator", "tosca"))
    done = subprocess.run(program, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "No such file" in done.stderr
