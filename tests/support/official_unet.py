"""Random weights in the shapes and under the names of guided-diffusion's and improved-diffusion's files."""

from collections.abc import Iterator

import torch

# Channels, residual blocks of a level, multiples of the channels, levels with attention, whether sides change in
# residual blocks, classes.
FILES = {
    "64x64_diffusion.pt": (192, 3, (1, 2, 3, 4), (1, 2, 3), True, 1000),
    "256x256_diffusion_uncond.pt": (256, 2, (1, 1, 2, 2, 4, 4), (3, 4, 5), True, None),
    "cifar10_uncond_50M_500K.pt": (128, 3, (1, 2, 2, 2), (1, 2), False, None),
    "imagenet64_uncond_100M_1500K.pt": (128, 3, (1, 2, 3, 4), (2, 3), False, None),
}


def random_state(name: str) -> dict[str, torch.Tensor]:
    state = {}
    for key, shape in _shapes(*FILES[name]):
        if len(shape) == 1:
            state[key] = torch.ones(shape) if key.endswith("weight") else torch.zeros(shape)
        else:
            fan_in = torch.Size(shape[1:]).numel()
            state[key] = torch.randn(shape) * fan_in**-0.5
    return state


def _shapes(channels, blocks, multiples, attends, by_blocks, classes) -> Iterator[tuple[str, tuple[int, ...]]]:
    embedding = 4 * channels
    yield from _layer("time_embed.0", embedding, channels)
    yield from _layer("time_embed.2", embedding, embedding)
    if classes:
        yield "label_emb.weight", (classes, embedding)
    yield from _layer("input_blocks.0.0", channels, 3, 3, 3)
    width, skips, place = channels, [channels], 1
    for level, multiple in enumerate(multiples):
        for _ in range(blocks):
            yield from _res(f"input_blocks.{place}.0", width, channels * multiple, embedding)
            width = channels * multiple
            if level in attends:
                yield from _attention(f"input_blocks.{place}.1", width)
            skips.append(width)
            place += 1
        if level < len(multiples) - 1:
            if by_blocks:
                yield from _res(f"input_blocks.{place}.0", width, width, embedding)
            else:
                yield from _layer(f"input_blocks.{place}.0.op", width, width, 3, 3)
            skips.append(width)
            place += 1
    yield from _res("middle_block.0", width, width, embedding)
    yield from _attention("middle_block.1", width)
    yield from _res("middle_block.2", width, width, embedding)
    place = 0
    for level in reversed(range(len(multiples))):
        for block in range(blocks + 1):
            out = channels * multiples[level]
            yield from _res(f"output_blocks.{place}.0", width + skips.pop(), out, embedding)
            width, last = out, 1
            if level in attends:
                yield from _attention(f"output_blocks.{place}.1", width)
                last = 2
            if level and block == blocks:
                if by_blocks:
                    yield from _res(f"output_blocks.{place}.{last}", width, width, embedding)
                else:
                    yield from _layer(f"output_blocks.{place}.{last}.conv", width, width, 3, 3)
            place += 1
    yield from _norm("out.0", width)
    yield from _layer("out.2", 6, width, 3, 3)


def _layer(name, out, *inside):
    yield f"{name}.weight", (out, *inside)
    yield f"{name}.bias", (out,)


def _norm(name, width):
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _res(name, width, out, embedding):
    yield from _norm(f"{name}.in_layers.0", width)
    yield from _layer(f"{name}.in_layers.2", out, width, 3, 3)
    yield from _layer(f"{name}.emb_layers.1", 2 * out, embedding)
    yield from _norm(f"{name}.out_layers.0", out)
    yield from _layer(f"{name}.out_layers.3", out, out, 3, 3)
    if width != out:
        yield from _layer(f"{name}.skip_connection", out, width, 1, 1)


def _attention(name, width):
    yield from _norm(f"{name}.norm", width)
    yield from _layer(f"{name}.qkv", 3 * width, width, 1)
    yield from _layer(f"{name}.proj_out", width, width, 1)
