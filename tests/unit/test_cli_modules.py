"""The catalogue of modules, and what ``deep modules`` makes of words; deployments are in tests/services."""

from __future__ import annotations

import copy
import json
import shutil
import ssl
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from typer.testing import CliRunner

from testbed import modules, sites
from testbed.cli.modules import _assigned, app, complete_deployment, complete_module
from testbed.errors import DeepError
from testbed.login import Place
from testbed.modules import Module, Wish
from testbed.paths import repo_root, state_dir
from tests.unit.login_issuer import Authority, listening

HERE = Place("local", "x")
NAMES = ["anomaly-detector", "benchmark", "image-classifier"]
runner = CliRunner()


@pytest.fixture
def testbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state of a testbed ``x`` without an orchestrator."""
    shutil.copytree(repo_root() / "inventories", tmp_path / "inventories", ignore=shutil.ignore_patterns("secrets.yml"))
    monkeypatch.setattr(sites, "inventories", lambda: tmp_path / "inventories")
    monkeypatch.setenv("DEEP_STATE_DIR", str(tmp_path / "state"))
    folder = state_dir("x")
    (folder / "inventory").mkdir(parents=True)
    (folder / "public").mkdir()
    hosts = {"all": {"hosts": {"node1": {"ansible_host": "127.0.0.1"}}}}
    (folder / "inventory/hosts.yml").write_text(yaml.safe_dump(hosts))
    return folder


# --- the catalogue -------------------------------------------------------------------------------------------------


def metadata() -> dict[str, Any]:
    return copy.deepcopy(modules.module("image-classifier").metadata)


def test_every_module_is_as_the_schema_says() -> None:
    assert [one.name for one in modules.catalogue()] == NAMES


def wrong_image(one: dict[str, Any]) -> None:
    one["deployment"]["image"] = "registry.test:5000/x@sha256:0"


def no_title(one: dict[str, Any]) -> None:
    del one["title"]


def secret(one: dict[str, Any]) -> None:
    one["password"] = "x"


def no_date(one: dict[str, Any]) -> None:
    one["date_creation"] = "2026-13-01"


def same_twice(one: dict[str, Any]) -> None:
    one["keywords"] = ["a", "a"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (wrong_image, "deployment.image"),
        (no_title, "'title' is a required property"),
        (secret, "'password' was unexpected"),
        (no_date, "date_creation"),
        (same_twice, "keywords"),
    ],
)
def test_wrong_metadata_are_named(change: Any, said: str) -> None:
    one = metadata()
    assert modules.faults(one) == []
    change(one)
    (fault,) = modules.faults(one)
    assert said in fault


def test_a_broken_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(modules.catalogue_dir(), tmp_path / "modules")
    monkeypatch.setattr(modules, "catalogue_dir", lambda: tmp_path / "modules")
    file = tmp_path / "modules/image_classifier/metadata.json"
    file.write_text('{"title": ')
    with pytest.raises(DeepError, match=r"image_classifier/metadata\.json: no JSON"):
        modules.module("image-classifier")
    file.write_text('{"title": 7}')
    with pytest.raises(DeepError, match="title: 7 is not of type 'string'") as broken:
        modules.catalogue()
    assert broken.value.next_step == "correct the file"


def test_the_catalogue_says_what_is_there() -> None:
    """Models are entry points, their examples fit the template, and the health path is that of the model."""
    project = tomllib.loads((modules.catalogue_dir() / "pyproject.toml").read_text("utf-8"))["project"]
    for one in modules.catalogue():
        needs = one.deployment
        assert project["entry-points"]["deepaas.v2.model"][needs["model"]] == f"{needs['model']}.api"
        assert needs["health"] == f"/v2/models/{needs['model']}/"
        assert needs["image"] == one.metadata["sources"]["docker_registry_repo"]
        assert (repo_root() / one.metadata["sources"]["code"]).is_dir()
        assert {needs["template"], needs["gpu_template"]} == {each["template"] for each in one.metadata["tosca"]}


# --- commands that need no site ------------------------------------------------------------------------------------


def test_list_and_show() -> None:
    listed = runner.invoke(app, ["list"]).output
    assert all(name in listed for name in NAMES)
    assert [one["name"] for one in json.loads(runner.invoke(app, ["list", "--json"]).output)["modules"]] == NAMES
    shown = runner.invoke(app, ["show", "anomaly-detector"]).output
    assert "deep modules predict anomaly-detector sample=0" in shown
    assert "1 CPUs, 1024 MiB of memory, 0 GPUs" in shown
    assert json.loads(runner.invoke(app, ["show", "image-classifier", "--json"]).output)["license"] == "Apache-2.0"


def test_an_unknown_module_is_told_which_there_are() -> None:
    with pytest.raises(DeepError, match="there is no module nothing") as refused:
        modules.module("nothing")
    assert refused.value.needed == f"one of: {', '.join(NAMES)}"
    assert refused.value.exit_code == 2
    with pytest.raises(DeepError):
        modules.module("../../testbed")


def test_names_are_completed(testbed: Path) -> None:
    assert complete_module("im") == ["image-classifier"]
    modules._note(HERE, {"0a": "image-classifier", "1b": "image-classifier"})

    class Context:
        params: ClassVar = {"site": "local", "name": "x"}

    assert complete_deployment(Context(), "") == ["0a", "1b", "image-classifier"]  # type: ignore[arg-type]
    assert complete_deployment(Context(), "1") == ["1b"]  # type: ignore[arg-type]
    modules._note(HERE, {}, forget="1b")
    assert modules.noted(HERE) == ["0a", "image-classifier"]


def test_arguments_are_json_text_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "images.json"
    file.write_text("[[1, 2]]")
    words = ["samples=[1,2]", "label=seven", "number=7", f"images=@{file}", "text=a=b"]
    assert _assigned(words) == {
        "samples": [1, 2], "label": "seven", "number": 7, "images": [[1, 2]], "text": "a=b"
    }  # fmt: skip
    file.write_text("[")
    for word, said in (("samples", "not an argument"), ("=1", "not an argument"), (f"images=@{file}", "Expecting")):
        with pytest.raises(DeepError, match=said) as wrong:
            _assigned([word])
        assert wrong.value.exit_code == 2


# --- a site that is not complete -----------------------------------------------------------------------------------


def test_a_site_without_an_orchestrator_is_told_so(testbed: Path) -> None:
    with pytest.raises(DeepError, match="local --name x has no orchestrator") as refused:
        modules.statuses(HERE)
    assert "group orchestrator" in str(refused.value.found)
    assert refused.value.exit_code == 2


def test_an_image_that_the_registry_lacks_is_named(testbed: Path) -> None:
    with pytest.raises(DeepError, match=r"images\.json of the site is not on this machine"):
        modules.image(HERE, "deephdc/image-classifier")
    (testbed / "public/images.json").write_text(json.dumps({"deephdc/pause:3.10.2": "sha256:0"}))
    with pytest.raises(DeepError, match="has no image deephdc/image-classifier") as missing:
        modules.image(HERE, "deephdc/image-classifier")
    assert missing.value.found == "deephdc/pause:3.10.2"


def test_an_order_without_a_gpu_asks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "template", str)
    one = Module("image-classifier", metadata())
    plain = modules.order(HERE, one, Wish(inputs={"image": "x:1"}))
    assert plain["template"] == "kubernetes"
    assert plain["parameters"] == {
        "image": "x:1", "model_name": "image_classifier", "num_cpus": 1.0, "mem_size": "1024 MiB"
    }  # fmt: skip
    assert "userGroup" not in plain
    asked = modules.order(
        HERE, one, Wish(inputs={"image": "x:1", "gpu_model": "T4"}, gpus=2, organisation="imaging", template="own")
    )
    assert asked["template"] == "own"
    assert asked["userGroup"] == "imaging"
    assert (asked["parameters"]["num_gpus"], asked["parameters"]["gpu_model"]) == (2, "T4")


# --- TLS -----------------------------------------------------------------------------------------------------------


class Answering(BaseHTTPRequestHandler):
    """A module behind TLS."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"models": [{"id": "m"}]}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the library's
        pass


