"""The sparse mask of a generator (paper §3.2.1, App. I): the latent dimensions that tell perturbed from original.

The mask is the support of an l1-regularised logistic regression between the latents of originals and those of the
images generated from them.
"""

import json
import os
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from fmrgen.distributed.launch import Processes
from fmrgen.distributed.launcher import launched_precision
from fmrgen.engine.perturb import perturb
from fmrgen.errors import UserError, option
from fmrgen.files import write_atomically
from fmrgen.generators.base import mask_of
from fmrgen.progress.bars import report
from fmrgen.recipe.build import Components
from fmrgen.recipe.job import Recipe
from fmrgen.report.report import Report, Section, Table
from fmrgen.weights.identity import identity_of

_FOLDS = 3
_FEWEST_IMAGES = 20  # below, there is nothing to learn and nothing to test on


@dataclass(frozen=True)
class SparseMask:
    """A mask and how it was found.

    Attributes:
        mask: True for the dimensions that may move, of the shape of one latent.
        images: how many it was found with.
        regularization: lambda of the regression, on the l1 norm beside the summed loss.
        test_score: the share of held-out latents that the regression tells apart.
    """

    mask: torch.Tensor
    images: int
    regularization: float
    test_score: float

    @property
    def tells_apart(self) -> bool:
        """Return whether the test score is over two standard errors above a coin's; if not, the mask means little."""
        return self.test_score > 0.5 + 1 / np.sqrt(2 * _held_out(self.images))

    @property
    def sparsity(self) -> float:
        """Return the share of dimensions that do not move."""
        return 1 - int(self.mask.sum()) / self.mask.numel()


def sparsify(recipe: Recipe, output: str | Path, *, regularization: float | None = None) -> SparseMask:
    """Perturb the images of a recipe, find the mask of a sparse generator (paper §3.2.1, App. I) and write it.

    Args:
        recipe: without a mask.
        output: the mask's file, `.safetensors`; its provenance is in it.
        regularization: lambda (36.36 in App. I); None finds it on a path (see `fit_mask`).

    Returns:
        The mask and how it was found.

    Raises:
        UserError: the recipe has a mask already, too few images were accepted, or no latent dimension is left.
    """
    if mask_of(recipe.generator) is not None:
        raise UserError("generator.mask: this recipe is sparse already; leave it out to find another mask")
    path = Path(output)
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: a mask is a .safetensors file; choose such a name")
    if path.exists():
        raise UserError(f"{path}: already exists; choose another {option('output')}, or delete it")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path}: can't be written; choose another {option('output')}")
    recipe = recipe.in_precision(launched_precision())
    processes = Processes()
    if processes.size > 1:
        raise UserError("sparsify runs in one process; start it without accelerate launch")
    components = recipe.build(processes.device)
    mask = fit_mask(*latent_pairs(recipe, components, processes.device), regularization)
    metadata = {
        "recipe": json.dumps(recipe.model_dump(mode="json")),
        "fingerprint": recipe.fingerprint,
        "generator_sha256": identity_of(components.generator).weights_sha256 or "",
        "images": str(mask.images),
        "regularization": repr(mask.regularization),
        "sparsity": repr(mask.sparsity),
        "test_score": repr(mask.test_score),
        "versions": json.dumps({name: version(name) for name in ("fmrgen", "torch", "scikit-learn")}),
    }
    write_atomically(path, save({"mask": mask.mask}, metadata))
    return mask


