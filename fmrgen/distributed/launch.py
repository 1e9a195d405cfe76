"""The processes of a job, and the devices they run on."""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal, Protocol, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object
from torch.distributed import DistError

from fmrgen.distributed.schedulers import adopt_scheduler
from fmrgen.errors import UserError

Result = TypeVar("Result")

_LONGEST_WAIT = timedelta(hours=12)  # for the last process to come, and in an evaluation for its answers


def start_processes() -> Accelerator:
    """An Accelerator on the GPUs where there are any, else on the CPU, with the cores of the machine shared out
    among the processes that a launcher started on it.

    Raises UserError where the processes that were launched don't see each other.
    """
    adopt_scheduler()
    gpu = torch.cuda.is_available()
    options = [InitProcessGroupKwargs(timeout=_LONGEST_WAIT)]
    try:
        # The launched precision is for `launched_precision` to say: accelerate's own is of models that it prepares.
        with _rank_among(torch.cuda.device_count()):
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


@contextmanager
def _rank_among(gpus: int) -> Iterator[None]:
    """Accelerate takes the GPU of its local rank; a scheduler that gives each task one shows it no others."""
    rank = os.environ.get("LOCAL_RANK", "0")
    if not 0 < gpus <= int(rank):
        yield
        return
    os.environ["LOCAL_RANK"] = str(int(rank) % gpus)
    try:
        yield
    finally:
        os.environ["LOCAL_RANK"] = rank


def _share_cores(gpu: bool) -> None:
    """Launchers leave one thread to each process, however many cores there are; without one, that is the caller's."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if not gpu and (here > 1 or "ACCELERATE_MIXED_PRECISION" in os.environ):
        torch.set_num_threads(max(1, usable_cores() // here))


def usable_cores() -> int:
    """Those of the machine that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_process() -> torch.device:
    """The device of this process, started by a launcher or alone: the GPU of its rank, or the CPU with its share of the
    cores.
    """
    adopt_scheduler()
    gpus, rank = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    _share_cores(bool(gpus))
    if not gpus:
        return torch.device("cpu")
    device = torch.device("cuda", rank % gpus)
    torch.cuda.set_device(device)
    return device


class Sharing(Protocol):
    """Processes that share work: this one is number `rank` of `size`."""

    rank: int
    size: int

    def gather(self, value: Any) -> list[Any]:
        """Every process's `value`, on every process."""


class Alone:
    """A process that shares nothing with others."""

    rank, size = 0, 1

    def gather(self, value: Any) -> list[Any]:
        """Its own `value`."""
        return [value]


def together(sharing: Sharing, work: Callable[[], Result]) -> Result:
    """What `work` returns, where it does on every process. Raises UserError on all where it raises one on any: none
    waits for another that has given up."""
    found, why = None, None
    try:
        found = work()
    except UserError as error:
        why = str(error)
    if (first := next(filter(None, sharing.gather(why)), None)) is not None:
        raise UserError(first)
    return cast(Result, found)


class Processes:
    """All processes of an evaluation or a training, which come together to share what they found.

    `rank` is this one's number, of `size`.
    """

    def __init__(self) -> None:
        accelerator = start_processes()
        self.rank, self.size, self.device = accelerator.process_index, accelerator.num_processes, accelerator.device
        self.is_first = accelerator.is_main_process
        self._rank_here = int(os.environ.get("LOCAL_RANK", "0"))
        self.is_first_here = self._rank_here == 0

    def gather(self, value: Any) -> list[Any]:
        """Every process's `value`, whatever can be pickled, on every process. Raises UserError where one is gone."""
        with self._together():
            return gather_object([value])

    def of_first_here(self, value: Any) -> Any:
        """The `value` that the first process of this machine has. Raises UserError as `gather` does."""
        return self.gather(value if self.is_first_here else None)[self.rank - self._rank_here]

    def average_gradients(self, network: torch.nn.Module) -> None:
        """Averages the gradients of a network over all processes, as one message. Raises UserError as `gather` does."""
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        with self._together():
            torch.distributed.all_reduce(flat)
        flat /= self.size
        for gradient, values in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(values.view_as(gradient))

    def share(self, *tensors: torch.Tensor) -> None:
        """Gives all processes the first one's values. Raises UserError as `gather` does."""
        if self.size > 1:
            with self._together():
                for tensor in tensors:
                    torch.distributed.broadcast(tensor, 0)

    def all_agree(self, holds: torch.Tensor) -> bool:
        """Whether a bool holds on every process. Raises UserError as `gather` does."""
        found = holds.detach().float().clone()
        if self.size > 1:
            with self._together():
                torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MIN)
        return bool(found)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Around what all processes do together: a line where one is gone."""
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
    """Around what one process does alone: its mistakes are its own, and it tells them itself."""
    try:
        yield
    except UserError as error:
        error.from_one_process = True
        raise


def launched_precision() -> Literal["bf16"] | None:
    """The precision that `accelerate launch --mixed_precision` asks for; None where it asks for none.

    Raises UserError for one that does not suffice.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if asked == "bf16":
        return "bf16"
    if asked != "no":
        raise UserError(f"--mixed_precision {asked}: not precise enough for these gradients; launch with bf16 or no")
    return None


def _leave() -> None:
    """Ends the talk between processes: its threads would now and then abort an interpreter that ends before them."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def device_name(device: torch.device) -> str:
    """The GPU's name, or the device's type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def check_same_on_all(loaded: list[dict[str, Any]]) -> None:
    """Raises UserError, on every process, where they did not load the same things: their rows must not be mixed."""
    for name, value in loaded[0].items():
        unlike = [process for process, other in enumerate(loaded) if other[name] != value]
        if unlike:
            raise UserError(
                f"process {unlike[0]} loaded other {name} than process 0; give every node the same recipe and "
                "files, and a classifier with a checkpoint"
            )
