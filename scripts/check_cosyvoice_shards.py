"""Trains CosyVoice's own flows on shards of every extractor; run through scripts/check_cosyvoice_shards."""

import io
import json
import logging
import pathlib
import random
import subprocess
import sys
import tempfile
import warnings

import matcha.utils.audio
import pandas as pd
import soundfile
import torch
import torchaudio
from cosyvoice.dataset.dataset import Dataset
from hyperpyyaml import load_hyperpyyaml

flowmill, cosyvoice = sys.argv[1:]

STEPS = 4
DEMO = "recipes/demo"
RANDOM = "weights: random"
# What is set of tokens.extractor, and the versions of CosyVoice's flow that take tokens of that rate.
EXTRACTORS = {
    "kmeans": ("{kind: kmeans, k: 512, normalise: utterance}", (1, 2, 3)),
    "s3-tokenizer v1": ("{kind: s3-tokenizer, version: v1, %s}" % RANDOM, (1, 2, 3)),
    "s3-tokenizer v2": ("{kind: s3-tokenizer, version: v2, %s}" % RANDOM, (1, 2, 3)),
    "s3-tokenizer v3": ("{kind: s3-tokenizer, version: v3, %s}" % RANDOM, (1, 2, 3)),
    "import": (None, (1, 2, 3)),
    "paraformer-units": ("{kind: paraformer-units, %s}" % RANDOM, (1,)),
    "dual-kmeans": ("{kind: dual-kmeans}", (1,)),
    "step-audio-dual": ("{kind: step-audio-dual, linguistic: {%s}, semantic: {%s}}" % (RANDOM, RANDOM), (1,)),
}
SMALL = {
    1: {"encoder": {"num_blocks": 1}, "decoder": {"estimator": {"n_blocks": 1, "num_mid_blocks": 1}}},
    2: {"encoder": {"num_blocks": 1}, "decoder": {"estimator": {"n_blocks": 1, "num_mid_blocks": 1}}},
    3: {"decoder": {"estimator": {"depth": 2}}},
}


def decoded(file):
    """torchaudio.load without the decoders that torchaudio may lack here."""
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T.copy()), rate


torchaudio.load = decoded


def packed(folder, extractor):
    """Shards of the demo's recordings with tokens of an extractor."""
    command = [flowmill, "run", DEMO, "--stop-stage", "3", "--exp", str(folder), "--quiet"]
    subprocess.run(command + ["--set", f"tokens.extractor={extractor}"], check=True, stdout=subprocess.DEVNULL)
    shards = sorted((folder / "3-pack").glob("*/shard-*.parquet"))
    assert shards, folder
    return shards


def imported(folder, shards):
    """The recipe of an import: tokens as tools/extract_speech_token.py leaves them, of audio at 16 kHz that is not padded."""
    tokens = {}
    for shard in shards:
        for row in pd.read_parquet(shard).itertuples():
            samples = len(soundfile.read(io.BytesIO(row.audio_data))[0]) * 16000 // row.sample_rate
            frames = samples // 160
            tokens[row.utt] = list(row.speech_token)[: (frames + 3) // 4]
    torch.save(tokens, folder / "utt2speech_token.pt")
    return "{kind: import, tokens: %s, vocabulary: 6561, rate: 25}" % (folder / "utt2speech_token.pt")


def configuration(version, vocabulary):
    """CosyVoice's configuration of a version: its data pipeline and its flow, small."""
    name = "cosyvoice" + ("" if version == 1 else str(version))
    path = pathlib.Path(cosyvoice, "examples/libritts", name, "conf", f"{name}.yaml")
    # Texts are not what this is about: whisper's tokenizer comes with its package.
    text = path.read_text().replace("cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer", "whisper.tokenizer.get_tokenizer")
    text = text.replace("cosyvoice.tokenizer.tokenizer.get_cosyvoice3_tokenizer", "whisper.tokenizer.get_tokenizer")
    lines = text.splitlines(keepends=True)
    if version > 1:
        at = next(i for i, line in enumerate(lines) if line.startswith("get_tokenizer:"))
        end = next(i for i in range(at + 1, len(lines)) if not lines[i].startswith(" "))
        lines[at + 1 : end] = ["    multilingual: True\n"]
    overrides = {name: None for name in ("llm", "hift", "hifigan")}
    return load_hyperpyyaml(io.StringIO("".join(lines)), overrides={**overrides, "flow": {"vocab_size": vocabulary, **SMALL[version]}})


def batches(config, shards, folder):
    # Matcha keeps windows under a name that says nothing of their length: versions 1 and 2 differ.
    matcha.utils.audio.mel_basis.clear()
    matcha.utils.audio.hann_window.clear()
    listed = folder / "data.list"
    listed.write_text("".join(f"{shard}\n" for shard in shards))
    return list(Dataset(str(listed), data_pipeline=config["data_pipeline"], mode="train", shuffle=False, partition=False))


def expected(version, shards):
    """The rows that CosyVoice's filter does not leave out for their length."""
    least = {1: 0.0, 2: 1.0, 3: 1.0}[version]
    frames = [pd.read_parquet(shard, columns=["utt", "duration"]) for shard in shards]
    return {row.utt for frame in frames for row in frame.itertuples() if row.duration >= least}


def check(kind, version, shards, vocabulary, folder):
    random.seed(1)
    torch.manual_seed(1)
    config = configuration(version, vocabulary)
    data = batches(config, shards, folder)
    arrived = [utt for batch in data for utt in batch["utts"]]
    wanted = expected(version, shards)
    assert sorted(arrived) == sorted(wanted), f"{len(arrived)} of {len(wanted)} rows arrived"
    if version > 1:
        for batch in data:
            for utt, tokens, frames in zip(batch["utts"], batch["speech_token_len"], batch["speech_feat_len"]):
                assert int(frames) == 2 * int(tokens), f"{utt}: {int(frames)} frames, {int(tokens)} tokens"
    model = config["flow"].train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    losses = []
    for batch in sorted(data, key=lambda batch: batch["speech_feat"].numel())[:STEPS]:
        loss = model(batch, torch.device("cpu"))["loss"]
        assert torch.isfinite(loss), float(loss)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
        assert torch.isfinite(norm), float(norm)
        optimizer.step()
        losses.append(float(loss.detach()))
    said = ", ".join(f"{loss:.3f}" for loss in losses)
    print(f"{kind:17} CosyVoice {version}: {len(arrived)} of {len(wanted)} rows, {len(data)} batches, losses {said}", flush=True)


def main():
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        made = {}
        for kind, (extractor, versions) in EXTRACTORS.items():
            home = folder / kind.replace(" ", "-")
            home.mkdir()
            made[kind] = packed(home, extractor or imported(home, made["kmeans"]))
            facts = json.loads((home / "2-tokens/usage.json").read_text())
            for version in versions:
                check(kind, version, made[kind], facts["vocabulary"], home)
    print("all shards train in CosyVoice's code")


main()
