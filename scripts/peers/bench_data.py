"""The Python side of scripts/bench_data: the same work with the packages of public speech recipes.

Usage: bench_data.py CHAIN FILE...   prints one JSON object with the duration of the audio and of the work in seconds.

Chains: decode; mel (decode, resample to 24 kHz, CosyVoice 2 mel); fbank (decode, resample to 16 kHz, Kaldi fbank);
pack (audio bytes and columns into one Parquet file with pandas).
"""

import json
import os
import sys
import tempfile
import time

THREADS = int(os.environ.get("BENCH_THREADS", "1"))
os.environ["OMP_NUM_THREADS"] = str(THREADS)

import librosa
import pandas
import soundfile
import torch
import torchaudio
import torchaudio.compliance.kaldi

torch.set_num_threads(THREADS)

RESAMPLERS = {}
WINDOW = torch.hann_window(1920)
FILTERS = torch.from_numpy(librosa.filters.mel(sr=24000, n_fft=1920, n_mels=80, fmin=0, fmax=8000))


def decode(path):
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T).mean(dim=0, keepdim=True), rate


def resample(samples, rate, wanted):
    if rate == wanted:
        return samples
    key = (rate, wanted)
    if key not in RESAMPLERS:
        RESAMPLERS[key] = torchaudio.transforms.Resample(rate, wanted)
    return RESAMPLERS[key](samples)


def mel(samples):
    padded = torch.nn.functional.pad(samples.unsqueeze(1), (720, 720), mode="reflect").squeeze(1)
    spectrum = torch.stft(padded, 1920, 480, 1920, WINDOW, center=False, return_complex=True)
    magnitude = torch.sqrt(torch.view_as_real(spectrum).pow(2).sum(-1) + 1e-9)
    return torch.log(torch.clamp(FILTERS @ magnitude, min=1e-5))


def chain_decode(path):
    samples, rate = decode(path)
    return samples.shape[1] / rate


def chain_mel(path):
    samples, rate = decode(path)
    mel(resample(samples, rate, 24000))
    return samples.shape[1] / rate


def chain_fbank(path):
    samples, rate = decode(path)
    torchaudio.compliance.kaldi.fbank(resample(samples, rate, 16000), num_mel_bins=80, dither=0, sample_frequency=16000)
    return samples.shape[1] / rate


def pack(paths, folder):
    rows = {"utt": [], "audio_data": [], "wav": [], "text": [], "spk": [], "utt_embedding": [], "spk_embedding": [],
            "speech_token": []}
    seconds = 0.0
    for path in paths:
        info = soundfile.info(path)
        seconds += info.frames / info.samplerate
        with open(path, "rb") as file:
            rows["audio_data"].append(file.read())
        rows["utt"].append(os.path.basename(path))
        rows["wav"].append(path)
        rows["text"].append("")
        rows["spk"].append("")
        rows["utt_embedding"].append([0.1] * 192)
        rows["spk_embedding"].append([0.1] * 192)
        rows["speech_token"].append(list(range(int(25 * info.frames / info.samplerate))))
    pandas.DataFrame(rows).to_parquet(os.path.join(folder, "shard.parquet"))
    return seconds


def main():
    chain, paths = sys.argv[1], sys.argv[2:]
    if chain == "pack":
        with tempfile.TemporaryDirectory() as folder:
            pack(paths[:2], folder)
            start = time.perf_counter()
            seconds = pack(paths, folder)
            taken = time.perf_counter() - start
    else:
        run = {"decode": chain_decode, "mel": chain_mel, "fbank": chain_fbank}[chain]
        for path in paths[:2]:
            run(path)
        start = time.perf_counter()
        seconds = sum(run(path) for path in paths)
        taken = time.perf_counter() - start
    print(json.dumps({"audio_seconds": seconds, "seconds": taken}))


if __name__ == "__main__":
    main()
