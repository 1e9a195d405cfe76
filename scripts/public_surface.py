"""What others may build on: names in Python, options of commands, keys of recipes, columns and JSON files.

`docs/reference/stable/` has it as of the last release, with the breaks that CHANGELOG.md listed then.
`python scripts/public_surface.py` writes it for the next one. `breaks` lists what code written for one surface does not
find in another.
"""

import ast
import dataclasses
import importlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import griffe
import release_notes
from pydantic import TypeAdapter

import fmrgen
from fmrgen.apps.explain.explain import Explanation
from fmrgen.apps.release.certificate import Certificate
from fmrgen.apps.release.diff import Diff
from fmrgen.apps.release.diff_report import names_of_types
from fmrgen.cli.app import COMMANDS, app
from fmrgen.config import built_in_kinds
from fmrgen.engine.options import PerturbOptions
from fmrgen.publish.entries import Entry
from fmrgen.recipe.job import OutputConfig
from fmrgen.results.evaluation import Evaluation
from fmrgen.storage.provenance import Provenance
from fmrgen.storage.schema import SCORE_COLUMNS, Schema

ROOT = Path(__file__).parent.parent
STABLE = ROOT / "docs/reference/stable"
_STARS = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}
_LISTED = "breaks.md"
_PROPERTIES = ("properties", "default", "needed", "place", "choices", "type", "required")  # of a name, and no name
_FILES = {  # JSON that fmrgen writes, and what it is
    "evaluation": Evaluation,
    "diff": Diff,
    "certificate": Certificate,
    "explain": Explanation,
    "provenance": Provenance,
    "result": Entry,
}


def surface() -> dict[str, str]:
    """Return the contents of the folder, by the names of its files."""
    files = {"fmrgen.pyi": _stub(), "commands.json": _as_json(_commands()), "recipes.json": _as_json(_recipes())}
    files["columns.json"] = _as_json(_columns())
    files[_LISTED] = listed_breaks()
    for name, kind in _FILES.items():
        adapter = TypeAdapter(kind)
        adapter.rebuild(_types_namespace=names_of_types())
        files[f"{name}.schema.json"] = _as_json(adapter.json_schema())
    return files


def listed_breaks() -> str:
    """Return what CHANGELOG.md says of breaks in its newest version."""
    newest = release_notes.sections()[0]
    return newest.partition("### What breaks")[2].partition("\n### ")[0].strip() + "\n"


def unlisted(broken: Iterable[str], changes: str) -> list[str]:
    """Return the breaks that a list of changes does not name.

    An option is named with its command (`show --rows`), a key of a recipe with its section (`perturb.budget`), others
    by their last name.

    Args:
        broken: lines of `breaks`.
        changes: in Markdown; names stand between backticks.
    """
    quoted = " | ".join(re.findall(r"`([^`]*)`", changes))
    missing = []
    for line in broken:
        parts = [part for part in line.partition(": ")[0].split(".") if part not in _PROPERTIES]
        wanted = parts[-1]
        if parts[0] == "commands":
            wanted = " ".join(parts[1:])
        elif parts[0] == "recipes" and len(parts) > 2:
            wanted = f"{parts[1].rpartition('/')[2]}.{parts[2]}"
        elif parts[0] == "fmrgen":
            wanted = ".".join(parts[:2])
        if not re.search(rf"(?<![\w-]){re.escape(wanted)}(?![\w-])", quoted):
            missing.append(f"{line} (`{wanted}`)")
    return missing


def released() -> dict[str, str]:
    """Return the contents of the folder as of the last release."""
    return {path.name: path.read_text() for path in sorted(STABLE.iterdir())}


