"""The training loop. It trains any `Objective`."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from fmrgen.apps.training.augment import augment
from fmrgen.apps.training.checkpoint import TrainingFolder
from fmrgen.apps.training.images import TrainingImages, load_images
from fmrgen.apps.training.objectives.base import Objective
from fmrgen.apps.training.perturbed import PerturbedCopies, PerturbedImages
from fmrgen.apps.training.recipe import ScheduleConfig, TrainRecipe
from fmrgen.distributed.launch import Processes
from fmrgen.distributed.prefetch import read_ahead
from fmrgen.distributed.rank import note
from fmrgen.engine.interfaces import Generator
from fmrgen.errors import UserError, one_line
from fmrgen.labels import Labels
from fmrgen.progress.trackers import tracking
from fmrgen.recipe.build import build_component, build_source
from fmrgen.sources.base import Source

_TEST_BATCH = 250


def train(
    recipe: TrainRecipe,
    output: str | Path,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    trackers: Sequence[str] = (),
) -> dict[str, float]:
    """Train, or resume training, and write the weights.

    Runs on every process of a launch: each computes its share of a batch, and gradients are averaged. The random
    numbers of a step depend only on seed, step and process, so a killed run resumes from its last checkpoint and ends
    with the same weights.

    Args:
        recipe: of the run.
        output: the folder for the weights, checkpoints and `training.json`, made if needed; or the address of one in
            an object store (`s3://…`), where a run can resume on another machine.
        progress: called with (step, steps, loss) after each step.
        trackers: accelerate's names of trackers, such as `tensorboard`, that log losses and metrics.

    Returns:
        The test metrics by name.

    Raises:
        UserError: the recipe can't be trained, the folder belongs to another run, or training diverged.
    """
    processes = Processes()
    schedule = recipe.schedule
    folder = TrainingFolder(output, recipe)
    with folder.alone(processes):
        metrics: dict[str, float] | None = processes.gather(folder.metrics())[0]
        if metrics is None:
            if schedule.batch_size % processes.size:
                raise UserError(
                    f"schedule.batch_size: {schedule.batch_size} images can't be shared by {processes.size} processes"
                )
            with cpu_threads(schedule.threads) if processes.device.type == "cpu" else nullcontext():
                metrics = processes.gather(_train(recipe, folder, processes, progress, trackers))[0]
    return metrics or {}


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Set the number of CPU threads for the work inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(
    recipe: TrainRecipe,
    folder: TrainingFolder,
    processes: Processes,
    progress: Callable[[int, int, float], None],
    trackers: Sequence[str],
) -> dict[str, float]:
    """Train, and return the test metrics on the first process."""
    schedule = recipe.schedule
    torch.manual_seed(schedule.seed)
    source = build_source(recipe.source)
    test = build_source(recipe.test)  # now, so that an error in it does not come after the training
    objective = _objective(recipe, source.labels, processes)
    images = TrainingImages(source, objective.image_size, schedule.seed)
    losses = _Losses(recipe, objective, images, processes)
    optimizer, decay = _optimizer(objective, schedule)
    start = 0
    state = folder.load()
    if state is not None:
        objective.load_state(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        decay.load_state_dict(state["decay"])
        start = int(state["step"])
    processes.check_same("checkpoint", start)
    objective.network.train()
    batches = read_ahead(images.batches(start, schedule.batch_size, processes.rank, processes.size), 2)
    names = trackers if processes.is_first else ()
    with tracking(names, recipe.model_dump(mode="json"), folder.folder / ".logs") as tracked:
        for step in range(start, schedule.steps):
            loss = losses.of(next(batches), step)
            if not processes.all_agree(torch.isfinite(loss)):
                raise UserError(f"training diverged at step {step}; lower schedule.learning_rate")
            optimizer.zero_grad()
            loss.backward()
            processes.average_gradients(objective.network)
            if schedule.clip is not None:
                torch.nn.utils.clip_grad_norm_(objective.network.parameters(), schedule.clip)
            optimizer.step()
            decay.step()
            progress(step + 1, schedule.steps, loss.item())
            tracked.log({"loss": loss.item(), "learning_rate": float(decay.get_last_lr()[0])}, step + 1)
            if (step + 1) % schedule.checkpoint_every == 0 and step + 1 < schedule.steps:
                processes.share(*objective.network.buffers())  # a checkpoint has those of the first process alone
                if processes.is_first:
                    states = {"optimizer": optimizer.state_dict(), "decay": decay.state_dict()}
                    folder.save({"step": step + 1, "objective": objective.state(), **states})
        processes.share(*objective.network.buffers())
        objective.network.eval()
        metrics = {}
        if processes.is_first:
            folder.save_weights(objective.save)
            metrics = _test(objective, test, processes.device)
            tracked.log({f"test {name}": value for name, value in metrics.items()}, schedule.steps)
            folder.end(metrics)
            if metrics.get("accuracy", 1.0) < 1.3 / len(source.labels):  # weights that have learnt nothing
                note(
                    f"{folder.output}: its accuracy, {metrics['accuracy']:.1%}, is hardly above guessing; train again "
                    "with a lower schedule.learning_rate, more schedule.steps or another schedule.seed"
                )
    return metrics


class _Losses:
    """The loss of a step, on augmented images, their copies and perturbed images, by the recipe.

    Raises UserError if the recipe needs a generator and has none.
    """

    def __init__(self, recipe: TrainRecipe, objective: Objective, images: TrainingImages, processes: Processes) -> None:
        if recipe.generator is None and recipe.augment.reconstruct:
            raise UserError("augment.reconstruct: needs a generator section")
        if recipe.generator is None and recipe.perturbed:
            raise UserError("perturbed: needs a generator section")
        self.recipe, self.objective, self.processes = recipe, objective, processes
        self.labels, self.device = images.source.labels, processes.device
        self.generator = None
        if recipe.generator is not None:
            self.generator = build_component(recipe.generator, "generator", Generator, self.device)
        self.perturbed = None
        if recipe.perturbed is not None and self.generator is not None:
            self.perturbed = PerturbedImages(recipe.perturbed, images, self.generator, self.labels, self.device)
        self.copies = None if recipe.copies is None else PerturbedCopies(recipe.copies, objective.image_size)

    def of(self, batch: tuple[Tensor, Tensor, Tensor], step: int) -> Tensor:
        """Return the loss of one process's share of a batch: uint8 [B, 3, H, W], labels [B] and ids [B]."""
        pixels, labels, ids = batch
        schedule = self.recipe.schedule
        progress = step / schedule.steps
        text = f"{schedule.seed}:{step}:{self.processes.rank}"  # 63 bits of its digest are the seed
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
        with torch.autocast(self.device.type, torch.bfloat16, enabled=schedule.precision == "bf16"):
            torch.manual_seed(seed)
            images, targets = self._augmented(pixels, labels)
            if self.copies is None:
                loss = self.objective.loss(images, targets, progress)
            else:
                torch.manual_seed(seed)  # the copies are augmented as their images are
                copies, _ = self._augmented(self.copies.of(ids, pixels), labels)
                loss = self.objective.loss_of_pair(images, copies, targets, progress)
            if self.perturbed is not None:
                perturbed_images, probabilities = self.perturbed.draw(len(pixels), self.device)
                loss = loss + self.objective.loss(perturbed_images, probabilities, progress)
        return loss

    def _augmented(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        images = pixels.to(self.device) / 255
        return augment(images, labels.to(self.device), self.recipe.augment, self.generator, len(self.labels))


def _objective(recipe: TrainRecipe, labels: Labels, processes: Processes) -> Objective:
    """Return the objective of a recipe. Raises UserError if its settings make no network."""
    try:
        objective = recipe.model.objective(processes.device, labels)
    except UserError:
        raise
    except Exception as error:  # each library has its own errors
        raise UserError(
            f"model: {recipe.model.kind} can't be built: {type(error).__name__}: {one_line(error)}"
        ) from error
    objective.processes = processes
    return objective


def _optimizer(
    objective: Objective, schedule: ScheduleConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return the optimizer, and the schedule of its learning rate."""
    parameters, rate = objective.network.parameters(), schedule.learning_rate
    optimizer: torch.optim.Optimizer
    if schedule.optimizer == "sgd":
        optimizer = torch.optim.SGD(parameters, rate, momentum=schedule.momentum, weight_decay=schedule.weight_decay)
    else:
        optimizer = torch.optim.AdamW(parameters, rate, weight_decay=schedule.weight_decay)
    if schedule.decay == "cosine":
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.steps)
    cycles = schedule.optimizer == "adamw"  # the momentum of SGD stays that of the recipe
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=schedule.steps, cycle_momentum=cycles)
    return optimizer, one_cycle


def _test(objective: Objective, source: Source, device: torch.device) -> dict[str, float]:
    """Return the mean of each metric over the test images."""
    batches: dict[str, list[Tensor]] = {}
    for start in range(0, len(source), _TEST_BATCH):
        positions = range(start, min(start + _TEST_BATCH, len(source)))
        images, labels, _ = load_images(source, positions, objective.image_size)
        with torch.no_grad():
            metrics = objective.metrics(images.to(device) / 255, labels.to(device))
        for name, values in metrics.items():
            batches.setdefault(name, []).append(values.float())
    return {name: torch.cat(values).mean().item() for name, values in batches.items()}
