"""Diffusion models: networks and moves against the official code's own numbers, and what the generator makes of them."""

import math

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    CMStochasticIterativeScheduler,
    DDIMScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from generator_checks import check_engine_is_literal, check_mask, check_rows_and_gradient
from places import TESTS
from safetensors.torch import load_file, save_file
from small_models import SIZE
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel

from fmrgen.engine.interfaces import Latents
from fmrgen.errors import UserError
from fmrgen.generators.consistency import Config as ConsistencyConfig
from fmrgen.generators.diffusion import OFFICIAL, Config
from fmrgen.generators.networks.ddim import alphas_cumprod, invert, move
from fmrgen.generators.networks.openai_unet import Heads, openai_unet
from fmrgen.generators.one_step import Config as OneStepConfig
from fmrgen.weights.assets import resolve_path

GOLDEN = TESTS / "data/golden"
ADM = {
    "head_channels": 16,
    "qkv_order": "head_qkv",
    "noise_schedule": "linear",
    "training_steps": 1000,
    "rescale_times": False,
}
IDDPM = {"heads": 4, "qkv_order": "head_qkv", "noise_schedule": "cosine", "training_steps": 4000, "rescale_times": True}


def golden(name):
    return load_file(GOLDEN / f"{name}.safetensors")


@pytest.mark.parametrize(
    ("name", "output", "heads"),
    [
        ("adm-small", ".legacy", Heads(None, 16, "head_qkv")),
        ("adm-small", ".new", Heads(None, 16, "qkv_head")),
        ("adm-small", ".heads4", Heads(4, None, "head_qkv")),
        ("iddpm-small", "", Heads(4, None, "head_qkv")),
    ],
)
def test_networks_say_what_the_official_ones_say(name, output, heads):
    told = golden(f"{name}.io")
    unet = openai_unet(golden(f"{name}.state"), heads, 32, name).eval()
    x = told["x"].clone().requires_grad_(True)
    times = told["t_fed"] if "t_fed" in told else told["t"]
    found = unet(x, times, class_labels=told.get("y")).sample
    (found.square().sum() / 2).backward()
    assert (found - told[f"output{output}"]).abs().max() < 1e-4
    expected = told[f"grad_x{output}"]
    assert (x.grad - expected).norm() / expected.norm() < 1e-3


@pytest.mark.parametrize("run", ["linear1000", "cosine1000", "cosine4000-rescaled"])
def test_moves_are_those_of_the_official_trajectories(run):
    told = golden("ddim")
    schedule, steps = ("linear", 1000) if run == "linear1000" else ("cosine", int(run[6:10]))
    alphas = alphas_cumprod(schedule, steps)
    np.testing.assert_allclose(alphas, told[f"{run.removesuffix('-rescaled')}.alphas_cumprod"].numpy(), rtol=1e-12)
    times, fed = told[f"{run}.timesteps"].tolist(), told[f"{run}.t_fed"].tolist()

    def eps(x, t):
        return 0.95 * x + 0.05 * math.sin(0.01 * t)

    trajectory = told[f"{run}.B.noclip.x"]
    x = trajectory[0]
    for step, (time, t) in enumerate(zip(times, fed, strict=True)):
        to = float(alphas[times[step + 1]]) if step + 1 < len(times) else 1.0
        x = move(x, eps(x, t), float(alphas[time]), to)
        assert (x - trajectory[step + 1]).abs().max() < 1e-4
    backwards = told[f"{run}.B.noclip.reverse_x"]
    x = told["image"]
    for step in range(1, len(times)):
        at, to = (float(alphas[times[-place]]) for place in (step, step + 1))
        x = move(x, eps(x, fed[-step]), at, to)
        assert (x - backwards[step]).abs().max() < 1e-4


def test_an_inversion_ends_where_the_move_begins():
    def eps(x, index):
        return torch.tanh(x) * 0.6 + 0.1 * index

    there = torch.linspace(-2, 2, 24).view(1, 3, 2, 4).double()
    here = move(there, eps(there, 1), 0.7, 0.9)
    errors = [float((invert(here, eps, 1, 0.9, 0.7, refinements) - there).abs().max()) for refinements in (0, 3, 40)]
    assert errors[0] > 3 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-9


def tiny_unet(**options):
    torch.manual_seed(0)
    return UNet2DModel(
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
        attention_head_dim=8,
        **options,
    ).eval()


