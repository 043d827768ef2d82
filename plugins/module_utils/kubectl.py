# SPDX-License-Identifier: Apache-2.0
"""kubectl with an administrator's credentials, on behalf of a module that has the parameter ``kubeconfig``."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deephdc.testbed.plugins.module_utils.programs import path_of


def kubectl(module: AnsibleModule, *words: str, data: str | None = None) -> tuple[int, str, str]:
    """Run kubectl and return its exit status, output and error output; ends the module where there is no kubectl."""
    # An API server that is starting may accept a connection and never answer.
    command = [
        path_of(module, "kubectl"),
        "--kubeconfig",
        module.params["kubeconfig"],
        "--request-timeout",
        "30s",
        *words,
    ]
    code, out, err = module.run_command(command, data=data)
    return int(code), str(out), str(err)
