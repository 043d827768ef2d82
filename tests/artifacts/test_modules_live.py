"""The images of the modules, as a site runs them: not root, nothing to write but /tmp, no right that can be missed."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from testbed import engine, modules
from testbed.artifacts import api
from testbed.artifacts.declaration import ImageBuild, PythonBuild, load_all
from tests.artifacts.module_containers import COMPILED_THERE, running

pytestmark = pytest.mark.live

BUILD = load_all()["modules"].sources.build
assert isinstance(BUILD, ImageBuild)
VERSION, NAMES = api.version("modules"), sorted(BUILD.images)
LARGEST = 110 << 20


@pytest.fixture(scope="module")
def images() -> Iterator[docker.DockerClient]:
    """The engine with both images; they are taken away again."""
    api.ensure(["modules"])
    client = engine.client()
    for one in map(modules.module, NAMES):
        with (api.mirror_dir() / "modules" / VERSION / f"{one.name}.tar").open("rb") as archive:
            client.images.load(archive)
    yield client
    for one in map(modules.module, NAMES):
        client.images.remove(f"deephdc/{one.name}:{VERSION}", force=True)


def known(found: dict[str, Any]) -> list[int]:
    """What a module says of what is known: digits, or those rows of events that it found."""
    if "digits" in found:
        return [digit["label"] for digit in found["digits"]]
    return sorted({anomaly["row"] for anomaly in found["anomalies"]} & set(found["truth"]))


@pytest.mark.parametrize("name", NAMES)
def test_an_image_answers_its_example(images: docker.DockerClient, name: str) -> None:
    one = modules.module(name)
    model = one.deployment["model"]
    with running(images, one, VERSION) as (container, http):
        answer = http.post(f"/v2/models/{model}/predict/", json=one.deployment["example"])
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["predictions"]
        assert found["computed_on"] == "cpu"
        assert known(found) == found["truth"]
        assert [each["id"] for each in http.get("/v2/models/").json()["models"]] == [model]
        wrong = http.post(f"/v2/models/{model}/predict/", json={})
        assert wrong.status_code == 422
        who = container.exec_run(["/usr/bin/python3", "-c", "import os; print(os.getuid(), os.getgid())"])
        assert bytes(who.output).split() == [b"65532", b"65532"]  # type: ignore[arg-type]  # it is no stream
        write = container.exec_run(["/usr/bin/python3", "-c", "open('/opt/deep-modules/x', 'w')"])
        assert write.exit_code != 0
        assert container.exec_run(["/bin/sh", "-c", "true"]).exit_code != 0


def test_nothing_has_to_be_compiled_when_a_container_starts(images: docker.DockerClient) -> None:
    build = load_all()["deep-modules"].sources.build
    assert isinstance(build, PythonBuild)
    assert build.bytecode
    one = modules.module("image-classifier")
    argv = ["/usr/bin/python3", "-S", "-c", COMPILED_THERE, "/opt/deep-modules", *build.bytecode.imports]
    said = images.containers.run(
        f"{one.deployment['image']}:{VERSION}", entrypoint=argv, command=[], remove=True, read_only=True,
        tmpfs={"/tmp": ""},  # nosec B108  # in the container
    ).decode()  # fmt: skip
    count, *missing = said.splitlines()[-1].split()
    assert int(count) > 1000
    assert missing == []


def test_bytecode_says_nothing_of_where_and_when_it_was_made(images: docker.DockerClient) -> None:
    with tarfile.open(api.mirror_dir() / "deep-modules" / api.version("deep-modules") / "python3.13.tar.gz") as layer:
        made = {one.name: layer.extractfile(one) for one in layer.getmembers() if one.name.endswith(".pyc")}
        contents = {name: file.read() for name, file in made.items() if file}
    assert len(contents) > 1000
    # A hash of its source in place of a time, which nobody compares: the layer cannot be changed.
    assert {content[4:8] for content in contents.values()} == {b"\1\0\0\0"}
    assert all(b"/opt/deep-modules/" in content for content in contents.values())
    assert not [name for name, content in contents.items() if b"bytecode-root" in content]


def test_images_are_small_and_share_all_layers(images: docker.DockerClient) -> None:
    found = [images.images.get(f"deephdc/{name}:{VERSION}").attrs for name in NAMES]
    assert len({json.dumps(one["RootFS"]["Layers"]) for one in found}) == 1
    for name in NAMES:
        assert (api.mirror_dir() / "modules" / VERSION / f"{name}.tar").stat().st_size < LARGEST
