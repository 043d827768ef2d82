# Copyright: deep-testbed maintainers
# Apache License 2.0 (see LICENSE)
"""Install an artefact: from files by the module of the same name, from packages by the node's package manager."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Choose by the source that the lookup found."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, or install packages where ``spec.source`` is ``package``."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        spec = self._task.args.get("spec")
        if not isinstance(spec, dict) or spec.get("source") != "package":
            done: dict[str, Any] = self._execute_module(task_vars=task_vars)
            return result | done
        names = self._package_names(spec, task_vars or {})
        task = self._task.copy()
        task.args = {"name": names, "state": "present"}
        action = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.package",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        done = action.run(task_vars=task_vars)
        return result | done | {"version": spec["version"], "source": "package", "files": [], "packages": names}

    @staticmethod
    def _package_names(spec: dict[str, Any], task_vars: dict[str, Any]) -> list[str]:
        family = task_vars.get("ansible_facts", {}).get("os_family")
        packages: dict[str, list[str]] = spec.get("packages") or {}
        if family not in packages:
            found = f"os_family {family}" if family else "no os_family: facts were not gathered"
            raise AnsibleActionFail(
                f"{spec['name']} {spec['version']}: no packages declared for this host "
                f"(found {found}; needed: {' or '.join(packages) or 'any, none is declared'})"
            )
        return packages[family]
