"""Many classifiers by one word: patterns over timm's pretrained weights and over files, and a file that names them."""

import glob
import json
import re
from collections.abc import Mapping
from pathlib import Path

from fmrgen.config import ComponentConfig
from fmrgen.errors import UserError, option
from fmrgen.files import open_plain, parse_yaml
from fmrgen.recipe.classifier_forms import FORMS
from fmrgen.weights.assets import resolve_path

_COLLECTION = "collections/"
_WILD = re.compile(r"[*?\[]")
_REPO = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def expanded(text: str, network: str | None = None) -> list[str]:
    """The classifiers that a word stands for, a word each.

    Args:
        text: `timm:PATTERN` of the names of pretrained weights, `hf:collections/OWNER/TITLE-NUMBER` for the models in a
            collection on the Hub, a pattern of files or folders, or any other word, which stands for itself.
        network: `package.module:Name`, which files of weights are of.

    Raises:
        UserError: nothing has such a name, or files are of no known network.
    """
    if text.lstrip().startswith("{") or re.match(r"[\w.-]+=", text):
        return [text]
    prefix, _, rest = text.partition(":")
    if prefix == "timm" and _WILD.search(rest):
        import timm

        if not (names := timm.list_pretrained(rest)):
            raise UserError(f"{text}: timm has no pretrained weights of such a name; see timm.list_pretrained()")
        return [f"timm:{name}" for name in names]
    if prefix == "hf" and rest.startswith(_COLLECTION):
        return _of_collection(rest.removeprefix(_COLLECTION))
    if prefix in FORMS:
        return [text]
    if Path(text).exists() or not _WILD.search(text):
        return [_of_file(Path(text), network)] if network is not None and Path(text).is_file() else [text]
    if not (paths := sorted(glob.glob(text, recursive=True))):
        raise UserError(f"{text}: no file or folder has such a name")
    return [path if Path(path).is_dir() else _of_file(Path(path), network) for path in paths]


def _of_collection(slug: str) -> list[str]:
    """timm's own repos are timm's models, behind its own transforms."""
    from fmrgen.hub.fetch import models_of_collection

    if not (repos := models_of_collection(slug)):
        raise UserError(f"hf:{_COLLECTION}{slug}: there are no models in this collection")
    return [f"timm:{repo.removeprefix('timm/')}" if repo.startswith("timm/") else f"hf:{repo}" for repo in repos]


def _of_file(path: Path, network: str | None) -> str:
    if network is None:
        cure = option("as", "target, in a section of kind module")
        raise UserError(f"{path}: is a file of weights; say which network they are of ({cure}), as package.module:Name")
    name = re.sub(r"[^\w.-]+", "-", path.stem)
    return f"{name}={json.dumps({'kind': 'module', 'target': network, 'checkpoint': str(path)})}"


def classifiers_of_file(path: Path) -> list[str]:
    """The classifiers that a YAML file maps names to, a word each: model repos as for `submit`, sections, or any word
    that `-c` takes. Raises UserError where it is none."""
    try:
        with open_plain(path) as file:
            tree = parse_yaml(file.read().decode(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read: {getattr(error, 'strerror', None) or 'is not text'}") from None
    if not isinstance(tree, Mapping) or not tree or not all(isinstance(one, str | dict) for one in tree.values()):
        raise UserError(f"{path}: must map names to classifiers, as `resnet50: timm:resnet50.a1_in1k`")
    return [f"{name}={_word(one)}" for name, one in tree.items()]


def _word(given: str | dict[str, object]) -> str:
    if isinstance(given, dict):
        return json.dumps(given)
    return f"hf:{given}" if _REPO.fullmatch(given) and not Path(given).exists() else given


def size_in_bytes(section: ComponentConfig) -> int | None:
    """How large a classifier's weights are, without loading them: of its files, or of timm's network; None where only
    loading tells."""
    named = [str(getattr(section, key)) for key in section.PLACES or () if getattr(section, key)]
    files = [Path(resolve_path(one)) for one in named]
    if sizes := [file.stat().st_size for file in files if file.is_file()]:
        return sum(sizes)
    if section.kind != "timm":
        return None
    import timm
    import torch

    settings = section.model_dump()
    with torch.device("meta"):
        network = timm.create_model(settings["model"].partition(".")[0], **settings["model_args"])
    return sum(weights.numel() * weights.element_size() for weights in network.state_dict().values())
