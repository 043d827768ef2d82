# SPDX-License-Identifier: Apache-2.0
"""Filters for what is asked of GPUs: the driver of a host, and how its pods share them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

DOCUMENTATION = r"""
name: gpu_driver_problems
short_description: Say why a GPU driver that is asked for cannot do
description:
  - Compares a request for a driver with the facts of a host and with a table of what goes together.
positional: _input, request, facts, table
options:
  _input:
    description: What M(deephdc.testbed.gpu_facts) returned.
    type: dict
    required: true
  request:
    description: source, branch, kernel_module, cuda_version and cuda_complete, as role nvidia_driver takes them.
    type: dict
    required: true
  facts:
    description: distribution, distribution_version, distribution_major_version, kernel and architecture of the host.
    type: dict
    required: true
  table:
    description: Compatibility table, laid out as vars/compatibility.yml of role nvidia_driver.
    type: dict
    required: true
"""

EXAMPLES = r"""
# {{ gpus | deephdc.testbed.gpu_driver_problems(request, ansible_facts, table) }}
"""

RETURN = r"""
_value:
  description: One sentence per problem, with what was found, what is needed and what to do next.
  type: list
  elements: str
"""

Facts = Mapping[str, Any]
SHARINGS = ("exclusive", "time_slicing", "mps", "mig")
SHARED = ("time_slicing", "mps")
HARDWARE_ONLY = ("mps", "mig")
MIG_STRATEGIES = ("single", "mixed")
MINIMUM_REPLICAS = 2
OLD_ARCHITECTURES = frozenset({"kepler", "maxwell", "pascal", "volta"})


class Case(NamedTuple):
    """One host and what is asked of it: the four arguments of the filter."""

    gpus: Facts
    request: Facts
    facts: Facts
    table: Facts

    @property
    def installs(self) -> bool:
        """Whether a driver is to be installed, not only looked at."""
        return bool(self.request["source"] != "present")

    @property
    def release(self) -> Facts | None:
        """The table's row of the host's distribution, or ``None``."""
        releases: Mapping[str, Facts] = self.table["distributions"].get(self.facts["distribution"], {})
        return releases.get(str(self.facts["distribution_major_version"]))

    @property
    def version(self) -> str:
        """Version or branch of the driver that the host will have; empty when there will be none."""
        if not self.installs:
            return str(self.gpus["driver_version"])
        branch = "any"
        if self.request["source"] == "distribution":
            branch = (self.release or {}).get("branch", "any")
        return str(self.request["branch"] if branch == "any" else branch)


def version_key(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparison: 6.1.0-18-amd64 gives (6, 1, 0)."""
    leading = re.match(r"\d+(?:\.\d+)*", str(version))
    return tuple(int(part) for part in leading.group(0).split(".")) if leading else ()


def problem(what: str, found: str, needed: str, next_step: str) -> str:
    """A sentence of the form that every precheck of the project uses."""
    return f"{what} (found {found}, needed {needed}). Next: {next_step}."


def gpu_kernel_module(gpus: Facts, wanted: str) -> str:
    """The kernel module to install, open or proprietary, where ``wanted`` may be auto."""
    if wanted != "auto":
        return wanted
    architectures = {gpu["architecture"] for gpu in gpus["pci"]}
    return "proprietary" if architectures & OLD_ARCHITECTURES else "open"


def hardware_problems(case: Case) -> Iterator[str]:
    """No GPU on the bus, or none that is driven."""
    if not case.gpus["pci"]:
        yield problem(
            "GPU asked and none usable",
            "no NVIDIA GPU on the PCI bus",
            "at least one",
            "take the host out of group gpu_real, or check its hardware and its virtual machine's passthrough",
        )
    if case.gpus["simulated"]:
        next_step = "run role gpu_simulator on the host with tasks_from=remove"
        yield problem("the GPU simulator is still there", "simulated devices", "none", next_step)
    if not case.installs and not case.gpus["driver_version"]:
        found = "nouveau loaded" if case.gpus["nouveau"] else "no driver loaded"
        next_step = "install the driver, or set nvidia_driver_source to vendor or distribution"
        yield problem("the driver is not there", found, "NVIDIA's driver loaded", next_step)