def tiny_consistency(folder):
    unet = tiny_unet(num_class_embeds=10)
    unet.save_pretrained(folder / "unet")
    CMStochasticIterativeScheduler().save_pretrained(folder / "scheduler")
    return unet


def tiny_turbo(folder, **unet_options):
    torch.manual_seed(0)
    parts = {
        "vae": AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
        ),
        "unet": UNet2DConditionModel(
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=16,
            attention_head_dim=4,
            **unet_options,
        ),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=16,
            )
        ),
        "scheduler": DDIMScheduler(beta_schedule="scaled_linear"),
        "tokenizer": AutoTokenizer.from_pretrained(resolve_path("asset:mnist/clip")),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    return {name: part.eval() if hasattr(part, "eval") else part for name, part in parts.items()}


@pytest.fixture(scope="module", params=["adm", "iddpm", "pipeline"])
def built(request, tmp_path_factory):
    """A network, which depends on labels only as ADM's, and the generator of it."""
    folder = tmp_path_factory.mktemp("diffusion")
    short = {"image_size": SIZE, "start": 0.05, "steps": 2, "refinements": 2}
    if request.param == "pipeline":
        tiny_unet().save_pretrained(folder / "unet")
        DDIMScheduler(num_train_timesteps=100).save_pretrained(folder / "scheduler")
        return Config(model=str(folder), **short).build()
    save_file(golden(f"{request.param}-small.state"), folder / "own.safetensors")
    settings = ADM if request.param == "adm" else IDDPM
    return Config(checkpoint=str(folder / "own.safetensors"), **settings, **short).build()


@pytest.fixture
def doubled(built, double):
    built.unet.double()
    yield built
    built.unet.float()


LABELS = torch.tensor([0, 1, 2])


def pictures():
    return torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_an_unmoved_image_is_exact_and_a_moved_one_another(built):
    images = pictures()
    with torch.no_grad():
        latents = built.encode(images, LABELS)
        torch.testing.assert_close(built.decode(latents), images, atol=1e-5, rtol=0)
        moved = built.decode(Latents(latents.free + 0.05 * latents.free.sign(), latents.fixed))
    assert (moved - images).abs().mean() > 1e-3
    assert latents.free.shape == images.shape
    assert latents.fixed.shape == (3, 4 if built.classes else 3, SIZE, SIZE)


def test_labels_matter_to_a_network_of_classes_alone(built):
    images = pictures()
    with torch.no_grad():
        one, other = (built.encode(images, labels).free for labels in (LABELS, (LABELS + 1) % 3))
    assert torch.equal(one, other) == (built.classes is None)
    if built.classes:
        with pytest.raises(UserError, match="its network has 10 classes, and an example has the label 12"):
            built.encode(images, torch.tensor([12, 0, 0]))


def test_rows_are_independent_and_the_gradient_is_that_of_differences(doubled):
    check_rows_and_gradient(doubled, pictures().double(), LABELS, at=0.9)


def bytes_kept(computed):
    """What autograd keeps of a computation for its gradient."""
    kept = 0

    def keep(tensor):
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        computed()
    return kept


def test_of_each_step_only_its_image_is_kept(built):
    images = pictures()
    with torch.no_grad():
        free, fixed = built.encode(images, LABELS)
    free = free.requires_grad_(True)
    one_pass = bytes_kept(lambda: built.eps(free, 0, LABELS if built.classes else None))
    decoded = bytes_kept(lambda: built.decode(Latents(free, fixed)))
    assert decoded < one_pass / 10


@pytest.mark.slow
def test_the_engine_equals_the_literal_algorithm(doubled):
    if doubled.classes is None and doubled.unet.config.block_out_channels != [8, 16]:
        pytest.skip("the large ones take long; the one of classes is tried")
    rows = check_engine_is_literal(doubled, 0.05, slots=9, every=4, count=9)  # one image at a time takes long
    assert len({row.stop_reason for row in rows.values()}) >= 2


def test_a_mask_lets_some_dimensions_move(built, tmp_path):
    check_mask(built, pictures(), LABELS, tmp_path)


