"""Reads packed shards: Parquet or WebDataset tar files."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

#: A row of a shard: columns by name. Arrays are numpy arrays with the shape of their axes, recordings and images are bytes.
Row = dict[str, Any]

_BATCH = 64
#: Fields of the JSON in tar shards that have other names in Parquet.
_RENAMED = {"id": "utt", "speaker": "spk", "language": "lang"}
#: Types of the lists in that JSON.
_LISTS = {"utt_embedding": np.float32, "spk_embedding": np.float32, "speech_token": np.int64}


def shards(path: str | os.PathLike[str]) -> Iterator[Row]:
    """Iterates over the rows of a shard, or of all shards of a split (``3-pack/train``) in the order of its ``index.json``.

    :raises FileNotFoundError: if there is no such file or index.
    :raises ValueError: if the file is neither Parquet nor a tar file.
    """
    path = Path(path)
    if path.is_dir():
        index = json.loads((path / "index.json").read_text(encoding="utf-8"))
        for shard in index["shards"]:
            yield from shards(path / shard["file"])
        return
    with open(path, "rb") as file:
        magic = file.read(512)
    if magic[:4] == b"PAR1":
        yield from _parquet(path)
    elif magic[257:262] == b"ustar":
        yield from _tar(path)
    else:
        raise ValueError(f"{path}: neither a Parquet nor a tar file")


def _parquet(path: Path) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        sizes = _sizes(file.schema_arrow)
        for batch in file.iter_batches(batch_size=_BATCH):
            for at in range(batch.num_rows):
                row = {field.name: _value(column[at]) for field, column in zip(batch.schema, batch.columns)}
                for name, fields in sizes.items():
                    shape = [row.pop(field) for field in fields]
                    if row[name] is not None:
                        row[name] = row[name].reshape(shape)
                yield row


def _sizes(schema: Any) -> dict[str, list[str]]:
    """The fields with the sizes of the axes of every list: ``NAME_AXISs`` after the list ``NAME``."""
    sizes: dict[str, list[str]] = {}
    last = None
    for field in schema:
        if pa.types.is_list(field.type):
            last = field.name
        elif last and pa.types.is_int32(field.type) and field.name.startswith(f"{last}_") and field.name.endswith("s"):
            sizes.setdefault(last, []).append(field.name)
        else:
            last = None
    return sizes


def _value(scalar: Any) -> Any:
    if not scalar.is_valid:
        return None
    if pa.types.is_list(scalar.type):
        item = scalar.type.value_type
        is_number = pa.types.is_integer(item) or pa.types.is_floating(item)
        return scalar.values.to_numpy(zero_copy_only=False) if is_number else scalar.as_py()
    return scalar.as_py()


def _tar(path: Path) -> Iterator[Row]:
    with tarfile.open(path, "r:") as file:
        key, row = None, Row()
        for member in file:
            content = file.extractfile(member)
            if content is None:
                continue
            begin, _, ending = member.name.rpartition("/")[2].partition(".")
            if begin != key and row:
                yield row
                row = Row()
            key = begin
            _add(row, ending, content.read())
        if row:
            yield row


def _add(row: Row, ending: str, content: bytes) -> None:
    """Adds a member of a tar shard to its row, under the name that the column has in Parquet."""
    name, _, kind = ending.rpartition(".")
    if ending == "json":
        for field, value in json.loads(content).items():
            dtype = _LISTS.get(field)
            row[_RENAMED.get(field, field)] = np.array(value, dtype) if dtype and value is not None else value
    elif kind == "npy" and name:
        row[name] = np.load(io.BytesIO(content), allow_pickle=False)
    elif kind == "bin" and name:
        column = name.rpartition(".")[0]
        row.setdefault(column, []).append(content)
    else:
        row["audio_data"] = content
