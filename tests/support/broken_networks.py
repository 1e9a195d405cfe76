"""Networks that do not work."""

import torch

from fmrgen.recipe.job import parse_classifier


class Broken(torch.nn.Module):
    """LeNet with something wrong, or with nothing."""

    def __init__(self, fault):
        super().__init__()
        self.lenet, self.fault = parse_classifier("asset:mnist/lenet")[1].build(), fault
        if fault == "untrained":
            torch.manual_seed(0)
            for layer in self.lenet.modules():
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()

    def forward(self, images):
        logits = self.lenet(images)
        if self.fault == "nan":
            return logits * float("nan")
        if self.fault == "sometimes nan":
            return torch.where(logits.argmax(1, keepdim=True) == 3, float("nan"), logits)
        if self.fault == "constant":
            return logits * 0 + torch.nn.functional.one_hot(torch.tensor(1), 10)
        return logits
