"""Table 9: trained with perturbed copies (App. G).

| generated for | model | SA | FMR |
|---|---|---|---|
| vanilla | vanilla | 95.38 | 57.79 |
| vanilla | augmented | 87.41 | 89.10 |
| augmented | vanilla | 95.38 | 67.78 |
| augmented | augmented | 87.41 | 69.58 |
"""

from common import Run, figures, own_splits, says

run = Run(__doc__)
if run.is_small:
    test, train = "_mnist", "mnist-lenet"
    network, changes = "{kind: lenet}, image_size: 32, label_smoothing: 0.05", ["schedule.steps=2500"]
else:
    test = train = "cifar10-resnet18"
    network, changes = "{kind: cifar, model: resnet18}, image_size: 32", []
clean = run.trained("clean", train, *changes)
names = clean if isinstance(clean, list) else [clean]
other = run.trained("other", train, *changes, "schedule.seed=9", several=False)
training = run.compared(test, {"clean": clean, "other": other}, "source.split=train", name="training")
copies = [own_splits(training)[name] for name in own_splits(training) if name != "other"]
augmented = []
for number, split in enumerate(copies, start=1):
    model = f"model={{kind: consistency, classifier: {network}}}"
    own = run.trained(f"augmented-{number}", train, *changes, f"copies={split}", model, several=False)
    augmented.append(own)
models = {"clean": clean, "augmented": augmented if len(augmented) > 1 else augmented[0]}
splits = run.compared(test, models)
accuracy = {name: figures(splits, name, metric="standard_accuracy") for name in models}
says("augmented stands its own images better", figures(splits, "augmented"), figures(splits, "clean"))
says(
    "augmented stands the vanilla model's images better",
    figures(splits, "augmented", "clean"),
    figures(splits, "clean"),
)
says("it costs standard accuracy", accuracy["clean"], accuracy["augmented"])
