"""Published checkpoints by name: the paper's robust classifiers and others."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field, field_validator

from fmrgen.classifiers import cifar
from fmrgen.config import ClassifierConfig
from fmrgen.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}
_HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
_FAST = {**_IMAGENET, "input_size": (3, 288, 288), "crop_pct": 1.0}
_BITBUCKET = "https://bitbucket.org/robert_geirhos/texture-vs-shape-pretrained-models/raw"
_NOISE = "https://github.com/bethgelab/game-of-noise/releases/download/v1.0"
_ROBUSTBENCH = "the model zoo of RobustBench (github.com/RobustBench/robustbench)"
_CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Published(NamedTuple):
    """A published checkpoint.

    `arguments` go to `timm.create_model`; `preprocessing` is timm's data config, if empty ImageNet's (256 to 224 px).
    """

    file: str
    address: str | None  # where to download it; None if that has to be done by hand, from `found_at`
    licence: str
    found_at: str = ""
    network: str = "resnet50"  # timm's name of the network, or if `is_cifar` the model of kind `cifar`
    arguments: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default, never written to
    preprocessing: dict[str, Any] = {}  # noqa: RUF012 - likewise
    is_cifar: bool = False


def _cifar(file: str, drive: str, licence: str, network: str, preprocessing: dict[str, Any]) -> Published:
    """Return a checkpoint for CIFAR-10, of which `drive` is the number at Google."""
    return Published(file, f"gdrive:{drive}", licence, network=network, preprocessing=preprocessing, is_cifar=True)


MODELS: dict[str, Published] = {
    "sin": Published(
        "resnet50_train_45_epochs_combined_IN_SF-2a0d100e.pth.tar",
        f"{_BITBUCKET}/60b770e128fffcbd8562a3ab3546c1a735432d03/resnet50_train_45_epochs_combined_IN_SF-2a0d100e.pth.tar",
        "none stated",
    ),
    "ant": Published("ANT3x3_Model.pth", f"{_NOISE}/ANT3x3_Model.pth", "MIT"),
    "ant-sin": Published("ANT3x3_SIN_Model.pth", f"{_NOISE}/ANT3x3_SIN_Model.pth", "MIT"),
    "augmix": Published("augmix.pth.tar", "gdrive:1z-1V3rdFiwqSECz7Wkmn4VJVefJGJGiF", "Apache-2.0"),
    "deepaugment": Published("deepaugment.pth.tar", "gdrive:1DPRElQnBG66nd7GUphVm1t-5NroL7t7k", "MIT"),
    "deepaugment-augmix": Published(
        "deepaugment_and_augmix.pth.tar", "gdrive:1QKmc_p6-qDkh51WvsaS9HKFv8bX5jLnP", "MIT"
    ),
    "dat": Published(
        "resnet50_dat.pth", None, "Apache-2.0", "github.com/alibaba/easyrobust, discrete adversarial training"
    ),
    "xcit-l12": Published(
        "xcit-l12-ImageNet-eps-4.pth.tar",
        "https://github.com/dedeswim/vits-robustness-torch/releases/download/v1.0/xcit-l12-ImageNet-eps-4.pth.tar",
        "MIT",
        network="xcit_large_24_p16_224",
        arguments={"depth": 12, "eta": 1.0},
        preprocessing={**_PLAIN, "crop_pct": 1.0, "interpolation": "bicubic"},
    ),
    "salman2020-r50": Published("Salman2020Do_R50.pt", None, "MIT", _ROBUSTBENCH),
    "salman2020-r18": Published("Salman2020Do_R18.pt", None, "MIT", _ROBUSTBENCH, network="resnet18"),
    "salman2020-wrn50-2": Published("Salman2020Do_50_2.pt", None, "MIT", _ROBUSTBENCH, network="wide_resnet50_2"),
    "engstrom2019-r50": Published("Engstrom2019Robustness.pt", None, "MIT", _ROBUSTBENCH),
    "wong2020-r50": Published("Wong2020Fast.pt", None, "MIT", _ROBUSTBENCH, preprocessing=_FAST),
    "cifar10-carmon2019": _cifar(
        "Carmon2019Unlabeled.pt", "15tUx-gkZMYx7BfEOw1GY5OKC-jECIsPQ", "MIT", "wide_resnet28_10", _PLAIN
    ),
    "cifar10-zhang2019": _cifar(
        "Zhang2019Theoretically.pt", "1hPz9QQwyM7QSuWu-ANG_uXR-29xtL8t_", "MIT", "wide_resnet34_10", _PLAIN
    ),
    "cifar10-hendrycks2019": _cifar(
        "Hendrycks2019Using.pt", "1-DcJsYw2dNEOyF9epks2QS7r9nqBDEsw", "Apache-2.0", "wide_resnet28_10", _HALF
    ),
    "cifar10-engstrom2019": _cifar(
        "Engstrom2019Robustness.pt", "1etqmQsksNIWBvBQ4r8ZFk_3FJlLWr8Rr", "MIT", "resnet50", _CIFAR
    ),
}


class Config(ClassifierConfig):
    """`model` is one of the names that the error for a wrong one lists.

    Files that are there already are taken from `folder`; others are downloaded once, and must stay what they were.
    """

    PLACES = ("folder",)

    kind: str = "zoo"
    model: str
    folder: str | None = Field(None, description="folder of the checkpoint, which keeps its published name")

    @field_validator("model")
    @classmethod
    def _check_model(cls, model: str) -> str:
        if model not in MODELS:
            raise ValueError(f"no model {model}; choose from {', '.join(MODELS)}")
        return model

    def check_places(self, section: str) -> None:
        if self.folder is not None:
            self._file(MODELS[self.model])

    def build(self, device: "torch.device | str" = "cpu") -> "nn.Module":
        published = MODELS[self.model]
        key = "classifier.model"
        path = self._file(published)
        if published.is_cifar:
            section: dict[str, Any] = {"model": published.network, "checkpoint": str(path), **published.preprocessing}
            section |= {"class_names": self.class_names or _CIFAR10, "channels": self.channels}
            return cifar.Config.model_validate(section).built(device, key)

        import timm
        from timm.data import ImageNetInfo, create_transform, resolve_data_config

        from fmrgen.classifiers.base import Classifier
        from fmrgen.weights.checkpoint import freeze, load_exactly, read_checkpoint

        network = timm.create_model(published.network, pretrained=False, **published.arguments)
        load_exactly(network, read_checkpoint(str(path), key), f"{key}: {path}")
        preprocessing = published.preprocessing or {**_IMAGENET, "crop_pct": 224 / 256, "interpolation": "bilinear"}
        preprocess = create_transform(**resolve_data_config(preprocessing, model=network), is_training=False)
        names = self.class_names or ImageNetInfo("imagenet-1k").label_descriptions()
        return freeze(Classifier(network, preprocess, names, self.channels), device)

    def _file(self, published: Published) -> Path:
        """Return the checkpoint's file, downloaded if necessary. Raises UserError if it is not there."""
        from fmrgen.weights.download import downloaded

        if self.folder is not None:
            path = Path(self.folder) / published.file
            if not path.is_file():
                raise UserError(f"classifier.folder: {self.folder} has no {published.file}")
            return path
        if published.address is None:
            raise UserError(
                f"classifier.model: {self.model} has to be downloaded by hand: {published.file} from "
                f"{published.found_at}; then name its folder, classifier.folder"
            )
        return downloaded(published.address, "classifier.model")
