"""Random changes that are the same for every classifier: the images of moved accuracy.

That is average and worst-of-k accuracy under random transformations (Engstrom et al. 2019), on images that an oracle
accepts.
"""

import hashlib
import math
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from fmrgen.engine.interfaces import Generator, Latents
from fmrgen.generators.base import GeneratorConfig
from fmrgen.records import MoveFamily

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Of kinds, largest amounts, draws and interpolation: whoever changes one of them gives it a new number.
PROTOCOL: Literal[1] = 1
_NUMBERS_DRAWN = 4
_GREY = 0.5  # of what covers an image


class Kind(NamedTuple):
    """A kind of move.

    Attributes:
        family: that it belongs to.
        most: the largest amount; amounts are uniform from `-most`, or from 0 if they have no sign.
        unit: of amounts.
        has_sign: whether amounts can be negative.
    """

    family: MoveFamily
    most: float
    unit: str
    has_sign: bool = True


KINDS = {
    "turn": Kind("geometric", 40.0, "degrees"),
    "zoom": Kind("geometric", 0.5, "logarithm of the factor"),
    "slant": Kind("geometric", 0.5, "tangent of the angle"),
    "shift": Kind("geometric", 0.2, "share of the side", has_sign=False),
    "brightness": Kind("photometric", 0.4, "share of the white level"),
    "contrast": Kind("photometric", 1.0, "logarithm of the factor"),
    "gamma": Kind("photometric", 1.0, "logarithm of the exponent"),
    "patch": Kind("occluding", 0.4, "share of the side", has_sign=False),
    "stripe": Kind("occluding", 0.25, "share of the side", has_sign=False),
}


class Move(NamedTuple):
    """The move of a row.

    Attributes:
        kind: a key of `KINDS`.
        amount: in the unit of the kind.
        x, y: from 0 to 1; they say where a cover lies, and `x` in which direction a shift goes.
    """

    kind: str
    amount: float
    x: float
    y: float


def move_of(seed: int, family: MoveFamily) -> Move:
    """Return the move that is drawn for a row: by a digest, so that no library's random numbers matter.

    Args:
        seed: of the row.
        family: of the kinds, which are equally likely.
    """
    digest = hashlib.blake2b(f"{PROTOCOL}:{seed}".encode(), digest_size=8 * _NUMBERS_DRAWN).digest()
    numbers = []  # from 0 to 1
    for start in range(0, len(digest), 8):
        numbers.append(int.from_bytes(digest[start : start + 8]) / 2**64)
    which, how_far, x, y = numbers
    names = [name for name, kind in KINDS.items() if kind.family == family]
    name = names[min(int(which * len(names)), len(names) - 1)]
    kind = KINDS[name]
    share = 2 * how_far - 1 if kind.has_sign else how_far
    return Move(name, share * kind.most, x, y)


class Config(GeneratorConfig):
    """`image_size` is any. `fmrgen generate --moves` sets the other keys that it needs."""

    PLACES = ("mask",)

    kind: str = "moves"
    image_size: int = Field(224, ge=8)
    family: MoveFamily = Field("geometric", description="which moves are drawn")
    protocol: Literal[1] = Field(PROTOCOL, description="version of the moves")

    def build(self, device: "torch.device | str" = "cpu") -> "Moves":
        return Moves(self.image_size, self.family)


class Moves(Generator):
    """`free` [B, 1] is zero in an original, and one step long, to either side, in its moved image.

    `fixed` [B, 4, H, W] is the image, and behind it a plane that begins with the number of the kind in `KINDS`, the
    amount, x and y.
    """

    def __init__(self, image_size: int, family: MoveFamily) -> None:
        self.image_size, self.family = image_size, family

    def encode(self, images: "Tensor", labels: "Tensor") -> Latents:
        import torch

        names = list(KINDS)
        plane = torch.zeros_like(images[:, :1])
        for row, seed in enumerate(self.row_seeds or range(len(images))):
            move = move_of(seed, self.family)
            numbers = [names.index(move.kind), move.amount, move.x, move.y]
            plane[row].view(-1)[: len(numbers)] = plane.new_tensor(numbers)
        return Latents(images.new_zeros(len(images), 1), torch.cat([images, plane], dim=1))

    def decode(self, latents: Latents) -> "Tensor":
        import torch

        assert latents.fixed is not None
        with torch.autocast(latents.fixed.device.type, enabled=False):  # the same images, whatever classifiers run in
            return self._decode(latents.free.float(), latents.fixed.float())

    def _decode(self, free: "Tensor", fixed: "Tensor") -> "Tensor":
        import torch

        image, plane = fixed.split([3, 1], dim=1)
        which, amount, x, y = plane.flatten(1)[:, :_NUMBERS_DRAWN].unbind(dim=1)
        length = free[:, 0].abs()
        moved = image
        for number, (name, kind) in enumerate(KINDS.items()):
            if kind.family == self.family:
                rows = ((which == number) & (length > 0)).view(-1, 1, 1, 1)
                moved = torch.where(rows, _moved(name, image, length * amount, x, y), moved)
        return moved.clamp(0, 1)


def _moved(kind: str, image: "Tensor", amount: "Tensor", x: "Tensor", y: "Tensor") -> "Tensor":
    """Return images [B, 3, H, W] after a move of one kind; `amount`, `x` and `y` are [B]."""
    import torch

    ones, zeros = torch.ones_like(amount), torch.zeros_like(amount)
    level = amount.view(-1, 1, 1, 1)
    match kind:
        case "turn":
            angle = amount * (math.pi / 180)
            return _resampled(image, [angle.cos(), -angle.sin(), zeros, angle.sin(), angle.cos(), zeros])
        case "zoom":
            shrink = (-amount).exp()
            return _resampled(image, [shrink, zeros, zeros, zeros, shrink, zeros])
        case "slant":
            return _resampled(image, [ones, amount, zeros, zeros, ones, zeros])
        case "shift":
            angle = 2 * math.pi * x
            return _resampled(image, [ones, zeros, -2 * amount * angle.cos(), zeros, ones, -2 * amount * angle.sin()])
        case "brightness":
            return image + level
        case "contrast":
            return (image - 0.5) * level.exp() + 0.5
        case "gamma":
            return image ** level.exp()
        case "patch":
            return _covered(image, _span(image, amount, x).unsqueeze(1) & _span(image, amount, y).unsqueeze(2))
        case "stripe":
            return _covered(image, _span(image, amount, x).unsqueeze(1))
    raise KeyError(kind)


def _resampled(image: "Tensor", entries: list["Tensor"]) -> "Tensor":
    """Return images whose pixels lie in `image` where a matrix [2, 3], given by rows, says; the edge is repeated."""
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    matrix = torch.stack(entries, dim=1).view(-1, 2, 3)  # of coordinates that are -1 and 1 at the edges
    grid = affine_grid(matrix, list(image.shape), align_corners=False)
    return grid_sample(image, grid, padding_mode="border", align_corners=False)


def _span(image: "Tensor", length: "Tensor", place: "Tensor") -> "Tensor":
    """Return which pixels of a side a span covers, bool [B, side]; it is `length` of the side long, [B]."""
    import torch

    side = image.shape[-1]
    centres = (torch.arange(side, device=image.device) + 0.5) / side
    start = (place * (1 - length)).unsqueeze(1)
    covered: Tensor = (centres >= start) & (centres < start + length.unsqueeze(1))
    return covered


def _covered(image: "Tensor", mask: "Tensor") -> "Tensor":
    """Return images with the pixels of `mask`, bool that broadcasts to [B, H, W], grey."""
    return image.masked_fill(mask.unsqueeze(1), _GREY)
