"""Container image layers and archives whose bytes depend on their content alone."""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

# The fastest: layers go to a registry nearby, where packing costs more than it saves. Part of the result, so fixed.
GZIP_LEVEL = 1
EPOCH = "1970-01-01T00:00:00Z"
BLOCK = 1 << 20
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class PackedLayer:
    """A compressed layer: ``diff_id`` is the hash of its uncompressed form, ``digest`` of the file."""

    path: Path
    digest: str
    diff_id: str


class _HashingWriter(io.RawIOBase):
    """Passes bytes on and hashes them."""

    def __init__(self, sink: BinaryIO | gzip.GzipFile) -> None:
        super().__init__()
        self.sink = sink
        self.hash = hashlib.sha256()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any) -> int:
        """Write all of ``data``."""
        self.hash.update(data)
        self.sink.write(data)
        return len(data)


def pack_files(contents: Mapping[str, Path], target: Path) -> PackedLayer:
    """A layer that holds ``{absolute destination: file}``, their parent folders and an open /tmp."""
    members = {destination.lstrip("/"): source for destination, source in contents.items()}
    folders = {str(parent) for name in members for parent in Path(name).parents if str(parent) != "."}
    entries: list[tuple[tarfile.TarInfo, Path | None]] = [(_folder(name), None) for name in sorted(folders)]
    entries.append((_folder("tmp", 0o1777), None))
    entries += [(_regular(name, source, 0o755), source) for name, source in sorted(members.items())]
    return _pack(entries, target)


def pack_tree(root: Path, exclude: Iterable[str], target: Path) -> PackedLayer:
    """A layer with everything below ``root`` except what matches a pattern of ``exclude``.

    Patterns are relative to the root, as in a shell; what matches takes its content with it.
    """
    patterns = list(exclude)
    entries: list[tuple[tarfile.TarInfo, Path | None]] = []
    for folder, subfolders, names in os.walk(root):
        here = Path(folder)
        subfolders[:] = sorted(name for name in subfolders if not _excluded(here / name, root, patterns))
        kept = [here / name for name in sorted(names) if not _excluded(here / name, root, patterns)]
        entries += [_entry(path, root) for path in [here / name for name in subfolders] + kept]
        # A link to a folder is an entry, never a way to walk.
        subfolders[:] = [name for name in subfolders if not (here / name).is_symlink()]
    entries.sort(key=lambda entry: entry[0].name)
    return _pack(entries, target)


def _excluded(path: Path, root: Path, patterns: list[str]) -> bool:
    relative = str(path.relative_to(root))
    return any(fnmatch.fnmatchcase(relative, pattern) for pattern in patterns)


def _entry(path: Path, root: Path) -> tuple[tarfile.TarInfo, Path | None]:
    name = str(path.relative_to(root))
    if path.is_symlink():
        info = tarfile.TarInfo(name)
        info.type = tarfile.SYMTYPE
        info.linkname = str(path.readlink())
        info.mode = 0o777
        return info, None
    mode = path.stat().st_mode & 0o7777
    return (_folder(name, mode), None) if path.is_dir() else (_regular(name, path, mode), path)


def _folder(name: str, mode: int = 0o755) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    info.mode = mode
    return info


def _regular(name: str, source: Path, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = source.stat().st_size
    info.mode = mode
    return info


def _pack(entries: list[tuple[tarfile.TarInfo, Path | None]], target: Path) -> PackedLayer:
    with target.open("wb") as file:
        compressed = _HashingWriter(file)
        # Neither a name nor a time in the header: they would differ between two builds.
        with gzip.GzipFile(
            filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=cast(Any, compressed), mtime=0
        ) as packer:
            plain = _HashingWriter(packer)
            with tarfile.open(fileobj=cast(Any, plain), mode="w|", format=tarfile.GNU_FORMAT, bufsize=BLOCK) as archive:
                for info, source in entries:
                    _append(archive, info, source)
    return PackedLayer(target, compressed.hash.hexdigest(), plain.hash.hexdigest())


def _append(archive: tarfile.TarFile, info: tarfile.TarInfo, source: Path | None) -> None:
    if source is None:
        archive.addfile(info)
        return
    with source.open("rb") as content:
        archive.addfile(info, content)


def inspect_layer(path: Path) -> PackedLayer:
    """The hashes of a layer that is already packed."""
    plain = hashlib.sha256()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        with gzip.GzipFile(fileobj=file) as unpacker:
            while block := unpacker.read(BLOCK):
                plain.update(block)
    return PackedLayer(path, digest, plain.hexdigest())


def image_config(
    layers: list[PackedLayer],
    architecture: str,
    *,
    entrypoint: list[str],
    command: list[str],
    environment: Mapping[str, str],
    user: str | None = None,
) -> bytes:
    """The image's configuration as canonical JSON."""
    variables = {"PATH": DEFAULT_PATH, **environment}
    settings: dict[str, Any] = {"Env": [f"{name}={value}" for name, value in variables.items()]}
    if entrypoint:
        settings["Entrypoint"] = entrypoint
    if command:
        settings["Cmd"] = command
    if user:
        settings["User"] = user
    config = {
        "architecture": architecture,
        "os": "linux",
        "created": EPOCH,
        "config": settings,
        "history": [{"created": EPOCH} for _ in layers],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.diff_id}" for layer in layers]},
    }
    return json.dumps(config, sort_keys=True, separators=(",", ":")).encode()


def write_archive(target: Path, reference: str, config: bytes, layers: list[PackedLayer]) -> None:
    """One image in the format of ``docker save``, with compressed layers."""
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    names = [f"{layer.digest}.tar.gz" for layer in layers]
    manifest = json.dumps([{"Config": config_name, "RepoTags": [reference], "Layers": names}]).encode()
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in (("manifest.json", manifest), (config_name, config)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, layer in zip(names, layers, strict=True):
            _append(archive, _regular(name, layer.path, 0o644), layer.path)