@contextmanager
def answering(context: ssl.SSLContext) -> Iterator[str]:
    with listening(Answering, context) as port:
        yield f"https://localhost:{port}"


def test_a_module_is_trusted_by_the_sites_authority_only(testbed: Path, tmp_path: Path) -> None:
    authority, stranger = Authority(), Authority()
    with answering(authority.context("localhost", tmp_path)) as endpoint:
        told = {"uuid": "0a", "endpoint": endpoint}
        for trusted in (None, stranger.pem):
            if trusted:
                (testbed / "public/ca.crt").write_bytes(trusted)
            with modules._module(HERE, told) as client, pytest.raises(DeepError, match="does not answer") as refused:
                modules._model(client, told)
            assert "CERTIFICATE_VERIFY_FAILED" in str(refused.value.found)
        (testbed / "public/ca.crt").write_bytes(authority.pem)
        with modules._module(HERE, told) as client:
            assert modules._model(client, told) == "m"


def test_a_published_module_is_reached_at_the_ingress_and_verified_by_its_name(testbed: Path, tmp_path: Path) -> None:
    name = "0a.imaging.modules.deep.test"
    authority = Authority()
    (testbed / "public/ca.crt").write_bytes(authority.pem)
    hosts = {
        "hosts": {"node1": {"ansible_host": "127.0.0.1"}},
        "children": {"kubernetes_ingress": {"hosts": {"node1": {}}}},
    }
    (testbed / "inventory/hosts.yml").write_text(yaml.safe_dump({"all": hosts}))
    # HERE has read its inventory.
    here = Place("local", "x")
    with answering(authority.context(name, tmp_path)) as endpoint:
        told = {"uuid": "0a", "endpoint": endpoint.replace("localhost", name)}
        with modules._module(here, told) as client:
            assert modules._model(client, told) == "m"
        other = {"uuid": "0a", "endpoint": endpoint.replace("localhost", f"x{name}")}
        with modules._module(here, other) as client, pytest.raises(DeepError, match="does not answer") as refused:
            modules._model(client, other)
        assert "CERTIFICATE_VERIFY_FAILED" in str(refused.value.found)


@pytest.mark.parametrize("endpoint", ["null:1", "file:///etc/passwd", "tcp://localhost:1"])
def test_an_address_of_another_kind_is_not_asked(testbed: Path, endpoint: str) -> None:
    with (
        pytest.raises(DeepError, match="no address that can be asked"),
        modules._module(HERE, {"uuid": "0a", "endpoint": endpoint}),
    ):
        pass
