# SPDX-License-Identifier: Apache-2.0
"""What kube-proxy and the network plugins leave on a host, and how it is taken away."""

from __future__ import annotations

import re

FILES = (
    "/etc/cni/net.d/10-deephdc.conflist",
    "/etc/cni/net.d/10-flannel.conflist",
    "/etc/cni/net.d/10-calico.conflist",
    "/etc/cni/net.d/calico-kubeconfig",
    "/run/calico",
    "/run/cni",
    "/run/flannel",
    "/var/lib/calico",
    "/var/lib/cni",
)
LINK = re.compile(r"cni0|flannel(-v6)?\.1|vxlan(-v6)?\.calico|cali[0-9a-f]{11}")
TABLE = re.compile(r"table (ip6? kube-proxy|ip flannel-ipv4|ip6 flannel-ipv6)")
CHAIN = r"(?:KUBE-|CNI-(?:HOSTPORT|DN)-|FLANNEL-|cali-)\S*"


def links(names: list[str]) -> list[str]:
    """Network links of pods, out of all links of the host."""
    return [name for name in names if LINK.fullmatch(name)]


def tables(listed: str) -> list[str]:
    """Family and name of each table of a cluster in what ``nft list tables`` prints."""
    return [found.group(1) for line in listed.splitlines() if (found := TABLE.fullmatch(line.strip()))]


def chain_removal(saved: str) -> str:
    """What ``iptables-restore --noflush`` must read to take a cluster's chains out of those ``iptables-save`` printed.

    Rules of others are not touched. Empty when there is nothing to take away.
    """
    commands: list[str] = []
    for table in re.findall(r"^\*\w+$.*?^COMMIT$", saved, flags=re.MULTILINE | re.DOTALL):
        chains = re.findall(rf"^:({CHAIN})", table, flags=re.MULTILINE)
        jumps = re.findall(rf"^-A (?!{CHAIN} )(.* -[jg] {CHAIN}.*)$", table, flags=re.MULTILINE)
        if chains:
            commands += [table.split("\n", 1)[0], *(f"-D {rule}" for rule in jumps)]
            commands += [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains] + ["COMMIT"]
    return "".join(f"{command}\n" for command in commands)