def test_without_the_residual_nothing_is_added(tmp_path):
    save_file(golden("iddpm-small.state"), tmp_path / "own.safetensors")
    bare = Config(checkpoint=str(tmp_path / "own.safetensors"), image_size=SIZE, start=0.02, residual=False, **IDDPM)
    generator = bare.build()
    with torch.no_grad():
        latents = generator.encode(pictures(), LABELS)
    assert latents.fixed is None
    assert generator.times == [pytest.approx(index * 0.25) for index in (19, 39, 59, 79)]


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_names_tell_what_the_files_do_not(tmp_path, name):
    small = "iddpm-small" if "0K" in name else "adm-small"
    state = golden(f"{small}.state")
    torch.save(state, tmp_path / name)
    wide = {"heads": 4} if OFFICIAL[name].get("head_channels") else {}  # the small ones have no 64 channels
    generator = Config(checkpoint=str(tmp_path / name), image_size=32, **wide).build()
    assert len(generator.levels) == 5
    assert generator.levels[0] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "x"}, "give either checkpoint or model"),
        ({"heads": None}, "generator.heads: "),
        ({"qkv_order": None, "training_steps": None}, "set generator.qkv_order, generator.training_steps"),
        ({"image_size": 18}, "generator.image_size: 18 is not a multiple of 4; use 16"),
        ({"steps": 300, "start": 0.05}, "generator.steps: 300 steps do not fit between 0 and the time 0.05"),
        ({"checkpoint": "none.pt"}, "generator.checkpoint: no such file as none.pt"),
        ({"checkpoint": "{root}/odd.safetensors"}, "is not the U-Net of guided-diffusion or improved-diffusion"),
        ({"checkpoint": "{root}/more.safetensors"}, "not weights of this model: extra is unknown to the model"),
        ({"checkpoint": "{root}/less.safetensors"}, "not weights of this model: "),
        ({"checkpoint": "{root}/code.pt"}, "holds more than tensors, and nothing in it is run"),
        ({"checkpoint": "{root}/cut.safetensors"}, "not a readable checkpoint"),
    ],
)
def test_mistakes_are_one_line(tmp_path, change, message):
    state = golden("iddpm-small.state")
    save_file(state, tmp_path / "own.safetensors")
    save_file({"odd": torch.zeros(2)}, tmp_path / "odd.safetensors")
    save_file({**state, "extra": torch.zeros(2)}, tmp_path / "more.safetensors")
    save_file({key: value for key, value in state.items() if key != "out.0.bias"}, tmp_path / "less.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "own.safetensors").read_bytes()[:1000])
    torch.save({"state_dict": state, "run": open}, tmp_path / "code.pt")
    given = {"checkpoint": str(tmp_path / "own.safetensors"), "image_size": SIZE, **IDDPM, **change}
    if "checkpoint" in change:
        given["checkpoint"] = change["checkpoint"].format(root=tmp_path)
    with pytest.raises((UserError, ValueError)) as caught:
        Config(**given).build()
    assert message in str(caught.value)
    if isinstance(caught.value, UserError):
        assert "\n" not in str(caught.value)


@pytest.fixture(params=["consistency", "one_step"])
def in_one_pass(request, tmp_path):
    if request.param == "consistency":
        tiny_consistency(tmp_path)
        return ConsistencyConfig(model=str(tmp_path), image_size=SIZE).build()
    tiny_turbo(tmp_path)
    return OneStepConfig(model=str(tmp_path), image_size=SIZE).build()


def test_one_pass_leads_an_unmoved_image_back_and_rows_see_not_each_other(in_one_pass):
    images = pictures()
    in_one_pass.row_seeds = [7, 8, 9]
    with torch.no_grad():
        latents = in_one_pass.encode(images, LABELS)
        torch.testing.assert_close(in_one_pass.decode(latents), images, atol=1e-5, rtol=0)
        in_one_pass.row_seeds = [8]
        alone = in_one_pass.encode(images[1:2], LABELS[1:2])
        torch.testing.assert_close(alone.free, latents.free[1:2])
        in_one_pass.row_seeds = [1]
        assert not torch.allclose(in_one_pass.encode(images[1:2], LABELS[1:2]).free, alone.free)
    moved = in_one_pass.project(Latents(latents.free + 0.1 * latents.free.sign(), latents.fixed), latents.free)
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), latents.free.flatten(1).norm(dim=1))


def test_masks_of_its_latent(in_one_pass, tmp_path):
    check_mask(in_one_pass, pictures(), LABELS, tmp_path)


@pytest.fixture
def one_pass_doubled(in_one_pass, double):
    for part in ("unet", "vae"):
        if hasattr(in_one_pass, part):
            getattr(in_one_pass, part).double()
    return in_one_pass


