"""taming-transformers' original VQGAN files as a diffusers VQModel, without running code in their pickles."""

import logging
import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import VQModel
from torch import Tensor

from fmrgen.errors import UserError, one_line
from fmrgen.files import parse_yaml
from fmrgen.weights.checkpoint import check_no_program, load_exactly
from fmrgen.weights.pretrained import local_file

_log = logging.getLogger(__name__)
_PARTS = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")  # the rest is of training alone
_MOST_NAMES = 3  # of the things left aside that a warning lists
_LEVEL = re.compile(r"\b(down|up)\.(\d+)\.")
_LAYERS = (
    (r"\bblock\.(\d+)\.", r"resnets.\1."),
    (r"\battn\.(\d+)\.", r"attentions.\1."),
    (r"\bdownsample\.conv", "downsamplers.0.conv"),
    (r"\bupsample\.conv", "upsamplers.0.conv"),
    (r"\bmid\.block_1\.", "mid_block.resnets.0."),
    (r"\bmid\.block_2\.", "mid_block.resnets.1."),
    (r"\bmid\.attn_1\.", "mid_block.attentions.0."),
    (r"\bnin_shortcut\b", "conv_shortcut"),
    (r"(encoder|decoder)\.norm_out\b", r"\1.conv_norm_out"),
)
_ATTENTION = (
    (".norm.", ".group_norm."),
    (".q.", ".to_q."),
    (".k.", ".to_k."),
    (".v.", ".to_v."),
    (".proj_out.", ".to_out.0."),
)


def load_taming(checkpoint: str, config: str) -> VQModel:
    """Return the model of a lightning `.ckpt` and its `.yaml`.

    Raises UserError if either cannot be read, or a weight is missing.
    """
    model = VQModel(**_vqmodel_config(config))
    last = len(model.config.block_out_channels) - 1
    expected = model.state_dict()
    state = {}
    for taming_key, tensor in _read_weights(checkpoint).items():
        if not taming_key.startswith(_PARTS):
            continue
        key = _diffusers_key(taming_key, last)
        if key in expected and tensor.ndim == 4 and expected[key].ndim == 2:
            tensor = tensor[:, :, 0, 0]  # attention: taming has 1×1 convolutions, diffusers linear layers
        state[key] = tensor
    load_exactly(model, state, f"generator.checkpoint: {checkpoint} with {config}")
    return model


def _vqmodel_config(path: str) -> dict[str, Any]:
    """Return the arguments of the VQModel that a taming config describes. Raises UserError."""
    try:
        text = local_file(path, "generator.config").read_text(encoding="utf-8")
        tree = parse_yaml(text, f"generator.config: {path}")
        params = tree["model"]["params"]
        dd = params["ddconfig"]
        widths, down_types, up_types = [], [], []
        for level, multiple in enumerate(dd["ch_mult"]):
            widths.append(dd["ch"] * multiple)
            attends = dd["resolution"] // 2**level in dd["attn_resolutions"]
            down_types.append("AttnDownEncoderBlock2D" if attends else "DownEncoderBlock2D")
            up_types.append("AttnUpDecoderBlock2D" if attends else "UpDecoderBlock2D")
        if dd.get("double_z") or not dd.get("resamp_with_conv", True) or params.get("remap"):
            raise UserError(
                f"generator.config: {path}: double_z, remap and resampling without convolution are not supported"
            )
        return {
            "in_channels": dd["in_channels"],
            "out_channels": dd["out_ch"],
            "block_out_channels": widths,
            "down_block_types": down_types,
            "up_block_types": up_types[::-1],
            "layers_per_block": dd["num_res_blocks"],
            "latent_channels": dd["z_channels"],
            "num_vq_embeddings": params["n_embed"],
            "vq_embed_dim": params["embed_dim"],
            "sample_size": dd["resolution"],
        }
    except (UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"generator.config: {path} is not a taming VQGAN config: {one_line(error)}") from None


def _diffusers_key(key: str, last: int) -> str:
    """Return the VQModel key of a taming key. Levels of the decoder are counted from `last`, the highest, down."""

    def block(match: re.Match[str]) -> str:
        index = int(match[2])
        if match[1] == "up":
            index = last - index
        return f"{match[1]}_blocks.{index}."

    key = _LEVEL.sub(block, key)
    for pattern, replacement in _LAYERS:
        key = re.sub(pattern, replacement, key)
    if ".attentions." in key:
        for old, new in _ATTENTION:
            key = key.replace(old, new)
    return key


def _read_weights(reference: str) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint, without running anything in it. Raises UserError."""
    path = local_file(reference, "generator.checkpoint")
    subject = f"generator.checkpoint: {path}"
    check_no_program(path, subject)
    try:
        unsafe_names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_Inert, name) for name in unsafe_names]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile stream can fail anywhere in the reader; none of it is run
        raise UserError(
            f"{subject} is not a readable checkpoint, and nothing in it was run ({one_line(error, 120)}); save its "
            "state_dict alone with a recent torch"
        ) from None
    if unsafe_names:
        first = ", ".join(sorted(unsafe_names)[:_MOST_NAMES])
        if len(unsafe_names) > _MOST_NAMES:
            first += ", …"
        _log.warning("%s: only its tensors were read; left aside, and not run: %s", subject, first)
    state = loaded
    if isinstance(loaded, Mapping):
        state = loaded.get("state_dict", loaded)
    if not isinstance(state, Mapping):
        raise UserError(f"{subject} holds no state dict")
    return {str(key): value for key, value in state.items() if isinstance(value, Tensor)}


class _Inert:
    """A stand-in for every class and function that a checkpoint names and weights do not need. It does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Inert":
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __hash__(self) -> int:
        return id(self)
