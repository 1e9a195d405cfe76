"""The engine against the bare models under every family of generators, at 64 px with random weights.

    python -m benchmarks.families --images 64 --rounds 3
    python -m benchmarks.families --only diffusion stylegan_xl

Ratios are those of `benchmarks.throughput`: image-iterations of the engine to those of the bare models at their best
batch size, in turns, without and with the one encode of each original. The oracle is at work but knows one class, so
that every image takes all its steps: random networks say nothing of how many that would be. Networks are small, so
the engine's own work weighs more than it does at their true size.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.signal import firwin
from torch import nn

from benchmarks.throughput import measure, print_table
from fmrgen import Generator, Labels, PerturbOptions, Recipe, freeze, load_recipe
from fmrgen.classifiers.base import Classifier, Normalize
from fmrgen.recipe.build import Components
from fmrgen.records import Example

SIZE = 64
_WIDTHS = (32, 64, 64)


def unet(**options: Any) -> Any:
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=SIZE,
        block_out_channels=_WIDTHS,
        layers_per_block=2,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        **options,
    )


def autoencoder() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=_WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
    )


def vqgan(device: torch.device) -> Generator:
    from fmrgen.generators.networks.vqgan import Architecture, VqganNetwork
    from fmrgen.generators.vqgan import Vqgan

    network = VqganNetwork(Architecture(_WIDTHS[0], tuple(_WIDTHS), (False,) * 3, 1, 4, 4, 256))
    return Vqgan(freeze(network, device), SIZE)


def vae(device: torch.device) -> Generator:
    from fmrgen.generators.vae import Vae

    return Vae(freeze(autoencoder(), device), SIZE)


def diffusion(device: torch.device) -> Generator:
    from fmrgen.generators.diffusion import Config
    from fmrgen.generators.networks.ddim import alphas_cumprod

    settings = Config(model="random", image_size=SIZE, steps=2, refinements=1)
    return settings.generator(freeze(unet(), device), alphas_cumprod("linear", 1000), rescale=False)


def consistency(device: torch.device) -> Generator:
    from fmrgen.generators._denoisers import Consistency
    from fmrgen.generators.base import DenoiserConfig

    settings = DenoiserConfig(kind="consistency", image_size=SIZE)
    return Consistency(freeze(unet(), device), settings, 0.5, 0.002, 0.5)


def one_step(device: torch.device) -> Generator:
    from diffusers import UNet2DConditionModel

    from fmrgen.generators._denoisers import OneStep
    from fmrgen.generators.base import DenoiserConfig

    network = UNet2DConditionModel(
        block_out_channels=_WIDTHS,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=8,
    )
    prompt = torch.randn(1, 16, 64, device=device)
    settings = DenoiserConfig(kind="one_step", image_size=SIZE)
    return OneStep(freeze(autoencoder(), device), freeze(network, device), prompt, settings, 199, 0.7)


def vdvae(device: torch.device) -> Generator:
    from fmrgen.apps.training.objectives.vdvae import Config
    from fmrgen.generators.vdvae import Vdvae

    settings = Config(
        sides=[64, 32, 16, 8, 4], widths=[32, 48, 64, 96, 96], blocks=[1, 1, 2, 2, 2], latent_channels=[2, 2, 4, 8, 8]
    )
    network: Any = freeze(settings.objective(device, Labels(("a", "b"))).network, device)
    with torch.no_grad():
        groups = network.posterior_means(torch.zeros(1, 3, SIZE, SIZE, device=device))
    return Vdvae(network, SIZE, [tuple(group.shape[1:]) for group in groups], 8)


def stylegan_xl(device: torch.device) -> Generator:
    from fmrgen.generators.networks.stylegan_xl import Geometry, LayerGeometry, StyleGanXl
    from fmrgen.generators.stylegan_xl import Config, StyleGan

    layers, width, style, taps = 8, 64, 64, 12
    cutoffs = 2 * (SIZE / 4) ** np.minimum(np.arange(layers + 1) / (layers - 2), 1)
    rates = np.exp2(np.ceil(np.log2(np.minimum(cutoffs * 2.5, SIZE)))).astype(int).clip(16)
    sizes = rates + 20
    sizes[-2:] = SIZE
    state = {"mapping.w_avg": torch.randn(10, style), "synthesis.input.weight": torch.randn(width, width)}
    state |= {f"mapping.fc{index}.weight": 100 * torch.randn(style, inputs) for index, inputs in ((0, 128), (1, style))}
    state |= {f"mapping.fc{index}.bias": torch.zeros(style) for index in (0, 1)}
    state |= {"mapping.embed.weight": torch.randn(10, 320), "mapping.embed_proj.weight": torch.randn(style, 320)}
    state |= {"mapping.embed_proj.bias": torch.zeros(style), "synthesis.input.affine.weight": torch.zeros(4, style)}
    state |= {"synthesis.input.affine.bias": torch.tensor([1.0, 0, 0, 0]), "synthesis.input.transform": torch.eye(3)}
    state |= {"synthesis.input.freqs": torch.randn(width, 2), "synthesis.input.phases": torch.rand(width)}
    convolutions = []
    for index in range(layers + 1):
        before, rgb = max(index - 1, 0), index == layers
        between = max(rates[before], rates[index]) * (1 if rgb else 2)
        up, down, kernel = int(between // rates[before]), int(between // rates[index]), 1 if rgb else 3
        reach = 0 if rgb else 6 * up + 6 * down - 2
        padding = (sizes[index] - 1) * down + 1 - (sizes[before] + kernel - 1) * up + reach
        low = (padding + up) // 2
        name, outputs = f"L{index}_{sizes[index]}_{3 if rgb else width}", 3 if rgb else width
        ends = (int(low), int(padding - low))
        convolutions.append(LayerGeometry(name, up, down, (*ends, *ends), 256, rgb))
        place = f"synthesis.{name}"
        state |= {f"{place}.affine.weight": torch.randn(width, style), f"{place}.affine.bias": torch.ones(width)}
        state |= {f"{place}.weight": torch.randn(outputs, width, kernel, kernel), f"{place}.bias": torch.zeros(outputs)}
        state[f"{place}.magnitude_ema"] = torch.ones(())
        for which, factor in (("up", up), ("down", down)):
            if not rgb:
                state[f"{place}.{which}_filter"] = torch.tensor(firwin(taps * factor // 2, 1 / factor * 0.99)).float()
    geometry = Geometry(SIZE, int(sizes[0]), float(rates[0]), 2.0, 0.25, tuple(convolutions))
    network: Any = freeze(StyleGanXl(geometry, state, "random"), device)
    settings = Config(checkpoint="random", image_size=SIZE, inversion_steps=2, candidates=0)
    return StyleGan(network, settings)


FAMILIES: dict[str, Callable[[torch.device], Generator]] = {
    made.__name__: made for made in (vqgan, vae, diffusion, consistency, one_step, vdvae, stylegan_xl)
}


def classifier(device: torch.device) -> nn.Module:
    import timm

    network = timm.create_model("resnet18", num_classes=10)
    return freeze(Classifier(network, Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), SIZE)), device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--budget", type=int, default=24)
    parser.add_argument("--slots", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=FAMILIES, default=list(FAMILIES))
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    oracle: Any = load_recipe("_mnist").oracle.build(device)
    oracle.set_labels(Labels(("digit",)))
    pixels = torch.Generator().manual_seed(0)
    examples = [
        Example(number, (torch.rand(3, SIZE, SIZE, generator=pixels) * 255).round() / 255, 0)
        for number in range(options.images)
    ]
    slots: Any = options.slots if options.slots == "auto" else int(options.slots)
    perturb = PerturbOptions(budget=options.budget, step_size=0.005, slots=slots, min_probability=0.0)
    found = {}
    for family in options.only:
        torch.manual_seed(0)
        recipe: Recipe = load_recipe("_mnist").model_copy(update={"perturb": perturb, "description": family})
        components = Components(None, classifier(device), FAMILIES[family](device), oracle)  # type: ignore[arg-type]
        result = measure(recipe, components, examples, static=False, literal=0, rounds=options.rounds, device=device)
        found[family] = {way: result["ratios"][f"engine/{way}"] for way in ("limit", "limit with encode")}
        print_table(result)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
