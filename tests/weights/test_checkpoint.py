"""Weights from files into networks."""

import pytest
import torch
from torch import nn

from fmrgen.errors import UserError
from fmrgen.weights.checkpoint import load_checkpoint


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_files_of_old_torch_lack_the_counts_of_batches_and_load(tmp_path):
    """As those of akamaster/pytorch_resnet_cifar10 do, under `state_dict` and `module.`."""
    trained = network()
    trained[1].running_mean.fill_(0.5)
    state = {f"module.{key}": value for key, value in trained.state_dict().items() if "num_batches" not in key}
    torch.save({"state_dict": state, "best_prec1": 91.7}, tmp_path / "old.th")
    loaded = network()
    load_checkpoint(loaded, str(tmp_path / "old.th"))
    assert torch.equal(loaded[1].running_mean, trained[1].running_mean)
    assert torch.equal(loaded[0].weight, trained[0].weight)

    del state["module.1.running_mean"]
    torch.save({"state_dict": state}, tmp_path / "short.th")
    with pytest.raises(UserError, match=r"short.th: not weights of this model: 1.running_mean is missing"):
        load_checkpoint(network(), str(tmp_path / "short.th"))