def breaks(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return what is in `old` and not, or otherwise, in `new`: a line for each, which begins with its name."""
    lines = list(_breaks_of_python(old["fmrgen.pyi"], new["fmrgen.pyi"]))
    for name in sorted({*old} - {"fmrgen.pyi", _LISTED}):
        if name not in new:
            lines.append(f"{name}: is gone")
            continue
        lines += _breaks_of_tree(json.loads(old[name]), json.loads(new[name]), name.removesuffix(".json"))
    return lines


def _as_json(tree: Any) -> str:
    return json.dumps(tree, indent=1, sort_keys=True, ensure_ascii=False, default=str) + "\n"


# Python


def _stub() -> str:
    """Return the public names with their signatures, as a stub file."""
    package = griffe.load("fmrgen", search_paths=[str(Path(fmrgen.__file__).parent.parent)], resolve_external=False)
    assert isinstance(package, griffe.Module)
    lines: list[str] = []
    for name in sorted({*fmrgen.__all__} - {"__version__"}):
        member = package.members[name]
        target = member.final_target if isinstance(member, griffe.Alias) else member
        lines += _stub_of(name, target, "")
    text = "\n".join(lines) + "\n"
    ast.parse(text)
    return text


def _stub_of(name: str, target: griffe.Object | griffe.Alias, indent: str) -> list[str]:
    if isinstance(target, griffe.Function):
        return [f"{indent}def {name}{_signature(target)}: ..."]
    if not isinstance(target, griffe.Class):
        return [f"{indent}{name}: {getattr(target, 'annotation', None) or 'Any'}"]
    lines = [f"{indent}class {name}:"]
    for inner, member in sorted(target.all_members.items()):
        if member.is_alias and not member.target_path.startswith("fmrgen."):
            continue
        final = member.final_target if isinstance(member, griffe.Alias) else member
        if inner == "__init__" or (not inner.startswith("_") and inner != "model_config"):
            lines += _stub_of(inner, final, indent + "    ")
    return lines if len(lines) > 1 else [f"{lines[0]} ..."]


def _signature(function: griffe.Function) -> str:
    parts: list[str] = []
    for parameter in function.parameters:
        if parameter.kind is griffe.ParameterKind.keyword_only and not any(part.startswith("*") for part in parts):
            parts.append("*")
        stars = _STARS.get(parameter.kind, "")
        text = f"{stars}{parameter.name}"
        if parameter.annotation is not None:
            text += f": {parameter.annotation}"
        if parameter.default is not None and not stars:
            text += f" = {_default(str(parameter.default))}"
        parts.append(text)
    returns = f" -> {function.returns}" if function.returns is not None else ""
    return f"({', '.join(parts)}){returns}"


def _default(text: str) -> str:
    """Return a parameter's default, of a field `_option(default, help)` the first argument."""
    value = ast.parse(text, mode="eval").body
    if isinstance(value, ast.Call) and value.args and ast.unparse(value.func).startswith("_"):
        return ast.unparse(value.args[0])
    return text


def _breaks_of_python(old: str, new: str) -> Iterator[str]:
    modules = [griffe.visit("fmrgen", filepath=Path("fmrgen.pyi"), code=text) for text in (old, new)]
    for breakage in griffe.find_breaking_changes(*modules):
        old_value, new_value = (getattr(value, "name", value) for value in (breakage.old_value, breakage.new_value))
        yield f"{breakage.obj.path}: {breakage.kind.value}: {old_value} → {new_value}"


# Commands and recipes


def _commands() -> dict[str, Any]:
    commands = {}
    for name in COMMANDS:
        options = {}
        for argument in app[name].assemble_argument_collection():
            names = [spelling for spelling in argument.names if not spelling.startswith("--no-")]
            for spelling in names:
                options[spelling] = {"place": argument.index, "needed": bool(argument.required)}
                if argument.get_choices():
                    options[spelling]["choices"] = sorted(argument.get_choices())
        commands[name] = options
    return commands


def _recipes() -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for section in ("source", "classifier", "generator", "oracle"):
        for name in built_in_kinds(f"fmrgen.{section}s"):
            kind = importlib.import_module(f"fmrgen.{section}s.{name}").Config
            keys[f"{section}/{name}"] = _keys_of_model(kind)
    keys["output"] = _keys_of_model(OutputConfig)
    keys["perturb"] = {
        field.name: {"needed": False, "default": str(field.default)} for field in dataclasses.fields(PerturbOptions)
    }
    return keys


def _columns() -> dict[str, str]:
    """Return every column that a split may have, and its type as `datasets` writes it."""
    columns = {}
    for score in SCORE_COLUMNS:
        everything = Schema(("a",), judges=("b",), accepts_several=True, attacks=2, moved=True, score_column=score)
        columns |= {name: str(feature) for name, feature in everything.features.items()}
    return columns


def _keys_of_model(model: Any) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        keys[name] = {"needed": field.is_required()}
        if not field.is_required():
            keys[name]["default"] = str(field.get_default(call_default_factory=True))
    return keys


def _breaks_of_tree(old: Any, new: Any, where: str) -> Iterator[str]:
    """Yields what is gone or another value. What was not needed and is now is another value; what came is no break."""
    if isinstance(old, dict):
        for key, value in old.items():
            if key in ("description", "title"):
                continue
            if not isinstance(new, dict) or key not in new:
                yield f"{where}.{key}: is gone"
            else:
                yield from _breaks_of_tree(value, new[key], f"{where}.{key}")
        if where.startswith(("commands.", "recipes.")) and isinstance(new, dict):
            needed = [key for key in {*new} - {*old} if isinstance(new[key], dict) and new[key].get("needed")]
            yield from (f"{where}.{key}: is new, and needed" for key in sorted(needed))
    elif isinstance(old, list):
        present = new if isinstance(new, list) else []
        for entry in old:
            if not any(not list(_breaks_of_tree(entry, other, where)) for other in present):
                yield f"{where}: no longer has {json.dumps(entry, ensure_ascii=False)}"
    elif old != new:
        yield f"{where}: was {old}, is {new}"


def main() -> None:
    """Write the folder anew."""
    STABLE.mkdir(exist_ok=True)
    files = surface()
    for path in STABLE.iterdir():
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        (STABLE / name).write_text(text)


if __name__ == "__main__":
    main()
