"""The U-Nets of ADM (guided-diffusion) and Improved DDPM (improved-diffusion), from their official files.

Names and shapes tell the whole architecture but for two things: how many heads the attention has, and in which order
the rows of its `qkv` lie.
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
_RES_BLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


class Heads(NamedTuple):
    """Of the attention: so many, or as many as have `channels` each; and the order of the rows of `qkv`."""

    number: int | None
    channels: int | None
    order: QkvOrder

    def of(self, width: int) -> int:
        """How many an attention of that width has."""
        return self.number or width // (self.channels or width)


class _Layout(NamedTuple):
    """What the state dict tells of the network."""

    res_blocks: int  # at each level
    widths: list[int]
    attends: list[bool]
    resamples_by_blocks: bool
    classes: int | None

    @classmethod
    def of(cls, state: dict[str, Tensor], what: str) -> "_Layout":
        blocks = 1 + max(
            (int(found[1]) for key in state if (found := re.match(r"output_blocks\.(\d+)\.", key))), default=-1
        )
        needed = ("input_blocks.0.0.weight", "out.2.weight", "time_embed.0.weight", "middle_block.1.qkv.weight")
        if blocks == 0 or any(key not in state for key in needed):
            raise UserError(f"{what}: is not the U-Net of guided-diffusion or improved-diffusion")
        # The block that enlarges is the last one of each level but the last.
        enlarging = [
            int(found[1])
            for key in state
            if (found := re.match(r"output_blocks\.(\d+)\.[12]\.(conv|in_layers\.0)\.weight", key))
        ]
        res_blocks = min(enlarging, default=blocks - 1)
        levels = blocks // (res_blocks + 1)
        first = [1 + level * (res_blocks + 1) for level in range(levels)]  # input block of each level
        try:
            widths = [state[f"input_blocks.{block}.0.out_layers.3.weight"].shape[0] for block in first]
        except KeyError as error:
            raise UserError(f"{what}: its blocks do not fit together: {error} is missing") from None
        label_embedding = state.get("label_emb.weight")
        return cls(
            res_blocks,
            widths,
            [f"input_blocks.{block}.1.qkv.weight" in state for block in first],
            any(re.match(rf"output_blocks\.{place}\.[12]\.in_layers", key) for place in enlarging for key in state),
            None if label_embedding is None else len(label_embedding),
        )


def openai_unet(state: dict[str, Tensor], heads: Heads, image_size: int, what: str) -> UNet2DModel:
    """The network of an official state dict.

    Args:
        state: tensors under their official names.
        heads: of the attention.
        image_size: side of its images in pixels.
        what: the file, in errors.

    Returns:
        From x [B, 3, H, W] and times [B] to eps in the first three channels; float32, on the CPU.

    Raises:
        UserError: it is another network's.
    """
    layout = _Layout.of(state, what)
    last = len(layout.widths) - 1
    plain_down, plain_up = (
        ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
        if layout.resamples_by_blocks
        else ("DownBlock2D", "UpBlock2D")
    )
    resampling = "resnet" if layout.resamples_by_blocks else "conv"
    unet = UNet2DModel(
        sample_size=image_size,
        in_channels=state["input_blocks.0.0.weight"].shape[1],
        out_channels=state["out.2.weight"].shape[0],
        block_out_channels=tuple(layout.widths),
        layers_per_block=layout.res_blocks,
        # The last level has nothing to shrink; its plain block needs none of the kind that does.
        down_block_types=tuple(
            "AttnDownBlock2D" if attends else "DownBlock2D" if level == last else plain_down
            for level, attends in enumerate(layout.attends)
        ),
        up_block_types=tuple(
            "AttnUpBlock2D" if attends else "UpBlock2D" if level == 0 else plain_up
            for level, attends in reversed(list(enumerate(layout.attends)))
        ),
        downsample_type=resampling,
        upsample_type=resampling,
        resnet_time_scale_shift="scale_shift",
        time_embedding_dim=state["time_embed.0.weight"].shape[0],
        num_class_embeds=layout.classes,
        norm_num_groups=min(_GROUPS, layout.widths[0]),
        attn_norm_num_groups=min(_GROUPS, layout.widths[0]),
        norm_eps=1e-5,
        attention_head_dim=min(layout.widths),
        flip_sin_to_cos=True,
        freq_shift=0,
    )
    sinusoid = state["time_embed.0.weight"].shape[1]
    if sinusoid != layout.widths[0]:  # ADM at 512 px: the first level is half as wide as the sinusoid
        unet.time_proj.num_channels = sinusoid
        unet.time_embedding.linear_1 = nn.Linear(sinusoid, state["time_embed.0.weight"].shape[0])
    for module in unet.modules():
        if isinstance(module, Attention):
            module.heads = heads.of(module.to_q.in_features)
    load_exactly(unet, dict(_renamed(state, layout, heads, what)), what)
    return unet


def _renamed(state: dict[str, Tensor], layout: _Layout, heads: Heads, what: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors under diffusers' names. What has no name there keeps its own, for `load_exactly` to refuse."""
    names = dict(_modules(layout))
    for key, tensor in state.items():
        tensor = tensor.float()
        block = next((place for place in sorted(names, key=len, reverse=True) if key.startswith(f"{place}.")), None)
        if block is None:
            yield key, tensor
            continue
        rest = key.removeprefix(f"{block}.")
        layer, _, kind = rest.rpartition(".")
        if layer in _RES_BLOCK:
            yield f"{names[block]}.{_RES_BLOCK[layer]}.{kind}", tensor
        elif layer == "norm":
            yield f"{names[block]}.group_norm.{kind}", tensor
        elif layer == "proj_out":
            yield f"{names[block]}.to_out.0.{kind}", tensor.flatten(1) if kind == "weight" else tensor
        elif layer == "qkv":
            for part, values in zip("qkv", _split_qkv(tensor, heads), strict=True):
                yield f"{names[block]}.to_{part}.{kind}", values
        elif layer in ("op", "conv"):
            yield f"{names[block]}.conv.{kind}", tensor
        else:
            yield f"{names[block]}.{rest}", tensor