def distribution_problems(case: Case) -> Iterator[str]:
    """A distribution or kernel that the packages are not made for."""
    if not case.installs:
        return
    found = f"{case.facts['distribution']} {case.facts['distribution_version']} on {case.facts['architecture']}"
    release = case.release
    if release is None or case.facts["architecture"] != "x86_64":
        rows = [f"{name} {'/'.join(releases)}" for name, releases in case.table["distributions"].items()]
        next_step = "install the driver by hand and set nvidia_driver_source to present"
        yield problem("unsupported distribution", found, f"{', '.join(rows)} on x86_64", next_step)
        return
    if case.request["source"] == "distribution" and "branch" not in release:
        yield problem(
            "no driver in this distribution", found, "NVIDIA's repository", "set nvidia_driver_source to vendor"
        )
    if version_key(case.facts["kernel"]) < version_key(release["kernel"]):
        next_step = "start the distribution's own kernel"
        yield problem("unsupported kernel", case.facts["kernel"], f"{release['kernel']} or newer", next_step)


def branch_problems(case: Case) -> Iterator[str]:
    """A branch that does not exist, or that the GPUs on the bus do not go with."""
    version = case.version
    if not version:
        return
    branch = version_key(version)[0]
    if case.installs and str(branch) not in case.table["branches"]:
        known = ", ".join(case.table["branches"])
        yield problem("unknown driver branch", version, f"one of {known}", "set nvidia_driver_branch")
    for gpu in case.gpus["pci"]:
        row = case.table["architectures"].get(gpu["architecture"], {})
        name = f"GPU {gpu['address']} of architecture {gpu['architecture']}"
        if branch < row.get("first_branch", 0):
            needed = f"branch {row['first_branch']} or newer"
            yield problem(f"driver too old for {name}", f"branch {branch}", needed, "raise nvidia_driver_branch")
        if branch > row.get("last_branch", branch):
            needed = f"branch {row['last_branch']} or older"
            yield problem(f"driver too new for {name}", f"branch {branch}", needed, "lower nvidia_driver_branch")


def module_problems(case: Case) -> Iterator[str]:
    """A kernel module that does not drive the GPUs on the bus, or that the branch does not have."""
    if not case.installs:
        return
    module = gpu_kernel_module(case.gpus, case.request["kernel_module"])
    for gpu in case.gpus["pci"]:
        usable = case.table["architectures"].get(gpu["architecture"], {}).get("modules", [module])
        if module not in usable:
            what = f"kernel module does not drive GPU {gpu['address']} of architecture {gpu['architecture']}"
            yield problem(what, module, " or ".join(usable), "set nvidia_driver_kernel_module")
    branch = version_key(case.version)
    if module == "open" and branch < (case.table["open_module_branch"],):
        needed = f"branch {case.table['open_module_branch']} or newer"
        found = f"branch {case.version}"
        yield problem("no open kernel module in this branch", found, needed, "raise nvidia_driver_branch")


def cuda_needs(request: Facts, table: Facts) -> str:
    """Oldest driver for the CUDA version asked for; empty when the table does not know that version."""
    version = str(request["cuda_version"])
    if request["cuda_complete"]:
        return str(table["cuda_complete"].get(version, ""))
    return str(table["cuda"].get(version.split(".", maxsplit=1)[0], ""))


def is_older(version: str, needed: str) -> bool:
    """Whether a driver version is older; a branch alone stands for its newest release."""
    have, want = version_key(version), version_key(needed)
    return have < want[:1] if len(have) == 1 else have < want


def cuda_problems(case: Case) -> Iterator[str]:
    """A driver that is too old for CUDA or for the container toolkit."""
    version = case.version
    if not version:
        return
    asked = str(case.request["cuda_version"])
    needed = cuda_needs(case.request, case.table)
    update = "raise nvidia_driver_branch" if case.installs else "update the driver"
    if asked and not needed:
        known = case.table["cuda_complete" if case.request["cuda_complete"] else "cuda"]
        next_step = "correct nvidia_driver_cuda_version, or add the version with its source to the compatibility table"
        yield problem("unknown CUDA version", asked, f"one of {', '.join(known)}", next_step)
    elif asked and is_older(version, needed):
        next_step = f"{update}, or lower nvidia_driver_cuda_version"
        yield problem(f"driver too old for CUDA {asked}", f"driver {version}", f"{needed} or newer", next_step)
    toolkit = case.table["toolkit"]
    if is_older(version, toolkit["driver"]):
        needed = f"{toolkit['driver']} or newer"
        yield problem("driver too old for the container toolkit", f"driver {version}", needed, update)
    if version_key(case.facts["kernel"]) < version_key(toolkit["kernel"]):
        needed = f"{toolkit['kernel']} or newer"
        yield problem("kernel too old for the container toolkit", case.facts["kernel"], needed, "update the kernel")


