# SPDX-License-Identifier: Apache-2.0
"""kubectl with an administrator's credentials, on behalf of a module that has the parameter ``kubeconfig``."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule


def kubectl(module: AnsibleModule, *words: str, data: str | None = None) -> tuple[int, str, str]:
    """Run kubectl and return its exit status, output and error output; ends the module where there is no kubectl."""
    program = module.get_bin_path("kubectl", required=True, opt_dirs=["/usr/local/bin"])
    # An API server that is starting may accept a connection and never answer.
    command = [program, "--kubeconfig", module.params["kubeconfig"], "--request-timeout", "30s", *words]
    code, out, err = module.run_command(command, data=data)
    return int(code), str(out), str(err)
