"""The images between an original and its stored image, taken again."""

import io
import json
import re

import numpy as np
import pytest
from commands import run
from datasets import load_dataset
from PIL import Image

from fmrgen import PerturbOptions, UserError, load_recipe, open_split, show
from fmrgen.engine.perturb import perturb
from fmrgen.jobs.steps import decode_steps
from fmrgen.recipe.build import build_components
from fmrgen.split.sampler import Sampler


def samples_of(split, rows=20):
    opened = open_split(str(split))
    sampler = Sampler(rows, len(opened.labels))
    for part in opened.parts(64, opened.labels, opened.image_columns):
        sampler.add(part, opened.image_of)
    return opened, sampler.samples


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize("attacks", ["one", "standard"])
def test_each_step_is_what_that_budget_would_have_stored(attacks):
    """The literal meaning of a step: with a smaller budget the row would end there."""
    recipe = load_recipe("mnist-lenet", ["source.limit=6"])
    parts = build_components(recipe.source, recipe.classifier, recipe.generator, recipe.oracle, "cpu")
    examples = list(parts.source.load_all(parts.generator.image_size))
    steps = {}

    def rows_with(budget, **options):
        settings = PerturbOptions(budget=budget, step_size=0.05, slots=4, control=0, attacks=attacks)
        return {row.id: row for row in perturb(examples, *parts[1:], settings, **options)}

    rows = rows_with(4, on_step=lambda *step: steps.update({step[:3]: step[3]}))
    for row in rows.values():
        of_row = [step for example_id, attack, step in steps if (example_id, attack) == (row.id, row.attack)]
        assert of_row[: row.iterations + 1] == list(range(row.iterations + 1))
        if row.valid:
            assert (steps[row.id, row.attack, row.iterations] == row.image).all()
    if attacks == "one":
        for budget in (1, 2, 3):
            for row in rows_with(budget).values():
                if row.iterations == budget:
                    assert (steps[row.id, 0, budget] == row.image).all()


def test_steps_end_at_the_stored_image(finished_split):
    opened, samples = samples_of(finished_split)
    images = decode_steps(opened, samples, most=5)
    assert images.keys() == {sample.columns["id"] for sample in samples}
    failures = 0
    for sample in samples:
        of_row = images[sample.columns["id"]]
        predictions = sample.columns["step_predictions"]
        assert list(of_row) == sorted(of_row)
        assert {0, len(predictions) - 1} <= of_row.keys()
        assert len(of_row) <= 7
        if sample.columns["valid"]:
            assert (pixels(of_row[len(predictions) - 1]) == pixels(sample.image)).all()
        wrong = [step for step, answer in enumerate(predictions) if answer != sample.columns["label"]]
        if wrong:
            failures += 1
            assert {wrong[0], max(0, wrong[0] - 1)} <= of_row.keys()
    assert failures


def test_a_row_that_takes_another_path_here_is_left_out(finished_split):
    opened, samples = samples_of(finished_split, 4)
    samples[0].columns["step_predictions"][0] ^= 1
    images = decode_steps(opened, samples)
    assert images.keys() == {sample.columns["id"] for sample in samples[1:]}


def test_the_command_puts_them_on_the_page(finished_split, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("show", finished_split, "--steps", "--ids", "3,4", "--quiet") == 0
    page = (tmp_path / "gallery/gallery.html").read_text()
    gallery = json.loads(re.search(r'id="galleries">(.*?)</script>', page)[1])[0]
    for steps in gallery["columns"]["steps"]:
        assert steps["shown"][-1] == len(steps["predictions"]) - 1
    assert gallery["sheets"]["steps"]["addresses"]


def test_mistakes(finished_split, tmp_path):
    rows = load_dataset(str(finished_split), "mnist", split="lenet")
    rows.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(UserError, match="stores no steps; only splits of guided steps do"):
        show(str(tmp_path / "rows.parquet"), tmp_path, steps=True)
    opened, samples = samples_of(finished_split, 4)
    del samples[1].columns["step_predictions"]
    with pytest.raises(UserError, match=r"its steps need the originals \(output.keep_original\) and the stored steps"):
        decode_steps(opened, samples)
