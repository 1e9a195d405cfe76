"""Two classifiers by a recipe: on all images of its source, and on its originals transformed."""

from dataclasses import replace
from pathlib import Path

import torch

from fmrgen.apps.explain.rows import DrawnRows
from fmrgen.apps.release.evidence import judged
from fmrgen.apps.release.generated import generate_against, has_gradient
from fmrgen.apps.release.on_images import diff_on_images
from fmrgen.apps.release.outcome import Diff
from fmrgen.apps.release.transformed import ORIGINALS, on_transformed_originals
from fmrgen.distributed.launch import Processes
from fmrgen.engine.interfaces import Generator
from fmrgen.engine.options import WITHOUT_GRADIENT
from fmrgen.errors import UserError
from fmrgen.recipe.build import ClassifierAndOracle, build_component, build_oracle, build_source
from fmrgen.recipe.job import Recipe
from fmrgen.recipe.objects import AnyClassifier, classifier_section


def diff_on_recipe(
    recipe: Recipe, output: str | Path, old: AnyClassifier, new: AnyClassifier, *, margin: float
) -> Diff:
    """Return the comparison on all images of a recipe's source, and on its originals transformed; arguments as `diff`
    has them."""
    sections = classifier_section(old), classifier_section(new)
    if sections[0] == sections[1]:
        raise UserError("diff: old and new are one network: they have the same weights and settings; name two")
    outcome, models, differ = diff_on_images(recipe.source.whole(), sections[:1], sections[1], margin=margin)
    if not differ:
        return outcome
    source, processes = build_source(recipe.source), Processes()
    device = processes.device
    size = build_component(recipe.generator, "generator", Generator, device).image_size
    grey = torch.full((1, 3, size, size), 0.5, device=device)
    of_old, of_new = (model.in_labels(source.labels, grey, "the recipe's source") for model in models)
    judges = ClassifierAndOracle(of_new, build_oracle(recipe.oracle, source.labels, size, device))
    rows = DrawnRows.of_source(source, size, judges, recipe.perturb, ORIGINALS, device)
    networks = {"OLD": of_old, "NEW": of_new}
    without = [name for name, network in networks.items() if not has_gradient(network, rows.originals[:2])]
    generated = None
    notes = [*outcome.notes]
    if without and recipe.perturb.runs[0].update not in WITHOUT_GRADIENT:
        notes.append(
            f"no images were generated against the two, for {' and '.join(without)} gave no gradient; "
            "perturb.update=nes needs none"
        )
    else:
        generated = generate_against(recipe, output, *sections)
    on_first = processes.together(
        lambda: on_transformed_originals(rows, of_old, source.labels.names, margin=margin) if processes.is_first else []
    )
    of_transformed = processes.gather(on_first)[0]
    verdict, evidence = judged(outcome.evidence, of_transformed, has_suspect=outcome.flips.has_suspect(margin))
    return replace(outcome, verdict=verdict, evidence=evidence, generated=generated, notes=notes)
