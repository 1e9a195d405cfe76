"""Tables 4 and 5: heads of attention. Swin, trained with other numbers of heads:

| heads | SA | FMR |
|---|---|---|
| (2, 4, 8, 16) | 80.82 | 64.85 |
| (3, 6, 12, 24) | 81.98 | 67.48 |
| (4, 8, 16, 32) | 81.67 | 69.73 |
| (5, 10, 20, 40) | 81.05 | 69.97 |

At small scale alone: the paper's four networks were not published.
"""

from common import Run, figures, says

run = Run(__doc__)
models = {}
for first, second in ((1, 2), (2, 4), (4, 8), (8, 16)):
    change = f"model.classifier.model_args.num_heads=[{first}, {second}]"
    models[f"heads-{first}-{second}"] = run.trained(f"heads-{first}-{second}", "mnist-swin", change)
own = run.compared("_mnist", models)
says("more heads raise FMR, (8, 16) over (1, 2)", figures(own, "heads-8-16"), figures(own, "heads-1-2"))
says("(2, 4) over (1, 2)", figures(own, "heads-2-4"), figures(own, "heads-1-2"))
says("(4, 8) over (2, 4)", figures(own, "heads-4-8"), figures(own, "heads-2-4"))
says("(8, 16) over (4, 8)", figures(own, "heads-8-16"), figures(own, "heads-4-8"))
accuracy = {name: figures(own, name, metric="standard_accuracy") for name in ("heads-2-4", "heads-8-16")}
says("many heads cost standard accuracy", accuracy["heads-2-4"], accuracy["heads-8-16"])
