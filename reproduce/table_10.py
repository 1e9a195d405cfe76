"""Table 10: a model that sees no colours (App. H).

| generated for | model | SA | FMR |
|---|---|---|---|
| vanilla | vanilla | 95.38 | 57.79 |
| vanilla | gray | 93.52 | 66.06 |
| gray | vanilla | 95.38 | 67.48 |
| gray | gray | 93.52 | 44.76 |

At small scale digits are gray, but what moves the coarse latents of the VDVAE gives them colours.
"""

from common import Run, figures, says

run = Run(__doc__)
train = "mnist-convnext" if run.is_small else "cifar10-resnet18"
models = {"colour": run.trained("colour", train), "gray": run.trained("gray", train, "model.classifier.channels=gray")}
if run.is_small:
    vdvae = run.trained("vdvae", "mnist-vdvae", several=False)
    splits = run.compared("mnist-vdvae", models, f"generator.checkpoint={vdvae}/model.safetensors")
else:
    splits = run.compared("cifar10-resnet18", models)
accuracy = {name: figures(splits, name, metric="standard_accuracy") for name in models}
says("gray stands its own images worse", figures(splits, "colour"), figures(splits, "gray"))
says("gray stands the colour model's images better", figures(splits, "gray", "colour"), figures(splits, "colour"))
says("gray costs standard accuracy", accuracy["colour"], accuracy["gray"])