def test_its_gradient_is_that_of_differences(one_pass_doubled):
    one_pass_doubled.row_seeds = [7, 8, 9]
    check_rows_and_gradient(one_pass_doubled, pictures().double(), LABELS, at=0.9)


@pytest.mark.slow
def test_its_engine_equals_the_literal_algorithm(one_pass_doubled):
    check_engine_is_literal(one_pass_doubled, 0.1)


def test_a_consistency_model_is_asked_as_diffusers_asks_it(tmp_path):
    unet = tiny_consistency(tmp_path)
    generator = ConsistencyConfig(model=str(tmp_path), image_size=SIZE, sigma=80.0, residual=False).build()
    scheduler = CMStochasticIterativeScheduler()
    scheduler.set_timesteps(1)  # one step, from the highest level
    noised = 80.0 * torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    time = scheduler.timesteps[0]
    with torch.no_grad():
        predicted = unet(scheduler.scale_model_input(noised, time), time, class_labels=LABELS).sample
        found = generator.way_back(noised, LABELS)
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition(80.0)
    torch.testing.assert_close(found, c_out * predicted + c_skip * noised, rtol=1e-4, atol=1e-4)


def test_a_distilled_model_is_asked_as_diffusers_asks_it(tmp_path):
    parts = tiny_turbo(tmp_path)
    generator = OneStepConfig(model=str(tmp_path), image_size=SIZE, prompt="a 3", residual=False).build()
    ids = parts["tokenizer"]("a 3", padding="max_length", max_length=16, return_tensors="pt").input_ids
    scheduler = parts["scheduler"]
    latents = torch.randn(3, 4, SIZE // 2, SIZE // 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        prompt = parts["text_encoder"](ids).last_hidden_state.expand(3, -1, -1)
        eps = parts["unet"](latents, torch.full((3,), 199), encoder_hidden_states=prompt).sample
        left = scheduler.alphas_cumprod[199]
        clean = (latents - (1 - left) ** 0.5 * eps) / left**0.5
        expected = parts["vae"].decode(clean / parts["vae"].config.scaling_factor).sample
        found = generator.way_back(latents, None)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_latent_consistency_model_is_asked_as_diffusers_asks_it(tmp_path):
    parts = tiny_turbo(tmp_path, time_cond_proj_dim=8)
    config = OneStepConfig(model=str(tmp_path), image_size=SIZE, residual=False, guidance=3.0)
    generator = config.build()
    ids = parts["tokenizer"]("", padding="max_length", max_length=16, return_tensors="pt").input_ids
    scheduler = LCMScheduler(beta_start=0.0001, beta_end=0.02)  # as the scheduler of the pipeline
    scheduler.set_timesteps(timesteps=[199])
    latents = torch.randn(3, 4, SIZE // 2, SIZE // 2, generator=torch.Generator().manual_seed(1))
    told = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, torch.full((3,), 2.0), 8)
    with torch.no_grad():
        prompt = parts["text_encoder"](ids).last_hidden_state.expand(3, -1, -1)
        eps = parts["unet"](latents, 199, encoder_hidden_states=prompt, timestep_cond=told).sample
        clean = scheduler.step(eps, 199, latents).denoised
        expected = parts["vae"].decode(clean / parts["vae"].config.scaling_factor).sample
        found = generator.way_back(latents, None)
        other = config.model_copy(update={"guidance": 9.0}).build().way_back(latents, None)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, other)


def test_pipelines_that_do_not_fit_are_one_line(tmp_path):
    tiny_turbo(tmp_path / "sized", class_embed_type="timestep")
    DDIMScheduler(prediction_type="v_prediction").save_pretrained(tmp_path / "v" / "scheduler")
    tiny_unet().save_pretrained(tmp_path / "v" / "unet")
    tiny_consistency(tmp_path / "cd")
    for config, message in (
        (OneStepConfig(model=str(tmp_path / "sized"), image_size=SIZE), "needs more than a prompt"),
        (OneStepConfig(model=str(tmp_path / "cd"), image_size=SIZE), "can't be loaded"),
        (Config(model=str(tmp_path / "v"), image_size=SIZE), "predicts v_prediction, only epsilon is supported"),
        (ConsistencyConfig(model=str(tmp_path / "cd"), image_size=SIZE, sigma=0.001), "generator.sigma: must be above"),
        (ConsistencyConfig(model=str(tmp_path / "cd"), image_size=17), "17 is not a multiple of 2; use 16"),
    ):
        with pytest.raises(UserError) as caught:
            config.build()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
