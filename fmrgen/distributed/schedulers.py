"""Processes that a scheduler has started, and no launcher: Slurm's `srun`, Open MPI's `mpirun`, and others by PMI."""

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
_JOBS = ("SLURM_JOB_ID", "SLURM_STEP_ID", "PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID")
_PORTS = range(20000, 32000)  # below those that systems give away themselves


def adopt_scheduler() -> None:
    """Tells torch and accelerate, in a launcher's words, which of a scheduler's tasks this process is.

    Does nothing in a process that a launcher has started, in a single task, and in a batch script, of which there is
    one however many tasks the job asked for.
    """
    if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & os.environ.keys():
        return
    for found in (_slurm(os.environ), _named(os.environ, _OPEN_MPI), _named(os.environ, _PMI)):
        if found is not None and int(found["WORLD_SIZE"]) > 1:
            os.environ.update(found)
            os.environ.setdefault("MASTER_PORT", str(_port(os.environ)))
            if found["LOCAL_WORLD_SIZE"] == found["WORLD_SIZE"]:
                os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
            return


def _named(variables: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str] | None:
    found = {ours: variables.get(theirs, "") for ours, theirs in names.items()}
    return found if all(map(str.isdecimal, found.values())) else None


def _slurm(variables: Mapping[str, str]) -> dict[str, str] | None:
    """Of a step alone: a batch script has the numbers of the whole job."""
    wanted = ("SLURM_STEP_ID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID")
    if not all(variables.get(name, "").isdecimal() for name in wanted):
        return None
    here = tasks_of_nodes(variables.get("SLURM_STEP_TASKS_PER_NODE", ""))
    node, first = int(variables["SLURM_NODEID"]), first_host(variables.get("SLURM_STEP_NODELIST", ""))
    if node >= len(here):
        return None
    return {
        "RANK": variables["SLURM_PROCID"],
        "WORLD_SIZE": variables["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": variables["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(here[node]),
        **({"MASTER_ADDR": first} if len(here) > 1 and first and "MASTER_ADDR" not in variables else {}),
    }


def tasks_of_nodes(text: str) -> list[int]:
    """How many tasks each node has, of Slurm's short form: `2(x3),1` is 2, 2, 2, 1."""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(tasks) for tasks, nodes in parts for _ in range(int(nodes or 1))]


def first_host(text: str) -> str:
    """The first name of Slurm's short form of a list: of `gpu[07-09,12],cpu1` it is gpu07."""
    found = re.match(r"([^,\[]*)(?:\[([^],-]+)[^]]*\]([^,]*))?", text)
    return "" if found is None else "".join(part or "" for part in found.groups())


def _port(variables: Mapping[str, str]) -> int:
    """The same in all processes of a job, and another one for the next job on a machine."""
    job = ".".join(variables.get(name, "") for name in _JOBS)
    return _PORTS[zlib.crc32(job.encode()) % len(_PORTS)]
