"""Compares what the Python package reads with what `flowmill inspect --json` says; run through scripts/check_wheel."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import flowmill
import numpy as np


def inspect(program: str, path: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run([program, "inspect", "--json", str(path), *options], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check_shards(parquet: Path, tar: Path, program: str) -> str:
    rows = list(flowmill.shards(parquet))
    index = json.loads((parquet / "index.json").read_text())
    assert len(rows) == index["rows"] and [row["utt"] for row in rows] == [u for s in index["shards"] for u in s["utterances"]]
    first = inspect(program, parquet / index["shards"][0]["file"], "--rows", "1", "--full")["first_rows"][0]
    for name, value in rows[0].items():
        if isinstance(value, np.ndarray):
            assert list(value.shape) == first[name].get("shape", [first[name]["length"]]), name
            assert np.allclose(value.ravel().astype(np.float64), np.array(first[name]["items"], np.float64), rtol=1e-3), name
        elif isinstance(value, bytes):
            assert len(value) == first[name]["bytes"] and value[:8].hex() == first[name]["begin"], name
        else:
            assert value == first[name], name
    assert rows[0]["mel"].ndim == 2 and rows[0]["mel"].dtype == np.float16 and rows[0]["speech_token"].dtype == np.int64
    tarred = {row["utt"]: row for row in flowmill.shards(tar)}
    assert len(tarred) == len(rows)
    for row in rows:
        other = tarred[row["utt"]]
        for name in ("spk", "text", "audio_data", "duration", "sample_rate"):
            assert row[name] == other[name], (row["utt"], name)
        for name in ("mel", "speech_token", "utt_embedding", "spk_embedding"):
            assert row[name].dtype == other[name].dtype and np.array_equal(row[name], other[name]), (row["utt"], name)
    return f"{len(rows)} rows of Parquet and tar shards are the same"


def check_checkpoint(folder: Path, program: str) -> str:
    count = 0
    for file in ("model.safetensors", "optimizer.safetensors"):
        tensors = flowmill.checkpoint(folder, file)
        expected = inspect(program, folder / file)["tensors"]
        assert len(tensors) == len(expected) > 0
        for about in expected:
            tensor = tensors[about["name"]]
            assert list(tensor.shape) == about["shape"] and tensor.nbytes == about["bytes"] and np.isfinite(tensor).all()
        count += len(tensors)
    return f"{count} tensors of a checkpoint"


def check_types(file: Path, program: str) -> str:
    tensors = flowmill.checkpoint(file)
    types = {about["name"]: about["dtype"] for about in inspect(program, file)["tensors"]}
    halves = [name for name, dtype in types.items() if dtype == "BF16"]
    assert halves and all(tensors[name].dtype == np.float32 for name in halves)
    assert {tensors[name].dtype for name, dtype in types.items() if dtype == "F16"} == {np.dtype(np.float16)}
    # 1, -2.5 and 3.140625 in bfloat16, written by hand.
    header = json.dumps({"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    content = np.array([0x3F80, 0xC020, 0x4049], "<u2").tobytes()
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as made:
        made.write(len(header).to_bytes(8, "little") + header + content)
        made.flush()
        assert flowmill.checkpoint(made.name)["x"].tolist() == [1.0, -2.5, 3.140625]
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as made:
        made.write(len(header).to_bytes(8, "little") + header + content[:4])
        made.flush()
        try:
            flowmill.checkpoint(made.name)
            raise AssertionError("a truncated file was read")
        except ValueError:
            pass
    return f"{len(types)} tensors of {len(set(types.values()))} types, {len(halves)} of them bfloat16"


def check_metrics(folder: Path, program: str) -> str:
    curves = flowmill.metrics(folder)
    numbers = inspect(program, folder / "metrics.jsonl")["numbers"]
    for name, field in [("train/loss", "loss"), ("train/lr", "lr"), ("validation/loss", "validation.loss")]:
        values = curves[name].values
        found = (len(values), values[0], values[-1], values.min(), values.max())
        assert found == tuple(numbers[field][key] for key in ("values", "first", "last", "min", "max")), name
    assert curves["train/loss"].steps[-1] == 20 and curves["train/loss"].steps.dtype == np.int64
    return f"{len(curves)} curves of metrics"


def main() -> None:
    exp, tar, types, program = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    print(check_shards(exp / "3-pack/train", tar / "3-pack/train", program))
    print(check_checkpoint(exp / "4-train/checkpoints/step-000020", program))
    print(check_types(types, program))
    print(check_metrics(exp / "4-train", program))


main()
