"""Slurm as its users have it: slurmctld and slurmd of Debian on a node, reached over ssh, without accounting."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.benchmark import backends
from pipelines.benchmark.model import Plan, Run, Specification
from tests.nodes import one_node
from tests.nodes.one_node import ROOT, Node

PACKAGES = "slurmctld slurmd slurm-client munge python3-numpy python3-pydantic python3-scipy python3-yaml proot"
# Of what the job imports, and where on the node.
CODE = ("pipelines/__init__.py", "pipelines/benchmark", "sqa", "testbed/__init__.py", *(
    f"testbed/{name}.py" for name in ("errors", "files", "host")
))  # fmt: skip
CONFIGURATION = """\
ClusterName=deep
SlurmctldHost=node1
SlurmUser=slurm
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
# Control groups would be those of this machine, whose version is not known.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdTimeout=5
MessageTimeout=5
ReturnToService=2
NodeName=node1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=batch Nodes=node1 Default=YES MaxTime=20
PartitionName=short Nodes=node1 MaxTime=1
"""
SETUP = f"""
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends {PACKAGES}
useradd --create-home --shell /bin/bash --password '*' deep
install -d -o deep ~deep/.ssh
install -o deep /root/.ssh/authorized_keys ~deep/.ssh
install -d -m 1777 /shared
tar -xf /root/code.tar --no-same-owner -C /opt
echo /opt > /usr/lib/python3/dist-packages/deep.pth
cat > /etc/slurm/slurm.conf <<'END'
{CONFIGURATION}END
systemctl start munge slurmctld slurmd
"""
READY = "for i in $(seq 100); do [ $(sinfo -ho %t -p batch) != idle ] || exit 0; sleep 0.2; done; sinfo; exit 1"
SPECIFICATION = Specification(
    workloads=("gemm-fp64",), plan=Plan(processes=1, repeats=20, parameters={"gemm-fp64": {"size": 256}})
)


class Cluster:
    """The node, and what its back end needs."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        config = folder / "ssh.conf"
        known = f"IdentityFile {node.ssh}/id_ed25519\nUserKnownHostsFile {node.ssh}/known_hosts\n"
        config.write_text(known, encoding="utf-8")
        self.options = {
            "folder": "/shared", "login": f"deep@{node.address}", "ssh_config": str(config), "interval": "0.5",
            "timeout": "300",
        }  # fmt: skip

    def bring(self, options: dict[str, str], what: Specification = SPECIFICATION, done: str = "true") -> Run:
        """The run of a job; ``done`` is done on the node when the job has said its first word."""
        submitted: list[str] = []

        def noted(text: str) -> None:
            if text.startswith("slurm: submitted"):
                submitted.append(text.split()[-1])
            else:
                self.node.run(done.format(job=submitted[0]))

        return backends.run(backends.load("slurm", self.options | options), what, noted)

    def ready(self) -> None:
        self.node.run(READY)


@contextmanager
def raised(testbed: str, folder: Path) -> Iterator[Cluster]:
    """A cluster on the node of a testbed of this name; ``folder`` is for files that it needs."""
    with tarfile.open(folder / "code.tar", "w") as code:
        for name in CODE:
            code.add(ROOT / name, name, filter=lambda one: None if "__pycache__" in one.name else one)
    with one_node.raised(testbed, "debian13") as node:
        node.put(folder / "code.tar", "/root/code.tar")
        node.run(SETUP)
        node.run(READY)
        yield Cluster(node, folder)
