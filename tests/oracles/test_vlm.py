"""Vision-language models as judges: letters asked of one image at a time by hand, and what can't be asked."""

import pytest
import torch
import transformers
from commands import run
from installed import needs_app
from stored import rows
from tiny_models import SMALL_LAYERS, TEMPLATE, images_of, save_chat_model, save_llava, tokenizer_with

from fmrgen import Judgement, Labels, Oracle, UserError, load_classifier, verify
from fmrgen.classifiers.base import in_labels
from fmrgen.engine.interfaces import NONE
from fmrgen.oracles.vlm import Config, VlmOracle

NAMES = ("cat", "dog", "bird", "big fish")


def save_qwen(folder):
    pads = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = tokenizer_with(*pads)
    ids = {name: tokenizer.convert_tokens_to_ids(pad) for name, pad in zip(
        ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id"), pads, strict=True
    )}  # fmt: skip
    text = {
        **SMALL_LAYERS, "vocab_size": len(tokenizer), "num_key_value_heads": 2, "max_position_embeddings": 512,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8}
    config = transformers.Qwen2VLConfig(text_config=text, vision_config=vision, **ids)
    torch.manual_seed(0)
    model = transformers.Qwen2VLForConditionalGeneration(config).eval()
    images = transformers.Qwen2VLImageProcessor(patch_size=8, min_pixels=32 * 32, max_pixels=32 * 32)
    template = TEMPLATE.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
    videos = transformers.Qwen2VLVideoProcessor(patch_size=8)
    return save_chat_model(
        folder, model, transformers.Qwen2VLProcessor(images, tokenizer, videos, chat_template=template)
    )


SAVED = {"llava": save_llava, "qwen2_vl": save_qwen}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return {family: make(tmp_path_factory.mktemp(family)) for family, make in SAVED.items()}


def asked_by_hand(folder, image, options):
    """The probabilities of the options, of one image asked alone."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    lines = ["Which of these does the image show? Answer with the letter alone."]
    lines += [f"{letter}. {name}" for letter, name in zip("ABCDEFG", options, strict=False)]
    content = [{"type": "image"}, {"type": "text", "text": "\n".join(lines)}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=prompt, images=(image * 255).byte(), return_tensors="pt")
    letters = [processor.tokenizer.convert_tokens_to_ids(letter) for letter in "ABCDEFG"[: len(options)]]
    with torch.no_grad():
        return model(**inputs).logits[0, -1, letters].softmax(0)


@pytest.mark.parametrize("family", SAVED)
def test_it_is_what_one_would_ask_by_hand(tiny, family):
    oracle = Config(model=str(tiny[family]), batch=4).build()
    oracle.set_labels(Labels(NAMES))
    images = images_of(6)
    judgement = oracle.judge(images)
    options = [*NAMES, "none of these"]
    for row, image in enumerate(images[:3]):
        one = asked_by_hand(tiny[family], image, options)
        other = asked_by_hand(tiny[family], image, options[::-1]).flip(0)
        mean = (one + other) / 2
        torch.testing.assert_close(judgement.probabilities[row], mean[:-1], atol=1e-4, rtol=0)
        assert judgement.decided[row] == (NONE if mean.argmax() == 4 else mean.argmax())
        assert (one - other).abs().max() > 0.01  # the order matters to it
    assert judgement.probabilities.std(0).max() > 1e-3
    alone = torch.cat([oracle.judge(image[None]).probabilities for image in images])
    torch.testing.assert_close(alone, judgement.probabilities, atol=1e-6, rtol=0)


class Likely(Oracle):
    """Its likeliest classes hang on the brightness."""

    def judge(self, images, originals=None):
        at = torch.arange(40)
        score = -(at - 40 * images.flatten(1).mean(1, keepdim=True)).abs()
        return Judgement(score.softmax(1), score)


def test_another_oracle_says_what_it_may_choose_from(tiny):
    config = Config(model=str(tiny["llava"]), top=3)
    built = config.build()
    oracle = VlmOracle(built.model, built.processor, Likely(), config)
    letters = "abcdefghijklmnopqrstuvwxyz"
    oracle.set_labels(Labels(tuple(one + two for one in letters[:8] for two in letters[:5])))
    images = images_of(4) * torch.tensor([0.2, 0.6, 1.0, 1.6]).view(-1, 1, 1, 1).clamp(max=1)
    judgement = oracle.judge(images)
    likely = Likely().judge(images).probabilities.topk(3).indices
    for row in range(4):
        assert judgement.probabilities[row].nonzero().flatten().tolist() == sorted(likely[row].tolist())
        assert judgement.decided[row].item() in (*likely[row].tolist(), NONE)
    assert judgement.score.isfinite().all()
    assert ((judgement.probabilities.sum(1) < 1) & (judgement.probabilities.sum(1) > 0)).all()


def test_what_can_not_be_asked_is_told(tiny, tmp_path):
    blind = save_llava(tmp_path / "blind", TEMPLATE.replace("<image>", ""))
    broken = save_llava(tmp_path / "broken", "{{ messages.nothing.of.this }}")
    many = [f"class {i}" for i in range(40)]
    for folder, names, error in (
        (tiny["llava"], many, "40 classes are more options than there are letters; name an oracle"),
        (blind, NAMES, "the chat template of .*blind has no place for an image"),
        (broken, NAMES, "the chat template of .*broken fails"),
        (tmp_path / "gone", NAMES, r"oracle.model: .*gone can't be loaded"),
    ):
        with pytest.raises(UserError, match=error):
            Config(model=str(folder)).build().set_labels(Labels(tuple(names)))


@needs_app("judging")
def test_it_judges_a_split(tiny, split):
    oracle = f"{{kind: vlm, model: {tiny['llava']}, candidates: {{kind: clip, model: 'asset:mnist/clip'}}, top: 3}}"
    assert run("judge", split, "--oracle", f"chat={oracle}", "--quiet") == 0
    assert (split / "judgements/mnist/lenet/chat.parquet").exists()
    assert len(rows(split)) == 120


def test_it_classifies_by_letters(tiny):
    """What it is sure of as a judge, it answers as a classifier; `none` is no answer."""
    oracle = Config(model=str(tiny["llava"]), batch=4).build()
    oracle.set_labels(Labels(NAMES))
    classifier = load_classifier(f"vlm:{tiny['llava']}")
    images = images_of(5)
    logits = in_labels(classifier, Labels(NAMES), images[:1], "classifier")(images)
    torch.testing.assert_close(logits.exp(), oracle.judge(images).probabilities, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_it_has_a_split_of_its_own(tiny, tmp_path):
    """By a search: letters are asked for, and nothing is differentiated."""
    job = ["generate", "mnist-lenet", f"classifier=vlm:{tiny['llava']}", "--limit", 2, "-o", tmp_path / "out", "-q"]
    assert run(*job, "perturb.update=nes", "perturb.queries=2", "perturb.budget=2", "perturb.step_size=0.2") == 0
    checked = verify(str(tmp_path / "out"), trust=True)
    assert checked.disagreements == []
    for row in rows(tmp_path / "out").values():
        assert row["queries"] >= 2 + 3 * row["iterations"]
        assert row["latent_shift"] > 0 or not row["valid"]
