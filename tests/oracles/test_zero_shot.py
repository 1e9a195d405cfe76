"""Image-text oracles against the library's own pipeline, on tiny models of every family and crops of real photos."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from tiny_models import FAMILIES, SIZE, save_tiny
from transformers import pipeline

from fmrgen import Labels, UserError
from fmrgen.engine.interfaces import NONE
from fmrgen.oracles.zero_shot import Config

NAMES = ("Flower", "temple", "blue Sky", "tree leaf", "water")
PROMPTS = [f"this is a photo of {name.lower()}" for name in NAMES]


@pytest.fixture(scope="module")
def photos():
    """50 crops of two photos, uint8 [50, 32, 32, 3]."""
    whole, random = load_sample_images().images, np.random.default_rng(0)
    crops = []
    for number in range(50):
        image = whole[number % 2]
        top, left = (random.integers(0, side - 64) for side in image.shape[:2])
        crop = Image.fromarray(image[top : top + 64, left : left + 64])
        crops.append(np.asarray(crop.resize((SIZE, SIZE))))
    return np.stack(crops)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a family's tiny model."""
    root = tmp_path_factory.mktemp("tiny")

    def folder_of(family):
        if not (root / family).exists():
            save_tiny(family, root / family, PROMPTS)
        return root / family

    return folder_of


def as_images(photos):
    return torch.from_numpy(photos).permute(0, 3, 1, 2).contiguous() / 255


def oracle_of(folder, **keys):
    oracle = Config(model=str(folder), **keys).build()
    oracle.set_labels(Labels(NAMES))
    return oracle


def of_pipeline(folder, photos, texts):
    """Its probabilities [50, K], which are sigmoids for SigLIP."""
    ask = pipeline("zero-shot-image-classification", model=str(folder), image_processor=str(folder))
    answers = ask([Image.fromarray(photo) for photo in photos], candidate_labels=texts, hypothesis_template="{}")
    return torch.tensor(
        [[{entry["label"]: entry["score"] for entry in row}[text] for text in texts] for row in answers]
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_what_the_pipeline_says(tiny, photos, family):
    decide = "sigmoid" if "siglip" in family else "softmax"
    judgement = oracle_of(tiny(family), decide=decide).judge(as_images(photos))
    # In lower case and without a full stop: SigLIP was trained so, and the pipeline leaves that to the caller.
    texts = PROMPTS if "siglip" in family else [f"This is a photo of {name}." for name in NAMES]
    expected = of_pipeline(tiny(family), photos, texts)
    torch.testing.assert_close(judgement.probabilities, expected, atol=1e-5, rtol=0)
    assert judgement.probabilities.std(0).max() > 0.005  # else anything would do
    assert len(judgement.probabilities.argmax(1).unique()) > 1


def test_a_siglip_without_its_padding_says_something_else(tiny, photos):
    oracle = oracle_of(tiny("siglip"))
    right = oracle.judge(as_images(photos)).score
    tokens = oracle.tokenizer(PROMPTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        oracle._text = torch.nn.functional.normalize(oracle.model.get_text_features(**tokens).pooler_output, dim=-1)
    wrong = oracle.judge(as_images(photos)).score
    assert (right - wrong).abs().max() > 0.05
    assert (right.argmax(1) != wrong.argmax(1)).float().mean() > 0.2


@pytest.mark.parametrize("family", ["siglip", "siglip2"])
def test_a_siglip_reads_lower_case_without_punctuation(tiny, family):
    plain, written = (oracle_of(tiny(family), prompts=[prompt]) for prompt in ("a {class}", "A {class}."))
    assert torch.equal(plain._text, written._text)


def test_a_siglip_2_whose_tokenizer_is_carelessly_stored_is_asked_the_same(tiny, photos, tmp_path):
    """Padded on the left and with a mask, as the library's own class for it does by default."""
    right = oracle_of(tiny("siglip2")).judge(as_images(photos)).score
    shutil.copytree(tiny("siglip2"), tmp_path, dirs_exist_ok=True)
    told = json.loads((tmp_path / "tokenizer_config.json").read_text())
    told |= {"padding_side": "left", "model_input_names": ["input_ids", "attention_mask"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    assert torch.equal(oracle_of(tmp_path).judge(as_images(photos)).score, right)


def test_a_sigmoid_can_see_none_of_the_classes(tiny, photos):
    softmax, sigmoid = (oracle_of(tiny("siglip"), decide=decide) for decide in ("softmax", "sigmoid"))
    images = as_images(photos)
    highest = sigmoid.judge(images).probabilities.max(dim=1)
    threshold = float(highest.values.median())
    sigmoid.threshold = threshold
    judgement = sigmoid.judge(images)
    assert (judgement.decided == NONE).equal(highest.values < threshold)
    assert 0.2 < (judgement.decided == NONE).float().mean() < 0.8
    seen = judgement.decided != NONE
    assert judgement.decided[seen].equal(highest.indices[seen])
    assert softmax.judge(images).probabilities.sum(1).allclose(torch.ones(50))
    assert softmax.judge(images).decided.equal(highest.indices)


@pytest.mark.parametrize("family", ["clip", "siglip", "metaclip_2"])
def test_gradients_are_of_what_is_judged(tiny, photos, family):
    oracle = oracle_of(tiny(family))
    images = as_images(photos)[:4].requires_grad_(True)
    logits = oracle.logits(images)
    torch.testing.assert_close(logits.softmax(1), oracle.judge(images.detach()).probabilities, atol=2e-3, rtol=0)
    assert torch.autograd.grad(logits.sum(), images)[0].abs().sum() > 0


def test_what_is_no_oracle_is_told(tiny, tmp_path):
    from transformers import BlipConfig, BlipModel

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": 40, "bos_token_id": 1, "sep_token_id": 2, "pad_token_id": 0}
    vision = {**small, "image_size": 16, "patch_size": 8}
    BlipModel(BlipConfig(text_config=text, vision_config=vision)).save_pretrained(tmp_path / "blip")
    with pytest.raises(UserError, match=r"oracle.model: .*blip is a blip; an oracle is one of clip, siglip"):
        Config(model=str(tmp_path / "blip")).build()
    of_tokenizer = shutil.ignore_patterns("*token*", "vocab.json", "merges.txt")
    shutil.copytree(tiny("clip"), tmp_path / "untold", ignore=of_tokenizer)
    with pytest.raises(UserError, match=r"are the same to its tokenizer; are the tokenizer's files there"):
        oracle_of(tmp_path / "untold")
    with pytest.raises(UserError, match="is longer than the 64 tokens that this model reads"):
        oracle_of(tiny("siglip2"), prompts=["{class}" + " again" * 20])
    with pytest.raises(ValueError, match="threshold is the sigmoid's"):
        Config(threshold=0.2)
    for family in ("siglip2-naflex", "align"):
        with pytest.raises(UserError, match="takes steps without a gradient, so it can't be attacked"):
            oracle_of(tiny(family)).logits(torch.rand(1, 3, 32, 32))
