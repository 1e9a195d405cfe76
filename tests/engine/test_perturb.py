"""The engine against Algorithm 1 written literally, and what the engine promises of every row."""

import math

import pytest
import torch
from fakes import BUDGET, COUNT, STEP, Brightness, Counting, Fixture, Identity, Patient, by_id, check_literal, grey
from small_models import LABELS, SIZE, perturb, tiny_network, tiny_vqgan
from torch import nn

from fmrgen import PerturbOptions, UserError
from fmrgen.engine.models import row_seed
from fmrgen.engine.slots import all_finite
from fmrgen.engine.updates import Nes
from fmrgen.generators.transform import Transform
from fmrgen.records import Example, StopReason


@pytest.fixture(params=[pytest.param("vqgan", marks=pytest.mark.slow), "transform"])
def setting(request, double):
    return Fixture(tiny_vqgan(), 0.05) if request.param == "vqgan" else Fixture(Transform(SIZE), 0.02)


def test_with_vqgan_too_the_engine_equals_the_literal_algorithm(double):
    """Each rule and option with it is among the slow ones."""
    setting = Fixture(tiny_vqgan(), 0.05)
    check_literal(setting.engine(4, slots=3), {i: setting.reference(i) for i in range(4)})


RULES = [
    {"update": "sign"},
    {"update": "sign", "objective": "cross_entropy"},
    {"update": "l2"},
    {"update": "adam", "objective": "cross_entropy"},
    {"update": "random"},
    {"update": "nes", "queries": 6},
]


