"""Table 3: does the ranking depend on the generator? Kendall's tau of each two of the paper's rankings is 0.71 to 1.

| model | ADM | Improved DDPM | Efficient-VDVAE | StyleGAN-XL | VQGAN |
|---|---|---|---|---|---|
| ResNet50 | 43.84 | 42.63 | 41.14 | 42.93 | 43.47 |
| ANT | 43.21 | 44.08 | 42.39 | 43.29 | 42.92 |
| SIN | 43.58 | 43.43 | 42.32 | 42.58 | 42.90 |
| ANT+SIN | 43.92 | 45.26 | 44.20 | 44.57 | 43.52 |
| DeepAug | 45.04 | 46.47 | 45.75 | 46.57 | 46.33 |
| Augmix | 52.77 | 53.69 | 53.42 | 52.57 | 53.36 |
| DeepAug+AM | 57.98 | 57.65 | 55.23 | 55.64 | 58.19 |
"""

from itertools import combinations
from statistics import mean

from common import Run, figures, says
from scipy.stats import kendalltau

run = Run(__doc__, images=150)
if run.is_small:
    generators = {name: run.trained(name, f"mnist-{name}", several=False) for name in ("vae", "vdvae")}
    models = {
        "plain": run.trained("plain", "mnist-lenet", "schedule.steps=2500"),
        "pgd": run.trained("pgd", "mnist-lenet-adversarial"),
        "blurred": run.trained("blurred", "mnist-lenet", "schedule.steps=2500", "augment.blur=2.5", several=False),
        "vit": run.trained("vit", "mnist-vit", several=False),
    }
    under = {"vqgan": run.compared("_mnist", models, name="vqgan")}
    change = f"generator.model={generators['vae']}"
    under["vae"] = run.compared("mnist-vae", models, change, name="vae")
    under["transform"] = run.compared("mnist-transform", models, name="transform")
    change = f"generator.checkpoint={generators['vdvae']}/model.safetensors"
    under["vdvae"] = run.compared("mnist-vdvae", models, change, name="vdvae")
    for name, evaluation in under.items():
        says(
            f"training by PGD is above plain training under {name}",
            figures(evaluation, "pgd"),
            figures(evaluation, "plain"),
        )
else:
    robust = ("ant", "sin", "ant-sin", "deepaugment", "augmix", "deepaugment-augmix")
    models = {"resnet50": "timm:resnet50.tv_in1k", **{name: f"zoo:{name}" for name in robust}}
    names = {"vqgan": "imagenet-resnet50", "adm": "imagenet-adm", "stylegan-xl": "imagenet-stylegan-xl"}
    under = {name: run.compared(recipe, models, name=name) for name, recipe in names.items()}

for first, second in combinations(under, 2):
    both = [[figures(under[name], model) for model in models] for name in (first, second)]
    tau = "not tested, a figure is missing"
    if all(estimates for of_generator in both for estimates in of_generator):
        ranks = [
            [mean(estimate.value for estimate in estimates) for estimates in of_generator] for of_generator in both
        ]
        tau = f"{kendalltau(*ranks).statistic:.2f}"
    print(f"* rankings under {first} and {second}: Kendall's tau {tau}")
