"""Table 2: ResNet-50s that were trained to be robust.

| model | SA | ImageNet-C | PA | FMR |
|---|---|---|---|---|
| ResNet50 | 76.26 | 39.20 | 33.15 | 43.47 |
| ANT | 76.26 | 50.41 | 32.73 | 42.92 |
| SIN | 76.24 | 45.19 | 32.71 | 42.90 |
| ANT+SIN | 76.26 | 52.60 | 33.19 | 43.52 |
| DeepAug | 76.26 | 52.60 | 35.33 | 46.33 |
| Augmix | 76.73 | 48.31 | 40.94 | 53.36 |
| DeepAug+AM | 76.68 | 58.10 | 44.62 | 58.19 |
| DAT | 76.57 | 68.00 | 54.63 | 71.35 |

Figures 2 and 4 show images of these splits: see the gallery that `fmrgen evaluate` writes of them.
"""

from common import Run, figures, says

run = Run(__doc__)
if run.is_small:
    models = {
        "plain": run.trained("plain", "mnist-lenet", "schedule.steps=2500"),
        "mixup": run.trained("mixup", "mnist-lenet", "schedule.steps=2500", "augment.mixup=0.2"),
        "unwarped": run.trained("unwarped", "mnist-lenet", "schedule.steps=2500", "augment.warp=0"),
        "pgd": run.trained("pgd", "mnist-lenet-adversarial"),
    }
    own = run.compared("_mnist", models)
    says("warped training images raise FMR", figures(own, "plain"), figures(own, "unwarped"))
    says("mixup raises FMR", figures(own, "mixup"), figures(own, "plain"))
    says("training under attack raises FMR", figures(own, "pgd"), figures(own, "plain"))
else:
    robust = ("ant", "sin", "ant-sin", "deepaugment", "augmix", "deepaugment-augmix", "dat")
    own = run.compared("imagenet-resnet50", {"resnet50": "timm:resnet50.tv_in1k", **{n: f"zoo:{n}" for n in robust}})
    says("SIN is not above a plain ResNet50", figures(own, "resnet50"), figures(own, "sin"))
    says("DeepAug+AM is above AugMix alone", figures(own, "deepaugment-augmix"), figures(own, "augmix"))
    says("DAT is above DeepAug+AM", figures(own, "dat"), figures(own, "deepaugment-augmix"))
