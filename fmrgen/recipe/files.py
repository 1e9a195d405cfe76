"""Recipe files as unchecked mappings: the shipped ones, the bases that a file extends, and overrides."""

from pathlib import Path
from typing import Any

from fmrgen.errors import UserError, near_name, one_line
from fmrgen.files import package_data, parse_yaml
from fmrgen.recipe.classifier_forms import form_of


def shipped_recipes() -> dict[str, Path]:
    """Return the file of every shipped recipe by its name; bases that only others extend start with an underscore."""
    root = package_data("recipes")
    return {str(path.relative_to(root).with_suffix("")): path for path in sorted(root.rglob("*.yaml"))}


def is_recipe(reference: str) -> bool:
    """Return whether a word is the name of a shipped recipe or of a file."""
    form, _ = form_of(reference)  # a short form stays one even if a file of that name exists
    return reference in shipped_recipes() or (form is None and Path(reference).is_file())


def find_recipe(reference: str | Path, subject: str = "recipe", begins: str = "") -> Path:
    """Return the file of a recipe. A shipped name is that recipe, even if the current folder has a file of the name.

    Raises UserError if there is neither: `subject` is what it should be, such as a set, and `begins` is how shipped
    names of that subject begin.
    """
    shipped = shipped_recipes()
    if str(reference) in shipped:
        return shipped[str(reference)]
    if Path(reference).is_file():
        return Path(reference)
    names = [name for name in shipped if name.startswith(begins) and not name.startswith("_")]
    near = near_name(reference, names)
    cure = "`fmrgen recipes` lists them" if subject == "recipe" else f"choose from {', '.join(names)}"
    if near is not None:
        cure = f"did you mean {near}?"
    raise UserError(f"{reference}: no such file, and not a shipped {subject}; {cure}")


def read_recipe(reference: str | Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return a recipe as the mapping of its file, laid over the recipe that it extends. Raises UserError.

    `seen` are the files that led to it by extending each other.
    """
    path = find_recipe(reference).resolve()
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
    tree.setdefault("description", "")  # a recipe does not inherit the description of its base
    files = [file for file in (path.parent / base, path.parent / f"{base}.yaml") if file.is_file()]
    if not files and base not in shipped_recipes():
        raise UserError(f"{reference}: extends: {base} is neither a file beside it nor a shipped recipe")
    return merged(read_recipe(files[0] if files else base, (*seen, path)), tree)


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` laid over it, mapping by mapping.

    A section of another `kind` replaces the old one, another `target` drops the old one's arguments, and an empty
    mapping clears.
    """
    tree = dict(base)
    if _differs("target", base, changes):
        tree.pop("args", None)
    for key, value in changes.items():
        old = tree.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value and not _differs("kind", old, value):
            value = merged(old, value)
        tree[key] = value
    return tree


def _differs(key: str, base: dict[str, Any], changes: dict[str, Any]) -> bool:
    return key in base and key in changes and base[key] != changes[key]


def parse_override(override: str) -> dict[str, Any]:
    """Return a change, `section.key=value`, as a mapping. Raises UserError for anything else."""
    path, equals, text = override.partition("=")
    if not equals or not all(path.split(".")):
        raise UserError(f"{override}: an override is section.key=value, for example perturb.budget=20")
    value = parse_yaml(text, override)
    for key in reversed(path.split(".")):
        value = {key: value}
    return value
