"""Table 7: starting from FGSM's images (epsilon = 0.003).

| data | SA | FMR |
|---|---|---|
| regular | 95.38 | 57.80 |
| with FGSM | 95.30 | 65.79 |
"""

from common import Run, figures, says

run = Run(__doc__)
if run.is_small:
    recipe = "_mnist"
    models = {"first": "asset:mnist/lenet", "another": run.trained("another", "mnist-lenet", several=False)}
else:
    recipe = "cifar10-resnet18"
    models = {"first": run.trained("first", recipe), "another": run.trained("another", recipe, "schedule.seed=2")}
regular = run.compared(recipe, models, name="regular")
fgsm = run.compared(recipe, models, "perturb.start=fgsm", "perturb.start_epsilon=0.003", name="fgsm")
for name in models:
    says(
        f"App. E: starting from FGSM's images barely affects FMR ({name})",
        figures(fgsm, name),
        figures(regular, name),
        8,
    )
