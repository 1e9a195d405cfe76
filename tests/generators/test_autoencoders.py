"""Autoencoders of diffusers and of taesd: each as its own library encodes and decodes, in the engine and alone."""

import diffusers
import pytest
import torch
from fakes import COUNT
from generator_checks import check_engine_is_literal, check_mask, check_rows_and_gradient
from safetensors.torch import save_file
from small_models import SIZE

from fmrgen.engine.interfaces import Latents
from fmrgen.errors import UserError
from fmrgen.generators.networks.taesd import load_decoder, load_encoder
from fmrgen.generators.taesd import Config as TaesdConfig
from fmrgen.generators.vae import Config as VaeConfig

BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
SMALL = {**BLOCKS, "block_out_channels": (8, 16), "latent_channels": 4, "norm_num_groups": 4}
VIDEO = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 2], "num_res_blocks": 1, "temperal_downsample": [False],
         "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}  # fmt: skip
MODELS = {
    "KL": lambda: diffusers.AutoencoderKL(**SMALL),
    "KL without quant convolutions": lambda: diffusers.AutoencoderKL(
        **SMALL, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1
    ),
    "KLFlux2": lambda: diffusers.AutoencoderKLFlux2(**SMALL),
    "Asymmetric": lambda: diffusers.AsymmetricAutoencoderKL(
        down_block_types=BLOCKS["down_block_types"],
        up_block_types=BLOCKS["up_block_types"],
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


@pytest.fixture(scope="module", params=MODELS)
def built(request, tmp_path_factory):
    """An autoencoder as it is saved by its library, and the generator of it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("autoencoder")
    model = MODELS[request.param]().eval()
    for parameter in model.parameters():  # as they are drawn most decode to a grey that nothing moves
        parameter.data.mul_(1.5)
    model.save_pretrained(folder)
    return request.param, model, VaeConfig(model=str(folder), image_size=SIZE).build()


def test_it_encodes_and_decodes_as_its_library_does(built):
    name, model, vae = built
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    is_video, from_zero = name in ("QwenImage", "Wan", "Cosmos"), name == "RAE"
    given = images if from_zero else images * 2 - 1
    with torch.no_grad():
        encoded = model.encode(given.unsqueeze(2) if is_video else given)
        expected = encoded.latent_dist.mode() if "latent_dist" in encoded else encoded[0]
        decoded = model.decode(expected).sample
        latents = vae.encode(images, torch.zeros(2, dtype=torch.int64))
        found = vae.decode(latents)
    assert torch.equal(latents.free, expected)
    decoded = decoded[:, :, 0] if is_video else decoded
    torch.testing.assert_close(found, (decoded if from_zero else decoded / 2 + 0.5).clamp(0, 1))
    assert found.shape == images.shape


def test_rows_are_independent_and_the_gradient_is_that_of_differences(built):
    name, _, vae = built
    # Some of their layers compute in float32 whatever they are given: small differences drown in its noise.
    step, tolerance = (1e-3, 5e-3) if name in ("DC", "QwenImage", "Wan") else (1e-6, 1e-4)
    vae.model.double()
    try:
        images = torch.rand(3, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        check_rows_and_gradient(vae, images, torch.zeros(3, dtype=torch.int64), step, tolerance)
    finally:
        vae.model.float()


def test_a_mask_lets_some_dimensions_move(built, tmp_path):
    check_mask(built[2], torch.rand(3, 3, SIZE, SIZE), torch.zeros(3, dtype=torch.int64), tmp_path)


def test_the_engine_equals_the_literal_algorithm(built, double):
    name, _, vae = built
    if name not in ("KLFlux2", "DC", "RAE", "QwenImage", "Cosmos"):
        pytest.skip("its decode is of a kind that is tried")
    vae.model.double()
    try:
        check_engine_is_literal(vae, 0.05)
    finally:
        vae.model.float()


def test_a_latent_may_be_kept_at_its_length(tmp_path, double):
    torch.manual_seed(0)
    model = MODELS["KL"]().eval()
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
    model.save_pretrained(tmp_path)
    vae = VaeConfig(model=str(tmp_path), image_size=SIZE, shell=True).build()
    vae.model.double()
    rows = check_engine_is_literal(vae, 0.1, keep_latents=True)
    moved = 0
    for row in rows.values():
        start, stored = row.latents
        torch.testing.assert_close(stored.norm(), start.norm())
        moved += not torch.equal(start, stored)
    assert moved > COUNT / 3


@pytest.mark.parametrize(
    ("make", "size", "message"),
    [
        ("KL", 17, "generator.image_size: 17 is not a multiple of 2; use 16"),
        ("DC", 18, ""),
        ("RAE", 32, "generates images of 16 px; use 16"),
        ("Cosmos", 17, "generator."),
    ],
)
def test_sizes_that_do_not_come_back(tmp_path, make, size, message):
    MODELS[make]().save_pretrained(tmp_path)
    if not message:
        assert VaeConfig(model=str(tmp_path), image_size=size).build().image_size == size
        return
    with pytest.raises(UserError) as caught:
        VaeConfig(model=str(tmp_path), image_size=size).build()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: diffusers.AutoencoderVidTok(ch=16, ch_mult=[1, 1], z_channels=4, num_res_blocks=1), "is a AutoencoderVidTok and fails on an image of 16 px"),
        (lambda: diffusers.VQModel(**{**BLOCKS, "block_out_channels": (8, 16)}, norm_num_groups=4), "is not one of diffusers' autoencoders"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_one_line(tmp_path, make, message):
    make().save_pretrained(tmp_path)
    with pytest.raises(UserError) as caught:
        VaeConfig(model=str(tmp_path), image_size=16).build()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize(("channels", "pools"), [(4, False), (16, False), (32, True)])
def test_files_of_taesd(tmp_path, channels, pools):
    files = taesd_files(tmp_path, channels, pools)
    taesd = TaesdConfig(**files, image_size=16).build()
    images = torch.rand(2, 3, 16, 16)
    latents = taesd.encode(images, torch.zeros(2))
    assert latents.free.shape == (2, channels, 2, 2)
    free = latents.free.detach().requires_grad_(True)
    decoded = taesd.decode(Latents(free))
    assert decoded.shape == images.shape
    decoded.sum().backward()
    assert free.grad.abs().sum() > 0
    with torch.no_grad():
        plain = load_decoder(files["decoder"])((latents.free / 3).tanh() * 3).clamp(0, 1)
    assert torch.equal(plain, decoded)


def test_the_gradient_of_taesd_is_that_of_differences(tmp_path, double):
    taesd = TaesdConfig(**taesd_files(tmp_path, 4, False), image_size=16).build()
    for network in (taesd.encoder, taesd.decoder):
        network.double()
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    check_rows_and_gradient(taesd, images, torch.zeros(3, dtype=torch.int64))


@pytest.mark.skipif(not hasattr(diffusers, "AutoencoderTiny"), reason="no AutoencoderTiny")
def test_taesd_is_what_diffusers_makes_of_the_same_weights(tmp_path):
    files = taesd_files(tmp_path, 4, False)
    tiny = diffusers.AutoencoderTiny()
    own = {"encoder": load_encoder(files["encoder"]), "decoder": load_decoder(files["decoder"])}
    for half, network in own.items():
        theirs = list(getattr(tiny, half).state_dict())
        values = list(network.state_dict().values())
        assert len(theirs) == len(values)
        getattr(tiny, half).load_state_dict(dict(zip(theirs, values, strict=True)))
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(own["encoder"](images), tiny.encode(images * 2 - 1).latents)
        latents = torch.randn(2, 4, 2, 2)
        bounded = (latents / 3).tanh() * 3
        torch.testing.assert_close(own["decoder"](bounded), tiny.decode(latents).sample / 2 + 0.5)


def test_other_files_are_one_line(tmp_path):
    files = taesd_files(tmp_path, 4, False)
    for given, message in (
        ({"encoder": files["decoder"]}, "not weights of this model"),
        ({"decoder": str(tmp_path / "none.pth")}, "generator.decoder: no such file as"),
        ({"image_size": 20}, "generator.image_size: 20 is not a multiple of 8; use 16"),
    ):
        with pytest.raises(UserError) as caught:
            TaesdConfig(**{**files, "image_size": 16, **given}).build()
        assert message in str(caught.value)
    save_file({"odd": torch.zeros(3)}, tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match=r"is not such a file of madebyollin/taesd"):
        TaesdConfig(**{**files, "encoder": str(tmp_path / "odd.safetensors")}, image_size=16).build()
