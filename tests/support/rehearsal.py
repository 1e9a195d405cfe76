"""Rehearses the shipped recipes as their users run them, on a machine without a network.

A Hub on this machine and a stand-in for other hosts serve what the recipes load under their real names: networks of
the real shapes with random weights, and a few images in the columns of the real data sets.
"""

import io
import json
import os
import re
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from subprocess import PIPE, STDOUT, CompletedProcess

import datasets
import numpy as np
import torch
import yaml
from hosts import Hosts
from hub_server import HubServer
from photos import encoded
from PIL import Image
from safetensors.torch import load_file, save_file

IMAGES = 8
CLASS_PROMPTS = {"crane2": "construction crane"}  # those of the recipes
CLIP = "openai/clip-vit-base-patch32"
VQGAN = "dalle-mini/vqgan_imagenet_f16_16384"
STYLEGAN = "https://s3.eu-central-1.amazonaws.com/avg-projects/stylegan_xl/models"


class Internet:
    """The Hub and the hosts of this machine; what a recipe needs is made when `serve` is told of it."""

    def __init__(self, root: Path, small: bool = False) -> None:
        self.root, self.small = root, small
        for name in ("hub", "web", "made"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self.hub = HubServer(root / "hub").start()
        self.hosts = Hosts(root / "web").start()
        self.world = self.hub.world()
        self._served: set[str] = set()

    def environment(self, home: Path, token: str | None = "writer-0") -> dict[str, str]:
        """The environment of a user whose caches are in `home`."""
        environment = self.hub.variables(home / "hf", token or "") | {"FMRGEN_CACHE": str(home / "fmrgen")}
        return environment | self.hosts.environment

    @property
    def sent(self) -> int:
        """Bytes that all hosts have sent."""
        return self.world.sent + self.hosts.sent

    def serve(self, recipe: str) -> None:
        """Publish what a recipe loads."""
        from fmrgen.recipe.job import load_recipe

        loaded = load_recipe(recipe, stylegan_changes(recipe))
        for section in (loaded.classifier, loaded.generator, loaded.oracle, *getattr(loaded.oracle, "oracles", [])):
            self._once(section)
        self._once(loaded.source)

    def _once(self, section: object) -> None:
        """Makes what a section loads: files of a model's repo in a folder, or what it puts there or publishes itself."""
        model = section.hub_model()
        named = [getattr(section, key, None) for key in ("checkpoint", "encoder", "path")]
        name = model.repo if model else next(filter(None, named), "")
        make = getattr(self, f"_{'hub' if model else 'web'}_{section.kind}", None)
        if make is None or name in self._served or name.startswith("asset:"):
            return
        self._served.add(name)
        torch.manual_seed(zlib.crc32(name.encode()))
        folder = self.folder(name)
        make(section, folder)
        if model:
            self.publish(f"models/{model.repo}", folder)
            repo = self.world.repos[f"models/{model.repo}"]
            repo["tags"][model.revision or "made"] = repo["refs"]["main"]

    def folder(self, name: str) -> Path:
        path = self.root / "made" / name.replace("/", "--")
        path.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, repo: str, folder: Path, **options: object) -> None:
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        self.world.publish(repo, files, **options)

    # Models, by kind

    def _hub_timm(self, section: object, folder: Path) -> None:
        import timm

        state = timm.create_model(section.model, pretrained=False).state_dict()
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")

    def _web_cifar(self, section: object, folder: Path) -> None:
        network = section.model_copy(update={"checkpoint": None, "num_classes": 10}).build()
        while hasattr(network, "network"):
            network = network.network
        torch.save(network.state_dict(), folder / "pytorch_model.bin")
        self.publish("models/edadaltocg/resnet18_cifar10", folder)

    def _hub_clip(self, section: object, folder: Path) -> None:
        from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

        config = CLIPConfig()
        if self.small:
            for part in (config.text_config, config.vision_config):
                part.num_hidden_layers, part.num_attention_heads = 1, 1
                part.hidden_size, part.intermediate_size = 64, 64
        model = CLIPModel(config)
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")  # the form that the real repo has
        CLIPImageProcessor().save_pretrained(folder)
        clip_tokenizer(folder)

    def _hub_zero_shot(self, section: object, folder: Path) -> None:
        from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

        config = SiglipConfig()
        config.text_config.vocab_size = 256_000
        config.text_config.max_position_embeddings = 64
        config.vision_config.patch_size = 16
        if self.small:
            for part in (config.text_config, config.vision_config):
                part.num_hidden_layers = 1
        SiglipModel(config).save_pretrained(folder)
        SiglipImageProcessor(size={"height": 224, "width": 224}).save_pretrained(folder)
        word_tokenizer(folder, 256_000)

    def _hub_vqgan(self, section: object, folder: Path) -> None:
        """The Flax port, at its real revision."""
        import msgpack
        from taming_files import flax_tree

        from fmrgen.generators.networks.vqgan import Architecture, VqganNetwork

        attends = (False, False, False, False, True)
        shape = (32, (32, 32, 32, 32, 32), attends, 1) if self.small else (128, (128, 128, 256, 256, 512), attends, 2)
        architecture = Architecture(*shape, z_channels=256, embed_dim=256, n_embed=16384)
        network = VqganNetwork(architecture)
        network.quantize.embedding.weight.data.normal_(0, 0.5)
        (folder / "flax_model.msgpack").write_bytes(msgpack.packb(flax_tree(network.state_dict())))
        config = {
            "ch": architecture.ch,
            "ch_mult": [width // architecture.ch for width in architecture.widths],
            "num_res_blocks": architecture.num_res_blocks,
            "resolution": 256,
            "attn_resolutions": [16],
            "z_channels": 256,
            "quantized_embed_dim": 256,
            "n_embed": 16384,
            "double_z": False,
            "resamp_with_conv": True,
        }
        (folder / "config.json").write_text(json.dumps(config))

    def _hub_vae(self, section: object, folder: Path) -> None:
        autoencoder(latent_channels=16).save_pretrained(folder / "vae")

    def _hub_one_step(self, section: object, folder: Path) -> None:
        """SD-Turbo: Stable Diffusion 2.1's U-Net and text encoder."""
        from diffusers import DDIMScheduler, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        autoencoder(latent_channels=4).save_pretrained(folder / "vae")
        unet = UNet2DConditionModel(
            sample_size=64,
            cross_attention_dim=1024,
            attention_head_dim=[5, 10, 20, 20],
            use_linear_projection=True,
            block_out_channels=(320, 640, 1280, 1280),
        )
        unet.save_pretrained(folder / "unet")
        text = CLIPTextConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, hidden_act="gelu"
        )
        CLIPTextModel(text).save_pretrained(folder / "text_encoder")
        DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
            folder / "scheduler"
        )
        (folder / "tokenizer").mkdir(exist_ok=True)
        clip_tokenizer(folder / "tokenizer")

    def _hub_consistency(self, section: object, folder: Path) -> None:
        from diffusers import CMStochasticIterativeScheduler, UNet2DModel

        UNet2DModel(
            sample_size=64,
            layers_per_block=3,
            num_class_embeds=1000,
            block_out_channels=(192, 384, 576, 768),
            attention_head_dim=64,
            resnet_time_scale_shift="scale_shift",
            attn_norm_num_groups=32,
            downsample_type="resnet",
            upsample_type="resnet",
            down_block_types=("ResnetDownsampleBlock2D", *("AttnDownBlock2D",) * 3),
            up_block_types=(*("AttnUpBlock2D",) * 3, "ResnetUpsampleBlock2D"),
        ).save_pretrained(folder / "unet")
        CMStochasticIterativeScheduler().save_pretrained(folder / "scheduler")

    def _web_diffusion(self, section: object, folder: Path) -> None:
        """Files of guided-diffusion and improved-diffusion, under their official names."""
        from official_unet import random_state

        name = section.checkpoint.rpartition("/")[2]
        path = folder / name
        torch.save(random_state(name), path)
        self.hosts.files[section.checkpoint] = path

    def _web_vdvae(self, section: object, folder: Path) -> None:
        from fmrgen.apps.training.objectives.vdvae import Config

        sides, widths, blocks = [64, 32, 16, 8, 4, 1], [64, 128, 256, 384, 384, 512], [4, 14, 20, 12, 6, 2]
        objective = Config(sides=sides, widths=widths, blocks=blocks, latent_channels=[32] * 6, mixtures=10).objective(
            torch.device("cpu"), None
        )
        content = io.BytesIO()
        torch.save({"global_step": 1, "ema_model_state_dict": objective.network.state_dict()}, content)
        path = folder / "imagenet64.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("checkpoints-imagenet64_baseline/hparams-imagenet64_baseline.cfg", "[run]")
            archive.writestr("checkpoints-imagenet64_baseline/checkpoints-imagenet64_baseline", content.getvalue())
        self.hosts.files[section.checkpoint] = path

    def _web_taesd(self, section: object, folder: Path) -> None:
        """TAEF2's networks: 32 channels, pools at the coarsest scale."""
        from torch import nn

        from fmrgen.generators.networks.taesd import Block

        def conv(inputs: int, outputs: int, **options: object) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 3, padding=1, **options)

        encoder: list[nn.Module] = [conv(3, 64), Block(pool=False)]
        decoder: list[nn.Module] = [nn.Identity(), conv(32, 64), nn.ReLU()]
        for scale in range(3):
            encoder += [conv(64, 64, stride=2, bias=False), *(Block(pool=scale == 2) for _ in range(3))]
            decoder += [Block(pool=scale == 0) for _ in range(3)]
            decoder += [nn.Upsample(scale_factor=2), conv(64, 64, bias=False)]
        networks = (nn.Sequential(*encoder, conv(64, 32)), nn.Sequential(*decoder, Block(pool=False), conv(64, 3)))
        for address, network in zip((section.encoder, section.decoder), networks, strict=True):
            path = folder / address.rpartition("/")[2]
            torch.save(network.state_dict(), path)
            self.hosts.files[address] = path

    def _web_stylegan_xl(self, section: object, folder: Path) -> None:
        """A small network of 1,000 classes in the official form; its authors' are not rebuilt here."""
        from official_stylegan import GOLDEN, save_official

        state = load_file(GOLDEN / "stylegan-xl-small-sr.state.safetensors")
        for key in ("mapping.embed.weight", "mapping.w_avg"):  # a row for each class
            state[key] = state[key].repeat(100, 1)
        path = folder / section.checkpoint.rpartition("/")[2]
        save_official(path, "sr", state)
        self.hosts.files[section.checkpoint] = path

    # Data sets

    def _web_datasets(self, section: object, folder: Path) -> None:
        if section.path == "uoft-cs/cifar10":
            names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
            features = {"img": datasets.Image(), "label": datasets.ClassLabel(names=names)}
            pixels = photos(IMAGES, 32, 32)
            labels = self._labels_of(pixels, names, size=32)
            rows = {"img": [png(image) for image in pixels], "label": labels}
            self._publish_dataset(section.path, features, {"train": rows, "test": rows}, "plain_text")
            return
        from timm.data import ImageNetInfo

        names: list[str] = []
        for name in ImageNetInfo("imagenet-1k").label_descriptions():
            names.append(f"{name}2" if name in names else name)  # as the data set calls its second crane
        features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
        pixels = photos(IMAGES, 500, 375)
        labels = self._labels_of(pixels, names, size=224)
        rows = {
            "image": [
                {"bytes": encoded(image, "JPEG", quality=90), "path": f"ILSVRC2012_val_{number:08}.JPEG"}
                for number, image in enumerate(pixels, start=1)
            ],
            "label": labels,
        }
        self._publish_dataset(section.path, features, {"train": rows, "validation": rows, "test": rows}, gated=True)

    def _web_gtsrb(self, section: object, folder: Path) -> None:
        pixels = photos(IMAGES, 32, 32)
        features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=[str(name) for name in range(43)])}
        rows = {"image": [png(image) for image in pixels], "label": [number % 43 for number in range(IMAGES)]}
        self._publish_dataset(section.path, features, {"train": rows, "test": rows})

    def _labels_of(self, pixels: list[np.ndarray], names: list[str], size: int) -> list[int]:
        """The labels that the random CLIP sees, so that some rows are valid."""
        from fmrgen.labels import make_labels
        from fmrgen.oracles.clip import Config

        folder = self.folder(CLIP)
        if not (folder / "config.json").exists():
            return [number % len(names) for number in range(len(pixels))]
        prompts = CLASS_PROMPTS if "crane2" in names else {}
        oracle = Config(model=str(folder), first_synonym=True, class_prompts=prompts).build()
        oracle.set_labels(make_labels(None, names))
        images = [torch.from_numpy(np.array(Image.fromarray(image).resize((size, size)))) for image in pixels]
        batch = torch.stack(images).permute(0, 3, 1, 2).float() / 255
        return oracle.judge(batch, None).probabilities.argmax(1).tolist()

    def _publish_dataset(
        self, repo: str, features: dict, splits: dict[str, dict], config: str = "data", gated: bool = False
    ) -> None:
        folder = self.folder(repo)
        (folder / config).mkdir(exist_ok=True)
        entries = []
        info = datasets.DatasetInfo(features=datasets.Features(features), splits=datasets.SplitDict())
        for split, rows in splits.items():
            name = f"{config}/{split}-00000-of-00001.parquet"
            datasets.Dataset.from_dict(rows, features=info.features).to_parquet(folder / name)
            entries.append({"split": split, "path": f"{config}/{split}-*"})
            info.splits.add(datasets.SplitInfo(split, num_bytes=1, num_examples=1_281_167))
        card = {
            "license": "other",
            "dataset_info": info._to_yaml_dict(),
            "configs": [{"config_name": "default", "data_files": entries}],
        }
        (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card, sort_keys=False)}---\n")
        self.publish(repo, folder, gated=gated)

    def stop(self) -> None:
        self.hosts.stop()
        self.hub.stop()


