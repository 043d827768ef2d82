"""A Docker Engine of dictionaries: what the node life cycle uses of the SDK, with the engine's answers to mistakes."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound, NotFound

READY_ANSWER = b"state running\nkey ssh-ed25519 AAAAKEY root@x\nend\n"


def api_error(status: int, explanation: str) -> APIError:
    """An error as the engine's HTTP interface gives it."""
    response: Any = SimpleNamespace(status_code=status, reason="", url="unix")
    return APIError(explanation, response=response, explanation=explanation)


class FakeContainer:
    """A container that answers ``exec_run`` with ``answers`` (program -> status and output)."""

    def __init__(self, engine: FakeDocker, name: str, config: dict[str, Any]) -> None:
        self.engine = engine
        self.config = config
        self.files: dict[str, tuple[int, bytes]] = {}
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.image_id = getattr(engine.all_images.get(config["image"]), "id", config["image"])
        self.name = name
        self.id = f"id-{name}-{next(engine.numbers)}"
        self.labels: dict[str, str] = config["labels"]
        self.status = "created"

    @property
    def attrs(self) -> dict[str, Any]:
        endpoints = (self.config.get("networking_config") or {"EndpointsConfig": {}})["EndpointsConfig"]
        return {"Config": {"Image": self.config["image"]}, "NetworkSettings": {"Networks": endpoints}}

    def start(self, **_: Any) -> None:
        self.engine.call("start", self.name)
        self.status = self.engine.status_after_start

    def stop_now(self) -> None:
        self.status = "exited"

    def reload(self) -> None:
        self.engine.call("reload", self.name)

    def logs(self, **_: Any) -> bytes:
        return b"Failed to mount\n"

    def put_archive(self, path: str, data: bytes) -> bool:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for entry in tar:
                content = tar.extractfile(entry)
                self.files[f"{path}{entry.name}"] = (entry.mode, content.read() if content else b"")
        return True

    def exec_run(self, cmd: list[str], **_: Any) -> Any:
        code, output = self.answers.get(cmd[0].rpartition("/")[2], (0, self.engine.ready))
        return SimpleNamespace(exit_code=code, output=output)

    def remove(self, **options: Any) -> None:
        self.engine.call("remove", self.name)
        self.engine.removed[self.name] = options
        del self.engine.all_containers[self.name]


class FakeDocker:  # pylint: disable=too-many-instance-attributes # one for each part
    """Stands in for ``docker.DockerClient``; ``calls`` records what changes something, ``fail`` makes it fail."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.all_containers: dict[str, FakeContainer] = {}
        self.all_networks: dict[str, Any] = {}
        self.all_images: dict[str, Any] = {}
        self.replaced: list[Any] = []
        self.removed: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        self.fail: dict[str, APIError] = {}
        self.ready = READY_ANSWER
        self.status_after_start = "running"
        self.on_network_create: Callable[[str], None] = lambda _: None
        real = docker.APIClient(version="1.41")
        self.api = SimpleNamespace(
            create_host_config=real.create_host_config,
            create_endpoint_config=real.create_endpoint_config,
            create_networking_config=real.create_networking_config,
            create_container=self.create_container,
            import_image_from_file=self._import_image,
        )
        self.containers = SimpleNamespace(get=self._container, list=self._list_containers)
        self.networks = SimpleNamespace(get=self._network, list=self._list_networks, create=self._create_network)
        self.images = SimpleNamespace(get=self._image, list=self._list_images, remove=self._remove_image)

    def call(self, what: str, name: str) -> None:
        """Record a call; raise what the test wants it to raise."""
        self.calls.append((what, name))
        if what in self.fail:
            raise self.fail[what]

    def _container(self, name: str) -> FakeContainer:
        for container in self.all_containers.values():
            if name in {container.name, container.id}:
                return container
        raise NotFound(name)

    def _list_containers(self, filters: dict[str, str] | None = None, **options: bool) -> list[FakeContainer]:
        wanted = filters or {}
        key, _, value = wanted.get("label", "").partition("=")
        return [
            container
            for container in self.all_containers.values()
            if (options.get("all") or container.status == "running")
            and (not key or (key in container.labels and value in {"", container.labels[key]}))
            and wanted.get("ancestor", container.image_id) == container.image_id
        ]

    def create_container(self, image: str, *, name: str, **config: Any) -> dict[str, str]:
        self.call("create", name)
        if name in self.all_containers:
            raise api_error(409, f"name {name} is in use")
        self.all_containers[name] = FakeContainer(self, name, {"image": image, **config})
        return {"Id": str(self.all_containers[name].id)}

    def _network(self, name: str) -> Any:
        if name not in self.all_networks:
            raise NotFound(name)
        return self.all_networks[name]

    def _list_networks(self, filters: dict[str, str] | None = None) -> list[Any]:
        key = (filters or {}).get("label", "")
        return [network for network in self.all_networks.values() if not key or key in network.attrs["Labels"]]

    def _create_network(self, name: str, **config: Any) -> None:
        subnet = config["ipam"]["Config"][0]["Subnet"]
        self.call("network", subnet)
        self.on_network_create(subnet)
        self.add_network(name, subnet, config["labels"], config["options"])

    def add_network(
        self, name: str, subnet: str, labels: dict[str, str], options: dict[str, str] | None = None
    ) -> None:
        """A network as the engine describes it."""
        self.all_networks[name] = SimpleNamespace(
            name=name,
            attrs={"Labels": labels, "Options": options or {}, "IPAM": {"Config": [{"Subnet": subnet}]}},
            remove=lambda: self.all_networks.pop(name),
        )

    def _image(self, tag: str) -> Any:
        if tag not in self.all_images:
            raise ImageNotFound(tag)
        return self.all_images[tag]

    def _list_images(self, filters: dict[str, Any]) -> list[Any]:
        found = [*self.replaced, *([] if filters.get("dangling") else self.all_images.values())]
        return [image for image in found if filters["label"] in image.labels]

    def _remove_image(self, image: str, **_: Any) -> None:
        self.call("rmi", image)
        self.all_images = {tag: made for tag, made in self.all_images.items() if made.id != image}
        self.replaced = [made for made in self.replaced if made.id != image]

    def _import_image(self, archive: str, *, repository: str, tag: str, changes: list[str]) -> str:
        self.call("import", archive)
        labels = dict(pair.split("=", 1) for pair in next(c for c in changes if c.startswith("LABEL")).split()[1:])
        name = f"{repository}:{tag}"
        if name in self.all_images:
            old = self.all_images[name]
            self.replaced.append(SimpleNamespace(id=old.id, tags=[], labels=old.labels))
        self.all_images[name] = SimpleNamespace(
            id=f"sha256:{next(self.numbers)}", tags=[name], labels=labels, changes=changes
        )
        return "imported"