@pytest.mark.parametrize(
    "options",
    [
        *RULES,
        *[pytest.param({**rule, "reencode": True}, marks=pytest.mark.slow) for rule in RULES],
        {"oracle_rule": "consistent"},
        {"start_noise": 0.02},
        {"start_noise": 0.02, "reencode": True},
        {"keep": "first"},
        {"keep": "first", "objective": "cross_entropy", "update": "l2", "reencode": True},
        {"objective": "targeted"},
        {"objective": "targeted", "target": "least_likely", "keep": "first", "update": "adam"},
        {"objective": "targeted", "target": 3, "keep": "first", "reencode": True},
        {"objective": "targeted", "target": 2, "update": "nes", "queries": 6},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_engine_equals_the_literal_algorithm(setting, options):
    assert {2, 3} <= set(setting.labels)  # some are of a target's class, which are moved to their runner-up
    literals = {i: setting.reference(i, **options) for i in range(COUNT)}
    reasons = {row.stop_reason for row in literals.values()}
    assert len(reasons) >= 2  # a test in which every row ends alike would show little
    assert StopReason.REACHED in reasons or options.get("keep") != "first" or "target" in options
    for slots in (1, 3, 32):
        rows = setting.engine(slots=slots, **options)
        check_literal(rows, literals)
        for row in rows.values():
            if row.stop_reason == StopReason.REACHED:
                assert row.step_objectives[-1] > 0
                assert max(row.step_objectives[1:-1], default=-1) <= 0
                assert options.get("objective") == "targeted" or row.prediction != row.label
    if options.get("oracle_rule") == "consistent":  # its label is not the oracle's, but the oracle stays with its own
        assert rows[5].stop_reason != StopReason.REJECTED


@pytest.mark.parametrize(
    ("update", "objective", "rule"),
    [("sign", "margin", "label"), ("l2", "cross_entropy", "label"), ("adam", "margin", "consistent")],
)
def test_with_several_true_labels_it_equals_the_literal_algorithm(setting, update, objective, rule):
    """And is the same, to the last bit, where there is one."""
    options = {"update": update, "objective": objective, "oracle_rule": rule}
    with torch.no_grad():
        falling = setting.classifier(setting.images).argsort(1, descending=True).tolist()
    best = [next(k for k in of if k != label) for of, label in zip(falling, setting.labels, strict=True)]
    others = [[one] if i % 2 else [] for i, one in enumerate(best)]
    accepted = [(label, *of) for label, of in zip(setting.labels, others, strict=True)]
    plain = setting.engine(slots=3, **options)
    changed = 0
    for slots in (1, 3):
        rows = setting.engine(slots=slots, accepted=accepted, **options)
        check_literal(rows, {i: setting.reference(i, accepted=others[i], **options) for i in rows})
        for i, row in rows.items():
            assert row.accepted_labels == list(accepted[i])
            if not others[i] and slots == 3:
                assert torch.equal(row.image, plain[i].image)
                assert row.loss == pytest.approx(plain[i].loss, rel=1e-12)
            changed += not torch.equal(row.image, plain[i].image)
    assert changed


def test_accepted_labels_that_make_no_sense_are_refused(setting):
    labels = setting.labels
    for accepted, said in (
        ([(label,) if i else None for i, label in enumerate(labels)], "some have accepted labels and some have none"),
        ([tuple(range(LABELS))] * COUNT, f"of the {LABELS} classes at least one must be false"),
        ([(label, 99) for label in labels], f"of the {LABELS} classes at least one must be false"),
    ):
        with pytest.raises(UserError, match=said):
            setting.engine(accepted=accepted)
    with pytest.raises(UserError, match="attacks support one label, and several are accepted"):
        setting.engine(accepted=[(label, (label + 1) % LABELS) for label in labels], start="fgsm")


@pytest.mark.parametrize("reencode", [False, True], ids=["carry", "reencode"])
def test_a_random_start_is_of_seed_and_id(setting, reencode):
    options = {"start_noise": 0.02, "reencode": reencode}
    rows = setting.engine(slots=3, **options)
    plain, other = setting.engine(slots=3, reencode=reencode), setting.engine(slots=3, seed=1, **options)
    for another in (plain, other):
        assert any(not torch.equal(row.image, another[i].image) for i, row in rows.items())
        if isinstance(setting.generator, Transform):
            continue  # the seed decides of its own chance as well
        for i, row in rows.items():  # what is said of the plain reconstruction knows no noise
            assert row.step_losses[0] == pytest.approx(another[i].step_losses[0])


def test_it_may_start_from_attacked_pixels_and_keeps_the_original(setting):
    """Of the attacked image the algorithm is the literal one; what is said of the original is of the source's."""
    epsilon = 0.01
    rows = setting.engine(slots=3, start="fgsm", start_epsilon=epsilon)
    plain = setting.engine(slots=3)
    moved = 0
    for i, row in rows.items():
        x = setting.images[i : i + 1].clone().requires_grad_(True)
        torch.nn.functional.cross_entropy(setting.classifier(x), torch.tensor([setting.labels[i]])).backward()
        attacked = (x.detach() + epsilon * x.grad.sign()).clamp(0, 1)
        literal = setting.reference(i, of=attacked)
        if not row.valid:
            literal.image = row.original
        check_literal(rows, {i: literal})
        assert torch.equal(row.original, plain[i].original)
        assert row.original_prediction == plain[i].original_prediction
        moved += not torch.equal(row.image, plain[i].image)
    assert moved >= COUNT / 3
    for name in ("fgsm", "pgd"):
        alone = setting.engine(slots=1, start=name, start_epsilon=epsilon)
        together = setting.engine(slots=24, start=name, start_epsilon=epsilon)
        assert all(torch.equal(row.image, together[i].image) for i, row in alone.items())


def test_every_measure_is_of_the_stored_bytes_and_labels_of_the_plain_reconstruction(setting):
    for row in setting.engine(slots=3).values():
        label = torch.tensor([row.label])
        for image, prefix in ((row.image, ""), (row.original, "original_")):
            pixels = image.double().unsqueeze(0) / 255
            logits, judgement = setting.classifier(pixels), setting.oracle.judge(pixels)
            assert logits.argmax() == getattr(row, f"{prefix}prediction")
            assert judgement.probabilities.argmax() == getattr(row, f"{prefix}oracle_label")
            if not prefix:
                assert row.loss == pytest.approx(nn.functional.cross_entropy(logits, label).item(), abs=1e-9)
                assert row.score == pytest.approx(judgement.score[0, row.label].item(), abs=1e-9)
                assert row.probability == pytest.approx(judgement.probabilities[0, row.label].item(), abs=1e-9)
        assert row.original.equal((setting.images[row.id] * 255).round().to(torch.uint8))
        assert row.valid == (row.iterations > 0)
        if not row.valid:
            assert row.image.equal(row.original)
            assert row.latent_shift == row.pixel_shift == 0
        changes = (row.image.double() - row.original.double()) / 255
        assert row.pixel_shift == pytest.approx(changes.norm().item() / changes.numel() ** 0.5)
        setting.generator.row_seeds = [row_seed(0, row.id)]
        latents = setting.generator.encode(setting.images[row.id : row.id + 1], label)
        plain = (setting.generator.decode(latents) * 255).round() / 255
        assert setting.classifier(plain).argmax() == row.reconstruction_prediction
        assert setting.oracle.judge(plain).probabilities.argmax() == row.reconstruction_oracle_label


def test_a_row_depends_on_neither_neighbours_nor_order(setting):
    alone = setting.engine(slots=8)
    shuffled = [Example(i, setting.images[i], setting.labels[i]) for i in torch.randperm(COUNT).tolist()[: COUNT // 2]]
    models = setting.classifier, setting.generator, setting.oracle
    rows = perturb(shuffled, *models, budget=BUDGET, step_size=setting.step_size, slots=5)
    for row in rows:
        assert torch.equal(row.image, alone[row.id].image)
        assert row.iterations == alone[row.id].iterations


def test_stop_reasons_and_iterations_at_their_edges():
    rows = by_id(perturb(grey(0.2, 0.6, 0.69, 0.9), Brightness(), Identity(), Patient(0.7), budget=5, step_size=STEP))
    assert (rows[0].stop_reason, rows[0].iterations) == (StopReason.BUDGET, 5)
    assert (rows[1].stop_reason, rows[1].iterations) == (StopReason.ORACLE, 3)  # 0.6 + 3 steps = 0.694, a 4th is 0.725
    assert (rows[2].stop_reason, rows[2].iterations, rows[2].valid) == (StopReason.REJECTED, 0, False)
    assert (rows[3].stop_reason, rows[3].iterations, rows[3].valid) == (StopReason.REJECTED, 0, False)
    assert rows[3].original_oracle_label == 1
    assert [rows[i].rejected_oracle_label for i in range(4)] == [-1, 1, 1, 1]  # of the first image that it rejected
    assert [rows[i].rejected_prediction for i in range(4)] == [-1, 1, 1, 1]
    assert rows[0].image.unique().tolist() == [51 + 5 * 8]


@pytest.mark.parametrize("slots", [1, 2, 32])
@pytest.mark.parametrize(
    ("nan", "levels", "reasons", "iterations"),
    [
        # The image at 0.4 or above is accepted, but there is no way on from it.
        (
            {"nan_gradient_above": 0.4},
            (0.2, 0.36, 0.5, 0.1),
            ["budget", "nonfinite", "nonfinite", "budget"],
            [5, 2, 0, 5],
        ),
        ({"nan_logits_above": 0.4}, (0.2, 0.36), ["budget", "nonfinite"], [5, 1]),  # the image before is stored
    ],
    ids=["gradient", "logits"],
)
def test_what_is_not_finite_ends_its_row_alone(slots, nan, levels, reasons, iterations):
    settings = {"budget": 5, "step_size": STEP, "slots": slots}
    rows = by_id(perturb(grey(*levels), Brightness(**nan), Identity(), Patient(2), **settings))
    for i, row in rows.items():
        assert (row.stop_reason, row.iterations, row.valid) == (reasons[i], iterations[i], iterations[i] > 0)
        assert row.valid or row.image.equal(row.original)
        assert math.isfinite(row.loss)


def test_a_row_is_finite_where_all_of_its_values_are():
    values = torch.tensor([[1e38, -1e38, 1e38], [0, float("nan"), 2], [0, 1, float("inf")], [-float("inf"), 0, 1]])
    for rows in (values, values.view(4, 1, 3, 1), values.T.contiguous().T):
        assert all_finite(rows).tolist() == [True, False, False, False]
    assert all_finite(values[:, 2]).tolist() == [True, True, False, True]


def test_one_decode_per_step_and_full_slots():
    """Every slot works until the images run out; a row of n steps takes n + 1 passes, the last slots fewer and fewer."""
    active, generator = [], Counting()
    levels = [0.1 + 0.5 * (i * 37 % 160) / 159 for i in range(160)]
    settings = {"budget": 20, "step_size": STEP, "slots": 32, "on_pass": active.append}
    rows = list(perturb(grey(*levels), Brightness(), generator, Patient(0.65), **settings))
    decoded = generator.decoded
    passes_needed = sum(row.iterations + (1 if row.stop_reason == "budget" else 2) for row in rows)
    assert sum(active) == passes_needed
    assert len(decoded) == len(active)
    while_full = next((i for i, count in enumerate(active) if count < 32), len(active))
    assert while_full > 0.7 * len(active)
    assert decoded[0] == 32
    assert decoded[-1] == 16  # shrunk to what is left
    assert all(size - count < 8 for size, count in zip(decoded, active, strict=True) if size > 16)


def test_reencode_encodes_once_for_each_step_and_image():
    levels = [0.1 + 0.5 * i / 31 for i in range(32)]
    settings = {"budget": 20, "step_size": STEP, "slots": 16, "reencode": True}
    generator = Counting()
    rows = list(perturb(grey(*levels), Brightness(), generator, Patient(0.65), **settings))
    needed = len(rows) + sum(row.iterations - (row.stop_reason == "budget") for row in rows)
    assert set(generator.encoded) == {16}  # always the same shape
    assert needed <= sum(generator.encoded) < 2.5 * needed


def test_no_examples_no_rows():
    assert list(perturb([], Brightness(), Identity(), Patient(1), budget=1, step_size=0.1)) == []


class Scaled(nn.Module):
    """A classifier whose logits are multiplied: the same predictions, at another temperature."""

    def __init__(self, inner, factor):
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, images):
        return self.inner(images) * self.factor


@pytest.mark.parametrize("objective", ["margin", "cross_entropy"])
@pytest.mark.parametrize("update", ["sign", "l2", "adam"])
def test_the_temperature_of_the_logits_spares_no_row(update, objective):
    """The margin's direction does not hang on it at all (a power of two rounds nothing). That of the cross-entropy
    does, by how it weighs the wrong classes; but it does not fade either, in float32."""
    setting = Fixture(tiny_vqgan(), 0.05)
    options = {"update": update, "objective": objective, "slots": 8, "budget": 6}
    plain = setting.engine(**options)
    for factor in (2**-7, 2**4, 2**12):
        setting.classifier = Scaled(tiny_network(1), factor)
        for i, row in setting.engine(**options).items():
            assert row.stop_reason != StopReason.STUCK
            if objective == "margin":
                assert (row.valid, row.iterations) == (plain[i].valid, plain[i].iterations)
                assert torch.equal(row.image, plain[i].image)
                assert row.step_predictions == plain[i].step_predictions


@pytest.mark.parametrize("reencode", [False, True], ids=["carry", "reencode"])
@pytest.mark.parametrize("update", ["sign", "l2", "adam"])
def test_a_row_without_a_gradient_is_stuck_and_no_success(update, reencode):
    """It counts as invalid where no step was taken, and keeps its image where the gradient is lost on the way."""

    class Flat(nn.Module):
        def forward(self, images):
            mean = images.flatten(1).mean(1)
            logit = torch.where(mean > 0.5, 0.5, mean)
            return torch.stack([torch.zeros_like(logit), logit], 1)

    settings = {"budget": 5, "step_size": STEP, "slots": 2, "update": update, "reencode": reencode}
    rows = by_id(perturb(grey(0.2, 0.46, 0.8), Flat(), Identity(), Patient(2), **settings))
    assert [rows[i].stop_reason for i in range(3)] == ["budget", "stuck", "stuck"]
    assert [rows[i].iterations for i in range(3)] == [5, 2, 0]
    assert [rows[i].valid for i in range(3)] == [True, True, False]
    assert rows[2].image.equal(rows[2].original)
    assert rows[1].fault is None


@pytest.mark.parametrize("reencode", [False, True], ids=["carry", "reencode"])
def test_every_budget_and_threshold_is_in_one_run(setting, reencode):
    """What a smaller budget, or a stricter oracle, would have stored is read off the steps of a longer run."""
    whole = setting.engine(slots=3, reencode=reencode)
    assert max(row.iterations for row in whole.values()) > (0 if reencode else 4)
    for row in whole.values():
        recorded = (row.step_predictions, row.step_losses, row.step_oracle_probabilities)
        assert {len(steps) for steps in recorded} == {row.iterations + 1}
        assert row.step_predictions[0] == row.reconstruction_prediction
        if row.valid:
            last = (row.prediction, row.loss, row.probability)
            assert tuple(steps[-1] for steps in recorded) == last
    for budget in (1, 4):
        for i, row in setting.engine(slots=3, reencode=reencode, budget=budget).items():
            kept = min(budget, whole[i].iterations)
            assert row.iterations == kept
            assert row.step_predictions == whole[i].step_predictions[: kept + 1]
            assert row.step_losses == pytest.approx(whole[i].step_losses[: kept + 1])
    thresholds = sorted(row.step_oracle_probabilities[-1] for row in whole.values() if row.valid)
    for least in (thresholds[len(thresholds) // 3], thresholds[2 * len(thresholds) // 3]):
        for i, row in setting.engine(slots=3, reencode=reencode, min_probability=least).items():
            steps = whole[i].step_oracle_probabilities[1:]
            kept = next((t for t, probability in enumerate(steps) if probability < least), len(steps))
            assert row.iterations == kept
            assert row.step_predictions == whole[i].step_predictions[: kept + 1]


def test_a_margin_to_the_second_label_can_be_asked_for(setting):
    loose, strict = setting.engine(slots=3), setting.engine(slots=3, min_margin=0.05)
    assert sum(row.iterations for row in strict.values()) < sum(row.iterations for row in loose.values())
    for row in strict.values():
        if row.valid:
            first, second = setting.oracle.judge(row.image[None].double() / 255).probabilities[0].topk(2).values
            assert first - second >= 0.05


@pytest.mark.slow
def test_a_search_on_a_plateau_goes_on(double):
    """Where a network says labels alone, as trees do, no answer near by differs: rows move all the same."""

    class Labels(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, images):
            logits = self.network(images)
            return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)

    setting = Fixture(tiny_vqgan(), 0.02)
    setting.classifier = Labels(setting.classifier).eval()
    alone, together = (setting.engine(update="nes", queries=4, slots=slots) for slots in (1, 8))
    assert sum(row.valid for row in alone.values()) >= COUNT / 6
    for i, row in alone.items():
        assert row.stop_reason not in (StopReason.STUCK, StopReason.NONFINITE)
        assert not row.valid or row.latent_shift > 0
        assert torch.equal(row.image, together[i].image)


@pytest.mark.parametrize(("shape", "whole"), [((4, 3, 2), True), ((2, 23, 23), False)], ids=["kept", "too long"])
def test_directions_of_a_search_are_at_right_angles(shape, whole):
    """All of a basis have their turn before one comes again, and a row has the same ones whatever is beside it."""
    rule, count = Nes(PerturbOptions(update="nes", queries=12)), math.prod(shape)
    steps = 4 if whole else 2
    drawn = []
    for seeds in ([1], [5, 1]):
        memory = {"free": torch.zeros(len(seeds), *shape)}
        memory |= rule.memory(memory["free"], seeds)
        assert ("nes_basis" in memory) == whole
        rows = torch.arange(len(seeds))
        drawn.append(torch.cat([rule._next_directions(rows, memory)[-1] for _ in range(steps)]).view(-1, count))
    assert torch.equal(*drawn)
    one = drawn[0][: 6 * steps if whole else 6]
    torch.testing.assert_close(one @ one.T, torch.eye(len(one)), atol=1e-5, rtol=0)
    if whole:
        assert torch.equal(rule._next_directions(rows, memory)[-1].view(-1, count), drawn[0][:6])


@pytest.mark.parametrize("slots", [5, 24])
def test_nothing_is_asked_that_rows_do_not_count(double, slots):
    """Slots whose rows have ended still go through passes; each question may cost money. Near a boundary VQGAN's codes
    make like images of some latents."""
    setting = Fixture(tiny_vqgan(), 0.05)
    asked = set()
    setting.classifier.register_forward_pre_hook(
        lambda _, inputs: asked.update(image.numpy().tobytes() for image in inputs[0].detach())
    )
    rows = setting.engine(update="nes", queries=6, slots=slots)
    counted = sum(row.queries for row in rows.values())
    assert 0.9 * counted < len(asked) <= counted


def test_a_random_update_asks_for_no_gradient_and_goes_straight(double):
    setting = Fixture(tiny_vqgan(), 0.02)
    asked = []
    setting.classifier.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[0].requires_grad))
    rows = setting.engine(update="random", slots=8)
    assert not any(asked)
    valid = [row for row in rows.values() if row.valid]
    assert all(row.latent_shift == pytest.approx(0.02 * row.iterations) for row in valid)
    again, other = setting.engine(update="random", slots=3), setting.engine(update="random", slots=8, seed=1)
    assert all(row.image.equal(again[row.id].image) for row in valid)
    assert any(not row.image.equal(other[row.id].image) for row in valid)