def stylegan_changes(recipe: str) -> list[str]:
    """The file of a StyleGAN-XL, which its recipe leaves open, and the size of the small network that stands for it."""
    data, _, generator = recipe.partition("-")
    if generator != "stylegan-xl":
        return []
    file = {"cifar10": "cifar10.pkl", "imagenet": "imagenet256.pkl", "imagenet64": "imagenet64.pkl"}[data]
    return [f"generator.checkpoint={STYLEGAN}/{file}", "generator.image_size=32"]


def autoencoder(latent_channels: int) -> object:
    """The autoencoder of Stable Diffusion and FLUX."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=latent_channels,
        use_quant_conv=latent_channels == 4,
        use_post_quant_conv=latent_channels == 4,
    )


def clip_tokenizer(folder: Path) -> None:
    """CLIP's own vocabulary, as open_clip ships it, in the files of the Hub."""
    import gzip

    import open_clip
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    source = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    merges = gzip.decompress(source.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair.split()) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)


def word_tokenizer(folder: Path, size: int) -> None:
    """A tokenizer of words with as many entries as a model's table of texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *(f"w{number}" for number in range(size - 3))]
    from timm.data import ImageNetInfo

    text = " ".join(ImageNetInfo("imagenet-1k").label_descriptions()).lower()
    known = sorted({*re.sub(r"[^\w\s]", "", text).split(), *re.findall(r"\w+", text)})
    known += ["this", "is", "an", "image", "of", "a", "photo", "construction"]
    for number, word in enumerate(dict.fromkeys(known)):
        words[3 + number] = word
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=64
    ).save_pretrained(folder)


def photos(count: int, width: int, height: int) -> list[np.ndarray]:
    """Smooth pictures of random colours, uint8 [height, width, 3]."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, 6, 8, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)) for image in coarse]


def png(pixels: np.ndarray) -> dict:
    return {"bytes": encoded(pixels), "path": None}


def rehearse(internet: Internet, recipe: str, place: Path) -> tuple[str, CompletedProcess]:
    """Runs a recipe on two images and two steps with empty caches; returns its plan, and how it ended."""
    internet.serve(recipe)
    options = ["--limit", "2", "perturb.budget=2", *stylegan_changes(recipe), "--output", "out"]
    environment = {**os.environ, **internet.environment(place), "COLUMNS": "120"}
    place.mkdir(parents=True, exist_ok=True)

    def run(*more: str) -> CompletedProcess:
        command = [sys.executable, "-m", "fmrgen", "generate", recipe, *options, *more]
        return subprocess.run(command, cwd=place, env=environment, stdout=PIPE, stderr=STDOUT, text=True)

    return run("--dry-run").stdout, run()
