"""What a classifier thinks of its answers: top-5, calibration and selective accuracy, by torchmetrics' word too."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from benchmarks.coverage import NETWORKS, calibration_error_held
from fmrgen.metrics.summary import METRICS, summarise
from fmrgen.split.classify import Predicted, predicted_of

CLASSES = 12


@pytest.fixture
def rows():
    """Logits of a classifier that is right more often than not, on 500 originals and on their perturbed images."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (500,), generator=random)
    logits = {
        name: torch.randn(500, CLASSES, generator=random) * 1.5
        + strength * torch.nn.functional.one_hot(labels, CLASSES)
        for name, strength in (("original_", 5.0), ("", 2.0))
    }
    valid = torch.rand(500, generator=random) < 0.8
    columns = {"label": labels.numpy(), "valid": valid.numpy()}
    for prefix, of in logits.items():
        predicted = Predicted(*(column.numpy() for column in predicted_of(of, labels)))
        columns |= predicted.summarised(prefix, columns["label"], CLASSES)
    return columns, logits, labels, valid


def test_they_are_those_of_torchmetrics(rows):
    columns, logits, labels, valid = rows
    found = summarise(columns)
    for prefix, wanted, top5, error in (
        ("original_", torch.ones_like(valid), found.top5_standard_accuracy, found.calibration_error),
        ("", valid, found.top5_perturbed_accuracy, found.perturbed_calibration_error),
    ):
        said, truth = logits[prefix][wanted], labels[wanted]
        theirs = multiclass_accuracy(said, truth, CLASSES, top_k=5, average="micro")
        assert top5.value == pytest.approx(100 * float(theirs), abs=1e-3)
        theirs = multiclass_calibration_error(said.softmax(1), truth, CLASSES, n_bins=15, norm="l1")
        assert error.value == pytest.approx(100 * float(theirs), abs=1e-3)
        assert error.low <= error.value <= error.high
    assert found.top5_fmr.value == pytest.approx(
        100 * found.top5_perturbed_accuracy.value / found.top5_standard_accuracy.value
    )


def test_the_surest_rows_are_those_of_highest_probability(rows):
    columns, logits, labels, valid = rows
    found = summarise(columns)
    for prefix, wanted, selective, whole in (
        ("original_", torch.ones_like(valid), found.selective_accuracy, found.standard_accuracy),
        ("", valid, found.perturbed_selective_accuracy, found.perturbed_accuracy),
    ):
        said, truth = logits[prefix][wanted], labels[wanted]
        surest = said.softmax(1).amax(1).argsort(descending=True)[: round(0.8 * len(said))]
        right = (said.argmax(1) == truth)[surest]
        assert selective.value == pytest.approx(100 * float(right.float().mean()))
        assert selective.value >= whole.value


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("rows", [100, 200, 900, 1000])
def test_the_interval_of_the_calibration_error_holds_the_truth(network, rows):
    """Of one that is calibrated the figure is never 0; the interval must reach down to it, and where all is right."""
    random = np.random.default_rng(0)
    assert np.mean([calibration_error_held(network, rows, random)[0] for _ in range(300)]) >= 0.93


def test_they_are_known_where_probabilities_are(rows):
    columns, *_ = rows
    plain = {name: values for name, values in columns.items() if name in ("label", "valid", "prediction")}
    found = summarise(plain)
    of_confidence = [metric.field for metric in METRICS if metric.group == "confidence"]
    assert len(of_confidence) == 7
    assert all(getattr(found, name) is None for name in of_confidence)
    assert summarise({**columns, "confidence": np.full(500, np.nan)}).perturbed_calibration_error is None