def _split_qkv(tensor: Tensor, heads: Heads) -> list[Tensor]:
    """q, k and v of the rows of `qkv`, [3C, C, 1] or [3C]."""
    values = tensor.squeeze(-1) if tensor.ndim == 3 else tensor
    width = len(values) // 3
    count = heads.of(width)
    if heads.order == "qkv_head":
        return [part.reshape(width, *values.shape[1:]) for part in values.unflatten(0, (3, width))]
    rows = values.unflatten(0, (count, 3, width // count))
    return [rows[:, part].reshape(width, *values.shape[1:]) for part in range(3)]


def _modules(layout: _Layout) -> Iterator[tuple[str, str]]:
    """Official places of blocks, and diffusers' names of them."""
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
        first = 1 + level * (res_blocks + 1)
        for block in range(res_blocks):
            yield f"input_blocks.{first + block}.0", f"down_blocks.{level}.resnets.{block}"
            yield f"input_blocks.{first + block}.1", f"down_blocks.{level}.attentions.{block}"
        yield f"input_blocks.{first + res_blocks}.0", f"down_blocks.{level}.downsamplers.0"
    for place, attends in enumerate(reversed(layout.attends)):
        first = place * (res_blocks + 1)
        for block in range(res_blocks + 1):
            yield f"output_blocks.{first + block}.0", f"up_blocks.{place}.resnets.{block}"
            if attends:
                yield f"output_blocks.{first + block}.1", f"up_blocks.{place}.attentions.{block}"
        yield f"output_blocks.{first + res_blocks}.{2 if attends else 1}", f"up_blocks.{place}.upsamplers.0"
