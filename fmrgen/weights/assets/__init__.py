"""The small trained weights that fmrgen ships, and how a recipe names them."""

from pathlib import Path

from fmrgen.errors import UserError

_PREFIX = "asset:"


def resolve_path(reference: str) -> str:
    """Return the folder or file in the package for `asset:mnist/clip`, and any other reference as it is.

    Raises UserError for an asset that is not shipped.
    """
    if not reference.startswith(_PREFIX):
        return reference
    root = Path(__file__).parent
    name = reference.removeprefix(_PREFIX)
    path = root / name
    if root not in path.resolve().parents or not path.exists():
        shipped = sorted({f"{_PREFIX}{file.parent.relative_to(root)}" for file in root.rglob("*.safetensors")})
        raise UserError(f"{reference}: no such asset; shipped are {', '.join(shipped) or 'none'}")
    return str(path)
