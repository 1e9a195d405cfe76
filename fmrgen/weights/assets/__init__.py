"""The small trained weights that fmrgen ships, and how a recipe names them."""

from pathlib import Path

from fmrgen.errors import UserError

_PREFIX = "asset:"


def resolve_path(reference: str) -> str:
    """`asset:mnist/clip` as the folder (or file) inside the package; any other reference as it is.

    Raises UserError for an asset that is not shipped.
    """
    if not reference.startswith(_PREFIX):
        return reference
    root = Path(__file__).parent
    name = reference.removeprefix(_PREFIX)
    path = root / name
    if root not in path.resolve().parents or not path.exists():
        shipped = sorted(f"{_PREFIX}{p.relative_to(root)}" for p in root.glob("*/*") if not p.name.startswith("__"))
        raise UserError(f"{reference}: no such asset; shipped are {', '.join(shipped) or 'none'}")
    return str(path)
