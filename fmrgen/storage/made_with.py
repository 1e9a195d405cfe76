"""What a split was made with, in words, and whether classifier and oracle of it are related."""

from fmrgen.config import IN_MEMORY
from fmrgen.metrics.cautions import kinship_caution
from fmrgen.storage.provenance import Provenance, RecordedComponent


def made_with(provenance: Provenance) -> dict[str, str]:
    """Source, classifier, generator, oracle and perturbation of a split, each on a line. What they say is its maker's:
    to be escaped where it is shown."""
    recipe, perturb = provenance.recipe, provenance.recipe.perturb
    examples = f"{provenance.examples:,} example{'s' if provenance.examples > 1 else ''}"
    skipped = f", {len(provenance.skipped)} of them unreadable and left out" if provenance.skipped else ""
    sparse = ", sparse: only the dimensions of the latent in a mask move" if recipe.generator.get("mask") else ""
    rule = f"rule {perturb.oracle_rule}"
    if perturb.min_probability:
        rule += f" with probability ≥ {perturb.min_probability:g}"
    if perturb.min_margin:
        rule += f" and margin ≥ {perturb.min_margin:g}"
    steps = [f"budget {perturb.budget}", f"step size {perturb.step_size:g}", f"update {perturb.update}", rule]
    return {
        "source": f"{_named(recipe.source)}, {examples} of {len(provenance.labels)} classes{skipped}",
        "classifier": _named(recipe.classifier),
        "generator": f"{_named(recipe.generator)} at {provenance.image_size} px{sparse}",
        "oracle": _named(recipe.oracle),
        "perturbation": ", ".join(steps) + (", latents encoded anew at each step" if perturb.reencode else ""),
    }


def related_line(provenance: Provenance) -> str | None:
    """A line where a split's classifier and oracle are related; None where they are not, or nobody looked."""
    kinship = provenance.kinship
    return None if kinship is None else kinship_caution(kinship.weights, kinship.answers)


def _named(component: RecordedComponent) -> str:
    """A component in a few words: its kind, and what names it."""
    if isinstance(inner := component.get("classifier"), dict) and isinstance(guide := component.get("surrogate"), dict):
        names = [_named(RecordedComponent.model_construct(**{"kind": "", **of})) for of in (inner, guide)]
        return " with the gradient of ".join(names)
    named = next(filter(None, map(component.get, ("model", "target", "path", "urls", "url", "checkpoint"))), None)
    kind = "in-memory" if component.kind == IN_MEMORY else component.kind
    return f"{kind} {named}" if named else kind
