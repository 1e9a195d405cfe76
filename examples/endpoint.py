"""How robust is a classifier behind an address? It has no gradient, so a split estimates one from its outputs."""

import argparse
from pathlib import Path

import requests
import torch
from torch import Tensor, nn
from torchvision.io import encode_png

import fmrgen


class Endpoint(nn.Module):
    """Images [B, 3, H, W] in [0, 1] to log probabilities [B, K], of an address that takes PNG files one by one.

    It answers with a list of {"label": name, "score": probability}, as the Hub's image classification does.
    """

    def __init__(self, address: str, class_names: list[str]) -> None:
        super().__init__()
        self.address = address
        self.class_names = class_names

    def forward(self, images: Tensor) -> Tensor:
        rows = []
        for image in (images * 255).round().to(torch.uint8).cpu():
            content = encode_png(image).numpy().tobytes()
            answer = requests.post(self.address, data=content, headers={"Content-Type": "image/png"}, timeout=60)
            answer.raise_for_status()
            scores = {entry["label"]: entry["score"] for entry in answer.json()}
            rows.append([scores.get(name, 0.0) for name in self.class_names])
        return torch.tensor(rows).clamp(1e-6).log()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--digits", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    recipe = fmrgen.load_recipe("mnist-lenet", [f"source.limit={options.digits}", "perturb.budget=10"])
    network = Endpoint(options.address, [str(digit) for digit in range(10)])
    split = fmrgen.generate(recipe, network, output=options.output, split="endpoint", update="nes", queries=10)
    print(split)
    print(fmrgen.verify(split, classifier=network).true_rows, "rows match their stored images")


if __name__ == "__main__":
    main()
