"""Node images: a Debian root file system made by mmdebstrap and imported into Docker.

An image carries a fingerprint of everything it is made of, so it is made again exactly when that changes. The build
dies with the program that asked for it and leaves no mount behind; what it left on disk is removed by the next one.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import docker
import yaml
from docker.errors import APIError, ImageNotFound

from testbed import apt, host
from testbed.errors import DeepError
from testbed.files import require_space
from testbed.paths import cache_dir
from testbed.run import run

REPOSITORY = "deep-node"
LABEL = "org.deephdc.image.fingerprint"
DEFINITION = Path(__file__).resolve().parent / "node_image"
# Raised when what this module does with the definition changes.
FORMAT = 2
# Room for the root file system, its archive and the copy that Docker makes (about 0.5 GB each).
NEEDED_BYTES = 3 * 1024**3
# A process namespace of its own ends everything in it with the first process, which dies with us; a mount namespace
# of its own takes its mounts with it.
ISOLATED = (
    "setpriv", "--pdeathsig", "KILL",
    "unshare", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child",
)  # fmt: skip


@dataclass(frozen=True)
class Image:
    """A node image: release ``name`` (debian12), Debian ``suite`` and what its containers need in the environment."""

    name: str
    suite: str
    environment: dict[str, str]

    @property
    def tag(self) -> str:
        """Name of the image in Docker."""
        return f"{REPOSITORY}:{self.name}"


def releases() -> dict[str, Image]:
    """Every image that can be made, by name."""
    found = _definition()["releases"]
    return {name: Image(name, release["suite"], release["environment"]) for name, release in found.items()}


def named(name: str) -> Image:
    """The image ``name``; raises ``DeepError`` for one that is not declared."""
    known = releases()
    if name not in known:
        raise DeepError(
            "unknown node image",
            found=name,
            needed=f"one of: {', '.join(sorted(known))}",
            next_step="deep testbed up --image NAME",
        )
    return known[name]


def fingerprint(image: Image) -> str:
    """SHA-256 over every input of the image: definition, files, apt sources, CAs."""
    return hashlib.sha256(json.dumps(_inputs(image), sort_keys=True).encode()).hexdigest()


def present(client: docker.DockerClient, image: Image) -> bool:
    """Whether Docker has the image made of the present inputs."""
    return made_from(client, image) == fingerprint(image)


def made_from(client: docker.DockerClient, image: Image) -> str | None:
    """The fingerprint of the image that Docker has, or ``None``."""
    try:
        found = client.images.get(image.tag).labels.get(LABEL)
    except ImageNotFound:
        return None
    return str(found) if found else None


def ensure(client: docker.DockerClient, image: Image, log: Path) -> bool:
    """Make the image where it is missing or outdated; returns whether it was made. The output goes to ``log``."""
    wanted = fingerprint(image)
    if made_from(client, image) == wanted:
        return False
    with _build_folder(image) as folder:
        if made_from(client, image) == wanted:  # another command made it while this one waited
            return False
        require_space(folder.parent, NEEDED_BYTES, "a node image")
        archive = folder / "rootfs.tar"
        run(_mmdebstrap(image, folder, archive), log=log, env={"TMPDIR": str(folder), **_units()})
        _import(client, image, archive, wanted)
        _remove_replaced(client)
    return True


def remove(client: docker.DockerClient) -> list[str]:
    """Remove every node image and what interrupted builds left; returns the tags removed."""
    found = client.images.list(filters={"label": LABEL})
    for made in found:
        client.images.remove(str(made.id), force=True)
    shutil.rmtree(_folder(), ignore_errors=True)
    return sorted(tag for made in found for tag in made.tags)


def _definition() -> dict[str, Any]:
    return cast("dict[str, Any]", yaml.safe_load((DEFINITION / "image.yml").read_text(encoding="utf-8")))


def _inputs(image: Image) -> dict[str, Any]:
    files = {
        str(path.relative_to(DEFINITION)): [_mode(path), path.read_text(encoding="utf-8")]
        for path in _files(DEFINITION)
    }
    return {
        "format": FORMAT,
        "suite": image.suite,
        "files": files,
        "sources": apt.host_apt_sources(image.suite),
        "apt": apt.host_apt_options(),
        "certificates": host.local_certificates(),
    }


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _units() -> dict[str, str]:
    definition = _definition()
    return {"DISABLED": " ".join(definition["disabled_units"]), "MASKED": " ".join(definition["masked_units"])}


def _mmdebstrap(image: Image, folder: Path, archive: Path) -> list[str]:
    definition = _definition()
    if shutil.which("mmdebstrap") is None:
        raise DeepError(
            "program not found: mmdebstrap", next_step="sudo apt-get install mmdebstrap, or run 'make install'"
        )
    files = folder / "files.tar"
    _pack(files)
    sources = folder / "sources.list"
    sources.write_text("\n".join(apt.host_apt_sources(image.suite)) + "\n", encoding="utf-8")
    finish = folder / "finish.sh"
    shutil.copy(DEFINITION / "finish.sh", finish)
    options = [f"--aptopt={option}" for option in apt.host_apt_options()]
    options += [f"--dpkgopt=path-exclude={path}" for path in definition["excluded_paths"]]
    return [
        *ISOLATED,
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=tar",
        "--skip=output/dev,chroot/policy-rc.d,cleanup/apt",
        f"--include={','.join(definition['packages'])}",
        *options,
        # Before the first package: ours is the policy-rc.d that keeps services from starting, here and on the node.
        f"--setup-hook=tar-in {files} /",
        f'--customize-hook=chroot "$1" /bin/sh -eu < {finish}',
        image.suite,
        str(archive),
        str(sources),
    ]


def _pack(archive: Path) -> None:
    """The files of the image, owned by root whoever owns the checkout, and the host's own CAs."""
    with tarfile.open(archive, "w") as tar:
        for path in _files(DEFINITION / "rootfs"):
            _add(tar, str(path.relative_to(DEFINITION / "rootfs")), path.read_bytes(), _mode(path))
        for number, pem in enumerate(host.local_certificates()):
            _add(tar, f"usr/local/share/ca-certificates/host-{number}.crt", f"{pem}\n".encode(), 0o644)


