"""A small generator of each family: its files, as its library or its authors write them, and its section of a recipe."""

import diffusers
import torch
from official_stylegan import GEOMETRIES, save_official
from places import TESTS
from safetensors.torch import load_file, save_file
from small_models import SIZE, tiny_vqgan
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel

from fmrgen.generators.consistency import Config as ConsistencyConfig
from fmrgen.generators.diffusion import Config as DiffusionConfig
from fmrgen.generators.networks.vqgan_files import save_model
from fmrgen.generators.one_step import Config as OneStepConfig
from fmrgen.generators.stylegan_xl import Config as StyleGanConfig
from fmrgen.generators.taesd import Config as TaesdConfig
from fmrgen.generators.transform import Config as TransformConfig
from fmrgen.generators.vae import Config as VaeConfig
from fmrgen.generators.vdvae import Config as VdvaeConfig
from fmrgen.generators.vqgan import Config as VqganConfig
from fmrgen.weights.assets import resolve_path

BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
SMALL = {**BLOCKS, "block_out_channels": (8, 16), "latent_channels": 4, "norm_num_groups": 4}
VIDEO = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 2], "num_res_blocks": 1, "temperal_downsample": [False],
         "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}  # fmt: skip
AUTOENCODERS = {
    "KL": lambda: diffusers.AutoencoderKL(**SMALL),
    "KL without quant convolutions": lambda: diffusers.AutoencoderKL(
        **SMALL, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1
    ),
    "KLFlux2": lambda: diffusers.AutoencoderKLFlux2(**SMALL),
    "Asymmetric": lambda: diffusers.AsymmetricAutoencoderKL(
        **BLOCKS,
        down_block_out_channels=(8, 16),
        up_block_out_channels=(8, 16),
        layers_per_down_block=1,
        layers_per_up_block=1,
        norm_num_groups=4,
    ),
    "Tiny": lambda: diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)
    ),
    "DC": lambda: diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
    ),
    "RAE": lambda: diffusers.AutoencoderRAE(
        encoder_type="mae",
        encoder_hidden_size=64,
        encoder_patch_size=4,
        encoder_num_hidden_layers=1,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=64,
        patch_size=8,
        encoder_input_size=8,
    ),
    "HunyuanImage": lambda: diffusers.AutoencoderKLHunyuanImage(3, 3, 4, (32, 64), 1, 2, 32),
    "QwenImage": lambda: diffusers.AutoencoderKLQwenImage(**VIDEO),
    "Wan": lambda: diffusers.AutoencoderKLWan(**VIDEO),
    "Cosmos": lambda: diffusers.AutoencoderKLCosmos(
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=1,
        patch_size=4,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    ),
}  # fmt: skip
ADM = {
    "head_channels": 16,
    "qkv_order": "head_qkv",
    "noise_schedule": "linear",
    "training_steps": 1000,
    "rescale_times": False,
}
IDDPM = {"heads": 4, "qkv_order": "head_qkv", "noise_schedule": "cosine", "training_steps": 4000, "rescale_times": True}


def golden(name):
    """Tensors and answers of official code."""
    return load_file(TESTS / f"data/golden/{name}.safetensors")


def vqgan(folder, **settings):
    save_model(tiny_vqgan().network, folder)
    return VqganConfig(model=str(folder), image_size=SIZE, **settings)


def transform(folder, **settings):
    return TransformConfig(image_size=SIZE, **settings)


def autoencoder(name):
    torch.manual_seed(0)
    model = AUTOENCODERS[name]().eval()
    for parameter in model.parameters():  # as they are drawn most decode to a grey that nothing moves
        parameter.data.mul_(1.5)
    return model


def vae(name):
    def config(folder, **settings):
        autoencoder(name).save_pretrained(folder)
        return VaeConfig(model=str(folder), image_size=SIZE, **settings)

    return config


