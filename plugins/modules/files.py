#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Bring a list of files, links and directories into the state wanted, in one call."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deephdc.testbed.plugins.module_utils.managed_files import (
    OPTION,
    FilesError,
    apply,
    differences,
)

DOCUMENTATION = r"""
module: files
short_description: Manage a list of files, links and directories in one call
description:
  - One remote call instead of two per file. Contents come rendered, by the template lookup for example.
  - A file is written only when it differs, beside its place and moved there. A mounted file (C(/etc/hosts) of a
    container) is written in place.
  - Missing parent directories are created with mode C(0755).
options:
  files:
    description: What to manage, in this order.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path on the host.
        type: path
        required: true
      state:
        description: What shall be there. V(absent) removes a directory with its contents.
        type: str
        choices: [file, directory, link, absent]
        default: file
      content:
        description: Text of the file, shown in differences. A missing line break at the end is added.
        type: str
      secret_content:
        description: Text of the file that is shown nowhere. Instead of O(files[].content).
        type: str
      wanted:
        description: V(false) leaves this entry out, as if it were not in the list.
        type: bool
        default: true
      block:
        description: >-
          Name of a block. The content then is only the part of the file between the two marker lines with this
          name.
        type: str
      replace:
        description: Whether an existing file may be rewritten. V(false) makes it once.
        type: bool
        default: true
      target:
        description: What a link points to. It need not exist.
        type: str
      mode:
        description: Permissions in octal. V(0644) for files and V(0755) for directories by default.
        type: str
      owner:
        description: Owning user.
        type: str
        default: root
      group:
        description: Owning group.
        type: str
        default: root
attributes:
  check_mode:
    support: full
    description: Tells what would change.
  diff_mode:
    support: full
    description: Shows text that is not secret.
  idempotent:
    support: full
    description: A second call changes nothing.
author: deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Configure the service
  deephdc.testbed.files:
    files:
      - path: /etc/example/config.toml
        content: "{{ lookup('ansible.builtin.template', 'config.toml.j2') }}"
      - path: /etc/example/password
        secret_content: "{{ example_password }}"
        mode: "0600"
      - path: /etc/hosts
        block: example
        content: 192.0.2.1 example.test
"""

RETURN = r"""
paths:
  description: Paths that were changed, in the order of O(files).
  returned: always
  type: list
  elements: str
"""


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec={"files": {**OPTION, "required": True}}, supports_check_mode=True)
    try:
        changes = apply(module.params["files"], module.check_mode)
    except FilesError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(changed=bool(changes), paths=[change.path for change in changes], diff=differences(changes))


if __name__ == "__main__":
    main()
