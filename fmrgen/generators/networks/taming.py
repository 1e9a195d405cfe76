"""taming-transformers' original VQGAN files as a diffusers VQModel, without running what their pickles say."""

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
_PARTS = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")


def load_taming(checkpoint: str, config: str) -> VQModel:
    """The model of a lightning `.ckpt` and its `.yaml`, with random weights nowhere. Raises UserError."""
    model = VQModel(**_vqmodel_config(config))
    state = _read_weights(checkpoint)
    last = len(model.config.block_out_channels) - 1
    own = model.state_dict()
    renamed = {_diffusers_key(key, last): value for key, value in state.items() if key.startswith(_PARTS)}
    for key, value in renamed.items():
        if key in own and value.ndim == 4 and own[key].ndim == 2:  # attention: 1×1 convolutions there, linear here
            renamed[key] = value[:, :, 0, 0]
    load_exactly(model, renamed, f"generator.checkpoint: {checkpoint} with {config}")
    return model


def _vqmodel_config(path: str) -> dict[str, Any]:
    try:
        text = local_file(path, "generator.config").read_text(encoding="utf-8")
        tree = parse_yaml(text, f"generator.config: {path}")
        params = tree["model"]["params"]
        dd = params["ddconfig"]
        widths = [dd["ch"] * multiple for multiple in dd["ch_mult"]]
        sides = [dd["resolution"] // 2**level for level in range(len(widths))]
        attends = [side in dd["attn_resolutions"] for side in sides]
        if dd.get("double_z") or not dd.get("resamp_with_conv", True) or params.get("remap"):
            raise UserError(
                f"generator.config: {path}: double_z, remap and resampling without convolution are not supported"
            )
        return {
            "in_channels": dd["in_channels"],
            "out_channels": dd["out_ch"],
            "block_out_channels": widths,
            "down_block_types": ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attends],
            "up_block_types": ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attends)],
            "layers_per_block": dd["num_res_blocks"],
            "latent_channels": dd["z_channels"],
            "num_vq_embeddings": params["n_embed"],
            "vq_embed_dim": params["embed_dim"],
            "sample_size": dd["resolution"],
        }
    except (UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"generator.config: {path} is not a taming VQGAN config: {one_line(error)}") from None


def _diffusers_key(key: str, last: int) -> str:
    """The VQModel key of a taming key; `last` is the highest level, and taming's decoder counts from there."""
    level = re.compile(r"\b(down|up)\.(\d+)\.")

    def block(match: re.Match[str]) -> str:
        side, index = match[1], int(match[2])
        return f"{side}_blocks.{index if side == 'down' else last - index}."

    key = level.sub(block, key)
    for pattern, replacement in (
        (r"\bblock\.(\d+)\.", r"resnets.\1."),
        (r"\battn\.(\d+)\.", r"attentions.\1."),
        (r"\bdownsample\.conv", "downsamplers.0.conv"),
        (r"\bupsample\.conv", "upsamplers.0.conv"),
        (r"\bmid\.block_1\.", "mid_block.resnets.0."),
        (r"\bmid\.block_2\.", "mid_block.resnets.1."),
        (r"\bmid\.attn_1\.", "mid_block.attentions.0."),
        (r"\bnin_shortcut\b", "conv_shortcut"),
        (r"(encoder|decoder)\.norm_out\b", r"\1.conv_norm_out"),
    ):
        key = re.sub(pattern, replacement, key)
    if ".attentions." in key:
        for old, new in (
            (".norm.", ".group_norm."),
            (".q.", ".to_q."),
            (".k.", ".to_k."),
            (".v.", ".to_v."),
            (".proj_out.", ".to_out.0."),
        ):
            key = key.replace(old, new)
    return key


def _read_weights(reference: str) -> dict[str, Tensor]:
    path = local_file(reference, "generator.checkpoint")
    what = f"generator.checkpoint: {path}"
    check_no_program(path, what)
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_Inert, name) for name in named]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile stream can fail anywhere in the reader; none of it is run
        raise UserError(
            f"{what} is not a readable checkpoint, and nothing in it was run ({one_line(error, 120)}); save its "
            "state_dict alone with a recent torch"
        ) from None
    if named:
        first = ", ".join(sorted(named)[:3]) + (", …" if len(named) > 3 else "")
        _log.warning("%s: only its tensors were read; left aside, and not run: %s", what, first)
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping):
        raise UserError(f"{what} holds no state dict")
    return {str(key): value for key, value in state.items() if isinstance(value, Tensor)}


class _Inert:
    """Stands for every class and function that a checkpoint names and weights do not need. Does nothing, ever."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Inert":
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __hash__(self) -> int:
        return id(self)
