"""The command `env`."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from fmrgen.cli import display, options

_PACKAGES = (
    *("fmrgen", "torch", "torchvision", "transformers", "diffusers", "timm", "datasets", "huggingface_hub"),
    *("accelerate", "pyarrow", "numpy", "pillow", "obstore"),
)
_VARIABLES = ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HUB_DISABLE_XET", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


def env(*, as_json: options.Json = False) -> None:
    """Print versions, devices and variables for a bug report.

    Prints no secrets.

    Example: fmrgen env
    """
    import torch

    facts = {"python": f"{platform.python_version()} on {platform.platform()}"}
    for name in _PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    facts["cores"] = str(os.cpu_count())
    facts["gpu"] = "none"
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        facts[f"gpu {index}"] = f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GiB, CUDA {torch.version.cuda}"
        facts.pop("gpu", None)
    names = [name for name in os.environ if name in _VARIABLES or name.startswith("FMRGEN_")]
    facts["variables"] = ", ".join(f"{name}={os.environ[name]}" for name in sorted(names)) or "none set"
    lines = [f"{name:16} {fact}" for name, fact in facts.items()]
    display.print_outcome(facts, lines, as_json=as_json)
