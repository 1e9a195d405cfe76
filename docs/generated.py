"""Pages that are made of the code when the site is built: every command, and every key of a recipe."""

import dataclasses
import importlib
import inspect
import pkgutil
from typing import Any

import typer
import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.testing import CliRunner

from fmrgen.cli.app import app
from fmrgen.config import IN_MEMORY, ComponentConfig
from fmrgen.engine.options import PerturbOptions
from fmrgen.recipe.job import OutputConfig

SECTIONS = {
    "source": "Where original images and labels come from.",
    "classifier": "The model under test.",
    "generator": "What makes images of latents.",
    "oracle": "The foundation model that says whether an image still shows its class.",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages, which mkdocs.yml names like any other."""
    for path, text in {"reference/cli.md": _commands(), "reference/recipes.md": _recipes()}.items():
        files.append(File.generated(config, path, content=text))
    return files


def _commands() -> str:
    parts = ["# Commands", "Each command tells this itself: `fmrgen COMMAND --help`."]
    runner = CliRunner()
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        shown = runner.invoke(app, [name, "--help"], prog_name="fmrgen", terminal_width=100).stdout
        parts += [f"## fmrgen {name}", f"```text\n{shown.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _recipes() -> str:
    parts = [
        "# Keys of a recipe",
        "A recipe is YAML: four components, each with a `kind`, and two sections of options. `extends: NAME_OR_FILE` "
        "takes everything from another recipe. On the command line `section.key=value` changes one key; "
        "`fmrgen recipes NAME` shows a recipe with all its values.",
    ]
    for section, meaning in SECTIONS.items():
        parts += [f"## {section}", meaning]
        package = importlib.import_module(f"fmrgen.{section}s")
        for module in pkgutil.iter_modules(package.__path__):
            if module.name in ("base", IN_MEMORY) or module.name.startswith("_"):
                continue
            kind = importlib.import_module(f"{package.__name__}.{module.name}").Config
            parts += [f"### {section} kind `{module.name}`", inspect.getdoc(kind) or "", _keys_of_model(kind)]
    parts += ["## perturb", "How Algorithm 1 runs (paper §3.1, §4.1).", _keys_of_options()]
    parts += ["## output", "How the split is stored.", _keys_of_model(OutputConfig)]
    return "\n\n".join(parts) + "\n"


def _keys_of_model(model: Any) -> str:
    rows = [
        (name, _type(field.annotation), "" if field.is_required() else _value(field.default), field.description or "")
        for name, field in model.model_fields.items()
        if name != "kind" or not issubclass(model, ComponentConfig)
    ]
    return _table(rows)


def _keys_of_options() -> str:
    return _table(
        [
            (field.name, _type(field.type), _value(field.default), field.metadata.get("description", ""))
            for field in dataclasses.fields(PerturbOptions)
        ]
    )


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    lines = ["| key | type | default | |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {default} | {meaning} |" for name, kind, default, meaning in rows]
    return "\n".join(line.replace("\n", " ") for line in lines)


def _type(annotation: Any) -> str:
    told = annotation.__name__ if inspect.isclass(annotation) and not hasattr(annotation, "__args__") else annotation
    text = str(told).replace("typing.", "").replace("Literal", "one of ").replace(" | None", "")
    return f"`{text}`".replace("|", "or")


def _value(default: Any) -> str:
    return "" if default is None else f"`{default}`"