def latent_pairs(recipe: Recipe, components: Components, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Perturb all images of the source, and return the free latents of those that the oracle accepted at least once.

    They are of the originals and of the images generated from them, each [n, …] float32.
    """
    source, classifier, generator, oracle = components
    pairs = {}
    examples = source.load_all(generator.image_size)
    options = recipe.perturb.runs[0]  # of several attacks, the first
    rows = perturb(examples, classifier, generator, oracle, options, device=device, keep_latents=True)
    for done, row in enumerate(rows, 1):
        report("sparsify", done, len(source))
        if row.valid and row.latents is not None:
            pairs[row.id] = row.latents
    if len(pairs) < _FEWEST_IMAGES:
        raise UserError(
            f"the oracle accepted {len(pairs)} perturbed images, a mask needs {_FEWEST_IMAGES}; use more "
            f"{option('samples', 'images')} or a smaller {option('perturb.step_size')}"
        )
    originals, perturbed = zip(*[pairs[row_id] for row_id in sorted(pairs)], strict=True)  # rows end in any order
    return torch.stack(originals).float().numpy(), torch.stack(perturbed).float().numpy()


def fit_mask(originals: np.ndarray, perturbed: np.ndarray, regularization: float | None = None) -> SparseMask:
    """Return the support of the regression fitted to four fifths of the images, scored on the others.

    Both latents of an image are in the same part. Every dimension is standardised. Without `regularization` the
    strength is chosen on a path by three-fold cross-validation among the four fifths: the largest whose accuracy is
    within one standard error of the best. Raises UserError if no dimension is left.
    """
    images = len(originals)
    order = np.random.default_rng(0).permutation(images)
    test_images, train_images = np.split(order, [_held_out(images)])
    test, train = (_stacked(originals[part], perturbed[part]) for part in (test_images, train_images))
    if regularization is None:
        regularization = _choose_regularization(*train)
    model = _regression(regularization).fit(*train)
    mask = model[-1].coef_.reshape(originals.shape[1:]) != 0
    if not mask.any():
        raise UserError(f"no dimension is left at regularization {regularization:g}; choose a smaller one")
    return SparseMask(torch.from_numpy(mask), images, regularization, float(model.score(*test)))


def _held_out(images: int) -> int:
    return round(0.2 * images)


def _stacked(originals: np.ndarray, perturbed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return features [2n, D] and labels [2n], 1 for perturbed; row i and row n + i are of one image."""
    features = np.concatenate([originals, perturbed])
    return features.reshape(len(features), -1), np.arange(len(features)) // len(originals)


def _regression(regularization: float) -> Pipeline:
    # liblinear: the seed orders its coordinates.
    lasso = LogisticRegression(C=1 / regularization, l1_ratio=1, solver="liblinear", random_state=0, max_iter=1000)
    return make_pipeline(StandardScaler(), lasso)


def _choose_regularization(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the largest strength on the path whose accuracy is within one standard error of the best."""
    groups = np.arange(len(labels)) % (len(labels) // 2)
    scaled = StandardScaler().fit_transform(features)
    nothing_left = np.abs(scaled.T @ (labels - 0.5)).max()
    path = nothing_left * np.geomspace(0.7, 0.01, 16)
    share = 1 - 1 / _FOLDS  # of the rows that a fold fits, and so of the loss that the strength stands beside
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at the weak end, which is rarely the best
        models = [_regression(share * strength) for strength in path]
        folds = GroupKFold(_FOLDS)
        scores = np.array([cross_val_score(model, features, labels, groups=groups, cv=folds) for model in models])
    means = scores.mean(1)  # of [strengths, folds]
    best = means.argmax()
    error = scores[best].std(ddof=1) / np.sqrt(_FOLDS)
    first_good = np.flatnonzero(means >= means[best] - error)[0]  # the path starts with the strongest
    return float(path[first_good])


def mask_report(mask: SparseMask, split: str) -> Report:
    """Return the paper's Table 11, for one mask."""
    header = ["images", "sparsity", "test score", "dimensions that move", "regularization"]
    shares = [f"{mask.sparsity:.2%}", f"{mask.test_score:.2%}"]
    row = [str(mask.images), *shares, str(int(mask.mask.sum())), f"{mask.regularization:.4g}"]
    warnings = []
    if not mask.tells_apart:
        warnings.append("the test score is that of chance: these latents can't be told apart, so the mask means little")
    section = Section("mask", split, tables=[Table(header, [row])])
    return Report("mask", f"A sparse mask for {split}", [section], mask, warnings=warnings)
