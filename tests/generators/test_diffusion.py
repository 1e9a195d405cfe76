"""Diffusion models: networks and moves against the official code's own numbers, and what the generator makes of them."""

import math

import numpy as np
import pytest
import torch
from diffusers import CMStochasticIterativeScheduler, DDIMScheduler, LatentConsistencyModelPipeline, LCMScheduler
from families import FAMILIES, IDDPM, golden, tiny_turbo, tiny_unet
from generator_checks import LABELS, bytes_kept, check_refused, pictures
from safetensors.torch import save_file
from small_models import SIZE

from fmrgen.engine.interfaces import Latents
from fmrgen.errors import UserError
from fmrgen.generators.consistency import Config as ConsistencyConfig
from fmrgen.generators.diffusion import OFFICIAL, Config
from fmrgen.generators.networks.ddim import alphas_cumprod, invert, move
from fmrgen.generators.networks.openai_unet import Heads, openai_unet
from fmrgen.generators.one_step import Config as OneStepConfig

DIFFUSION = pytest.mark.parametrize("family", ["adm", "iddpm", "ddpm"], scope="module")
IN_ONE_PASS = pytest.mark.parametrize("family", ["consistency", "one step"], scope="module")


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


@DIFFUSION
def test_labels_matter_to_a_network_of_classes_alone(built):
    images = pictures()
    with torch.no_grad():
        one, other = (built.encode(images, labels).free for labels in (LABELS, (LABELS + 1) % 3))
    assert torch.equal(one, other) == (built.classes is None)
    if built.classes:
        with pytest.raises(UserError, match="its network has 10 classes, and an example has the label 12"):
            built.encode(images, torch.tensor([12, 0, 0]))


@DIFFUSION
def test_of_each_step_only_its_image_is_kept(built):
    images = pictures()
    with torch.no_grad():
        free, fixed = built.encode(images, LABELS)
    free = free.requires_grad_(True)
    one_pass = bytes_kept(lambda: built.eps(free, 0, LABELS if built.classes else None))
    decoded = bytes_kept(lambda: built.decode(Latents(free, fixed)))
    assert decoded < one_pass / 10


def test_without_the_residual_nothing_is_added(tmp_path):
    generator = FAMILIES["iddpm"](tmp_path, start=0.02, steps=4, residual=False).build()
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
    wrong = {"checkpoint": "{root}/own.safetensors", "image_size": SIZE, **IDDPM, **change}
    wrong["checkpoint"] = wrong["checkpoint"].format(root=tmp_path)
    check_refused(lambda: Config(**wrong).build(), message)


@IN_ONE_PASS
def test_noise_is_each_rows_own(built):
    images = pictures()
    built.row_seeds = [7, 8, 9]
    together = built.encode(images, LABELS)
    alone = []
    for seed in (8, 1):
        built.row_seeds = [seed]
        alone.append(built.encode(images[1:2], LABELS[1:2]).free)
    torch.testing.assert_close(alone[0], together.free[1:2])
    assert not torch.allclose(*alone)


def test_a_consistency_model_is_asked_as_diffusers_asks_it(tmp_path):
    generator = FAMILIES["consistency"](tmp_path, sigma=80.0, residual=False).build()
    unet = tiny_unet(num_class_embeds=10)
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
    FAMILIES["consistency"](tmp_path / "cd")
    for config, message in (
        (OneStepConfig(model=str(tmp_path / "sized"), image_size=SIZE), "needs more than a prompt"),
        (OneStepConfig(model=str(tmp_path / "cd"), image_size=SIZE), "can't be loaded"),
        (Config(model=str(tmp_path / "v"), image_size=SIZE), "predicts v_prediction, only epsilon is supported"),
        (ConsistencyConfig(model=str(tmp_path / "cd"), image_size=SIZE, sigma=0.001), "generator.sigma: must be above"),
        (ConsistencyConfig(model=str(tmp_path / "cd"), image_size=17), "17 is not a multiple of 2; use 16"),
    ):
        check_refused(config.build, message)
