"""Two networks, each on a split generated against it, and what a smaller budget or a stricter oracle would say."""

import argparse
from pathlib import Path

import fmrgen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("out"))
    arguments = parser.parse_args()

    recipe = fmrgen.load_recipe("mnist-lenet", [f"source.limit={arguments.digits}"])
    weights = "asset:mnist/lenet/model.safetensors"
    classifiers = {"relu": "asset:mnist/lenet", "smooth": f"{{kind: lenet, checkpoint: '{weights}', smooth: true}}"}
    evaluation = fmrgen.compare(recipe, classifiers, arguments.output)
    print(evaluation)
    for place in evaluation.own.ranking if evaluation.own else []:
        print(f"{place.classifier}: ranks {place.best} to {place.worst}")
    steps = evaluation.per_step()
    print(steps[steps["budget"].isin([1, 5, 10, 25, 50])].to_string(index=False))
    fmrgen.figure(evaluation, "budgets").save(arguments.output / "budgets.svg")


if __name__ == "__main__":
    main()
