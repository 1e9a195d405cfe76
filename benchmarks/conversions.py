"""Conversions of a LeNet and of a network for traffic signs: flips, how far apart the boundaries lie, and the cost.

python -m benchmarks.regressions train digits -o out       # and signs, whose first network each is converted here
python -m benchmarks.conversions digits -o out
python -m benchmarks.conversions signs -o out --test gtsrb-test.parquet
"""

import argparse
import json
import resource
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.ao.quantization import get_default_qconfig_mapping, quantize_dynamic
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

import fmrgen
from benchmarks.regressions import network_of

CONVERSIONS = ("int8 static", "int8 dynamic", "pruned 30", "pruned 50", "pruned 70", "fp16", "bf16", "onnx")
_ROWS = 300
_CALIBRATION = 256  # images


class Cast(nn.Module):
    """A network that calculates in another precision."""

    def __init__(self, network: nn.Module, precision: torch.dtype) -> None:
        super().__init__()
        self.network, self.precision = network.to(precision), precision

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.to(self.precision)).float()
        return logits


def converted(conversion: str, data: str, weights: str, calibration: str = "") -> nn.Module:
    """Returns a network of `benchmarks.regressions` after its conversion, one of `CONVERSIONS`, or as it is (`fp32`).

    Args:
        conversion: what becomes of it.
        data: that it is for.
        weights: its file.
        calibration: a file of images to calibrate with.
    """
    whole = network_of(data)
    whole.load_state_dict(load_file(weights))
    whole.eval()
    match conversion.split():
        case ["int8", "static"]:
            images = (torch.load(calibration, weights_only=True) - whole.mean) / whole.std
            prepared = prepare_fx(whole.network, get_default_qconfig_mapping("x86"), (images[:1],))
            with torch.no_grad():
                prepared(images)
            whole.network = convert_fx(prepared)
        case ["int8", "dynamic"]:
            whole.network = quantize_dynamic(whole.network, {nn.Linear})  # type: ignore[no-untyped-call]
        case ["pruned", share]:
            with torch.no_grad():
                for parameter in whole.parameters():
                    if parameter.dim() > 1:
                        least = parameter.abs().flatten().kthvalue(int(int(share) / 100 * parameter.numel())).values
                        parameter.mul_(parameter.abs() > least)
        case ["fp16"]:
            whole.network = Cast(whole.network, torch.float16)
        case ["bf16"]:
            whole.network = Cast(whole.network, torch.bfloat16)
    return whole


def compare(data: str, recipe: fmrgen.Recipe, output: Path) -> None:
    """Prints a line for each conversion of a network."""
    print("| conversion | flips on originals | verdict | made: broke, fixed | band, 9 of 10 | CPU-s an image |")
    print("|---|--:|---|--:|--:|--:|", flush=True)
    source = recipe.source.build()
    examples = [example for example in source.load(0, _CALIBRATION, 32) if isinstance(example, fmrgen.LoadedExample)]
    calibration = output / f"{data}.pt"
    torch.save(torch.cat([fmrgen.to_batch(example.image[None], "cpu") for example in examples]), calibration)
    names = list(source.labels.names)
    settings = {"data": data, "weights": str(output / data / "twin 0.safetensors"), "calibration": str(calibration)}
    for conversion in CONVERSIONS:
        old, new = (_section(name, settings, names) for name in ("fp32", conversion))
        if conversion == "onnx":
            new = _exported(settings, output / f"{data}.onnx", names)
        before = resource.getrusage(resource.RUSAGE_SELF)
        outcome = fmrgen.diff(old, new, recipe=recipe, output=output / f"{data} {conversion}")
        after = resource.getrusage(resource.RUSAGE_SELF)
        seconds = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / _ROWS
        flips = f"{len(outcome.flips.broken)}, {len(outcome.flips.mended)} of {outcome.flips.images}"
        made = "–"
        for line in outcome.evidence:
            if line.kind == "made":
                made = f"{line.broke.value:.0f}, {line.fixed.value:.0f} %"
        band = "–" if outcome.band is None else f"{outcome.band.width:.2g}, {outcome.band.widest:.2g}"
        print(f"| {conversion} | {flips} | {outcome.verdict} | {made} | {band} | {seconds:.2f} |", flush=True)


def _section(conversion: str, settings: dict[str, str], names: list[str]) -> str:
    arguments = settings | {"conversion": conversion}
    target = "benchmarks.conversions:converted"
    return json.dumps({"kind": "module", "target": target, "args": arguments, "class_names": names})


def _exported(settings: dict[str, str], path: Path, names: list[str]) -> str:
    """Returns the section of OLD as an ONNX file."""
    network = converted("fp32", settings["data"], settings["weights"])
    batch = {"images": {0: "batch"}}
    images = torch.rand(1, 3, 32, 32)
    torch.onnx.export(network, (images,), str(path), input_names=["images"], dynamic_axes=batch, dynamo=False)
    plain = {"mean": [0.0] * 3, "std": [1.0] * 3}
    return json.dumps({"kind": "onnx", "model": str(path), "class_names": names} | plain)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data", choices=["digits", "signs"])
    parser.add_argument("-o", "--output", type=Path, default=Path("out"))
    parser.add_argument("--test", type=Path)
    arguments = parser.parse_args()
    changes = [f"source.limit={_ROWS}", "perturb.control=0"]
    if arguments.data == "signs":
        source = f"{{kind: gtsrb, path: '{arguments.test}', shuffle_seed: 0}}"
        changes.insert(0, f"source={source}")
        changes += [
            "generator={kind: transform, image_size: 32}",
            "perturb.oracle_rule=none",
            "perturb.min_probability=0",
        ]
    compare(arguments.data, fmrgen.load_recipe("_mnist", changes), arguments.output)
