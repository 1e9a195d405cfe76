"""Table 1: architectures, each on its own split.

| data | model | SA | PA | FMR |
|---|---|---|---|---|
| MNIST | LeNet | 99.09 | 27.78 | 28.04 |
| CIFAR-10 | ResNet18 | 95.38 | 52.34 | 54.88 |
| 9-class ImageNet | ResNet18 | 92.30 | 27.95 | 30.28 |
| ImageNet | ResNet50 | 76.26 | 33.15 | 43.47 |
| ImageNet | ViT | 82.40 | 41.65 | 50.55 |
| ImageNet | DeiT | 78.57 | 43.25 | 55.05 |
| ImageNet | Twins | 80.53 | 48.52 | 60.25 |
| ImageNet | Visformer | 79.88 | 47.82 | 59.87 |
| ImageNet | Swin | 81.67 | 56.95 | 69.73 |
| ImageNet | ConvNeXt | 82.05 | 47.68 | 58.11 |
"""

from common import Run, figures, says

run = Run(__doc__)
if run.is_small:
    models = {name: run.trained(name, f"mnist-{name}") for name in ("lenet", "convnext", "vit")}
    own = run.compared("_mnist", models)
    says(
        "transformer variants outperform the vanilla ResNet (a LeNet here)", figures(own, "vit"), figures(own, "lenet")
    )
    says("so does ConvNeXt", figures(own, "convnext"), figures(own, "lenet"))
else:
    models = {
        "resnet50": "timm:resnet50.tv_in1k",
        "vit": "timm:vit_base_patch16_224.augreg_in21k_ft_in1k",
        "deit": "timm:deit_base_patch16_224.fb_in1k",
        "twins": "timm:twins_svt_base.in1k",
        "visformer": "timm:visformer_small.in1k",
        "swin": "timm:swin_base_patch4_window7_224.ms_in1k",
        "convnext": "timm:convnext_base.fb_in1k",
    }
    own = run.compared("imagenet-resnet50", models)
    says("Swin has the highest FMR, above ConvNeXt", figures(own, "swin"), figures(own, "convnext"))
    says("transformers stand above ResNet50 (ViT)", figures(own, "vit"), figures(own, "resnet50"))
    says("a ConvNeXt of their training does as well", figures(own, "convnext"), figures(own, "deit"))
