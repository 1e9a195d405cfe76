"""Images generated against two networks, where OLD is right and NEW wrong and the reverse: how the two differ.

They are no part of the verdict: on real photos they said nothing of a regression that the originals do not say
(docs/results/reality.md).
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.apps.release.evidence import NEGATIVE, POSITIVE
from fmrgen.config import ComponentConfig
from fmrgen.jobs.generate import make_split
from fmrgen.metrics.rows import accepted_as_label, as_label
from fmrgen.recipe.job import Recipe
from fmrgen.recipe.sections import oracle_config_of
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import read_provenance
from fmrgen.storage.shards import SplitFolder

_COLUMNS = ("id", "label", "accepted_labels", "valid", "prediction", "loss", "judges", "latent_shift")


@dataclass(frozen=True)
class GeneratedImage:
    """An image that one network has right and the other wrong."""

    id: int  # of the original
    label: str  # the true class
    prediction: str  # the wrong one
    before: float  # the probability of the true class by the network that is right
    after: float  # the same by the network that is wrong
    latent_shift: float  # how far its latent was moved


@dataclass(frozen=True)
class Generated:
    """Images generated against two networks.

    Attributes:
        rows: originals that were tried on each side.
        images: under `negative` (OLD right, NEW wrong) and `positive`; those first on which the two differ most surely.
        folders: of the splits that hold these.
    """

    rows: int
    images: dict[str, list[GeneratedImage]]
    folders: dict[str, SplitFolder] = field(repr=False, compare=False)


def generate_against(recipe: Recipe, output: str | Path, old: ComponentConfig, new: ComponentConfig) -> Generated:
    """Generate two splits of the same originals, or resume them, and return their images.

    For `negative`, steps climb NEW's margin of error and OLD has a veto beside the oracle. The first image at which NEW
    is wrong is kept, so the change is small. For `positive` the two networks swap roles. The recipe's classifier is
    ignored. Runs on every process of a launch, with the same outcome on each. Raises UserError if a part of the recipe
    or a classifier can't be used, or the two have the same weights.
    """
    perturb = replace(recipe.perturb.runs[0], objective="margin", keep="first")
    networks = {"old": old, "new": new}
    folders, images = {}, {}
    for side, attacked, veto in ((NEGATIVE, "new", "old"), (POSITIVE, "old", "new")):
        panel = {
            "kind": "ensemble",
            "rule": "veto",
            "names": ["oracle", veto],
            "oracles": [recipe.oracle, {"kind": "classifier", "classifier": networks[veto]}],
        }
        # All splits of a config have one oracle, and these two have different panels: so each has a config.
        changed = {
            "classifier": networks[attacked],
            "oracle": oracle_config_of(panel, "diff"),
            "perturb": perturb,
            "description": "",
            "output": recipe.output.renamed(config=f"{recipe.output.config}-{side}", split=attacked),
        }
        make_split(recipe.model_copy(update=changed), output)
        paths = SplitPaths(Path(output), f"{recipe.output.config}-{side}", attacked)
        folders[side] = SplitFolder.of(paths, read_provenance(paths))
        images[side] = _images_of(folders[side])
    return Generated(read_provenance(paths).rows, images, folders)


def _images_of(folder: SplitFolder) -> list[GeneratedImage]:
    """Return the images of a side that its attacked network has wrong, and the other one right."""
    names = list(read_provenance(folder.paths).labels)
    table = folder.read_columns(_COLUMNS)
    columns = {name: table[name].to_numpy() for name in table.column_names if name != "judges"}
    verdicts = [judges[-1] for judges in table["judges"].to_pylist()]  # of the other network, the last of the panel
    label = columns["label"]
    other = as_label(np.array([verdict["label"] for verdict in verdicts]), label, columns.get("accepted_labels"))
    prediction = accepted_as_label(columns)["prediction"]
    rows = np.flatnonzero(columns["valid"].astype(bool) & (other == label) & (prediction != label))
    images = [
        GeneratedImage(
            id=int(columns["id"][row]),
            label=names[label[row]],
            prediction=names[prediction[row]],
            before=float(verdicts[row]["probability"]),
            after=float(np.exp(-columns["loss"][row])),
            latent_shift=float(columns["latent_shift"][row]),
        )
        for row in rows
    ]
    return sorted(images, key=lambda image: -min(image.before, 1 - image.after))


def has_gradient(network: nn.Module, images: Tensor) -> bool:
    """Return whether gradients of the network's logits reach images, [B, 3, H, W] in [0, 1]."""
    leaf = images.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            logits = network(leaf)
            if not logits.requires_grad:
                return False
            (gradient,) = torch.autograd.grad(logits.sum(), leaf, allow_unused=True)
    except (RuntimeError, NotImplementedError):  # of an operation without a backward pass
        return False
    return gradient is not None
