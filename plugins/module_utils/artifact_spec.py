# Copyright: deep-testbed maintainers
# Apache License 2.0 (see LICENSE)
"""From a declaration and a site's choice of sources to what a node installs (runs on the controller)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import yaml
from ansible_collections.deephdc.testbed.plugins.module_utils.artifact_files import parse_checksums

SOURCES = ("mirror", "upstream", "package")
# Two habits of naming an architecture in the address of a release.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
RELEASE_ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}
SUMS = "SHA256SUMS"


class SpecError(Exception):
    """A message for the user: what, what was found, what is needed."""


@dataclass(frozen=True)
class Site:
    """What a site says about artefacts; ``machine`` as the kernel of the nodes names it.

    ``checksums`` is a folder here that holds NAME/VERSION/SHA256SUMS; empty where the mirror is trusted.
    ``sha256`` is the hash of the one file of an artefact whose publisher gives none (``checksum_by_site``).
    """

    sources: list[str]
    mirror: str
    directory: str
    machine: str
    checksums: str = ""
    sha256: str = ""


class Declarations:
    """The declarations of a folder, read once each; the default folder is that of this collection."""

    def __init__(self, folder: str | None = None) -> None:
        here = os.path.realpath(__file__)
        self.folder = folder or os.path.join(os.path.dirname(here), "..", "..", "artifacts")
        self._loaded: dict[str, dict[str, Any]] = {}

    def load(self, name: str) -> dict[str, Any]:
        """The declaration of ``name``; ``SpecError`` lists the known names when there is none."""
        if name not in self._loaded:
            path = os.path.join(self.folder, f"{name}.yml")
            if not os.path.isfile(path):
                raise SpecError(f"no artefact is called {name} (needed: one of {', '.join(self.names())})")
            with open(path, encoding="utf-8") as source:
                data = yaml.safe_load(source)
            if not isinstance(data, dict) or not {"name", "version", "sources"} <= set(data):
                raise SpecError(f"{path}: no declaration of an artefact (needed: name, version, sources)")
            self._loaded[name] = data
        return self._loaded[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(entry[:-4] for entry in os.listdir(self.folder) if entry.endswith(".yml"))

    def versions(self) -> dict[str, str]:
        """Versions by name, with underscores where names have dashes."""
        return {name.replace("-", "_"): str(self.load(name)["version"]) for name in self.names()}


def specification(declarations: Declarations, name: str, site: Site, only: list[str] | None = None) -> dict[str, Any]:
    """What the module ``artifact`` installs for ``name`` at ``site``.

    ``only`` names files; without it all that are not optional are taken. Raises ``SpecError``.
    """
    data = declarations.load(name)
    version = str(data["version"])
    source = _choose(data, site)
    spec: dict[str, Any] = {
        "name": name,
        "version": version,
        "source": source,
        "directory": f"{site.directory}/{name}/{version}",
        "base_url": "",
        "checksums_url": "",
        "files": [],
        "packages": data["sources"].get("package") or {},
        "images": _images(declarations, data),
    }
    if source == "package":
        return spec
    chosen = _chosen_files(data, only)
    if source == "mirror":
        spec["base_url"] = f"{site.mirror.rstrip('/')}/{name}/{version}"
        spec["files"] = [_file(entry, f"{spec['base_url']}/{entry['name']}") for entry in chosen]
        if _by_site(data):
            spec["files"][0]["sha256"] = site.sha256
        elif site.checksums:
            _add_hashes(spec["files"], os.path.join(site.checksums, name, version, SUMS))
        else:
            spec["checksums_url"] = f"{spec['base_url']}/{SUMS}"
    elif "upstream" in data["sources"]:
        spec["files"] = [_upstream_file(data, entry, site) for entry in chosen]
    return spec


def _by_site(data: dict[str, Any]) -> bool:
    return bool((data["sources"].get("upstream") or {}).get("checksum_by_site"))


def _choose(data: dict[str, Any], site: Site) -> str:
    unknown = [source for source in site.sources if source not in SOURCES]
    if unknown:
        raise SpecError(f"artifact_sources: unknown source (found {', '.join(unknown)}; needed: {', '.join(SOURCES)})")
    available = _available(data)
    for source in site.sources:
        if source not in available:
            continue
        if source == "mirror" and not site.mirror:
            raise SpecError(
                f"{data['name']}: artifact_sources asks for a mirror "
                "(found artifact_mirror empty; needed: its http, https or file address)"
            )
        return source
    raise SpecError(
        f"{data['name']} comes from none of the site's sources "
        f"(found artifact_sources {', '.join(site.sources) or 'empty'}; needed: one of {', '.join(available)})"
    )


def _available(data: dict[str, Any]) -> list[str]:
    """A mirror can hold whatever is built or downloaded; images have an upstream where each names one.

    The mirror of images that are neither is the site's registry.
    """
    sources = data["sources"]
    found = ["mirror"] if {"build", "upstream", "registry"} & set(sources) else []
    if "upstream" in sources or any(image.get("upstream") for image in _declared_images(data).values()):
        found.append("upstream")
    return found + (["package"] if sources.get("package") else [])


def _all_files(data: dict[str, Any]) -> list[dict[str, Any]]:
    if data.get("files"):
        return list(data["files"])
    images = (data["sources"].get("build") or {}).get("images") or {}
    return [{"name": f"{name}.tar", "mode": "0644"} for name in images]


def _chosen_files(data: dict[str, Any], only: list[str] | None) -> list[dict[str, Any]]:
    files = _all_files(data)
    if only is None:
        return [entry for entry in files if not entry.get("optional")]
    unknown = sorted(set(only) - {entry["name"] for entry in files})
    if unknown:
        names = ", ".join(entry["name"] for entry in files)
        raise SpecError(f"{data['name']} has no file {', '.join(unknown)} (needed: one of {names})")
    return [entry for entry in files if entry["name"] in only]


def _file(entry: dict[str, Any], address: str) -> dict[str, Any]:
    return {
        "name": entry["name"],
        "src": address,
        "dest": entry.get("dest", ""),
        "mode": entry.get("mode", "0755"),
        "copy": entry.get("copy", False),
        "unpack": entry.get("unpack", ""),
    }


def _add_hashes(files: list[dict[str, Any]], path: str) -> None:
    """Give each file the hash that the control machine has of it."""
    try:
        with open(path, encoding="utf-8") as source:
            known = parse_checksums(source.read())
    except OSError as failure:
        raise SpecError(
            f"artifact_checksums: {path} cannot be read (found: {failure.strerror}; needed: the hashes of this "
            "version, from the folder 'mirror' of a bundle or of the artefact store). "
            "Next: deep artifacts build, or correct artifact_checksums"
        ) from failure
    for entry in files:
        if entry["name"] not in known:
            raise SpecError(
                f"artifact_checksums: no hash of {entry['name']} (found none in {path}; needed: a line "
                f"'SHA256  {entry['name']}'). Next: deep artifacts build, or make the bundle again"
            )
        entry["sha256"] = known[entry["name"]]


def _upstream_file(data: dict[str, Any], entry: dict[str, Any], site: Site) -> dict[str, Any]:
    upstream, machine = data["sources"]["upstream"], site.machine
    values = {
        "version": data["version"],
        "file": entry["name"],
        "arch": ARCHITECTURES.get(machine, machine),
        "release_arch": RELEASE_ARCHITECTURES.get(machine, machine),
    }
    address = _https(data, "url", upstream["url"].format(**values))
    found = _file(entry, address)
    hashes = upstream.get("sha256") or {}
    digest = hashes.get(entry["name"]) or hashes.get(address.rsplit("/", 1)[-1])
    if digest or _by_site(data):
        found["sha256"] = digest or site.sha256
    else:
        found["checksum_url"] = _https(data, "checksum_url", upstream["checksum_url"].format(**values))
    if upstream.get("member"):
        found["member"] = upstream["member"].format(**values)
    return found


def _https(data: dict[str, Any], field: str, address: str) -> str:
    """``address``, which is believed because its server proves who it is."""
    if not address.startswith("https://"):
        raise SpecError(
            f"artifacts/{data['name']}.yml: sources.upstream.{field} (found {address}; needed: an https address)"
        )
    return address


def _declared_images(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    kinds = [data["sources"].get(kind) or {} for kind in ("build", "registry")]
    return {name: image for kind in kinds for name, image in (kind.get("images") or {}).items()}


def _images(declarations: Declarations, data: dict[str, Any]) -> list[dict[str, Any]]:
    images = _declared_images(data)
    if not images:
        return []
    versions = declarations.versions()
    return [
        {
            "name": name,
            "tag": image["tag"].format(**versions),
            "file": f"{name}.tar",
            "upstream": image.get("upstream") or "",
        }
        for name, image in images.items()
    ]
