"""Slurm as a back end, on a cluster as its users have it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.benchmark.backends import slurm
from pipelines.benchmark.model import Plan
from testbed.errors import DeepError
from tests.nodes.slurm_cluster import SPECIFICATION, Cluster, raised

pytestmark = pytest.mark.live

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
ENDLESS = SPECIFICATION.model_copy(update={"plan": Plan(repeats=10**9, limit=600)})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with raised("live-slurm", tmp_path_factory.mktemp("cluster")) as made:
        yield made


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
