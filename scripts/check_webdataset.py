"""Checks the tar shards of an experiment with tarfile and webdataset; run through scripts/check_webdataset."""

import io
import json
import pathlib
import sys
import tarfile

import blake3
import numpy as np
import soundfile
import webdataset

AUDIO = ("wav", "flac", "mp3", "ogg", "opus", "m4a", "aac", "aiff", "caf", "mka")
# Recordings that libsndfile opens.
OPENED = ("wav", "flac", "mp3", "ogg", "opus", "aiff", "caf")


def check_members(shard):
    """Every member a plain file without time or owner; pax and ustar only."""
    with tarfile.open(shard) as tar:
        for member in tar:
            assert member.isfile() and member.mtime == 0 and member.mode == 0o644, member
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", ""), member


def check_sample(sample, mel):
    row = json.loads(sample["json"])
    audio = [extension for extension in AUDIO if extension in sample]
    assert len(audio) == 1, sample.keys()
    if audio[0] in OPENED:
        samples, rate = soundfile.read(io.BytesIO(sample[audio[0]]), dtype="float32")
        assert rate == row["sample_rate"], row["id"]
        assert abs(len(samples) / rate - row["duration"]) < 1e-6, row["id"]
    assert row["speaker"] and row["text"]
    for name in ("utt_embedding", "spk_embedding"):
        assert row[name] and np.isfinite(np.asarray(row[name], dtype=np.float32)).all(), row["id"]
    assert row["speech_token"] and all(isinstance(token, int) for token in row["speech_token"])
    if mel["store"] != "none":
        values = np.load(io.BytesIO(sample["mel.npy"]), allow_pickle=False)
        assert values.dtype == np.dtype(mel["store"]) and values.shape[1] == mel["config"]["n_mels"]
        assert np.isfinite(values.astype(np.float32)).all()
        return row["id"], values.shape[0]
    return row["id"], None


def check_split(split):
    index = json.loads((split / "index.json").read_text())
    shards = [split / shard["file"] for shard in index["shards"]]
    listed = (split / "data.list").read_text().split("\n")[:-1]
    assert [pathlib.Path(name).name for name in listed] == [shard.name for shard in shards]
    for path, shard in zip(shards, index["shards"]):
        assert blake3.blake3(path.read_bytes()).hexdigest() == shard["blake3"], path
        check_members(path)
    dataset = webdataset.WebDataset([str(path) for path in shards], shardshuffle=False, empty_check=False)
    found = [check_sample(sample, index["mel"]) for sample in dataset]
    assert [utt for utt, _ in found] == [utt for shard in index["shards"] for utt in shard["utterances"]]
    if index["mel"]["store"] != "none":
        assert [frames for _, frames in found] == [n for shard in index["shards"] for n in shard["frames"]]
    print(f"{split.name}: {len(found)} samples in {len(shards)} shards read")


def main():
    packed = pathlib.Path(sys.argv[1]) / "3-pack"
    splits = sorted(path.parent for path in packed.glob("*/index.json"))
    if not splits:
        sys.exit(f"{packed}: no packed split; run stages 0 to 3 with pack.format=webdataset first")
    for split in splits:
        check_split(split)
    print(f"webdataset {webdataset.__version__}, numpy {np.__version__}, Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
