"""Small networks and images, and the engine with its options given one by one."""

import torch
from torch import nn

from fmrgen.engine.options import PerturbOptions
from fmrgen.engine.perturb import perturb as run_engine

SIZE = 16
LABELS = 4


def perturb(examples, classifier, generator, oracle, **settings):
    """The engine, its options given one by one."""
    own = {name: settings.pop(name) for name in ("device", "keep_latents", "on_pass", "on_slots") if name in settings}
    return run_engine(examples, classifier.eval(), generator, oracle, PerturbOptions(**settings), **own)


def tiny_network(seed, labels=LABELS):
    """A smooth random network over 16 px images."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.Tanh(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(72, labels),
    )
    return network.eval().requires_grad_(False)


def tiny_vqgan():
    from fmrgen.generators.networks.vqgan import Architecture, VqganNetwork
    from fmrgen.generators.vqgan import Vqgan

    torch.manual_seed(0)
    network = VqganNetwork(Architecture(8, (8, 16), (False, False), 1, 3, 3, 32, num_groups=4))
    network.quantize.embedding.weight.data.normal_(0, 0.5)
    return Vqgan(network.eval().requires_grad_(False), SIZE)


def smooth_images(count, seed=3):
    """Random smooth images [count, 3, 16, 16] on the 8-bit grid."""
    noise = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    images = nn.functional.interpolate(noise, (SIZE, SIZE), mode="bilinear")
    return (images * 255).round() / 255
