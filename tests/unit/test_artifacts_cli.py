"""``deep artifacts``: output for people and for programs, and exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed import console
from testbed.artifacts import api
from testbed.cli import main

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler on this host")


@dataclass(frozen=True)
class Done:
    status: int
    stdout: str
    stderr: str


Deep = Callable[..., Done]
Answer = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(console.out, "_width", 200)
    return tmp_path / "cache" / "artifacts"


@pytest.fixture
def deep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Deep:
    """The command line in this process: as its user calls it, without the cost of starting it each time."""

    def call(*arguments: str | Path) -> Done:
        monkeypatch.setattr("sys.argv", ["deep", "artifacts", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        return Done(status, *capsys.readouterr())

    return call


@pytest.fixture
def answer(deep: Deep) -> Answer:
    def call(*arguments: str | Path, status: int = 0) -> dict[str, Any]:
        done = deep(*arguments, "--json")
        assert done.status == status, done.stdout + done.stderr
        data: dict[str, Any] = json.loads(done.stdout)
        return data

    return call


def test_from_nothing_to_a_verified_bundle(answer: Answer, tmp_path: Path) -> None:
    first = answer("build", "gpu-simulator")
    assert [(item["name"], item["changed"]) for item in first["artifacts"]] == [("gpu-simulator", True)]
    assert not answer("build", "gpu-simulator")["artifacts"][0]["changed"]
    states = {item["name"]: item["state"] for item in answer("list")["artifacts"]}
    assert (states["gpu-simulator"], states["kubernetes"], states["flannel"]) == ("ready", "absent", "not held")
    assert answer("verify") == {"ok": True, "checked": 3, "problems": []}
    written = answer("bundle", tmp_path / "bundle", "gpu-simulator")
    assert written["artifacts"] == 1
    assert any(item.startswith("flannel: image ghcr.io/flannel-io/flannel:v") for item in written["lacking"])
    assert any(item.startswith("calico: https://") and item.endswith("/calico.yaml") for item in written["lacking"])
    readme = (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")
    assert all(f"- {item}\n" in readme for item in written["lacking"])
    assert answer("verify", "--bundle", tmp_path / "bundle")["ok"]
    refused = answer("verify", "gpu-simulator", "--bundle", tmp_path / "bundle", status=2)["error"]
    assert refused["message"] == "a bundle is verified as a whole"
    sums = tmp_path / "bundle" / "SHA256SUMS"
    sums.write_bytes(sums.read_bytes()[:-40])
    assert not answer("verify", "--bundle", tmp_path / "bundle", status=1)["ok"]


def test_names_are_completed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_DEEP_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "deep artifacts build kub")
    monkeypatch.setenv("COMP_CWORD", "3")
    monkeypatch.setattr("sys.argv", ["deep"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out.split() == ["kubernetes"]


def test_damage_ends_with_status_one_and_names_file_and_hashes(own_store: Path, deep: Deep, answer: Answer) -> None:
    answer("build", "pause")
    (entry,) = api.Store(own_store).records()[0].files.values()
    path = api.Store(own_store).object_path(entry.sha256)
    path.write_bytes(b"x" * entry.size)
    found = answer("verify", status=1)
    assert (found["ok"], found["problems"][0]["artifact"], found["problems"][0]["file"]) == (False, "pause", "pause")
    done = deep("verify")
    assert done.status == 1
    assert "pause/pause: not what was stored" in done.stderr
    assert entry.sha256 in done.stderr
    assert "deep artifacts build --rehash" in done.stderr
    assert answer("build", "pause", "--rehash")["artifacts"][0]["changed"]
    assert answer("verify")["ok"]


def test_unknown_name_is_wrong_usage(deep: Deep, answer: Answer) -> None:
    assert "no artefact is called nonsense" in answer("build", "nonsense", status=2)["error"]["message"]
    done = deep("build", "nonsense")
    assert done.status == 2
    assert "next: run 'deep artifacts list'" in done.stderr


def test_empty_store_is_said(answer: Answer) -> None:
    assert answer("verify", status=2)["error"]["message"] == "the store is empty"
    assert answer("serve", "--port", "0", status=2)["error"]["message"].startswith("no mirror at")


def test_list_says_what_was_never_exercised(deep: Deep, answer: Answer) -> None:
    listing = {item["name"]: item for item in answer("list")["artifacts"]}
    assert listing["kubernetes"]["exercised"] == {"upstream": False, "build": True}
    assert listing["nvidia-container-toolkit"]["exercised"] == {"build": True, "package": False}
    assert "upstream (not exercised)" in deep("list").stdout


def test_images_have_tags_and_upstream_references() -> None:
    images = api.images()
    assert images["pause"]["upstream"] == "registry.k8s.io/pause"
    assert images["toolbox"]["upstream"] is None
    assert images["kube-apiserver"]["tag"] == images["kube-proxy"]["tag"]
