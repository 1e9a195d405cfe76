"""What a stranger may have laid into a folder: code, changed records, models that bring files of their own."""

import json

LENET = "{kind: lenet, num_classes: 2}"
EVIL = "open('ran', 'w')\nimport torch\nclass Net(torch.nn.Linear):\n    def __init__(self): super().__init__(2, 2)\n"
PROVENANCE = "theirs/provenance/c/s.json"  # of the split that the fixture `place` lays out


def change(path, **changes):
    """Changes keys of the JSON in a file; returns what was there."""
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | changes))
    return before


def alter(place, **sections):
    """Writes sections of a recipe into the split's provenance."""
    path = place / PROVENANCE
    change(path, recipe=json.loads(path.read_text())["recipe"] | sections)


def save_resnet(folder, side=32, **config):
    """Saves a tiny network of two classes as transformers does, for images of that side; `config` changes its config."""
    from transformers import ResNetConfig, ResNetForImageClassification

    shape = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=2)
    ResNetForImageClassification(shape).save_pretrained(folder)
    change(folder / "config.json", **config)
    processor = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": side}}
    change(folder / "preprocessor_config.json", **processor)