CHECKS: tuple[Callable[[Case], Iterator[str]], ...] = (
    hardware_problems,
    distribution_problems,
    branch_problems,
    module_problems,
    cuda_problems,
)


def gpu_driver_problems(gpus: Facts, request: Facts, facts: Facts, table: Facts) -> list[str]:
    """Why the driver of ``request`` cannot do on the host of ``facts``; empty when it can."""
    case = Case(gpus, request, facts, table)
    return [sentence for check in CHECKS for sentence in check(case)]


def whole_number(value: Any) -> Any:
    """``value`` as an integer where it is one or its digits; else as it is, for a message to show."""
    return int(value) if re.fullmatch(r"[0-9]+", str(value)) else value


def gpu_sharing_nodes(
    hosts: list[str], hostvars: Mapping[str, Facts], simulated: list[str]
) -> dict[str, dict[str, Any]]:
    """How pods share the GPUs of each host.

    ``hostvars`` holds ``gpu_sharing``, ``gpu_sharing_replicas`` and ``gpu_mig_strategy`` of every host. The
    result has, by host: sharing, replicas (pods per GPU, 1 where GPUs are not shared), mig_strategy, simulated and
    profile, a name that is the same for hosts whose device plugin has the same configuration.
    """
    nodes = {}
    for host in hosts:
        sharing = str(hostvars[host]["gpu_sharing"])
        strategy = str(hostvars[host]["gpu_mig_strategy"]) if sharing == "mig" else "none"
        replicas = whole_number(hostvars[host]["gpu_sharing_replicas"]) if sharing in SHARED else 1
        suffix = {"mig": f"-{strategy}", "mps": f"-{replicas}", "time_slicing": f"-{replicas}"}.get(sharing, "")
        nodes[host] = {
            "sharing": sharing,
            "replicas": replicas,
            "mig_strategy": strategy,
            "simulated": host in simulated,
            "profile": sharing.replace("_", "-") + suffix,
        }
    return nodes


def sharing_problems_of(host: str, node: Facts) -> Iterator[str]:
    """What is wrong with how the GPUs of one host shall be shared."""
    sharing = node["sharing"]
    if sharing not in SHARINGS:
        needed = f"one of {', '.join(SHARINGS)}"
        yield f"{host}: " + problem("unknown way of sharing GPUs", f"gpu_sharing {sharing}", needed, "set gpu_sharing")
    replicas = node["replicas"]
    if sharing in SHARED and not (isinstance(replicas, int) and replicas >= MINIMUM_REPLICAS):
        found = f"gpu_sharing_replicas {replicas} with gpu_sharing {sharing}"
        next_step = "correct gpu_sharing_replicas, or set gpu_sharing to exclusive"
        needed = f"a whole number, {MINIMUM_REPLICAS} or more"
        yield f"{host}: " + problem("GPUs cannot be shared like that", found, needed, next_step)
    if sharing == "mig" and node["mig_strategy"] not in MIG_STRATEGIES:
        found, needed = f"gpu_mig_strategy {node['mig_strategy']}", " or ".join(MIG_STRATEGIES)
        yield f"{host}: " + problem("unknown MIG strategy", found, needed, "set gpu_mig_strategy")
    if sharing in HARDWARE_ONLY and node["simulated"]:
        next_step = "set gpu_sharing of the host, or take it out of group gpu_simulated"
        what = f"simulated GPUs cannot be shared by {sharing}, which needs hardware"
        yield f"{host}: " + problem(what, f"gpu_sharing {sharing}", "exclusive or time_slicing", next_step)


def gpu_sharing_problems(nodes: Mapping[str, Facts]) -> list[str]:
    """One sentence for everything that is wrong in the result of ``gpu_sharing_nodes``."""
    return [sentence for host, node in nodes.items() for sentence in sharing_problems_of(host, node)]


class FilterModule:
    """The filters of this file, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {
            "gpu_driver_problems": gpu_driver_problems,
            "gpu_kernel_module": gpu_kernel_module,
            "gpu_sharing_nodes": gpu_sharing_nodes,
            "gpu_sharing_problems": gpu_sharing_problems,
        }
