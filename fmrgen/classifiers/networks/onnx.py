"""A session of onnxruntime as a torch module."""

import hashlib
import mmap
import re
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from fmrgen.errors import UserError
from fmrgen.files import sha256_of

# Precedes the name of the file that holds the bytes of a tensor: an entry of a map, key `location`, before its value.
_LOCATION = re.compile(rb"\n\x08location\x12")
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_BATCH_OPERATOR = b"DynamicQuantizeLinear"  # its scale depends on all images of a batch


class OnnxNetwork(nn.Module):
    """`forward` takes [B, 3, H, W] and returns logits [B, K], float32; `size` is the height of its input, if fixed.

    Its only buffer, the sha256 of the file and of its external data, identifies the network.
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
            listed = ", ".join(f"{tensor.name} {tensor.type} {tensor.shape}" for tensor in inputs)
            raise UserError(f"classifier.model: takes {listed}; it must take floats [B, 3, H, W] or [B, H, W, 3] alone")
        self._input = inputs[0].name
        self._type = _TYPES[inputs[0].type]
        shape = inputs[0].shape
        self._channels_last = shape[3] == 3 and shape[1] != 3
        self._batch = _fixed_size(shape[0])
        self._together = 1 if _contains(path, _BATCH_OPERATOR) else self._batch
        self.size = _fixed_size(shape[1] if self._channels_last else shape[2])
        self.register_buffer("digest", torch.frombuffer(bytearray.fromhex(_digest(path)), dtype=torch.uint8))

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.detach().cpu().numpy().astype(self._type)
        if self._channels_last:
            pixels = pixels.transpose(0, 2, 3, 1)
        step = self._together or len(pixels)
        logits = [self._run(pixels[start : start + step]) for start in range(0, len(pixels), step)]
        return torch.from_numpy(np.concatenate(logits)).to(images.device)

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        """Return the logits [B, K] of a batch. It is filled up with zeros if the file takes only larger ones."""
        count = len(pixels)
        if self._batch is not None and count != self._batch:
            padding = np.zeros((self._batch - count, *pixels.shape[1:]), pixels.dtype)
            pixels = np.concatenate([pixels, padding])
        logits: np.ndarray = self._session.run(None, {self._input: np.ascontiguousarray(pixels)})[0]
        return logits[:count].astype(np.float32)


def _fixed_size(dimension: object) -> int | None:
    """Return the size of a dimension; None if the file takes any."""
    if isinstance(dimension, int) and dimension > 0:
        return dimension
    return None


def _contains(path: Path, word: bytes) -> bool:
    """Return whether a file contains a word: an ONNX file contains the names of its operators."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(word) >= 0


def _digest(path: Path) -> str:
    """Return the sha256 of a model: of its file, or over the digests of that and of its external data."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        names = {_text_at(content, match.end()) for match in _LOCATION.finditer(content)}
    others = [path.parent / name for name in sorted(names)]
    digests = [sha256_of(file) for file in (path, *others) if file.is_file()]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _text_at(content: mmap.mmap, start: int) -> str:
    """Return the text of a protobuf field: its length as a varint, seven bits to a byte, and so many bytes."""
    length = shift = 0
    while content[start] >= 128:  # the highest bit says that another byte follows
        length |= (content[start] & 127) << shift
        shift += 7
        start += 1
    length |= content[start] << shift
    return content[start + 1 : start + 1 + length].decode(errors="replace")