def taesd_files(folder, channels, pools):
    """Random weights under the names of madebyollin/taesd."""
    wide = {
        "pool.0.weight": (256, 64, 1, 1),
        "pool.1.weight": (256,),
        "pool.1.bias": (256,),
        "pool.3.weight": (64, 256, 1, 1),
    }
    block = {
        f"conv.{i}.{kind}": (64, 64, 3, 3) if kind == "weight" else (64,)
        for i in (0, 2, 4)
        for kind in ("weight", "bias")
    }

    def layers(*parts):
        return {f"{place}.{name}": shape for place, part in enumerate(parts) for name, shape in part.items()}

    def conv(inputs, outputs, bias=True):
        return {"weight": (outputs, inputs, 3, 3), **({"bias": (outputs,)} if bias else {})}

    inner = {**block, **(wide if pools else {})}
    down, up = conv(64, 64, bias=False), [{}, conv(64, 64, bias=False)]
    encoder = layers(conv(3, 64), block, *[down, *[block] * 3] * 2, down, *[inner] * 3, conv(64, channels))
    decoder = layers(
        {}, conv(channels, 64), {}, *[inner] * 3, *up, *[block] * 3, *up, *[block] * 3, *up, block, conv(64, 3)
    )
    drawn = torch.Generator().manual_seed(0)
    for name, shapes in (("encoder", encoder), ("decoder", decoder)):
        state = {key: torch.randn(shape, generator=drawn) * 0.05 for key, shape in shapes.items()}
        save_file(state, folder / f"{name}.safetensors")
    return {name: str(folder / f"{name}.safetensors") for name in ("encoder", "decoder")}


def taesd(folder, **settings):
    return TaesdConfig(**taesd_files(folder, 4, False), image_size=SIZE, **settings)


def tiny_unet(**options):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
        attention_head_dim=8,
        **options,
    ).eval()


TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT |= {"max_position_embeddings": 16}


def tiny_turbo(folder, **unet_options):
    torch.manual_seed(0)
    parts = {
        "vae": diffusers.AutoencoderKL(**SMALL),
        "unet": diffusers.UNet2DConditionModel(
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=16,
            attention_head_dim=4,
            **unet_options,
        ),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT)),
        "scheduler": diffusers.DDIMScheduler(beta_schedule="scaled_linear"),
        "tokenizer": AutoTokenizer.from_pretrained(resolve_path("asset:mnist/clip")),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    for name in ("vae", "unet", "text_encoder"):
        parts[name].eval()
    return parts


def diffusion(name):
    def config(folder, **settings):
        short = {"image_size": SIZE, "start": 0.05, "steps": 2, "refinements": 2, **settings}
        if name == "ddpm":
            tiny_unet().save_pretrained(folder / "unet")
            diffusers.DDIMScheduler(num_train_timesteps=100).save_pretrained(folder / "scheduler")
            return DiffusionConfig(model=str(folder), **short)
        save_file(golden(f"{name}-small.state"), folder / "own.safetensors")
        official = ADM if name == "adm" else IDDPM
        return DiffusionConfig(checkpoint=str(folder / "own.safetensors"), **official, **short)

    return config


def consistency(folder, **settings):
    tiny_unet(num_class_embeds=10).save_pretrained(folder / "unet")
    diffusers.CMStochasticIterativeScheduler().save_pretrained(folder / "scheduler")
    return ConsistencyConfig(model=str(folder), image_size=SIZE, **settings)


def one_step(folder, **settings):
    tiny_turbo(folder)
    return OneStepConfig(model=str(folder), image_size=SIZE, **settings)


def vdvae(name):
    def config(folder, **settings):
        state = {"ema_model_state_dict": golden(f"{name}.state"), "model_state_dict": {}, "global_step": 7}
        torch.save(state, folder / "own.pt")
        return VdvaeConfig(checkpoint=str(folder / "own.pt"), image_size=SIZE, **settings)

    return config


def stylegan(folder, geometry="stem", **settings):
    save_official(folder / "own.pkl", geometry)
    quick = {"image_size": GEOMETRIES[geometry]["img_resolution"], "inversion_steps": 3, "candidates": 2, **settings}
    return StyleGanConfig(checkpoint=str(folder / "own.pkl"), **quick)


# The section, given an empty folder and further keys.
FAMILIES = {
    "vqgan": vqgan,
    "transform": transform,
    **{name: vae(name) for name in AUTOENCODERS},
    "taesd": taesd,
    "ddpm": diffusion("ddpm"),
    "adm": diffusion("adm"),
    "iddpm": diffusion("iddpm"),
    "consistency": consistency,
    "one step": one_step,
    "vdvae": vdvae("vdvae-small"),
    "vdvae-logstd": vdvae("vdvae-small-logstd"),
    "stylegan-xl": stylegan,
}
