# Copyright: deep-testbed maintainers
# Apache License 2.0 (see LICENSE)
"""The version of an artefact."""

from __future__ import annotations

DOCUMENTATION = r"""
name: artifact_version
short_description: Version of a declared artefact
version_added: "0.1.0"
author: deep-testbed maintainers
description:
  - Reads the version from the declaration C(artifacts/NAME.yml), the only place where it is written.
options:
  _terms:
    description: Names of artefacts.
    required: true
  declarations:
    description: Folder of the declarations. Default is that of the collection.
    type: path
    vars:
      - name: artifact_declarations
"""

EXAMPLES = r"""
- name: Show the version of Kubernetes
  ansible.builtin.debug:
    msg: "{{ lookup('deephdc.testbed.artifact_version', 'kubernetes') }}"
"""

RETURN = r"""
_raw:
  description: The version of each artefact.
  type: list
  elements: str
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.deephdc.testbed.plugins.module_utils.artifact_spec import Declarations, SpecError

VARIABLES = ("artifact_declarations",)


class LookupModule(LookupBase):
    """The lookup ``deephdc.testbed.artifact_version``."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """The version of each name."""
        self.set_options(var_options=self._site_variables(variables or {}), direct=kwargs)
        try:
            declarations = Declarations(self.get_option("declarations"))
            return [str(declarations.load(name)["version"]) for name in terms]
        except SpecError as failure:
            raise AnsibleLookupError(str(failure)) from failure

    def _site_variables(self, variables: dict[str, Any]) -> dict[str, Any]:
        """The variables that options are read from, with their templates resolved: ansible hands them over raw."""
        return {name: self._templar.template(variables[name]) for name in VARIABLES if name in variables}
