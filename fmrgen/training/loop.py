"""The training loop. What is trained is a `Objective`; the loop knows nothing of it."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from fmrgen.components import build_source
from fmrgen.errors import UserError
from fmrgen.files import write_atomically
from fmrgen.sources.base import LoadedExample, Source
from fmrgen.training.augment import augment
from fmrgen.training.objectives.base import Objective
from fmrgen.training.perturbed import PerturbedImages
from fmrgen.training.recipe import TrainRecipe

_TEST_BATCH = 250


def train(
    recipe: TrainRecipe, output: Path, progress: Callable[[int, int, float], None] = lambda step, steps, loss: None
) -> dict[str, float]:
    """Trains, and writes the weights.

    Args:
        recipe: of the run.
        output: the folder for the weights; made if need be.
        progress: called with (step, steps, loss) after each step.

    Returns:
        The test metrics by name.

    Raises:
        UserError: the recipe can't be trained, or training diverged.
    """
    torch.manual_seed(recipe.schedule.seed)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output}: can't be a folder for the weights: {error.strerror}") from None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = build_source(recipe.source)
    objective = recipe.model.objective(device, source.labels)
    for section, needs in (("augment.reconstruct", recipe.augment.reconstruct), ("perturbed", recipe.perturbed)):
        if needs and recipe.generator is None:
            raise UserError(f"{section}: needs a generator section")
    generator = recipe.generator.build(device) if recipe.generator is not None else None
    images, labels = _load_all(source, objective.image_size)
    perturbed = None
    if recipe.perturbed is not None and generator is not None:
        perturbed = PerturbedImages(recipe.perturbed, images, labels.to(device), generator, source.labels)
    optimizer = torch.optim.AdamW(
        objective.network.parameters(), recipe.schedule.learning_rate, weight_decay=recipe.schedule.weight_decay
    )
    steps = recipe.schedule.steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.schedule.learning_rate, total_steps=steps)
    objective.network.train()
    for step in range(steps):
        rows = torch.randint(len(images), (recipe.schedule.batch_size,))
        batch, targets = (images[rows].to(device) / 255), labels[rows].to(device)
        loss = objective.loss(augment(batch, targets, recipe.augment, generator), targets, step / steps)
        if perturbed is not None:
            moved, probabilities = perturbed.draw(recipe.schedule.batch_size, device)
            loss = loss + objective.loss(moved, probabilities, step / steps)
        if not torch.isfinite(loss):
            raise UserError(f"training diverged at step {step}; lower schedule.learning_rate")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress(step + 1, steps, loss.item())
    objective.network.eval()
    with TemporaryDirectory(prefix=".", dir=output) as partial:
        objective.save(Path(partial))
        for path in sorted(filter(Path.is_file, Path(partial).rglob("*"))):
            write_atomically(output / path.relative_to(partial), path.read_bytes())
    return _test(objective, build_source(recipe.test), device)


def _load_all(source: Source, size: int) -> tuple[Tensor, Tensor]:
    examples = [e for e in source.load(0, len(source), size) if isinstance(e, LoadedExample)]
    images = torch.from_numpy(np.stack([example.image for example in examples])).permute(0, 3, 1, 2)
    return images, torch.tensor([example.label for example in examples])


def _test(objective: Objective, source: Source, device: torch.device) -> dict[str, float]:
    images, labels = _load_all(source, objective.image_size)
    with torch.no_grad():
        batches = [
            objective.metrics(batch.to(device) / 255, targets.to(device))
            for batch, targets in zip(images.split(_TEST_BATCH), labels.split(_TEST_BATCH), strict=True)
        ]
    return {name: torch.cat([batch[name].float() for batch in batches]).mean().item() for name in batches[0]}
