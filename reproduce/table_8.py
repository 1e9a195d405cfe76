"""Table 8: a model trained under PGD beside one trained on the plain images.

| generated for | model | SA | FMR |
|---|---|---|---|
| vanilla | vanilla | 95.38 | 57.79 |
| vanilla | PGD | 85.70 | 95.96 |
| PGD | vanilla | 95.38 | 62.41 |
| PGD | PGD | 85.70 | 66.18 |

Each line is a split (the images generated against one of the two) and a model (which of the two answers): the diagonal
is FMR, off it transfer.
"""

from common import Run, figures, says

run = Run(__doc__)
if run.is_small:
    models = {
        "clean": run.trained("clean", "mnist-lenet", "schedule.steps=2500"),
        "pgd": run.trained("pgd", "mnist-lenet-adversarial"),
    }
    splits = run.compared("_mnist", models, attack="pgd-20@0.1")
else:
    network = "{kind: adversarial, classifier: {kind: cifar, model: resnet18}, image_size: 32"
    models = {
        "clean": run.trained("clean", "cifar10-resnet18"),
        "pgd": run.trained("pgd", "cifar10-resnet18", f"model={network}, epsilon: 0.0314, attack_steps: 10}}"),
    }
    splits = run.compared("cifar10-resnet18", models, attack="pgd-20@8/255")
own = {name: figures(splits, name) for name in models}
says("App. F: their weak spots are exposed to a similar degree (66.2 and 57.8)", own["pgd"], own["clean"], 8.4)
says(
    "App. F: PGD can almost maintain its performance on the vanilla images",
    figures(splits, "pgd", "clean"),
    own["clean"],
)
says(
    "the vanilla model stands PGD's images hardly better than its own", figures(splits, "clean", "pgd"), own["clean"], 5
)
says("PGD's own images are harder for it than the vanilla model's", figures(splits, "pgd", "clean"), own["pgd"])
for metric, higher, lower in (("attacked_accuracy", "pgd", "clean"), ("standard_accuracy", "clean", "pgd")):
    says(
        f"{higher} has the higher {metric}",
        figures(splits, higher, metric=metric),
        figures(splits, lower, metric=metric),
    )
