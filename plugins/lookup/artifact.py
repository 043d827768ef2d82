# Copyright: deep-testbed maintainers
# Apache License 2.0 (see LICENSE)
"""What to install for an artefact, and from where, at this site."""

from __future__ import annotations

DOCUMENTATION = r"""
name: artifact
short_description: What to install for a declared artefact
version_added: "0.1.0"
author: deep-testbed maintainers
description:
  - Reads the declaration C(artifacts/NAME.yml) and the site's choice of sources, and returns what the module
    P(deephdc.testbed.artifact#module) installs.
options:
  _terms:
    description: Names of artefacts.
    required: true
  files:
    description: Only these files, optional ones included. Without it all files that are not optional.
    type: list
    elements: str
  sources:
    description:
      - Sources in order of preference, of C(mirror), C(upstream) and C(package).
      - The first that the artefact has is taken.
    type: list
    elements: str
    default: [upstream, package]
    vars:
      - name: artifact_sources
  mirror:
    description: Address of the site's mirror, C(http://), C(https://) or C(file://).
    type: str
    default: ""
    vars:
      - name: artifact_mirror
  checksums:
    description:
      - Folder on the control machine that holds C(NAME/VERSION/SHA256SUMS), such as C(mirror/) of a bundle.
      - The files of the mirror are then held against these hashes, and its own count for nothing.
    type: str
    default: ""
    vars:
      - name: artifact_checksums
  sha256:
    description: Hash of the one file of an artefact whose publisher gives none, as the site has seen it.
    type: str
    default: ""
  directory:
    description: Folder on the nodes that holds one folder per artefact and version.
    type: str
    default: /opt/deephdc
    vars:
      - name: artifact_dir
  machine:
    description: Machine architecture of the nodes as the kernel names it.
    type: str
    default: x86_64
    vars:
      - name: artifact_machine
  declarations:
    description: Folder of the declarations. Default is that of the collection.
    type: path
    vars:
      - name: artifact_declarations
"""

EXAMPLES = r"""
- name: Install containerd
  deephdc.testbed.artifact:
    spec: "{{ lookup('deephdc.testbed.artifact', 'containerd') }}"
"""

RETURN = r"""
_raw:
  description:
    - For each name a dictionary with C(name), C(version), C(source), C(directory), C(base_url), C(checksums_url),
      C(files) (each C(name), C(src), C(dest), C(mode), C(copy), C(unpack), and where known C(sha256), C(checksum_url),
      C(member)), C(packages) (by C(os_family)) and C(images) (each C(name), C(tag), C(file), C(upstream)).
  type: list
  elements: dict
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.deephdc.testbed.plugins.module_utils.artifact_spec import (
    Declarations,
    Site,
    SpecError,
    specification,
)

VARIABLES = (
    "artifact_sources",
    "artifact_mirror",
    "artifact_checksums",
    "artifact_dir",
    "artifact_machine",
    "artifact_declarations",
)


class LookupModule(LookupBase):
    """The lookup ``deephdc.testbed.artifact``."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        """One specification per name."""
        self.set_options(var_options=self._site_variables(variables or {}), direct=kwargs)
        site = Site(
            sources=self.get_option("sources"),
            mirror=self.get_option("mirror"),
            directory=self.get_option("directory"),
            machine=self.get_option("machine"),
            checksums=self.get_option("checksums"),
            sha256=self.get_option("sha256"),
        )
        try:
            declarations = Declarations(self.get_option("declarations"))
            return [specification(declarations, name, site, self.get_option("files")) for name in terms]
        except SpecError as failure:
            raise AnsibleLookupError(str(failure)) from failure

    def _site_variables(self, variables: dict[str, Any]) -> dict[str, Any]:
        """The variables that options are read from, with their templates resolved: ansible hands them over raw."""
        return {name: self._templar.template(variables[name]) for name in VARIABLES if name in variables}