def _mode(path: Path) -> int:
    """Whether git says that the file is a program is all that counts, not the umask of the checkout."""
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = mode
    tar.addfile(entry, io.BytesIO(content))


def _import(client: docker.DockerClient, image: Image, archive: Path, made_from_inputs: str) -> None:
    environment = {
        "container": "docker",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        **image.environment,
    }
    changes = [
        'CMD ["/usr/local/lib/deep-node/init"]',
        f"LABEL {LABEL}={made_from_inputs} org.deephdc.image.made={int(time.time())}",
        *(f"ENV {key}={value}" for key, value in environment.items()),
    ]
    try:
        said = client.api.import_image_from_file(str(archive), repository=REPOSITORY, tag=image.name, changes=changes)
    except APIError as refused:
        raise _not_imported(image, refused.explanation or str(refused)) from refused
    if made_from(client, image) != made_from_inputs:
        raise _not_imported(image, str(said))


def _not_imported(image: Image, said: str) -> DeepError:
    return DeepError(
        f"Docker did not import the image {image.tag}", found=said.strip()[-300:], next_step="look at Docker's log"
    )


def _remove_replaced(client: docker.DockerClient) -> None:
    """Remove images of ours that lost their name to a newer one and that no container uses."""
    for old in client.images.list(filters={"label": LABEL, "dangling": True}):
        name = str(old.id)
        if not client.containers.list(all=True, filters={"ancestor": name}):
            client.images.remove(name)


def _folder() -> Path:
    return cache_dir() / "images"


@contextmanager
def _build_folder(image: Image) -> Iterator[Path]:
    """An empty folder that no other build uses, gone afterwards; waits for a build of the same image."""
    _folder().mkdir(parents=True, exist_ok=True)
    with (_folder() / f"{image.name}.lock").open("a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in _folder().glob(f"build-{image.name}-*"):
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=f"build-{image.name}-", dir=_folder()) as folder:
            yield Path(folder)
