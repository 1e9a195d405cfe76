"""A split's components in words, and whether its classifier and oracle are related."""

from fmrgen.config import IN_MEMORY
from fmrgen.metrics.cautions import kinship_caution
from fmrgen.metrics.gradients import slope_caution
from fmrgen.storage.provenance import Provenance, RecordedComponent, RecordedPerturb


def made_with(provenance: Provenance) -> dict[str, str]:
    """Return a line each on source, classifier, generator, oracle and perturbation of a split.

    The lines hold words of the split's maker: escape them where they are shown.
    """
    recipe = provenance.recipe
    source = f"{_named(recipe.source)}, {provenance.examples:,} example"
    if provenance.examples > 1:
        source += "s"
    source += f" of {len(provenance.labels)} classes"
    if provenance.skipped:
        source += f", {len(provenance.skipped)} of them unreadable and left out"
    generator = f"{_named(recipe.generator)} at {provenance.image_size} px"
    if recipe.generator.get("mask"):
        generator += ", sparse: only the dimensions of the latent in a mask move"
    return {
        "source": source,
        "classifier": _named(recipe.classifier),
        "generator": generator,
        "oracle": _named(recipe.oracle),
        "perturbation": _perturbation(recipe.perturb),
    }


def _perturbation(perturb: RecordedPerturb) -> str:
    rule = f"rule {perturb.oracle_rule}"
    if perturb.min_probability:
        rule += f" with probability ≥ {perturb.min_probability:g}"
    if perturb.min_margin:
        rule += f" and margin ≥ {perturb.min_margin:g}"
    text = f"budget {perturb.budget}, step size {perturb.step_size:g}, "
    if perturb.attacks == "one":
        text += f"update {perturb.update}, {rule}"
    else:
        names = "; ".join(attack.name for attack in perturb.attacks)
        text += f"{rule}, {len(perturb.attacks)} attacks: {names}"
    if perturb.reencode:
        text += ", latents encoded anew at each step"
    return text


def related_line(provenance: Provenance) -> str | None:
    """Return a line if a split's classifier and oracle are related; None if they are not, or nobody looked."""
    kinship = provenance.kinship
    return None if kinship is None else kinship_caution(kinship.weights, kinship.likeness)


def lines_on_models(provenance: Provenance) -> list[str]:
    """Return what a reader must know of a split's classifier and oracle: whether they are related, and whether the
    classifier is as steep as its gradient says."""
    return [*filter(None, [related_line(provenance), slope_caution(provenance.slope)])]


def _named(component: RecordedComponent) -> str:
    """Return a component in a few words: its kind, and the key that names it."""
    kind = "in-memory" if component.kind == IN_MEMORY else component.kind
    for key in ("model", "target", "path", "urls", "url", "checkpoint"):
        if component.get(key):
            return f"{kind} {component.get(key)}"
    return kind
