"""What a user writes, without an assert: checked by mypy in strict mode, and run."""

import sys
from pathlib import Path

import fmrgen


def main(folder: Path) -> float:
    recipe = fmrgen.load_recipe("mnist-lenet", ["source.limit=12", "perturb.budget=2"])
    split: fmrgen.GeneratedSplit = fmrgen.generate(recipe, output=folder / "out")
    summary: fmrgen.Summary = split.summary
    evaluation = fmrgen.evaluate(split, {"mine": "asset:mnist/lenet"})
    fmrgen.write_report(evaluation, folder / "report")
    estimate = evaluation.results[0].total.perturbed_accuracy
    matrix = fmrgen.transfer([split], ["asset:mnist/lenet"], batch_size=4).matrix
    rows: int = summary.rows + len(matrix)
    return float("nan") if estimate is None else estimate.value + rows


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
