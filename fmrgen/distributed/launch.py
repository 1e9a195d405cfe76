"""The processes of a job, and the devices they run on."""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object, patch_environment
from torch.distributed import DistError

from fmrgen.errors import UserError

Result = TypeVar("Result")

_LONGEST_WAIT = timedelta(hours=12)  # for the last process to come, and in an evaluation for its predictions


def start_processes() -> Accelerator:
    """Return an Accelerator (GPU if available, else CPU), and split the CPU cores between the machine's processes.

    Raises UserError if the launched processes don't see each other.
    """
    gpu = torch.cuda.is_available()
    options = [InitProcessGroupKwargs(timeout=_LONGEST_WAIT)]
    gpus, rank = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    changes = {"LOCAL_RANK": rank % gpus} if 0 < gpus <= rank else {}  # accelerate takes the GPU of that number
    try:
        # accelerate's own precision is for models that it prepares; `launched_precision` tells the launched one.
        with patch_environment(**changes):
            accelerator = Accelerator(cpu=not gpu, mixed_precision="no", kwargs_handlers=options)
    except ValueError as error:
        raise UserError(
            f"the processes can't connect to each other; start them with accelerate launch: {error}"
        ) from None
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise UserError(
            f"launched as {launched} processes but accelerate sees {accelerator.num_processes}; each would do all the "
            "work. On CPUs launch with ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N"
        )
    atexit.unregister(_leave)  # once, however many jobs a process runs
    atexit.register(_leave)
    _share_cores(gpu)
    return accelerator


def _share_cores(gpu: bool) -> None:
    """Set the threads of this process to its share of the cores, if a launcher started it to work on the CPU.

    Launchers leave one thread to each process, however many cores there are. Without a launcher, the number of threads
    is the caller's choice.
    """
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if not gpu and (local_processes > 1 or "ACCELERATE_MIXED_PRECISION" in os.environ):
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, usable // local_processes))


def start_process() -> torch.device:
    """Return the device of this process, started by a launcher or alone.

    It is the GPU of its rank, or the CPU with its share of the cores.
    """
    gpus = torch.cuda.device_count()
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    _share_cores(bool(gpus))
    if not gpus:
        return torch.device("cpu")
    device = torch.device("cuda", rank % gpus)
    torch.cuda.set_device(device)
    return device


class Sharing:
    """Processes that share work: this one is number `rank` of `size`. Here it works alone."""

    rank: int = 0
    size: int = 1

    def gather(self, value: Any) -> list[Any]:
        """Return every process's `value`, by rank, on every process."""
        return [value]

    def together(self, work: Callable[[], Result]) -> Result:
        """Return the result of `work`, if it succeeds on every process.

        Raises UserError on every process if it raises one on any, so that no process waits for one that has given up.
        """
        result, message = None, None
        try:
            result = work()
        except UserError as error:
            message = str(error)
        first_message = next(filter(None, self.gather(message)), None)
        if first_message is not None:
            raise UserError(first_message)
        return cast(Result, result)

    def check_same(self, name: str, value: Any) -> None:
        """Raise UserError unless all processes loaded the same `name`: rows of different models must not be mixed.

        `value` is its digest, or anything that compares.
        """
        values = self.gather(value)
        other = next((process for process, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            raise UserError(
                f"process {other} loaded other {name} than process 0; give every node the same recipe and files, and "
                "a classifier with a checkpoint"
            )


class Processes(Sharing):
    """All processes of an evaluation or a training, which share their results."""

    def __init__(self) -> None:
        accelerator = start_processes()
        self.rank = accelerator.process_index
        self.size = accelerator.num_processes
        self.device = accelerator.device
        self.is_first = accelerator.is_main_process  # of all
        self._local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.is_first_here = self._local_rank == 0  # of its machine

    def gather(self, value: Any) -> list[Any]:
        """Return every process's `value`, by rank, on every process. Raises UserError if a process is gone.

        Values can be anything that can be pickled.
        """
        with self._together():
            return gather_object([value])

    def of_first_here(self, value: Any) -> Any:
        """Return the `value` of the first process of this machine. Raises UserError as `gather` does."""
        values = self.gather(value if self.is_first_here else None)
        return values[self.rank - self._local_rank]

    def average_gradients(self, network: torch.nn.Module) -> None:
        """Average the gradients of a network over all processes, in one message. Raises UserError as `gather` does."""
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        with self._together():
            torch.distributed.all_reduce(flat)
        averages = (flat / self.size).split([gradient.numel() for gradient in gradients])
        for gradient, average in zip(gradients, averages, strict=True):
            gradient.copy_(average.view_as(gradient))

    def share(self, *tensors: torch.Tensor) -> None:
        """Copy the first process's values into the tensors of all others. Raises UserError as `gather` does."""
        if self.size > 1:
            with self._together():
                for tensor in tensors:
                    torch.distributed.broadcast(tensor, 0)

    def all_agree(self, holds: torch.Tensor) -> bool:
        """Return whether the bool `holds` is true on every process. Raises UserError as `gather` does."""
        minimum = holds.detach().float().clone()
        if self.size > 1:
            with self._together():
                torch.distributed.all_reduce(minimum, torch.distributed.ReduceOp.MIN)
        return bool(minimum)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Turn the failure of a collective operation into a UserError: another process is gone."""
        try:
            yield
        except (RuntimeError, DistError) as error:
            if self.size == 1:
                raise
            gone = UserError("another process of the job has stopped; its own error line, if any, says why")
            gone.from_one_process = os.environ.get("LOCAL_RANK") == "1"  # the first one may be the one that is gone
            raise gone from error


@contextmanager
def errors_of_one_process() -> Iterator[None]:
    """Mark the UserErrors of work that one process does alone, so that it reports them itself."""
    try:
        yield
    except UserError as error:
        error.from_one_process = True
        raise


def _leave() -> None:
    """End the process group. Its threads would sometimes abort an interpreter that ends before them."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or the type of another device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
