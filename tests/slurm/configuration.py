"""The configuration files of a test cluster: real Slurm, made quick to requeue and quick to miss a node."""

import random
from pathlib import Path

HEAD_ADDRESS = "10.77.0.254"
FREEZER = Path("/sys/fs/cgroup/freezer")  # of cgroup v1
# Any character device is a GPU to Slurm: it is counted and handed out, and CUDA finds none.
MAKE_BELIEVE_GPUS = ("/dev/null", "/dev/zero")

SLURM_CONF = """
ClusterName=test
SlurmctldHost=head({head})
SlurmUser=root
AuthInfo=socket={folder}/munge.sock,cred_expire=5    # a requeued job waits for this (default 120 s)
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides                    # believe CPUs= below, not the hardware
SchedulerParameters=sched_interval=1,bf_interval=1   # a requeued job starts in seconds, not in a minute
PreemptType=preempt/partition_prio                   # jobs of the partition urgent preempt those of main
PreemptMode=REQUEUE
FirstJobId={first_job}                               # ids do not repeat from cluster to cluster
ReturnToService=2                                    # a node that was down and registers again is used again
SlurmdTimeout=10                                     # a silent node is down after this (default 300 s)
KillWait=5                                           # from SIGTERM to SIGKILL (default 30 s)
MinJobAge=86400                                      # `scontrol show job` knows ended jobs
MailProg=/bin/true
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
{gres}
NodeName=DEFAULT CPUs={cpus} RealMemory=8000{node_gres}
{nodes}
PartitionName=main Nodes=ALL Default=YES PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=2
"""


def address(node: int) -> str:
    """Of node 1, 2, ... on the cluster's network."""
    return f"10.77.0.{node}"


def write(folder: Path, nodes: int, cpus: int, gpus: int) -> None:
    """slurm.conf, cgroup.conf, gres.conf and hosts, for n1..n<nodes> with `cpus` cores and `gpus` make-believe GPUs each."""
    devices = MAKE_BELIEVE_GPUS[:gpus]
    (folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in devices))
    (folder / "cgroup.conf").write_text(f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={FREEZER.parent}\n")
    (folder / "slurm.conf").write_text(
        SLURM_CONF.format(
            folder=folder,
            head=HEAD_ADDRESS,
            proctrack=proctrack(),
            first_job=random.randrange(10_000, 50_000),
            cpus=cpus,
            gres="GresTypes=gpu" if devices else "",
            node_gres=f" Gres=gpu:{len(devices)}" if devices else "",
            nodes="\n".join(f"NodeName=n{i} NodeAddr={address(i)}" for i in range(1, nodes + 1)),
        )
    )
    hosts = {"127.0.0.1": "localhost", HEAD_ADDRESS: "head"} | {address(i): f"n{i}" for i in range(1, nodes + 1)}
    (folder / "hosts").write_text("".join(f"{ip} {name}\n" for ip, name in hosts.items()))


def proctrack() -> str:
    """Real clusters end a job's processes by cgroup; where there is none, those whose parent ended outlive the job."""
    return "cgroup" if (FREEZER / "release_agent").exists() else "linuxproc"
