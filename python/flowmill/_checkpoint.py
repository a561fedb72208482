"""Reads weights in safetensors files."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_BFLOAT16 = "BF16"
_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", _BFLOAT16: "<u2", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1",
}  # fmt: skip


def checkpoint(path: str | os.PathLike[str], file: str = "model.safetensors") -> dict[str, npt.NDArray[Any]]:
    """Returns the tensors of a ``.safetensors`` file by name, or of such a ``file`` in a folder.

    Folders are checkpoints (``model.safetensors``, ``optimizer.safetensors``, ``ema.safetensors``) and exported models. Tensors have
    their own types; numpy has no bfloat16, so these become float32 of the same values.

    :raises ValueError: if the file is damaged, or has a type that numpy does not have.
    """
    path = Path(path)
    if path.is_dir():
        path = path / file
    content = np.fromfile(path, dtype=np.uint8)
    begin = 8 + (int.from_bytes(content[:8].tobytes(), "little") if content.size >= 8 else content.size)
    if begin > content.size:
        raise ValueError(f"{path}: not a safetensors file, or truncated")
    try:
        header = json.loads(content[8:begin].tobytes())
        header.pop("__metadata__", None)
        return {name: _tensor(content[begin:], name, **about) for name, about in header.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _tensor(content: npt.NDArray[np.uint8], name: str, dtype: str, shape: list[int], data_offsets: list[int]) -> npt.NDArray[Any]:
    if dtype not in _TYPES:
        raise ValueError(f"{name} has the type {dtype}, which numpy does not have")
    begin, end = data_offsets
    element = np.dtype(_TYPES[dtype])
    if not 0 <= begin <= end <= content.size or end - begin != element.itemsize * math.prod(shape):
        raise ValueError(f"{name} does not lie within the file; it is truncated or damaged")
    # Tensors may begin at any byte.
    tensor = np.frombuffer(content[begin:end].tobytes(), element).reshape(shape)
    if dtype == _BFLOAT16:
        # The upper half of the same number in float32.
        return (tensor.astype(np.uint32) << 16).view(np.float32)
    return tensor.copy()
