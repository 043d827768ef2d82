#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Push image archives into a registry, each only when the registry does not hold it already."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deephdc.testbed.plugins.module_utils.programs import search_path

DOCUMENTATION = r"""
module: registry_images
short_description: Push image archives into a registry
description:
  - Compares the digest that the registry gives for a tag with the one that was recorded when the same archive
    was pushed, and pushes with C(crane) only what differs, several at a time.
  - The password reaches C(crane) through a file that only root can read and that is removed at the end.
options:
  registry:
    description: Host and port of the registry, served over HTTPS.
    type: str
    required: true
  ca:
    description: >-
      Certificate of the registry itself, or of any authority above it. The host's own authorities without it.
    type: path
  username:
    description: Who pushes.
    type: str
    required: true
  password:
    description: Password of O(username).
    type: str
    required: true
  images:
    description: Archives and the names to give them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the image, below O(namespace).
        type: str
        required: true
      tag:
        description: Tag of the image.
        type: str
        required: true
      file:
        description: Archive in the format of C(docker save), in O(directory).
        type: str
        required: true
      upstream:
        description: >-
          Where the image is published. Not used here; images come as the lookup of artefacts describes them.
        type: str
  directory:
    description: Folder on the host that holds the archives.
    type: path
    required: true
  namespace:
    description: First part of the names that the images get in the registry.
    type: str
    required: true
  record:
    description: File that remembers the digest of each pushed archive.
    type: path
    default: /var/lib/deephdc/registry-images.json
  parallel:
    description: How many images are pushed at the same time.
    type: int
    default: 3
  timeout:
    description: Seconds to wait for the registry to answer.
    type: int
    default: 30
attributes:
  check_mode:
    support: full
    description: Tells what would be pushed. A registry that does not answer counts as one without images.
  diff_mode:
    support: none
    description: RV(pushed) names the images.
  idempotent:
    support: full
    description: An image that the registry holds is left alone.
author: deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Fill the registry
  deephdc.testbed.registry_images:
    registry: registry.example.test:5000
    username: deep
    password: "{{ registry_password }}"
    namespace: deephdc
    directory: /opt/images
    images:
      - name: pause
        tag: "3.10.2"
        file: pause.tar
"""

RETURN = r"""
pushed:
  description: Images that were pushed.
  returned: always
  type: list
  elements: str
digests:
  description: Digest of every image in the registry, by C(name:tag).
  returned: always
  type: dict
"""

MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"
)


class Image(NamedTuple):
    """An archive on the host and the name it gets in the registry."""

    repository: str
    tag: str
    archive: Path

    @property
    def reference(self) -> str:
        """Repository and tag."""
        return f"{self.repository}:{self.tag}"

    def fingerprint(self) -> str:
        """Names the content of the archive without reading it all: where its links lead, its size and its time."""
        real = self.archive.resolve()
        status = real.stat()
        return f"{real}:{status.st_size}:{status.st_mtime_ns}"


def wanted(params: dict[str, Any]) -> list[Image]:
    """The images that the module's parameters name."""
    directory, namespace = Path(params["directory"]), params["namespace"]
    return [Image(f"{namespace}/{item['name']}", item["tag"], directory / item["file"]) for item in params["images"]]


def stale(images: list[Image], record: dict[str, Any], held: dict[str, str]) -> list[Image]:
    """Images whose tag the registry does not hold, holds with another digest, or that come from another archive now."""
    found = []
    for image in images:
        known, digest = record.get(image.reference, {}), held.get(image.reference)
        if not digest or known.get("digest") != digest or known.get("archive") != image.fingerprint():
            found.append(image)
    return found


