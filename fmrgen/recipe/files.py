"""The files of recipes as mappings, not yet checked: the shipped ones, what a file extends, changes laid over it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmrgen.errors import UserError, near_name, one_line
from fmrgen.files import package_data, parse_yaml
from fmrgen.recipe.classifier_forms import form_of


def shipped_recipes() -> dict[str, Path]:
    """Name → file of every shipped recipe; names of bases that only others extend start with an underscore."""
    root = package_data("recipes")
    return {str(path.relative_to(root).with_suffix("")): path for path in sorted(root.rglob("*.yaml"))}


def check_reference(reference: str | Path, what: str, begins: str | tuple[str, ...]) -> None:
    """Raises UserError for what is neither a file nor a shipped `what`, whose names begin so."""
    if str(reference) not in (shipped := shipped_recipes()) and not Path(reference).is_file():
        raise UserError(_not_shipped(reference, what, [name for name in shipped if name.startswith(begins)]))


def is_recipe(reference: str) -> bool:
    """Whether a word is the name of a shipped recipe or of a file."""
    form, _ = form_of(reference)  # which it is whatever files of such names lie about
    return reference in shipped_recipes() or (form is None and Path(reference).is_file())


def _find(reference: str | Path) -> Path:
    """The file of a recipe. A shipped name is that recipe, whatever lies in the folder that one stands in."""
    shipped = shipped_recipes()
    if str(reference) in shipped:
        return shipped[str(reference)]
    if not Path(reference).is_file():
        raise UserError(_not_shipped(reference, "recipe", [name for name in shipped if not name.startswith("_")]))
    return Path(reference)


def _not_shipped(reference: str | Path, what: str, shipped: Sequence[str]) -> str:
    """That there is neither such a file nor such a name, with the name that was probably meant."""
    if (near := near_name(reference, shipped)) is not None:
        cure = f"did you mean {near}?"
    elif what == "recipe":
        cure = "`fmrgen recipes` lists them"
    else:
        cure = f"choose from {', '.join(shipped)}"
    return f"{reference}: no such file, and not a shipped {what}; {cure}"


def read_recipe(reference: str | Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe as the mapping of its file, with what it extends. Raises UserError.

    `seen` are the files that lead to it by what they extend.
    """
    path = _find(reference).resolve()
    if path in seen:
        raise UserError(f"{reference}: extends itself: {' > '.join(p.name for p in (*seen, path))}")
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(f"{reference}: not YAML: {one_line(error)}") from None
    tree = parse_yaml(text, str(reference))
    if not isinstance(tree, dict):
        raise UserError(f"{reference}: a recipe must be a mapping of sections, this is a {type(tree).__name__}")
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise UserError(f"{reference}: extends: must be one recipe's file or name")
    tree.setdefault("description", "")  # a base's description is not that of what extends it
    beside = [file for file in (path.parent / base, path.parent / f"{base}.yaml") if file.is_file()]
    if not beside and base not in shipped_recipes():
        raise UserError(f"{reference}: extends: {base} is neither a file beside it nor a shipped recipe")
    return merged(read_recipe(beside[0] if beside else base, (*seen, path)), tree)


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mapping by mapping.

    A section of another `kind` replaces the old one, another `target` drops what the old one was called with, and an
    empty mapping clears.
    """
    found = dict(base)
    if _differs("target", base, changes):
        found.pop("args", None)
    for key, value in changes.items():
        old = found.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value and not _differs("kind", old, value):
            value = merged(old, value)
        found[key] = value
    return found


def _differs(key: str, base: dict[str, Any], changes: dict[str, Any]) -> bool:
    return key in base and key in changes and base[key] != changes[key]


def changes_of(overrides: Sequence[str]) -> dict[str, Any]:
    """What `section.key=value` changes, laid over each other. Raises UserError for anything else."""
    changes: dict[str, Any] = {}
    for override in overrides:
        changes = merged(changes, _parse_override(override))
    return changes


def _parse_override(override: str) -> dict[str, Any]:
    path, equals, text = override.partition("=")
    if not equals or not all(path.split(".")):
        raise UserError(f"{override}: an override is section.key=value, for example perturb.budget=20")
    value = parse_yaml(text, override)
    for key in reversed(path.split(".")):
        value = {key: value}
    return value
