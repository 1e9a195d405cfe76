"""A tiny random model of each family of image-text models, with a tokenizer and a processor of its own kind, as files."""

import torch
import transformers
from transformers import BertTokenizer, GemmaTokenizer, SiglipTokenizer, XLMRobertaTokenizer

LENGTH = 64  # of texts, in tokens
SIZE = 32
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = {**_TEXT, "image_size": SIZE, "patch_size": 8}
_PATCHES = {**_TEXT, "num_patches": 16, "patch_size": 8}
_CONVOLUTIONS = {
    "image_size": SIZE, "width_coefficient": 0.2, "depth_coefficient": 0.2, "hidden_dim": 32, "kernel_sizes": [3],
    "in_channels": [8], "out_channels": [8], "depthwise_padding": [], "strides": [1], "num_block_repeats": [1],
    "expand_ratios": [1],
}  # fmt: skip
_UNMASKED = {"model_input_names": ["input_ids"]}  # as in the files on the Hub
_NORMALIZED = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}


def sentencepieces(folder, words):
    """A file of SentencePiece that knows `words`, its pad the end of texts, as SigLIP's."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "corpus.txt").write_text("\n".join(words * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"), model_prefix=str(folder / "spiece"), vocab_size=60, model_type="unigram",
        pad_id=-1, bos_id=-1, eos_id=1, unk_id=2, pad_piece="<pad>", hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return folder / "spiece.model"


def siglip_tokenizer(folder, words):
    return SiglipTokenizer(str(sentencepieces(folder, words)), model_max_length=LENGTH, **_UNMASKED)


def gemma_tokenizer(folder, words):
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁"]
    vocab = {piece: place for place, piece in enumerate([*special, *_LETTERS, *_LETTERS.upper(), *".,'0123456789"])}
    return GemmaTokenizer(vocab=vocab, merges=[], padding_side="right", model_max_length=LENGTH, **_UNMASKED)


def bert_tokenizer(folder, words):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *_LETTERS, *(f"##{letter}" for letter in _LETTERS), *".,", "photo", "this"]
    return BertTokenizer(vocab={piece: place for place, piece in enumerate(pieces)}, model_max_length=LENGTH)


def roberta_tokenizer(folder, words):
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = [*special, ("▁", -1.0), *((letter, -3.0) for letter in _LETTERS + _LETTERS.upper() + ".,")]
    return XLMRobertaTokenizer(vocab=[*pieces, ("<mask>", 0.0)], model_max_length=LENGTH)


def clip_tokenizer(folder, words):
    from fmrgen.weights.assets import resolve_path

    return transformers.CLIPTokenizer.from_pretrained(resolve_path("asset:mnist/clip"))


def _clip_processor(name="CLIPImageProcessor"):
    sides = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    return getattr(transformers, name)(**sides, **_NORMALIZED)


def _square(name, **more):
    return getattr(transformers, name)(size={"height": SIZE, "width": SIZE}, **more)


# family → (model, config, text, vision, tokenizer, processor, more of the config)
_FAMILIES = {
    "clip": ("CLIPModel", "CLIPConfig", _TEXT, _VISION, clip_tokenizer, _clip_processor, {"projection_dim": 16}),
    "siglip": (
        "SiglipModel", "SiglipConfig", _TEXT, _VISION, siglip_tokenizer, lambda: _square("SiglipImageProcessor"), {},
    ),
    "siglip2": (
        "SiglipModel", "SiglipConfig", _TEXT, _VISION, gemma_tokenizer, lambda: _square("SiglipImageProcessor"), {},
    ),
    "siglip2-naflex": (
        "Siglip2Model", "Siglip2Config", _TEXT, _PATCHES, gemma_tokenizer,
        lambda: transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16), {},
    ),
    "metaclip_2": (
        "MetaClip2Model", "MetaClip2Config", _TEXT, _VISION, roberta_tokenizer, _clip_processor,
        {"projection_dim": 16},
    ),
    "align": (
        "AlignModel", "AlignConfig", _TEXT, _CONVOLUTIONS, bert_tokenizer,
        lambda: _square("EfficientNetImageProcessor", do_center_crop=False), {"projection_dim": 8},
    ),
    "altclip": (
        "AltCLIPModel", "AltCLIPConfig", {**_TEXT, "project_dim": 32, "pad_token_id": 1}, _VISION, roberta_tokenizer,
        _clip_processor, {"projection_dim": 16},
    ),
    "chinese_clip": (
        "ChineseCLIPModel", "ChineseCLIPConfig", _TEXT, _VISION, bert_tokenizer,
        lambda: _clip_processor("ChineseCLIPImageProcessor"), {"projection_dim": 16},
    ),
}  # fmt: skip
FAMILIES = tuple(_FAMILIES)


def save_tiny(family, folder, words):
    """Writes a tiny model of a family into `folder`; its weights are large, so that answers differ."""
    model_class, config_class, text, vision, make_tokenizer, make_processor, more = _FAMILIES[family]
    tokenizer = make_tokenizer(folder / "words", words)
    positions = {"max_position_embeddings": 64 if family == "clip" else LENGTH + 2 * (family == "altclip")}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**text, "vocab_size": len(tokenizer) + 8, **positions}
    text |= {name: token for name, token in ends.items() if token is not None}
    config = getattr(transformers, config_class)(text_config=text, vision_config=vision, **more)
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(config).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1:
                weights.mul_(12)
            if name in ("logit_scale", "logit_bias"):
                weights.fill_({"logit_scale": 2.0, "logit_bias": -3.0}[name])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    make_processor().save_pretrained(folder)


def images_of(count, size=SIZE):
    """Smooth random images [count, 3, size, size] on the 8-bit grid."""
    noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(noise, (size, size), mode="bilinear").mul(255).round() / 255


TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {% for part in message.content %}{% if part.type == 'image' %}"
    "<image>{% else %} {{ part.text }}{% endif %}{% endfor %}\n{% endfor %}answer:"
)
SMALL_LAYERS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def tokenizer_with(*special):
    tokenizer = gemma_tokenizer(None, [])
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.add_tokens([":", "\n"])
    return tokenizer


def save_llava(folder, template=TEMPLATE):
    tokenizer = tokenizer_with("<image>")
    vision = {**SMALL_LAYERS, "image_size": 32, "patch_size": 8, "projection_dim": 32}
    text = {**SMALL_LAYERS, "vocab_size": len(tokenizer), "num_key_value_heads": 2, "max_position_embeddings": 512}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**vision),
        text_config=transformers.LlamaConfig(**text),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(0)
    model = transformers.LlavaForConditionalGeneration(config).eval()
    sides = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(**sides),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    return save_chat_model(folder, model, processor)


def save_chat_model(folder, model, processor):
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.mul_(6)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
