"""Tables 11 and 12: a sparse generator (App. I).

| data | sparsity | test score |
|---|---|---|
| MNIST | 97.99 | 78.50 |
| CIFAR-10 | 98.45 | 78.00 |
| 9-class ImageNet | 99.31 | 72.00 |
| ImageNet | 99.32 | 69.00 |

The mask saves 12.7 % of the time on 9-class ImageNet, 28.5 % on ImageNet; what it does to FMR is not reported.
"""

from common import Run, figures, says

import fmrgen

run = Run(__doc__)
recipe = "_mnist" if run.is_small else "imagenet-resnet50"
samples = ["source.split=train", f"source.limit={1000 if run.is_small else 5000}"]
mask = run.output / "mask.safetensors"
run.output.mkdir(parents=True, exist_ok=True)
sparse_mask = fmrgen.sparsify(fmrgen.load_recipe(recipe, samples), mask)
print(f"\n## Here\n\nsparsity {sparse_mask.sparsity:.2%}, test score {sparse_mask.test_score:.2%}")
if run.is_small:
    models = {"first": "asset:mnist/lenet", "another": run.trained("another", "mnist-lenet", several=False)}
else:
    models = {"first": "timm:resnet50.tv_in1k", "another": "timm:swin_base_patch4_window7_224.ms_in1k"}
dense = run.compared(recipe, models, name="dense")
sparse = run.compared(recipe, models, f"generator.mask={mask}", name="sparse")
for name in models:
    says(f"less is found under the mask: FMR is higher ({name})", figures(sparse, name), figures(dense, name))
