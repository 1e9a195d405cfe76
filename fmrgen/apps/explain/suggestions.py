"""What to try against a finding, the cheapest first."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fmrgen.apps.explain.interventions import Hypothesis, hypothesis_of
from fmrgen.apps.explain.random_change import MOST_FINDINGS, share_of

_SHEAR = math.degrees(math.atan(0.5))  # of `Slant` at an amount of 1
_ZOOM = 1.4  # of `Size`
_SHIFT = 0.15  # of the positions, a share of the side
_SIGMA_OF_SIDE = 1.5 / 32  # of `Sharpness`


@dataclass(frozen=True)
class Suggestion:
    """One thing to try.

    Attributes:
        title: what to do.
        code: the line that does it.
    """

    title: str
    code: str


class _Lines(NamedTuple):
    """The nearest transforms of two libraries; empty where there is none."""

    torchvision: str
    albumentations: str


def suggestions_for(words: Sequence[str], side: int) -> list[Suggestion]:
    """Return what to try against "it fails on originals changed to …", the cheapest first.

    What a network goes by shows in several attributes, as thin strokes are pale too, so three findings are changed.

    Args:
        words: of all findings, the first that is reported first.
        side: of the images in pixels, on which the width of a blur depends.
    """
    hypotheses = []
    for text in words:
        hypothesis = hypothesis_of(text)
        if hypothesis is not None:  # else it is an attribute of the caller's own
            hypotheses.append(hypothesis)
    suggestions = []
    if hypotheses:
        suggestions = _changes_of_training_images(hypotheses[:MOST_FINDINGS], side)
    if len(hypotheses) < len(words):
        suggestions.append(Suggestion("the same with an attribute of your own", "fmrgen.RandomChange(MY_ATTRIBUTE)"))
    return [
        *suggestions,
        Suggestion(
            "label real images of that kind next, and train with them", "fmrgen explain SPLIT --unlabelled FOLDER"
        ),
        Suggestion(
            "perturbed copies of training images are the last to try: in the study of repairs they did less than the "
            "changes themselves",
            "fmrgen train RECIPE copies=SPLIT_OF_TRAINING_IMAGES",
        ),
    ]


def _changes_of_training_images(hypotheses: Sequence[Hypothesis], side: int) -> list[Suggestion]:
    """Return the changes as lines of fmrgen, torchvision and albumentations."""
    own, of_recipe, torchvision, albumentations = [], [], [], []
    for place, hypothesis in enumerate(hypotheses):
        name, (least, most) = hypothesis.attribute.name, hypothesis.amounts
        share = share_of(place)
        own.append(f'fmrgen.RandomChange("{name}", least={least:g}, most={most:g}, share={share:g})')
        of_recipe.append(f'"{name}": [{least:g}, {most:g}]')
        lines = _LINES[name](hypothesis, side, share) if name in _LINES else _Lines("", "")
        if lines.torchvision:
            torchvision.append(f"v2.RandomApply([{lines.torchvision}], p={share:g})")
        if lines.albumentations:
            albumentations.append(lines.albumentations)
    suggestions = [
        Suggestion(
            "train again with images that are changed at random as was found: in your own loop, tensors from 0 to 1",
            f"torch.nn.Sequential({', '.join(own)})" if len(own) > 1 else own[0],
        ),
        Suggestion("the same with fmrgen train", f"'augment.change={{{', '.join(of_recipe)}}}'"),
    ]
    for library, lines_of_library, combined in (
        ("torchvision.transforms.v2", torchvision, "v2.Compose"),
        ("albumentations", albumentations, "A.Compose"),
    ):
        if lines_of_library:
            missing = len(hypotheses) - len(lines_of_library)
            title = f"the nearest of {library}" + (f", which lacks {missing} of them" if missing else "")
            code = f"{combined}([{', '.join(lines_of_library)}])" if len(lines_of_library) > 1 else lines_of_library[0]
            suggestions.append(Suggestion(title, code))
    return suggestions


def _range(hypothesis: Hypothesis, most: float) -> tuple[float, float]:
    """Return the range of a change in units of which an amount of 1 is `most`."""
    least, highest = hypothesis.amounts
    return most * least + 0.0, most * highest + 0.0


def _pair(low: float, high: float) -> str:
    return f"({low:.3g}, {high:.3g})"


def _slant(hypothesis: Hypothesis, side: int, share: float) -> _Lines:
    degrees = _pair(*_range(hypothesis, _SHEAR))
    return _Lines(f"v2.RandomAffine(degrees=0, shear={degrees})", f'A.Affine(shear={{"x": {degrees}}}, p={share:g})')


def _size(hypothesis: Hypothesis, side: int, share: float) -> _Lines:
    least, most = hypothesis.amounts
    scale = _pair(_ZOOM**least, _ZOOM**most)
    return _Lines(f"v2.RandomAffine(degrees=0, scale={scale})", f"A.Affine(scale={scale}, p={share:g})")


def _across(hypothesis: Hypothesis, side: int, share: float) -> _Lines:
    shares = _pair(*_range(hypothesis, _SHIFT))
    return _Lines(
        f"v2.RandomAffine(degrees=0, translate=({_SHIFT:g}, 0))",
        f'A.Affine(translate_percent={{"x": {shares}}}, p={share:g})',
    )


def _up(hypothesis: Hypothesis, side: int, share: float) -> _Lines:
    low, high = _range(hypothesis, _SHIFT)
    shares = _pair(-high + 0.0, -low + 0.0)  # down is positive
    return _Lines(
        f"v2.RandomAffine(degrees=0, translate=(0, {_SHIFT:g}))",
        f'A.Affine(translate_percent={{"y": {shares}}}, p={share:g})',
    )


def _contrast(hypothesis: Hypothesis, side: int, share: float) -> _Lines:
    least, most = hypothesis.amounts
    low, high = 0.67 * least, most
    return _Lines(
        f"v2.ColorJitter(contrast={_pair(1 + low, 1 + high)})",
        f"A.RandomBrightnessContrast(brightness_limit=0, contrast_limit={_pair(low, high)}, p={share:g})",
    )


def _brightness(hypothesis: Hypothesis, side: int, share: float) -> _Lines:
    least, most = hypothesis.amounts
    gammas = 2.2**-most, 2.2**-least
    percent = f"({100 * gammas[0]:.0f}, {100 * gammas[1]:.0f})"
    factors = _pair(1 + 0.5 * least, 1 + 0.5 * most)
    return _Lines(f"v2.ColorJitter(brightness={factors})", f"A.RandomGamma(gamma_limit={percent}, p={share:g})")


def _sharpness(hypothesis: Hypothesis, side: int, share: float) -> _Lines:
    sigma = _SIGMA_OF_SIDE * side
    width = 2 * math.ceil(2 * sigma) + 1
    blur = _Lines(
        f"v2.GaussianBlur({width}, sigma=(0.1, {sigma:.3g}))",
        f"A.GaussianBlur(sigma_limit=(0.1, {sigma:.3g}), p={share:g})",
    )
    sharpen = _Lines("v2.RandomAdjustSharpness(3, p=1)", f"A.Sharpen(alpha=(0, 0.5), p={share:g})")
    if hypothesis.sign:
        return sharpen if hypothesis.sign > 0 else blur
    return _Lines(
        f"v2.RandomChoice([{sharpen.torchvision}, {blur.torchvision}])",
        f"A.OneOf([{sharpen.albumentations}, {blur.albumentations}])",
    )


def _colour(hypothesis: Hypothesis, side: int, share: float) -> _Lines:
    least, most = hypothesis.amounts
    factors = _pair(1 + least, 1 + most)
    return _Lines(
        f"v2.ColorJitter(saturation={factors})",
        f"A.ColorJitter(brightness=0, contrast=0, hue=0, saturation={factors}, p={share:g})",
    )


def _corner(hypothesis: Hypothesis, side: int, share: float) -> _Lines:
    if hypothesis.sign < 0:  # no transform empties corners
        return _Lines("", "")
    return _Lines(
        'v2.RandomErasing(p=1, scale=(0.01, 0.05), value="random")',
        f'A.CoarseDropout(num_holes_range=(1, 4), fill="random", p={share:g})',
    )


def _fine(hypothesis: Hypothesis, side: int, share: float) -> _Lines:
    if hypothesis.sign < 0:
        return _sharpness(hypothesis, side, share)
    return _Lines("v2.GaussianNoise(sigma=0.05)", f"A.GaussNoise(std_range=(0.01, 0.1), p={share:g})")


_LINES: Mapping[str, Callable[[Hypothesis, int, float], _Lines]] = {
    "slant": _slant,
    "size": _size,
    "position, across": _across,
    "position, up": _up,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "colour": _colour,
    "corner": _corner,
    "fine structure": _fine,
}
