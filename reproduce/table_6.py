"""Table 6: a split for one model fools others less.

On the split generated for a ResNet-18 (FMR 54.17 on itself) eight other CIFAR-10 networks have FMR from 66.16 to 70.57.
"""

from common import Run, figures, says

run = Run(__doc__)
if run.is_small:
    models = {"first": "asset:mnist/lenet", "another": run.trained("another", "mnist-lenet", several=False)}
    models |= {name: run.trained(name, f"mnist-{name}", several=False) for name in ("convnext", "vit")}
    transfer = run.compared("_mnist", models)
else:
    models = {
        "first": run.trained("first", "cifar10-resnet18"),
        "another": run.trained("another", "cifar10-resnet18", "schedule.seed=2"),
    }
    for name in ("preactresnet18", "vgg19", "googlenet", "densenet121", "mobilenet", "efficientnet_b0", "simpledla"):
        models[name] = run.trained(name, "cifar10-resnet18", f"model.classifier.model={name}")
    transfer = run.compared("cifar10-resnet18", models)
own = figures(transfer, "first")
for name in list(models)[1:]:
    others = figures(transfer, name, on="first")
    says(f"App. D: a reasonable transferability: {name} is within 17 points on the first one's images", others, own, 17)
    says(f"App. D: an improvement over the FMR in new models ({name})", others, own)