class Registry:
    """The registry's HTTP interface, and crane."""

    def __init__(self, params: dict[str, Any], config: str) -> None:
        self.params = params
        self.config = config
        self.context = ssl.create_default_context(cafile=params["ca"])
        if params["ca"]:
            # As crane takes it: each certificate is believed, for the chains that sites bring end before their root.
            self.context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        pair = f"{params['username']}:{params['password']}".encode()
        self.token = base64.b64encode(pair).decode()

    def request(self, path: str, method: str = "GET") -> tuple[int, dict[str, str]]:
        """Status and headers of an answer. Raises ``OSError`` when there is none."""
        request = urllib.request.Request(
            f"https://{self.params['registry']}/v2/{path}",
            method=method,
            headers={"Authorization": f"Basic {self.token}", "Accept": MANIFESTS},
        )
        try:
            with urllib.request.urlopen(request, timeout=10, context=self.context) as answer:  # nosec B310 # always https
                return answer.status, {key.lower(): value for key, value in answer.headers.items()}
        except urllib.error.HTTPError as error:
            return error.code, {}

    def wait(self) -> str:
        """Wait until the registry accepts the password; returns what is wrong at the timeout, else empty."""
        deadline = time.monotonic() + float(self.params["timeout"])
        while True:
            try:
                status, _ = self.request("")
                fault = "" if status == 200 else f"HTTP status {status}"
                if status in (200, 401, 403):
                    return fault
            except OSError as error:
                fault = str(error)
            if time.monotonic() > deadline:
                return fault
            time.sleep(0.2)

    def digest(self, image: Image) -> str:
        """Digest that the registry gives for an image's tag; empty when it has none."""
        status, headers = self.request(f"{image.repository}/manifests/{image.tag}", "HEAD")
        return headers.get("docker-content-digest", "") if status == 200 else ""

    def login_file(self) -> None:
        """Write the credentials where crane looks for them."""
        path = Path(self.config) / "config.json"
        path.write_text(json.dumps({"auths": {self.params["registry"]: {"auth": self.token}}}), encoding="utf-8")
        path.chmod(0o600)

    def push(self, image: Image) -> str:
        """Push one archive; returns crane's complaint, or empty."""
        reference = f"{self.params['registry']}/{image.reference}"
        environment = {**os.environ, "PATH": search_path(), "DOCKER_CONFIG": self.config}
        if self.params["ca"]:
            environment["SSL_CERT_FILE"] = self.params["ca"]
        done = subprocess.run(
            ["crane", "push", str(image.archive), reference],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return "" if done.returncode == 0 else f"{reference}: {done.stderr.strip()[-500:]}"


def read_record(path: str) -> dict[str, Any]:
    """What earlier runs pushed; empty when there is no readable record."""
    try:
        return dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def write_record(path: str, record: dict[str, Any]) -> None:
    """Replace the record in one step."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".new")
    temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, target)


def fill(module: AnsibleModule, registry: Registry, images: list[Image]) -> dict[str, Any]:
    """Push what is missing and return the module's result; ends the module when something cannot be pushed."""
    record = read_record(module.params["record"])
    with ThreadPoolExecutor(module.params["parallel"]) as pool:
        held = {image.reference: digest for image, digest in zip(images, pool.map(registry.digest, images))}
        todo = stale(images, record, held)
        names = [image.reference for image in todo]
        if module.check_mode or not todo:
            return {"changed": bool(todo), "pushed": names, "digests": held}
        registry.login_file()
        faults = [fault for fault in pool.map(registry.push, todo) if fault]
        if faults:
            module.fail_json(msg=f"crane could not push: {'; '.join(faults)}")
        for image, digest in zip(todo, pool.map(registry.digest, todo)):
            record[image.reference] = {"archive": image.fingerprint(), "digest": digest}
            held[image.reference] = digest
    write_record(module.params["record"], record)
    return {"changed": True, "pushed": names, "digests": held}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "registry": {"type": "str", "required": True},
            "ca": {"type": "path"},
            "username": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "images": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "tag": {"type": "str", "required": True},
                    "file": {"type": "str", "required": True},
                    "upstream": {"type": "str"},
                },
            },
            "directory": {"type": "path", "required": True},
            "namespace": {"type": "str", "required": True},
            "record": {"type": "path", "default": "/var/lib/deephdc/registry-images.json"},
            "parallel": {"type": "int", "default": 3},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    images = wanted(module.params)
    everything = {"changed": bool(images), "pushed": [image.reference for image in images], "digests": {}}
    needed = [image.archive for image in images] + ([Path(module.params["ca"])] if module.params["ca"] else [])
    if module.check_mode and not all(path.exists() for path in needed):
        module.exit_json(**everything)
    with tempfile.TemporaryDirectory(prefix="registry-images-") as config:
        registry = Registry(module.params, config)
        fault = registry.wait()
        if fault and module.check_mode:
            module.exit_json(**everything)
        if fault:
            user = f"{module.params['username']} at {module.params['registry']}"
            module.fail_json(msg=f"the registry does not serve {user}: {fault}")
        module.exit_json(**fill(module, registry, images))


if __name__ == "__main__":
    main()
