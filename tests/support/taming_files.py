"""A small VQGAN of taming-transformers, as its files have it, and as its port to Flax has it."""

import re

import msgpack
from taming.modules.diffusionmodules.model import Decoder, Encoder
from taming.modules.vqvae.quantize import VectorQuantizer2
from torch import nn

DDCONFIG = {
    "double_z": False,
    "z_channels": 16,
    "resolution": 32,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1, 2],
    "num_res_blocks": 2,
    "attn_resolutions": [8],
    "dropout": 0.0,
}
CONFIG = {
    "model": {"target": "taming.models.vqgan.VQModel", "params": {"embed_dim": 8, "n_embed": 64, "ddconfig": DDCONFIG}}
}


class Taming(nn.Module):
    """taming.models.vqgan.VQModel's own parts, put together as it does."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(**DDCONFIG), Decoder(**DDCONFIG)
        self.quantize = VectorQuantizer2(64, 8, beta=0.25)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.quantize.embedding.weight.data.normal_(0, 0.5)

    def forward(self, images):
        latents = self.quant_conv(self.encoder(images * 2 - 1))
        quantized, _, (_, _, codes) = self.quantize(latents)
        return latents, codes, (self.decoder(self.post_quant_conv(quantized)) / 2 + 0.5).clamp(0, 1)


def flax_tree(state):
    """The tensors of a state dict as flax writes them into `flax_model.msgpack`."""
    tree = {}
    for key, tensor in state.items():
        *path, last = re.sub(r"\.(\d+)\b", r"_\1", key).split(".")
        if last == "weight":
            last = "embedding" if "embedding" in path else "kernel" if tensor.ndim == 4 else "scale"
        array = (tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor).contiguous().numpy()
        content = msgpack.packb((array.shape, array.dtype.name, array.tobytes()))
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = msgpack.ExtType(1, content)
    return tree
