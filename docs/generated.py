"""What is made when the site is built: its first page, of the README; pages of all commands, of all keys of
recipes and of all columns, of the code; and the map of modules, of their first lines."""

import ast
import dataclasses
import importlib
import inspect
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from rich.console import Console

import fmrgen
from fmrgen.cli.app import COMMANDS, app
from fmrgen.config import ComponentConfig, built_in_kinds
from fmrgen.engine.options import PerturbOptions
from fmrgen.recipe.job import OutputConfig
from fmrgen.storage.schema import Schema

MAP = "<!-- the map of modules -->"
SECTIONS = {
    "source": "Where original images and labels come from.",
    "classifier": "The model under test.",
    "generator": "What makes images of latents.",
    "oracle": "The foundation model that says whether an image still shows its class.",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages, which mkdocs.yml names like any other."""
    pages = {
        "index.md": _index(config),
        "reference/cli.md": _commands(),
        "reference/recipes.md": _recipes(),
        "reference/columns.md": _columns(),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def _index(config: MkDocsConfig) -> str:
    """The README, with links within the site."""
    text = (Path(config.docs_dir).parent / "README.md").read_text()
    text = text.replace("https://raw.githubusercontent.com/fmrgen/fmrgen/main/docs/", "")
    return re.sub(r"https://fmrgen\.github\.io/fmrgen/latest/([\w/-]+)/", r"\1.md", text)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts the map of modules where a page asks for it, and below figures what gave them."""
    if MAP in markdown:
        markdown = markdown.replace(MAP, "\n".join(_map()))
    record = yaml.safe_load(Path(config.docs_dir, "results/measured.yaml").read_text())
    name = "README.md" if page.file.src_uri == "index.md" else f"docs/{page.file.src_uri}"
    measured = record.get(name, {}).get("measured")
    if measured:
        markdown += "\n\n" + "\n".join(_origins(measured, config))
    return markdown


def _origins(measurements: list[dict[str, Any]], config: MkDocsConfig) -> Iterator[str]:
    """Yields what gave the figures of a page, as a note that opens."""
    yield '??? info "Where these figures come from"'
    for measured in measurements:
        commit = measured["commit"]
        line = f"    * `{measured['command']}`, published with [{commit}]({config.repo_url}/commit/{commit})"
        if "holds_at" in measured:
            line += f"; the same at {measured['holds_at']}: {measured['because']}"
        yield line


def _map() -> Iterator[str]:
    """Each package, which opens to its modules, and then the modules that are in none: what each says of itself."""
    root = Path(fmrgen.__file__).parent
    for package in sorted(file.parent for file in root.glob("*/__init__.py")):
        yield f'??? note "`{package.name}/` {_first_sentence(package / "__init__.py")}"'
        modules = sorted(file for file in package.rglob("*.py") if file.name != "__init__.py")
        yield from (f"    * `{file.relative_to(package)}` {_first_sentence(file)}" for file in modules)
        yield ""
    yield from (f"* `{file.name}` {_first_sentence(file)}" for file in sorted(root.glob("*.py")))


def _first_sentence(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text())) or ""
    return " ".join(text.partition("\n\n")[0].replace('"', "'").split())


def _commands() -> str:
    parts = ["# Commands", "Each command tells this itself: `fmrgen COMMAND --help`."]
    group = ""
    for name, command in COMMANDS.items():
        if command.group != group:
            group = command.group
            parts.append(f"## {group}")
        page = io.StringIO()
        app.help_print([name], console=Console(file=page, width=100))
        parts += [f"### fmrgen {name}", f"```text\n{page.getvalue().strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _columns() -> str:
    columns = Schema((), judges=("a", "b"), accepts_several=True, attacks=2).columns
    rows = [f"| `{column.name}` | {column.type} | {column.meaning} |" for column in columns]
    parts = [
        "# Columns of a split",
        "One row for each example of the source. Everything is true of the stored images: `fmrgen verify` judges and "
        "classifies them again. Columns of labels are numbers of the classes in the feature of `label`.",
        "\n".join(["| column | type | |", "|---|---|---|", *rows]),
    ]
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
        for name in built_in_kinds(f"fmrgen.{section}s"):
            kind = importlib.import_module(f"fmrgen.{section}s.{name}").Config
            parts += [f"### {section} kind `{name}`", inspect.getdoc(kind) or "", _keys_of_model(kind)]
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
    kind = annotation.__name__ if inspect.isclass(annotation) and not hasattr(annotation, "__args__") else annotation
    text = str(kind).replace("typing.", "").replace("Literal", "one of ").replace(" | None", "")
    return f"`{text}`".replace("|", "or")


def _value(default: Any) -> str:
    return "" if default is None else f"`{default}`"
