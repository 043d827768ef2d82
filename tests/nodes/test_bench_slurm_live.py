"""Slurm as its users have it: slurmctld and slurmd of Debian on a node, reached over ssh, without accounting."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.benchmark import backends
from pipelines.benchmark.backends import slurm
from pipelines.benchmark.model import Plan, Run, Specification
from testbed.errors import DeepError
from tests.nodes import one_node
from tests.nodes.one_node import ROOT, Node

pytestmark = pytest.mark.live

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
# Its tools cannot be had from a registry; it does not ask for them where it finds their version. Debian's proot cannot
# feign another kernel on a new one.
UDOCKER = "udocker==1.3.17 --hash=sha256:fd6589de0f3af7c1cd6a29554f2c00f2ef1fbd91da184ca30f8cea1eb42bcd2b\n"
UDOCKER_SETUP = r"""
python3 -m zipfile -e /root/udocker.whl /opt
cat > /usr/local/bin/udocker <<'END'
#!/usr/bin/python3
from udocker.maincmd import main
main()
END
cat > /usr/local/bin/proot-without-kernel <<'END'
#!/bin/bash
words=()
while [ $# -gt 0 ]; do
    if [ "$1" = -k ]; then shift; else words+=("$1"); fi
    shift
done
exec proot "${words[@]}"
END
chmod 755 /usr/local/bin/*
printf '[DEFAULT]\nuse_proot_executable = /usr/local/bin/proot-without-kernel\n' > /etc/udocker.conf
tar -cf /srv/image.tar -C / bin lib lib64 usr/bin/python3 usr/bin/python3.13 usr/lib/python3 usr/lib/python3.13 \
    usr/lib/x86_64-linux-gnu usr/lib64 etc/alternatives etc/passwd etc/group opt/pipelines opt/sqa opt/testbed
su deep -c 'mkdir -p ~/.udocker/lib; echo 1.2.11 > ~/.udocker/lib/VERSION; udocker import /srv/image.tar node/python:1'
"""
# Long enough for whatever is done to it.
SPECIFICATION = Specification(
    workloads=("gemm-fp64",), plan=Plan(processes=1, repeats=20, parameters={"gemm-fp64": {"size": 256}})
)
ENDLESS = SPECIFICATION.model_copy(update={"plan": Plan(repeats=10**9, limit=600)})


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


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with tarfile.open(folder / "code.tar", "w") as code:
        for name in CODE:
            code.add(ROOT / name, name, filter=lambda one: None if "__pycache__" in one.name else one)
    with one_node.raised("live-slurm", "debian13") as node:
        node.put(folder / "code.tar", "/root/code.tar")
        node.run(SETUP)
        node.run(READY)
        yield Cluster(node, folder)


@pytest.fixture(autouse=True)
def nothing_is_left(cluster: Cluster) -> Iterator[None]:
    yield
    assert cluster.node.run("squeue --noheader --states=PENDING,RUNNING; ls /shared") == ""


def test_a_job_brings_a_figure_and_ends_by_itself(cluster: Cluster) -> None:
    done = cluster.bring({"memory": "800M", "cpus": "1"})
    assert done.submission is not None
    (result,) = done.results
    assert result.summary is not None, result.reasons
    assert result.summary.median > 0
    assert done.machine.host == "node1"
    state = cluster.node.run(f"scontrol show job {done.submission.job}")
    assert re.search(r"JobState=COMPLETED .* ExitCode=0:0", state, re.DOTALL)


@pytest.mark.parametrize(
    ("done", "options", "told"),
    [
        ("scancel {job}", {}, r"was cancelled.*CANCELLED"),
        ("scontrol update jobid={job} EndTime=now+5", {}, r"did not end in time.*TIMEOUT, TimeLimit"),
        ("true", {"memory": "40M"}, r"ran out of memory.*exceeded memory limit"),
        ("systemctl kill --signal=KILL slurmd", {}, r"was lost.*NODE_FAIL, NodeDown"),
        (
            "systemctl stop slurmctld; rm -rf /var/lib/slurm/slurmctld/*; systemctl start slurmctld", {},
            r"was lost.*does not know it any more",
        ),
    ],
)  # fmt: skip
def test_every_end_is_told(cluster: Cluster, done: str, options: dict[str, str], told: str) -> None:
    with pytest.raises(DeepError, match=told):
        cluster.bring(options, ENDLESS, done)
    cluster.node.run("systemctl start slurmd")
    cluster.ready()


def test_what_slurm_does_not_take_is_told(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeepError, match=r"(?s)not taken the job.*Invalid partition name specified"):
        cluster.bring({"partition": "nowhere"})
    monkeypatch.setattr(slurm, "HOPE", 1)
    with pytest.raises(DeepError, match=r"was refused.*PartitionTimeLimit"):
        cluster.bring({"partition": "short", "time": "5"})
    with pytest.raises(DeepError, match=r"no place for what the job says.*/nowhere.*No such file"):
        cluster.bring({"folder": "/nowhere"})
    with pytest.raises(DeepError, match=r"failed.*exit status 127.*/nowhere/python"):
        cluster.bring({"python": "/nowhere/python"})


def test_a_container_of_udocker_brings_a_figure_and_is_gone(cluster: Cluster, tmp_path: Path) -> None:
    wanted = tmp_path / "requirements.txt"
    wanted.write_text(UDOCKER, encoding="utf-8")
    fetch = ["-m", "pip", "download", "-q", "--no-deps", "--require-hashes", f"--requirement={wanted}"]
    subprocess.run([sys.executable, *fetch], check=True, cwd=tmp_path)
    cluster.node.put(next(tmp_path.glob("*.whl")), "/root/udocker.whl")
    cluster.node.run(UDOCKER_SETUP)
    command = f"/usr/bin/python3 -m {slurm.MODULE}"
    contained = {"runtime": "udocker", "image": "node/python:1", "command": command}
    done = cluster.bring(contained)
    assert done.results[0].summary is not None, done.results[0].reasons
    with pytest.raises(DeepError, match="was cancelled"):
        cluster.bring(contained, ENDLESS, "scancel {job}")
    assert "node/python" not in cluster.node.run("su deep -c 'udocker ps'")
