"""Checks the shards of an experiment with pandas and pyarrow; run through scripts/check_parquet."""

import io
import json
import pathlib
import sys

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet as pq
import soundfile

COSYVOICE = ["utt", "wav", "audio_data", "text", "spk", "utt_embedding", "spk_embedding", "speech_token"]


def rows_of(shard):
    """Rows as dictionaries: record batches of 64, each turned into a pandas frame."""
    for batch in pq.ParquetFile(shard).iter_batches(batch_size=64):
        frame = batch.to_pandas()
        for at in range(len(frame)):
            yield dict(frame.loc[at])


def check_row(row):
    missing = [name for name in COSYVOICE if name not in row]
    assert not missing, f"columns missing: {missing}"
    assert isinstance(row["audio_data"], bytes) and row["audio_data"]
    audio, rate = soundfile.read(io.BytesIO(row["audio_data"]), dtype="float32")
    assert rate == row["sample_rate"], (rate, row["sample_rate"])
    assert abs(len(audio) / rate - row["duration"]) < 1e-6, row["utt"]
    assert row["utt_embedding"].dtype == np.float32 and row["spk_embedding"].dtype == np.float32
    assert row["speech_token"].dtype == np.int64 and len(row["speech_token"]) > 0
    if "mel" in row:
        mel = np.asarray(row["mel"], dtype=np.float32).reshape(row["mel_frames"], row["mel_bins"])
        assert np.isfinite(mel).all()
        assert abs(mel.shape[0] / 2 - len(row["speech_token"])) <= 3, (row["utt"], mel.shape, len(row["speech_token"]))


def check_split(split):
    index = json.loads((split / "index.json").read_text())
    listed = (split / "data.list").read_text().split("\n")[:-1]
    assert [pathlib.Path(name).name for name in listed] == [shard["file"] for shard in index["shards"]]
    found = []
    for shard in index["shards"]:
        for row in rows_of(split / shard["file"]):
            check_row(row)
            found.append(row["utt"])
        frame = pd.read_parquet(split / shard["file"])
        assert len(frame) == shard["rows"]
    assert found == [utt for shard in index["shards"] for utt in shard["utterances"]]
    for kind, key in [("utt", "utt"), ("spk", "spk")]:
        seen = {}
        for name in (split / f"{kind}2data.list").read_text().split("\n")[:-1]:
            seen.update(json.loads((split / pathlib.Path(name).name).read_text()))
        assert seen.keys() == {row[key] for shard in index["shards"] for row in rows_of(split / shard["file"])}
    print(f"{split.name}: {len(found)} rows in {len(listed)} shards read")


def main():
    packed = pathlib.Path(sys.argv[1]) / "3-pack"
    splits = sorted(path.parent for path in packed.glob("*/index.json"))
    if not splits:
        sys.exit(f"{packed}: no packed split; run the recipe's stages 0 to 3 first")
    for split in splits:
        check_split(split)
    schema = pq.ParquetFile(splits[-1] / "shard-00000.parquet").schema_arrow
    print(f"pyarrow {pyarrow.__version__}, pandas {pd.__version__}: " + ", ".join(f"{f.name} {f.type}" for f in schema))


if __name__ == "__main__":
    main()
