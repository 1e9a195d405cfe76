"""The sections of a recipe that are components, and the short forms of components."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import SerializeAsAny

from fmrgen.config import SHORT_FORMS, ComponentConfig, ShortForms, StrictConfig, component, import_object, validate
from fmrgen.errors import UserError, option
from fmrgen.files import no_such_folder, open_plain, parse_yaml
from fmrgen.recipe.classifier_forms import FORMS, HARMLESS, WRITTEN, form_of, is_inline
from fmrgen.sources.base import SourceConfig
from fmrgen.trust.recipes import untrusted_config
from fmrgen.weights.assets import resolve_path

TRAINED_CLASSIFIER = "classifier.yaml"  # next to model.safetensors: the section that builds the network
_WITH_A_MODEL = ("clip", "zero_shot", "open_clip")  # kinds of oracles that KIND:MODEL names
_CHECKPOINTS = (".pth", ".pt", ".ckpt", ".safetensors", ".bin")
_IMPORT_PATH = re.compile(r"\w+(\.\w+)*:\w+")


def classifier_of_short_form(text: str) -> dict[str, Any]:
    """Return the section of a classifier from one of `classifier_forms.FORMS`, a trained folder or an import path."""
    check_no_weights(text)
    form, rest = form_of(text)
    if form is not None and form.kind is not None:
        return form.section(rest)
    folder = Path(resolve_path(text))
    if folder.is_dir():
        return _trained_classifier(text, folder / TRAINED_CLASSIFIER)
    if _IMPORT_PATH.fullmatch(text):
        try:
            target = import_object(text)
        except UserError as error:
            near = get_close_matches(text.partition(":")[0], FORMS, n=1)
            hint = f"; did you mean {near[0]}:{rest}?" if near else ""
            raise UserError(f"{error}{hint}") from None
        if isinstance(target, type) and issubclass(target, ComponentConfig):
            return {"kind": text}
        return {"kind": "module", "target": text}
    if text.startswith((".", "/", "~")) or ("/" in text and Path(text).parent.is_dir()):
        raise UserError(no_such_folder(text))
    problem = "no such folder, and not a classifier" if "/" in text else "not a classifier"
    raise UserError(f"{text}: {problem}; use {WRITTEN}")


def check_no_weights(text: str) -> None:
    """Raise UserError for the name of a file of weights alone, which does not determine the network."""
    if ":" in text or is_inline(text) or Path(text).is_dir():
        return
    if text.lower().endswith(".onnx"):
        raise UserError(f"{text}: is an ONNX file; write onnx:{text}")
    if text.lower().endswith(_CHECKPOINTS):
        if not Path(text).exists():
            raise UserError(f"{text}: no such file")
        raise UserError(
            f"{text}: is a checkpoint, which says nothing of its network; pass "
            f"{option('as my_models:Net', 'the module itself')}, or write "
            f"{{kind: module, target: 'my_models:Net', checkpoint: {text}}}, or {{kind: timm, model: …, checkpoint: …}}"
        )


def generator_of_short_form(text: str, image_size: int) -> ComponentConfig:
    """Return the generator for `transform`, an import path, or a folder, asset or repo of diffusers.

    `image_size` is used if the generator has no other size.
    """
    section: dict[str, Any] = {"kind": text}
    if not _IMPORT_PATH.fullmatch(text) and text != "transform":
        from fmrgen.weights.pretrained import file_of_model

        path = file_of_model(text, ["config.json"], "generator")
        config = parse_yaml(path.read_text(encoding="utf-8"), f"generator: {text}")
        kind = "vqgan" if {"n_embed", "num_vq_embeddings"} & set(config) else "vae"
        section = {"kind": kind, "model": text}
    return generator_config_of(section, image_size, text)


def generator_config_of(tree: Mapping[str, Any], image_size: int, name: str) -> ComponentConfig:
    """Return a generator section from its mapping; a mistake in it is a UserError that starts with `name`.

    `image_size`, the side of images in pixels, is used if the mapping has none.
    """
    section = dict(tree)
    kind = str(section.get("kind"))
    is_built_in = not _IMPORT_PATH.fullmatch(kind)
    if is_built_in or "image_size" in getattr(import_object(kind), "model_fields", ()):
        section.setdefault("image_size", image_size)
    return validate(GeneratorOnly, {"generator": section}, name).generator


def oracle_of_short_form(text: str) -> ComponentConfig:
    """Return the oracle for `KIND:MODEL`, an import path, or a folder, asset or repo of a CLIP.

    The import path is that of a config or of a torch module's class.
    """
    kind, _, model = text.partition(":")
    if kind in _WITH_A_MODEL and model:
        return oracle_config_of({"kind": kind, "model": model}, text)
    if model and kind != "asset" and not _IMPORT_PATH.fullmatch(text) and not Path(text).exists():
        raise UserError(
            f"{text}: not an oracle; use KIND:MODEL ({', '.join(_WITH_A_MODEL)}), a repo, folder or asset of a CLIP, "
            "package.module:Name, a recipe, or {kind: …}"
        )
    if not _IMPORT_PATH.fullmatch(text):
        return oracle_config_of({"kind": "clip", "model": text}, text)
    from torch import nn

    target = import_object(text)
    if isinstance(target, type) and issubclass(target, nn.Module):
        return oracle_config_of({"kind": "classifier", "classifier": text}, text)
    return oracle_config_of({"kind": text}, text)


def classifier_config_of(tree: Any, name: str) -> ComponentConfig:
    """Return a classifier section from its mapping; a mistake in it is a UserError that starts with `name`."""
    return validate(ClassifierOnly, {"classifier": tree}, name).classifier


def source_config_of(tree: Any, name: str) -> SourceConfig:
    """Return a source section from its mapping; a mistake in it is a UserError that starts with `name`."""
    return validate(SourceOnly, {"source": tree}, name).source


def oracle_config_of(tree: Any, name: str) -> ComponentConfig:
    """Return an oracle section from its mapping; a mistake in it is a UserError that starts with `name`."""
    return validate(_OracleOnly, {"oracle": tree}, name).oracle


def _trained_classifier(text: str, path: Path) -> dict[str, Any]:
    """Return the section in a trained folder, which may be a stranger's, with the weights next to it."""
    try:
        with open_plain(path) as file:
            section = parse_yaml(file.read().decode(), str(path))
    except (OSError, ValueError):
        section = None
    if not isinstance(section, dict):
        raise UserError(f"{text}: not the folder of a trained classifier, it has no {path.name}")
    named = {**section, "checkpoint": "asset:"}  # it is the user who names the folder of the weights
    cure = "if you know it, write the section yourself"
    untrusted_config(ClassifierOnly, {"classifier": named}, f"{path}:", trust=False, cure=cure)
    return {**section, "checkpoint": f"{text}/model.safetensors"}


SHORT_FORMS |= {
    "fmrgen.classifiers": ShortForms(classifier_of_short_form, HARMLESS),
    "fmrgen.generators": ShortForms(lambda kind: {"kind": kind}),
    "fmrgen.oracles": ShortForms(lambda kind: {"kind": kind}),
}
SourceField = Annotated[SerializeAsAny[SourceConfig], component("fmrgen.sources", base=SourceConfig)]
ClassifierField = Annotated[SerializeAsAny[ComponentConfig], component("fmrgen.classifiers")]
GeneratorField = Annotated[SerializeAsAny[ComponentConfig], component("fmrgen.generators")]
OracleField = Annotated[SerializeAsAny[ComponentConfig], component("fmrgen.oracles")]


class ComponentConfigs(StrictConfig):
    """The four components of a job."""

    source: SourceField
    classifier: ClassifierField
    generator: GeneratorField
    oracle: OracleField


class ClassifierOnly(StrictConfig):
    """A classifier's section alone."""

    classifier: ClassifierField


class GeneratorOnly(StrictConfig):
    """A generator's section alone."""

    generator: GeneratorField


class _OracleOnly(StrictConfig):
    oracle: OracleField


class SourceOnly(StrictConfig):
    """A source's section alone."""

    source: SourceField
