"""VQGAN's weights in the formats in which they are published, read without running code in pickles.

taming-transformers' Lightning checkpoint with its `.yaml`; a state dict under taming's names beside a `config.json`;
the same as Flax weights (`flax_model.msgpack`); and a `VQModel` of diffusers.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fmrgen.errors import UserError, one_line
from fmrgen.files import parse_yaml
from fmrgen.generators.networks.vqgan import Architecture, VqganNetwork
from fmrgen.weights.checkpoint import check_no_program, load_exactly
from fmrgen.weights.pretrained import file_of_model, local_file

_log = logging.getLogger(__name__)
# Of a model's folder or repo, the first that is there is read.
WEIGHTS = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
    "flax_model.msgpack",
)
_PARTS = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")  # the rest is for training
_MOST_NAMES = 3  # of ignored objects that a warning lists
_FLAX_ARRAY = 1  # the msgpack extension type of an array
_FLAX_WEIGHTS = ("kernel", "scale", "embedding")
_DIFFUSERS_LAYERS = (
    (r"\bresnets\.(\d+)\.", r"block.\1."),
    (r"\battentions\.(\d+)\.", r"attn.\1."),
    (r"\b(down|up)samplers\.0\.", r"\1sample."),
    (r"\bconv_shortcut\b", "nin_shortcut"),
    (r"\bconv_norm_out\b", "norm_out"),
    (r"\bmid_block\.block\.0\.", "mid.block_1."),
    (r"\bmid_block\.block\.1\.", "mid.block_2."),
    (r"\bmid_block\.attn\.0\.", "mid.attn_1."),
    (r"\bgroup_norm\b", "norm"),
    (r"\bto_([qkv])\b", r"\1"),
    (r"\bto_out\.0\b", "proj_out"),
)


def load_checkpoint_and_config(checkpoint: str, config: str) -> VqganNetwork:
    """Return the network of a file of weights and its config. Raises UserError if they can't be read or do not fit."""
    path = local_file(checkpoint, "generator.checkpoint")
    config_path = local_file(config, "generator.config")
    return _network(config_path, path, f"generator.config: {config}", f"generator.checkpoint: {checkpoint}")


def load_model(model: str, revision: str | None, key: str = "generator.model") -> VqganNetwork:
    """Return the network in a folder, an asset or a repo of the Hub.

    Raises UserError, starting with `key`, if there is none, or it can't be read.
    """
    config = file_of_model(model, ["config.json"], key, revision)
    weights = file_of_model(model, WEIGHTS, key, revision)
    return _network(config, weights, f"{key}: {model}", f"{key}: {model}")


