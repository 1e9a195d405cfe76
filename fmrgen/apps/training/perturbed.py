"""Perturbed images to learn from: copies of training images, and images at all stages of guided perturbation.

An oracle has to tell when a perturbed image stops showing its class. It learns that from images that were moved, as
Algorithm 1 moves them, to fool one classifier, and from the predictions of the other classifiers for them.
"""

import torch
from torch import Tensor, nn

from fmrgen.apps.training.images import TrainingImages
from fmrgen.apps.training.recipe import PerturbedConfig
from fmrgen.engine.images import StraightThroughBytes, to_bytes
from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.engine.objectives import margin, truth_of
from fmrgen.errors import UserError
from fmrgen.image_files import open_rgb, resize
from fmrgen.labels import Labels
from fmrgen.recipe.build import build_classifier
from fmrgen.split.open import open_split
from fmrgen.split.rows import reading


class PerturbedCopies:
    """One static copy of each training image (the paper's App. G): the images of a perturbed split by their ids.

    They are in memory as files; a row that is not valid has no copy. Copies have a side of `size` pixels. Raises
    UserError if the split has no ids, or can't be read.
    """

    def __init__(self, reference: str, size: int) -> None:
        self.size = size
        split = open_split(reference)
        missing = {"id", "image"} - set(split.features)
        if missing:
            raise UserError(f"copies: {reference} has no column {min(missing)}")
        columns = [name for name in ("id", "image", "valid") if name in split.features]
        self.files = {}
        with reading(split.name):
            for table in split.tables(columns=columns):
                for row in table.to_pylist():
                    if row.get("valid", True):
                        self.files[int(row["id"])] = split.image_of(row["image"])

    def of(self, ids: Tensor, images: Tensor) -> Tensor:
        """Return the copies of images, uint8 [B, 3, H, W], with `ids` [B]; an image without a copy stays as it is."""
        copies = images.clone()
        for place, example_id in enumerate(ids.tolist()):
            if example_id in self.files:
                pixels = resize(open_rgb(self.files[example_id]), self.size, "crop")
                copies[place] = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        return copies


class PerturbedImages:
    """Images of all stages of perturbation, of some training images, with soft labels.

    The label of an image is the mean of the probabilities of the judges that it was not moved against.
    """

    def __init__(
        self, config: PerturbedConfig, images: TrainingImages, generator: Generator, names: Labels, device: torch.device
    ) -> None:
        judges = []
        for number, section in enumerate(config.judges):
            judges.append(build_classifier(section, names, images.size, device, f"perturbed.judges.{number}"))
        moved, targets = [], []
        for judge in judges:
            others = [other for other in judges if other is not judge]
            pixels, labels, _ = images.sample(config.images)
            for batch, batch_labels in zip(pixels.split(50), labels.split(50), strict=True):
                stages = _stages(judge, batch.to(device) / 255, batch_labels.to(device), generator, config)
                stages = stages.flatten(0, 1)
                moved.append(stages.cpu())
                with torch.no_grad():
                    targets.append(torch.stack([other(stages / 255).softmax(1) for other in others]).mean(0).cpu())
        self.images, self.targets = torch.cat(moved), torch.cat(targets)

    def draw(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return `count` images [B, 3, H, W] in [0, 1] and their probabilities [B, K]."""
        rows = torch.randint(len(self.images), (count,))
        return self.images[rows].to(device) / 255, self.targets[rows].to(device)


def _stages(judge: nn.Module, images: Tensor, labels: Tensor, generator: Generator, config: PerturbedConfig) -> Tensor:
    """Return every second stage of moving images against a judge, reconstructions first, uint8 [S, B, 3, H, W]."""
    with torch.no_grad():
        free, fixed = generator.encode(images, labels)
    stages = []
    for step in range(config.steps + 1):
        free = free.detach().requires_grad_(True)
        decoded = StraightThroughBytes.apply(generator.decode(Latents(free, fixed)))
        if step % 2 == 0:
            stages.append(to_bytes(decoded.detach()))
        logits = judge(decoded)
        truth = truth_of(labels, logits.shape[1], None)
        (gradient,) = torch.autograd.grad(margin(logits, truth).sum(), free)
        free = free + config.step_size * gradient.sign()
    return torch.stack(stages)
