"""What Slurm has said: recorded from slurmctld and slurmd 22.05.8 and 24.11.5 of Debian, of jobs that ended so."""

from __future__ import annotations

# ``scontrol --oneliner show job``, whole.
COMPLETED = (
    "JobId=6 JobName=deep-bench UserId=deep(1000) GroupId=deep(1000) MCS_label=N/A Priority=4294901755 Nice=0 "
    "Account=(null) QOS=(null) JobState=COMPLETED Reason=None Dependency=(null) Requeue=0 Restarts=0 BatchFlag=1 "
    "Reboot=0 ExitCode=0:0 RunTime=00:00:04 TimeLimit=00:20:00 TimeMin=N/A SubmitTime=2026-11-29T13:39:42 "
    "EligibleTime=2026-11-29T13:39:42 AccrueTime=2026-11-29T13:39:42 StartTime=2026-11-29T13:39:42 "
    "EndTime=2026-11-29T13:39:46 Deadline=N/A SuspendTime=None SecsPreSuspend=0 LastSchedEval=2026-11-29T13:39:42 "
    "Scheduler=Main Partition=batch AllocNode:Sid=node1:1470 ReqNodeList=(null) ExcNodeList=(null) NodeList=node1 "
    "BatchHost=node1 NumNodes=1 NumCPUs=1 NumTasks=1 CPUs/Task=1 ReqB:S:C:T=0:0:*:* TRES=cpu=1,mem=4000M,node=1,"
    "billing=1 Socks/Node=* NtasksPerN:B:S:C=0:0:*:* CoreSpec=* MinCPUsNode=1 MinMemoryNode=0 MinTmpDiskNode=0 "
    "Features=(null) DelayBoot=00:00:00 OverSubscribe=OK Contiguous=0 Licenses=(null) Network=(null) Command=(null) "
    "WorkDir=/ StdErr=/shared/6.err StdIn=/dev/null StdOut=/shared/6.out Power= \n"
)
END = "JobState=COMPLETED Reason=None"
STATUS = "ExitCode=0:0"


def record(state: str, status: str = "0:0", restarts: int = 0) -> str:
    """The same of a job of another state, given as ``STATE REASON``; 24.11 has the failed node behind it."""
    now = "JobState=" + state.replace(" ", " Reason=", 1)
    return (
        COMPLETED.replace(END, now).replace(STATUS, f"ExitCode={status}").replace("Restarts=0", f"Restarts={restarts}")
    )


# What each had in these fields, by what was done to it.
FAILED = record("FAILED NonZeroExitCode", "3:0")
NOT_FOUND = record("FAILED NonZeroExitCode", "127:0")
SEGFAULT_22 = record("FAILED JobLaunchFailure", "0:11")
SEGFAULT_24 = record("FAILED RaisedSignal:11(Segmentation_fault)", "0:11")
NO_FOLDER_22 = record("FAILED JobLaunchFailure", "0:53")
NO_FOLDER_24 = record("FAILED RaisedSignal:53(Real-time_signal_19)", "0:53")
MEMORY_22 = record("FAILED JobLaunchFailure", "0:9")
MEMORY_24 = record("FAILED RaisedSignal:9(Killed)", "0:9")
# With task/cgroup; its state and status are those of sacct.
OOM_KILLED = record("OUT_OF_MEMORY OutOfMemory", "0:125")
CANCELLED_22 = record("CANCELLED None", "143:0")
CANCELLED_24 = record("CANCELLED None", "0:15")
TIMEOUT = record("TIMEOUT TimeLimit", "0:15")
NODE_FAIL_22 = record("NODE_FAIL NodeDown")
NODE_FAIL_24 = record("NODE_FAIL NodeDown FailedNode=node1", "0:1")
PENDING = record("PENDING None")
BUSY = record("PENDING Resources")
NODES_DOWN = record(
    "PENDING Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved_for_jobs_in_higher_priority_partitions"
)
NODE_GONE = record("PENDING ReqNodeNotAvail,_UnavailableNodes:node1")
OTHERS_FIRST = record("PENDING AssocMaxJobsLimit")  # with a limit of one job, while another one runs
RUNNING = record("RUNNING None")
# What is written by slurmstepd to the job's own output.
MEMORY_WORDS = """\
slurmstepd-node1: error: StepId=11.batch exceeded memory limit (323141632 > 52428800), being killed
slurmstepd-node1: error: *** JOB 11 ON node1 CANCELLED AT 2026-11-29T13:40:06 ***
slurmstepd-node1: error: Exceeded job memory limit
"""
OOM_WORDS = (
    "slurmstepd-node1: error: Detected 1 oom-kill event(s) in StepId=10.batch. Some of your processes may have been "
    "killed by the cgroup out-of-memory handler.\n"
)
NOT_FOUND_WORDS = "/var/lib/slurm/slurmd/job00009/slurm_script: 2: exec: /nowhere/python: not found\n"
# Of the commands, on standard error, with their exit status.
UNKNOWN = (1, "", "slurm_load_jobs error: Invalid job id specified\n")
AWAY = (1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")
NO_ACCOUNTING = (1, "", "Slurm accounting storage is disabled\n")
SUBMISSION_AWAY = (
    1, "", "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n",
)  # fmt: skip
REFUSALS = (
    """\
sbatch: error: invalid partition specified: nowhere
sbatch: error: Batch job submission failed: Invalid partition name specified
""",
    "sbatch: error: Batch job submission failed: Invalid feature specification\n",
    """\
sbatch: error: Memory specification can not be satisfied
sbatch: error: Batch job submission failed: Requested node configuration is not available
""",
    "sbatch: error: Invalid generic resource (gres) specification\n",
    "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified\n",
    "sbatch: error: Batch job submission failed: Invalid qos specification\n",
    "sbatch: error: Batch job submission failed: Required partition not available (inactive or drain)\n",
)
CANCEL_AWAY = (
    8, "", "scancel: error: Kill job error on job id 18: Unable to contact slurm controller (connect failure)\n",
)  # fmt: skip
