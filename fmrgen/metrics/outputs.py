"""Whether a classifier's outputs mean its classes: whether it is at chance, or has them in another order."""

import numpy as np

from fmrgen.metrics.intervals import wilson


def is_at_chance(label: np.ndarray, prediction: np.ndarray) -> bool:
    """Return whether predictions match labels hardly better than guesses do, so that figures made of them mean nothing.

    Guesses name each class equally often, or as often as the predictions do: a network that always gives the commonest
    class is at chance too. Untrained networks are right a little more often than guesses (of 30 LeNets with random
    weights, on up to 17 % of ten digits), so twice as often is still chance, as far as that is at most a tenth of the
    way to being always right.

    The lower end of the accuracy's 95 % interval is then not above chance. False if all labels [N] are one, which no
    guess can miss. A prediction [N] of -1 is none.
    """
    classes = 1 + int(max(label.max(), prediction.max()))
    labels = np.bincount(label, minlength=classes) / len(label)
    if (labels > 0).sum() < 2:
        return False
    predictions = np.bincount(prediction[prediction >= 0], minlength=classes) / len(label)
    guessing = max(1 / classes, float(labels @ predictions))
    most_by_chance = guessing + min(guessing, 0.1 * (1 - guessing))
    return wilson(float((label == prediction).sum()), len(label))[0] <= 100 * most_by_chance


def outputs_in_another_order(label: np.ndarray, prediction: np.ndarray, classes: int) -> bool:
    """Return whether predictions fit the labels well, but only after the classes are put in another order.

    The best order for half of the rows is tried on the others, so that chance can't make one. It must be right more
    often than not there, for 10 rows at least, and more than twice as often as the present order. A prediction of -1 is
    none.
    """
    # Not every other row: if classes take turns, one half would lack half of the classes.
    trial = np.random.default_rng(0).random(len(label)) < 0.5
    order = best_order(label[~trial], prediction[~trial], classes)
    is_class = (prediction >= 0) & (prediction < classes)
    reordered = np.append(order, -1)[np.where(is_class, prediction, -1)]
    hits, reordered_hits = (prediction == label)[trial].sum(), (reordered == label)[trial].sum()
    return bool(reordered_hits >= 10 and reordered_hits > trial.sum() / 2 and reordered_hits > 2 * hits)


def best_order(label: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Return the class that each output would have to stand for, [K]: the commonest pairs first, each class once.

    The labels and predictions are [N]; a prediction of -1 is none.
    """
    is_class = (prediction >= 0) & (prediction < classes)
    pairs, counts = np.unique(prediction[is_class].astype(np.int64) * classes + label[is_class], return_counts=True)
    order = np.full(classes, -1)
    is_taken = np.zeros(classes, dtype=bool)
    for output, stands_for in zip(*divmod(pairs[np.argsort(-counts, kind="stable")], classes), strict=True):
        if order[output] < 0 and not is_taken[stands_for]:
            order[output] = stands_for
            is_taken[stands_for] = True
    order[order < 0] = np.flatnonzero(~is_taken)
    return order
