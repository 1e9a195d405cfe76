"""Processes started by a scheduler instead of a launcher: Slurm's `srun`, Open MPI's `mpirun`, and others by PMI."""

import os
import re
import zlib
from collections.abc import Mapping

_OPEN_MPI = {
    "RANK": "OMPI_COMM_WORLD_RANK",
    "WORLD_SIZE": "OMPI_COMM_WORLD_SIZE",
    "LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_RANK",
    "LOCAL_WORLD_SIZE": "OMPI_COMM_WORLD_LOCAL_SIZE",
}
_PMI = {
    "RANK": "PMI_RANK",
    "WORLD_SIZE": "PMI_SIZE",
    "LOCAL_RANK": "MPI_LOCALRANKID",
    "LOCAL_WORLD_SIZE": "MPI_LOCALNRANKS",
}
_JOB_VARIABLES = ("SLURM_JOB_ID", "SLURM_STEP_ID", "PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID")
_SLURM_NUMBERS = ("SLURM_STEP_ID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID")
_PORTS = range(20000, 32000)  # below those that operating systems assign themselves


def adopt_scheduler() -> None:
    """Set the environment variables by which a launcher tells torch and accelerate a process's rank.

    Changes nothing in a process that a launcher has started, in a single task, and in a batch script, which runs once
    however many tasks the job has.
    """
    if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & os.environ.keys():
        return
    for ranks in (_slurm_ranks(os.environ), _renamed(os.environ, _OPEN_MPI), _renamed(os.environ, _PMI)):
        if ranks is not None and int(ranks["WORLD_SIZE"]) > 1:
            os.environ.update(ranks)
            os.environ.setdefault("MASTER_PORT", str(_port(os.environ)))
            if ranks["LOCAL_WORLD_SIZE"] == ranks["WORLD_SIZE"]:
                os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
            return


def _renamed(variables: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str] | None:
    """Return a scheduler's variables under a launcher's names; None unless all of them are numbers."""
    ranks = {}
    for launcher_name, scheduler_name in names.items():
        value = variables.get(scheduler_name, "")
        if not value.isdecimal():
            return None
        ranks[launcher_name] = value
    return ranks


def _slurm_ranks(variables: Mapping[str, str]) -> dict[str, str] | None:
    """Return the variables of a launcher for a task of a Slurm step.

    None outside of steps: a batch script has the numbers of the whole job.
    """
    if not all(variables.get(name, "").isdecimal() for name in _SLURM_NUMBERS):
        return None
    tasks = tasks_of_nodes(variables.get("SLURM_STEP_TASKS_PER_NODE", ""))
    node = int(variables["SLURM_NODEID"])
    if node >= len(tasks):
        return None
    ranks = {
        "RANK": variables["SLURM_PROCID"],
        "WORLD_SIZE": variables["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": variables["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(tasks[node]),
    }
    host = first_host(variables.get("SLURM_STEP_NODELIST", ""))
    if len(tasks) > 1 and host and "MASTER_ADDR" not in variables:
        ranks["MASTER_ADDR"] = host
    return ranks


def tasks_of_nodes(text: str) -> list[int]:
    """Return the number of tasks of each node, from Slurm's short form: `2(x3),1` is 2, 2, 2, 1."""
    tasks_by_node = []
    for tasks, nodes in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        tasks_by_node += [int(tasks)] * int(nodes or 1)
    return tasks_by_node


def first_host(text: str) -> str:
    """Return the first host of Slurm's short form of a list: gpu07 for `gpu[07-09,12],cpu1`."""
    match = re.match(r"([^,\[]*)(?:\[([^],-]+)[^]]*\]([^,]*))?", text)
    if match is None:
        return ""
    return "".join(match.groups(default=""))


def _port(variables: Mapping[str, str]) -> int:
    """Return a port that all processes of a job agree on, and that the next job on the machine does not use."""
    job = ".".join(variables.get(name, "") for name in _JOB_VARIABLES)
    return _PORTS[zlib.crc32(job.encode()) % len(_PORTS)]
