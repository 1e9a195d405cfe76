"""Tables 13 and 14: classes under a large and a small step (App. J).

A ResNet-18 on 9-class ImageNet, budget 50: with steps of 0.1 VR is 81.6 % (48 % of primates) and FMR 30.28, from 17.98
(dog) to 62.21 (primate); with steps of 0.001 VR is 100 % and FMR 23.94, from 18.09 to 28.60.
"""

from common import Run, figures, own_splits, says

run = Run(__doc__, images=1000)
if run.is_small:
    recipe, steps = "_mnist", (0.3, 0.03)
    models = {"first": "asset:mnist/lenet", "another": run.trained("another", "mnist-lenet", several=False)}
else:
    recipe, steps = "imagenet9-resnet18", (0.1, 0.001)
    models = {"first": "timm:resnet18.tv_in1k", "another": "timm:resnet50.tv_in1k"}
large, small = (run.compared(recipe, models, f"perturb.step_size={step}", name=f"step-{step}") for step in steps)
for step, evaluation in zip(steps, (large, small), strict=True):
    print(f"| class, step {step} | VR | FMR |\n|---|---|---|")
    split = own_splits(evaluation)["first"]
    names = next(measured.class_names for measured in evaluation.splits if measured.name == split)
    for name, of_class in zip(names, evaluation.result(split, "first").classes, strict=True):
        print(f"| {name} | {of_class.validation_rate} | {of_class.fmr} |")
    print()
valid = [figures(evaluation, "first", metric="validation_rate") for evaluation in (small, large)]
says("smaller steps are accepted more often", *valid)
for name in models:
    says(
        f"App. J: a smaller step barely affects the overall results ({name})",
        figures(large, name),
        figures(small, name),
        6.4,
    )
