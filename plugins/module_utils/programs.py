# SPDX-License-Identifier: Apache-2.0
"""Where programs are, on behalf of a module."""

from __future__ import annotations

import os

from ansible.module_utils.basic import AnsibleModule

# Our artefacts are there, and sudo of the RHEL family leaves it out of the search path.
FOLDERS = ["/usr/local/bin"]


def search_path() -> str:
    """The search path for programs that start others by name."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *FOLDERS])


def path_of(module: AnsibleModule, name: str, required: bool = True) -> str:
    """Path of a program; empty, or the end of the module where it is required, when the host does not have it."""
    return str(module.get_bin_path(name, required=required, opt_dirs=FOLDERS) or "")
