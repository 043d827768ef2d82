#!/usr/bin/python
# Copyright: deep-testbed maintainers
# Apache License 2.0 (see LICENSE)
"""Install the files of an artefact on a node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: artifact
short_description: Install the files of a declared artefact
version_added: "0.1.0"
description:
  - Downloads what is missing or different into the artefact's own folder, verifies every file by SHA-256 and links it
    atomically into its place.
  - Unpacks archives that are declared so, into a folder beside them that is exchanged as a whole. Python's bytecode is
    made there for programs of Python.
  - The specification comes from the lookup P(deephdc.testbed.artifact#lookup), so that a task holds no address and no
    version.
  - Where the site takes the artefact from packages, the packages are installed instead.
options:
  spec:
    description:
      - What to install, as returned by the lookup P(deephdc.testbed.artifact#lookup).
    type: dict
    required: true
  timeout:
    description:
      - Seconds to wait for the mirror before an attempt fails.
    type: int
    default: 30
  attempts:
    description:
      - How often a download is tried.
    type: int
    default: 3
  validate_certs:
    description:
      - Whether the certificate of an HTTPS mirror is verified.
    type: bool
    default: true
attributes:
  check_mode:
    description: Says what would be downloaded and linked, and changes nothing.
    support: full
  diff_mode:
    description: Shows downloaded files and changed places.
    support: full
  idempotent:
    description: Files are compared by content; a second run changes nothing.
    support: full
author:
  - deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Install containerd
  deephdc.testbed.artifact:
    spec: "{{ lookup('deephdc.testbed.artifact', 'containerd') }}"

- name: Install the client of Kubernetes only
  deephdc.testbed.artifact:
    spec: "{{ lookup('deephdc.testbed.artifact', 'kubernetes', files=['kubectl']) }}"
"""

RETURN = r"""
version:
  description: Version of the artefact.
  type: str
  returned: success
source:
  description: Where it came from, one of C(mirror), C(upstream), C(package).
  type: str
  returned: success
directory:
  description: Folder with the artefact's files.
  type: str
  returned: success
files:
  description: Names of all files of the artefact that are on the node now.
  type: list
  elements: str
  returned: success
downloaded:
  description: Files that were missing or different.
  type: list
  elements: str
  returned: success
placed:
  description: Places that were changed.
  type: list
  elements: str
  returned: success
"""

import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, BinaryIO, cast
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import ConnectionError as UrlError
from ansible.module_utils.urls import open_url
from ansible_collections.deephdc.testbed.plugins.module_utils.artifact_files import ArtifactError, Installer

REQUIRED = ("name", "version", "source", "directory", "files")


def make_fetch(params: dict[str, Any]) -> Callable[[str], BinaryIO]:
    """A function that opens an address for reading, with retries; failures become ``ArtifactError``."""

    def fetch(url: str) -> BinaryIO:
        if url.startswith("file://"):
            return _open_file(url)
        problem = ""
        for attempt in range(params["attempts"]):
            if attempt:
                time.sleep(attempt)
            try:
                answer = open_url(
                    url,
                    timeout=params["timeout"],
                    validate_certs=params["validate_certs"],
                    http_agent="deep-testbed",
                )
                if url.startswith("https:") and not answer.geturl().startswith("https:"):
                    problem = f"a redirection to {answer.geturl()}"
                    break
                return cast(BinaryIO, answer)
            except HTTPError as failure:
                problem = f"HTTP {failure.code}"
                if failure.code < 500:
                    break
            except (OSError, HTTPException, ValueError, UrlError) as failure:
                problem = str(failure)
        raise ArtifactError(f"cannot fetch {url} (found: {problem}; needed: the file)")

    return fetch


def _open_file(url: str) -> BinaryIO:
    try:
        return open(unquote(urlsplit(url).path), "rb")  # pylint: disable=consider-using-with # the caller closes it
    except OSError as failure:
        raise ArtifactError(
            f"cannot fetch {url} (found: {failure.strerror}; needed: the file, on the node itself)"
        ) from failure


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "spec": {"type": "dict", "required": True},
            "timeout": {"type": "int", "default": 30},
            "attempts": {"type": "int", "default": 3},
            "validate_certs": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    spec = module.params["spec"]
    missing = [key for key in REQUIRED if key not in spec]
    if missing:
        module.fail_json(msg=f"spec: missing {', '.join(missing)}; use the lookup deephdc.testbed.artifact")
    installer = Installer(spec, make_fetch(module.params), check=module.check_mode)
    try:
        installer.run()
    except (ArtifactError, OSError, HTTPException) as failure:
        module.fail_json(msg=f"{spec['name']} {spec['version']}: {failure}")
    lines = sorted(installer.downloaded + installer.placed)
    module.exit_json(
        changed=installer.changed,
        version=spec["version"],
        source=spec["source"],
        directory=spec["directory"],
        files=[entry["name"] for entry in spec["files"]],
        downloaded=installer.downloaded,
        placed=installer.placed,
        diff={"before": "", "after": "".join(f"{line}\n" for line in lines)},
    )


if __name__ == "__main__":
    main()
