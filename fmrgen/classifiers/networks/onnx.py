"""A session of onnxruntime as a torch module, and the same network with gradients."""

import hashlib
import mmap
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from fmrgen.errors import UserError, one_line
from fmrgen.files import sha256_of

# How a tensor of an ONNX file says where its bytes lie: an entry of a map, key `location`, before its value.
_LOCATION = re.compile(rb"\n\x08location\x12")
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_LATEST_OPSET = 17  # of which onnx2torch knows all that networks are mostly made of
_OF_A_BATCH = b"DynamicQuantizeLinear"  # an operator whose scale is that of all images that come together
_ROUNDING = 1e-3  # of the largest logit
_COMPARED = 256  # images that the file is asked about, too


class OnnxNetwork(nn.Module):
    """`forward` takes [B, 3, H, W] and returns logits [B, K], float32; `size` is the height of its input, if fixed.

    Its one buffer is a sha256 over the file and those beside it that hold its weights, which identifies it.
    """

    digest: Tensor

    def __init__(self, path: Path, device: "torch.device | str") -> None:
        super().__init__()
        providers = ["CPUExecutionProvider"]
        if torch.device(device).type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _TYPES:
            listed = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
            raise UserError(f"classifier.model: takes {listed}; it must take floats [B, 3, H, W] or [B, H, W, 3] alone")
        self._input = inputs[0].name
        self._type = _TYPES[inputs[0].type]
        shape = inputs[0].shape
        self._channels_last = shape[3] == 3 and shape[1] != 3
        self._batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None
        self._together = 1 if _has(path, _OF_A_BATCH) else self._batch
        height = shape[1 if self._channels_last else 2]
        self.size = height if isinstance(height, int) and height > 0 else None
        self.register_buffer("digest", torch.frombuffer(bytearray.fromhex(_digest(path)), dtype=torch.uint8))

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.detach().cpu().numpy().astype(self._type)
        if self._channels_last:
            pixels = pixels.transpose(0, 2, 3, 1)
        step = self._together or len(pixels)
        parts = [self._run(pixels[start : start + step]) for start in range(0, len(pixels), step)]
        return torch.from_numpy(np.concatenate(parts)).to(images.device)

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        """A batch of the size that the file wants, or the last one, filled up to it."""
        missing = 0 if self._batch is None else self._batch - len(pixels)
        filled = np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), pixels.dtype)]) if missing else pixels
        logits: np.ndarray = self._session.run(None, {self._input: np.ascontiguousarray(filled)})[0]
        return logits[: len(pixels)].astype(np.float32)


class DifferentiableOnnxNetwork(OnnxNetwork):
    """The same network rebuilt in torch, so that gradients reach the images.

    Its outputs are compared with the file's, on noise when it is built and on the first images that it is asked about:
    what is equal on noise may be another network on photographs. Raises UserError where onnx2torch does not know one of
    its operators, or where outputs differ.
    """

    derived = ("_to_compare",)

    def __init__(self, path: Path, device: "torch.device | str") -> None:
        super().__init__(path, device)
        try:
            self.network = _converted(path).to(device).eval().requires_grad_(False)
        except Exception as error:  # the libraries fail in as many ways as there are operators
            raise UserError(
                f"classifier.gradients: {path.name} can't be rebuilt in torch ({one_line(error)}); export it with "
                f"opset_version={_LATEST_OPSET}, or give the network itself (kind: module)"
            ) from None
        self._to_compare = 0
        self._compare(device)
        self._to_compare = _COMPARED

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.permute(0, 2, 3, 1) if self._channels_last else images)
        if self._to_compare > 0 and not torch.compiler.is_compiling():
            self._to_compare -= len(images)
            _check_equal(logits.detach().cpu(), super().forward(images))
        return logits

    @torch.no_grad()
    def _compare(self, device: "torch.device | str") -> None:
        side = self.size or 224
        for images in torch.randn((4, 3, side, side), generator=torch.Generator().manual_seed(0)).split([1, 3]):
            expected = super().forward(images)
            try:
                found = self.forward(images.to(device)).cpu()
            except Exception as error:
                raise UserError(
                    f"classifier.gradients: rebuilt in torch it fails on {len(images)} images of {side} px "
                    f"({one_line(error)}); export it for any number of images"
                ) from None
            _check_equal(found, expected)


def _check_equal(rebuilt: Tensor, expected: Tensor) -> None:
    """Raises UserError where the logits of the rebuilt network are not those `expected`."""
    apart = float((rebuilt - expected.cpu()).abs().max() / expected.abs().max().clamp(min=1e-6))
    if not apart <= _ROUNDING:
        raise UserError(
            f"classifier.gradients: rebuilt in torch it says something else than the file does, by {apart:.1%} of the "
            "largest logit; give the network itself (kind: module)"
        )


def _converted(path: Path) -> Any:
    """What onnx2torch makes of a file: simplified first by onnxruntime, whose folded constants are all that it knows,
    and in words of an older standard."""
    import onnx
    from onnx import version_converter
    from onnx2torch import convert

    with TemporaryDirectory(prefix="fmrgen-") as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / path.name)
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath)
    for node in model.graph.node:
        for attribute in [one for one in node.attribute if one.name == "allowzero"]:  # of shapes that have no zero
            node.attribute.remove(attribute)
    if max(used.version for used in model.opset_import if used.domain in ("", "ai.onnx")) > _LATEST_OPSET:
        model = version_converter.convert_version(model, _LATEST_OPSET)
    return convert(model)


def _has(path: Path, word: bytes) -> bool:
    """Whether a file contains a word; of an ONNX file, whether it has an operator."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(word) >= 0


def _digest(path: Path) -> str:
    """The sha256 of a model: of its file alone, or over the digests of that and of its external data."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        names = {_text_at(content, found.end()) for found in _LOCATION.finditer(content)}
    others = [sha256_of(path.parent / name) for name in sorted(names) if (path.parent / name).is_file()]
    return hashlib.sha256("".join([sha256_of(path), *others]).encode()).hexdigest() if others else sha256_of(path)


def _text_at(content: mmap.mmap, start: int) -> str:
    """The text of a protobuf field: its length, seven bits to a byte, and so many bytes."""
    length = shift = 0
    while content[start] >= 128:
        length, shift, start = length | (content[start] & 127) << shift, shift + 7, start + 1
    length |= content[start] << shift
    return content[start + 1 : start + 1 + length].decode(errors="replace")
