"""OpenCLIP's models as oracles, against OpenCLIP's own zero-shot on images of PIL."""

import json
from copy import deepcopy

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_models import images_of

from fmrgen import Labels, UserError
from fmrgen.oracles.open_clip import Config

NAMES = ("flower", "temple", "blue sky")
TOWERS = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PIXELS = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}


def save_tiny(folder, bias=None, **pixels):
    folder.mkdir()
    model = TOWERS | ({} if bias is None else {"init_logit_bias": bias})
    told = {"model_cfg": model, "preprocess_cfg": {**PIXELS, "resize_mode": "shortest", **pixels}}
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    torch.manual_seed(0)
    made = open_clip.model.CLIP(**deepcopy(model))
    weights = {name: values * 3 if values.ndim > 1 else values for name, values in made.state_dict().items()}
    save_file({name: values.contiguous() for name, values in weights.items()}, folder / "open_clip_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("size", "mode", "bias"), [(32, "shortest", None), (32, "squash", -2.0), (48, "shortest", None)]
)
def test_it_is_the_librarys_own_zero_shot(tmp_path, size, mode, bias):
    folder = save_tiny(tmp_path / "tiny", bias, resize_mode=mode)
    decide = "softmax" if bias is None else "sigmoid"
    oracle = Config(model=str(folder), decide=decide).build()
    oracle.set_labels(Labels(NAMES))
    images = images_of(6, size)
    judgement = oracle.judge(images)

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")([f"This is a photo of {name}." for name in NAMES])
    pictures = [Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()) for image in images]
    with torch.no_grad():
        seen = model.encode_image(torch.stack([preprocess(picture) for picture in pictures]), normalize=True)
        logits = model.logit_scale.exp() * seen @ model.encode_text(tokens, normalize=True).T
    expected = logits.softmax(1) if bias is None else (logits + model.logit_bias).sigmoid()
    tolerance = 1e-5 if size == 32 else 0.05  # resizing bytes and resizing a picture round differently
    torch.testing.assert_close(judgement.probabilities, expected, atol=tolerance, rtol=0)
    assert judgement.probabilities.std(0).max() > 0.01
    if bias is None:
        torch.testing.assert_close(oracle.logits(images).softmax(1), expected, atol=0.05, rtol=0)


def test_what_is_no_model_of_open_clip_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    no_file = "empty has no open_clip_config.json; a model of transformers is kind: zero_shot"
    with pytest.raises(UserError, match=no_file):
        Config(model=str(tmp_path / "empty")).build()
    folder = save_tiny(tmp_path / "tiny")
    told = json.loads((folder / "open_clip_config.json").read_text())
    told["model_cfg"]["vision_cfg"]["timm_model_name"] = "local-dir:/somewhere"
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="its config loads other weights than its own"):
        Config(model=str(folder)).build()
    (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(UserError, match=r"oracle.model: .*tiny can't be loaded"):
        Config(model=str(folder)).build()