def save_model(network: VqganNetwork, folder: Path) -> None:
    """Write `config.json`, with taming's keys, and `model.safetensors` into an existing folder."""
    architecture = network.architecture
    resolution = 256  # the levels that attend are named by their sides at this one
    sides = [resolution // 2**level for level in range(len(architecture.widths))]
    config = {
        "ch": architecture.ch,
        "ch_mult": [width / architecture.ch for width in architecture.widths],
        "num_res_blocks": architecture.num_res_blocks,
        "resolution": resolution,
        "attn_resolutions": [side for side, attends in zip(sides, architecture.attends, strict=True) if attends],
        "z_channels": architecture.z_channels,
        "embed_dim": architecture.embed_dim,
        "n_embed": architecture.n_embed,
        "in_channels": architecture.in_channels,
        "out_ch": architecture.out_channels,
        "num_groups": architecture.num_groups,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / WEIGHTS[0])


def _network(config: Path, weights: Path, config_subject: str, subject: str) -> VqganNetwork:
    tree = _read_config(config, config_subject)
    try:
        architecture = _architecture(tree, config_subject)
        with torch.device("meta"):  # the weights of the file take the place of all of these
            network = VqganNetwork(architecture)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise UserError(f"{config_subject} is not a VQGAN's config: {one_line(error)}") from None
    state = dict(_read_weights(weights, subject))
    if "_class_name" in tree:
        last = len(architecture.widths) - 1
        state = {_key_of_diffusers(key, last): tensor for key, tensor in state.items()}
    expected = network.state_dict()
    own = {}
    for key, tensor in state.items():
        if not key.startswith(_PARTS):
            continue
        # Attention is of linear layers in diffusers.
        is_linear = tensor.ndim == 2 and key in expected and expected[key].ndim == 4
        own[key] = (tensor[:, :, None, None] if is_linear else tensor).float()
    load_exactly(network, own, subject)
    return network


def _read_config(path: Path, subject: str) -> dict[str, Any]:
    """Return the content of a yaml or json file. Raises UserError."""
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"), subject)
    except UnicodeDecodeError as error:
        raise UserError(f"{subject} is not a VQGAN's config: {one_line(error)}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{subject} is not a VQGAN's config")
    return tree


def _architecture(tree: dict[str, Any], subject: str) -> Architecture:
    """Return the architecture in a config of taming, of the Hub's ports of it, or of diffusers.

    Raises UserError if the network has no such form, and other errors for what is no config.
    """
    if "_class_name" in tree:
        return _architecture_of_diffusers(tree, subject)
    params = tree
    dd = tree
    if "model" in tree:
        params = tree["model"]["params"]
        dd = params["ddconfig"]
    if dd.get("double_z") or not dd.get("resamp_with_conv", True) or params.get("remap"):
        raise UserError(f"{subject}: double_z, remap and resampling without convolution are not supported")
    widths = [round(dd["ch"] * multiple) for multiple in dd["ch_mult"]]
    sides = [dd["resolution"] // 2**level for level in range(len(widths))]
    return Architecture(
        ch=dd["ch"],
        widths=tuple(widths),
        attends=tuple(side in dd["attn_resolutions"] for side in sides),
        num_res_blocks=dd["num_res_blocks"],
        z_channels=dd["z_channels"],
        embed_dim=params["quantized_embed_dim"] if "quantized_embed_dim" in params else params["embed_dim"],
        n_embed=params["n_embed"],
        in_channels=dd.get("in_channels", 3),
        out_channels=dd.get("out_ch", 3),
        num_groups=dd.get("num_groups", 32),
    )


def _architecture_of_diffusers(tree: dict[str, Any], subject: str) -> Architecture:
    widths = tuple(tree["block_out_channels"])
    attends = tuple(name.startswith("Attn") for name in tree["down_block_types"])
    is_plain = (
        tree["_class_name"] == "VQModel"
        and attends == tuple(name.startswith("Attn") for name in tree["up_block_types"])[::-1]
        and tree.get("norm_type", "group") == "group"
        and tree.get("act_fn", "silu") == "silu"
        and tree.get("mid_block_add_attention", True)
        and not tree.get("lookup_from_codebook", False)
    )
    if not is_plain:
        raise UserError(f"{subject}: is not a plain VQModel of diffusers")
    return Architecture(
        ch=widths[0],
        widths=widths,
        attends=attends,
        num_res_blocks=tree["layers_per_block"],
        z_channels=tree["latent_channels"],
        embed_dim=tree.get("vq_embed_dim") or tree["latent_channels"],
        n_embed=tree["num_vq_embeddings"],
        in_channels=tree["in_channels"],
        out_channels=tree["out_channels"],
        num_groups=tree.get("norm_num_groups", 32),
    )


def _key_of_diffusers(key: str, last: int) -> str:
    """Return taming's name of a weight of diffusers, whose decoder counts its levels from the coarsest, `last`."""
    for pattern, replacement in _DIFFUSERS_LAYERS:
        key = re.sub(pattern, replacement, key)
    key = re.sub(r"\bdown_blocks\.", "down.", key)
    return re.sub(r"\bup_blocks\.(\d+)", lambda level: f"up.{last - int(level[1])}", key)


def _read_weights(path: Path, subject: str) -> Mapping[str, Tensor]:
    """Return all tensors of a file by their names, without running anything in it. Raises UserError."""
    if path.suffix == ".msgpack":
        return _read_flax(path, subject)
    check_no_program(path, subject)
    ignored: list[str] = []
    try:
        if path.suffix == ".safetensors":
            loaded: Any = load_file(path)
        else:
            ignored = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
            with torch.serialization.safe_globals([(_Inert, name) for name in ignored]):
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile stream can fail anywhere in the reader; none of it is run
        raise UserError(
            f"{subject} is not a readable checkpoint, and nothing in it was run ({one_line(error, 120)}); save its "
            "state_dict alone with a recent torch"
        ) from None
    if ignored:
        more = ", …" if len(ignored) > _MOST_NAMES else ""
        names = ", ".join(ignored[:_MOST_NAMES])
        _log.warning("%s: only its tensors were read; ignored, and not run: %s%s", subject, names, more)
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(state, Mapping):
        raise UserError(f"{subject} holds no state dict")
    return {str(key): value for key, value in state.items() if isinstance(value, Tensor)}


def _read_flax(path: Path, subject: str) -> dict[str, Tensor]:
    """Return the tensors of Flax weights under torch's names and in torch's order of dimensions. Raises UserError."""
    import msgpack

    def array(code: int, content: bytes) -> Tensor:
        if code != _FLAX_ARRAY:
            raise ValueError(f"extension type {code}")
        shape, dtype, buffer = msgpack.unpackb(content)
        return torch.frombuffer(bytearray(buffer), dtype=getattr(torch, dtype)).reshape(shape)

    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=array)
        return dict(_torch_names(tree))
    except Exception as error:  # a broken file can fail anywhere in the reader
        raise UserError(f"{subject}: not readable Flax weights: {one_line(error, 120)}") from None


def _torch_names(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _torch_names(value, f"{prefix}{name}.")
            continue
        key = re.sub(r"\b(down|up)_(\d+)\.(block|attn)_(\d+)\b", r"\1.\2.\3.\4", f"{prefix}{name}")
        key = re.sub(r"\b(down|up)_(\d+)\b", r"\1.\2", key)
        if name in _FLAX_WEIGHTS:
            key = f"{key.removesuffix(name)}weight"
        yield key, value.permute(3, 2, 0, 1).contiguous() if value.ndim == 4 else value


class _Inert:
    """Stands for every class and function that a checkpoint names and weights do not need. It does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...
