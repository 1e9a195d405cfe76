"""The U-Nets of ADM (guided-diffusion) and Improved DDPM (improved-diffusion), from their official files.

The architecture follows from names and shapes, except for two things: the number of attention heads, and the order of
the rows of `qkv`.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from fmrgen.errors import UserError
from fmrgen.weights.checkpoint import load_exactly

QkvOrder = Literal["head_qkv", "qkv_head"]
_GROUPS = 32  # of every norm
_NEEDED = ("input_blocks.0.0.weight", "out.2.weight", "time_embed.0.weight", "middle_block.1.qkv.weight")
_OUTPUT_BLOCK = re.compile(r"output_blocks\.(\d+)\.")
_UPSAMPLER = re.compile(r"output_blocks\.(\d+)\.[12]\.(conv|in_layers\.0)\.weight")  # a convolution, or a block
_LAYERS = {  # official names of the layers in a block, and diffusers'
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "norm": "group_norm",
    "proj_out": "to_out.0",
    "op": "conv",
}


class Heads(NamedTuple):
    """The attention heads: `number`, or as many as have `channels` each. `order` is that of the rows of `qkv`."""

    number: int | None
    channels: int | None
    order: QkvOrder

    def of(self, width: int) -> int:
        """Return the number of heads of an attention of `width` channels."""
        return self.number or width // (self.channels or width)


class _Layout(NamedTuple):
    """The architecture that a state dict tells."""

    res_blocks: int  # at each level of the encoder; the decoder has one more
    widths: list[int]  # channels of each level
    attends: list[bool]  # whether each level has attention
    resamples_by_blocks: bool  # whether sides change in residual blocks, and not in single convolutions
    classes: int | None  # that it knows; None if it is unconditional

    @classmethod
    def of(cls, state: dict[str, Tensor], subject: str) -> "_Layout":
        """Return the layout of a state dict. Raises UserError, starting with `subject`, for another network's."""
        decoder_blocks = {int(match[1]) for match in map(_OUTPUT_BLOCK.match, state) if match}
        # The last block of each level of the decoder, except of the last level, enlarges.
        upsamplers = [match for match in map(_UPSAMPLER.match, state) if match]
        if not decoder_blocks or any(key not in state for key in _NEEDED):
            raise UserError(f"{subject}: is not the U-Net of guided-diffusion or improved-diffusion")
        blocks = max(decoder_blocks) + 1
        res_blocks = min((int(match[1]) for match in upsamplers), default=blocks - 1)
        widths, attends = [], []
        for level in range(blocks // (res_blocks + 1)):
            first = f"input_blocks.{_first_block(level, res_blocks)}"
            try:
                widths.append(state[f"{first}.0.out_layers.3.weight"].shape[0])
            except KeyError as error:
                raise UserError(f"{subject}: its blocks do not fit together: {error} is missing") from None
            attends.append(f"{first}.1.qkv.weight" in state)
        label_embedding = state.get("label_emb.weight")
        classes = None if label_embedding is None else len(label_embedding)
        return cls(res_blocks, widths, attends, any(match[2] == "in_layers.0" for match in upsamplers), classes)


def _first_block(level: int, res_blocks: int) -> int:
    """Return the index of the first input block of a level; each level ends with one that shrinks, and 0 is conv_in."""
    return 1 + level * (res_blocks + 1)


def openai_unet(state: dict[str, Tensor], heads: Heads, image_size: int, subject: str) -> UNet2DModel:
    """Return the network of an official state dict, in float32 on the CPU.

    It goes from x [B, 3, H, W] and times [B] to eps in the first three channels. Raises UserError, starting with
    `subject`, for another network's.
    """
    layout = _Layout.of(state, subject)
    down_types, up_types = _block_types(layout)
    resampling = "resnet" if layout.resamples_by_blocks else "conv"
    groups = min(_GROUPS, layout.widths[0])
    unet = UNet2DModel(
        sample_size=image_size,
        in_channels=state["input_blocks.0.0.weight"].shape[1],
        out_channels=state["out.2.weight"].shape[0],
        block_out_channels=tuple(layout.widths),
        layers_per_block=layout.res_blocks,
        down_block_types=tuple(down_types),
        up_block_types=tuple(up_types),
        downsample_type=resampling,
        upsample_type=resampling,
        resnet_time_scale_shift="scale_shift",
        time_embedding_dim=state["time_embed.0.weight"].shape[0],
        num_class_embeds=layout.classes,
        norm_num_groups=groups,
        attn_norm_num_groups=groups,
        norm_eps=1e-5,
        attention_head_dim=min(layout.widths),
        flip_sin_to_cos=True,
        freq_shift=0,
    )
    sinusoid_width = state["time_embed.0.weight"].shape[1]
    if sinusoid_width != layout.widths[0]:  # ADM at 512 px: the first level is half as wide as the sinusoid
        unet.time_proj.num_channels = sinusoid_width
        unet.time_embedding.linear_1 = nn.Linear(sinusoid_width, state["time_embed.0.weight"].shape[0])
    for module in unet.modules():
        if isinstance(module, Attention):
            module.heads = heads.of(module.to_q.in_features)
    load_exactly(unet, dict(_renamed(state, layout, heads)), subject)
    return unet


def _block_types(layout: _Layout) -> tuple[list[str], list[str]]:
    """Return diffusers' names of the blocks on the way down and on the way up, in their order."""
    plain_down, plain_up = "DownBlock2D", "UpBlock2D"
    if layout.resamples_by_blocks:
        plain_down, plain_up = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
    down_types = ["AttnDownBlock2D" if attends else plain_down for attends in layout.attends]
    up_types = ["AttnUpBlock2D" if attends else plain_up for attends in layout.attends]
    # Nothing is resampled below the last level or above the first, so diffusers' plainest block will do.
    if not layout.attends[-1]:
        down_types[-1] = "DownBlock2D"
    if not layout.attends[0]:
        up_types[0] = "UpBlock2D"
    return down_types, up_types[::-1]


def _renamed(state: dict[str, Tensor], layout: _Layout, heads: Heads) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors under diffusers' names. Those without one keep their own, for `load_exactly` to refuse."""
    names = dict(_modules(layout))
    for key, tensor in state.items():
        tensor = tensor.float()
        block = next((block for block in names if key.startswith(f"{block}.")), None)
        if block is None:
            yield key, tensor
            continue
        *layers, kind = key.removeprefix(f"{block}.").rsplit(".", 1)  # a block that is a layer itself has none
        if layers == ["qkv"]:
            for part, values in zip("qkv", _split_qkv(tensor, heads), strict=True):
                yield f"{names[block]}.to_{part}.{kind}", values
            continue
        if layers == ["proj_out"] and kind == "weight":
            tensor = tensor.flatten(1)  # a convolution there, a linear layer here
        yield ".".join([names[block], *(_LAYERS.get(layer, layer) for layer in layers), kind]), tensor


def _split_qkv(tensor: Tensor, heads: Heads) -> list[Tensor]:
    """Return q, k and v, [C, C] or [C] each, of the rows of `qkv`, [3C, C, 1] or [3C]."""
    values = tensor.squeeze(-1) if tensor.ndim == 3 else tensor
    width = len(values) // 3
    count = heads.of(width)
    if heads.order == "qkv_head":
        return [part.reshape(width, *values.shape[1:]) for part in values.unflatten(0, (3, width))]
    rows = values.unflatten(0, (count, 3, width // count))
    return [rows[:, part].reshape(width, *values.shape[1:]) for part in range(3)]


def _modules(layout: _Layout) -> Iterator[tuple[str, str]]:
    """Yield each block's official name and its name in diffusers."""
    yield from {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "label_emb": "class_embedding",
        "input_blocks.0.0": "conv_in",
        "middle_block.0": "mid_block.resnets.0",
        "middle_block.1": "mid_block.attentions.0",
        "middle_block.2": "mid_block.resnets.1",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }.items()
    levels, res_blocks = len(layout.widths), layout.res_blocks
    for level in range(levels):
        first = _first_block(level, res_blocks)
        for block in range(res_blocks):
            yield f"input_blocks.{first + block}.0", f"down_blocks.{level}.resnets.{block}"
            yield f"input_blocks.{first + block}.1", f"down_blocks.{level}.attentions.{block}"
        yield f"input_blocks.{first + res_blocks}.0", f"down_blocks.{level}.downsamplers.0"
    for level, attends in enumerate(reversed(layout.attends)):
        first = level * (res_blocks + 1)
        for block in range(res_blocks + 1):
            yield f"output_blocks.{first + block}.0", f"up_blocks.{level}.resnets.{block}"
            if attends:
                yield f"output_blocks.{first + block}.1", f"up_blocks.{level}.attentions.{block}"
        upsampler = 2 if attends else 1
        yield f"output_blocks.{first + res_blocks}.{upsampler}", f"up_blocks.{level}.upsamplers.0"
