"""Random data for measuring one training step: files that Flowmill imports, and batches for PyTorch."""

import pathlib
import random
import struct
import wave

SPEAKER, RATE, HOP = 192, 24000, 480


def write(folder, family, recipe, name, lengths, settings):
    """Writes the corpus and `recipe.yaml`. `lengths` has the number of tokens by id, which begins with the split (`train` or `dev`);
    a token stands for two frames. FAMILY is cosyvoice2 or step-audio; `recipe` is the base of the new one, `settings` what it adds."""
    import torch

    folder, draw = pathlib.Path(folder), random.Random(7)
    (folder / "kaldi").mkdir(parents=True, exist_ok=True)
    for id, length in lengths.items():
        with wave.open(str(folder / "kaldi" / f"{id}.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
            samples = [draw.randint(-3000, 3000) for _ in range(2 * length * HOP)]
            file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    table = lambda file, value: (folder / "kaldi" / file).write_text("".join(f"{id} {value(id)}\n" for id in sorted(lengths)))
    table("wav.scp", lambda id: f"{id}.wav")
    table("text", lambda id: "NOISE")
    table("utt2spk", lambda id: "someone")
    for split in ("train", "dev"):
        (folder / f"{split}.list").write_text("".join(f"{id}\n" for id in lengths if id.startswith(split)))
    torch.save({id: [draw.gauss(0, 1) for _ in range(SPEAKER)] for id in lengths}, folder / "utt2embedding.pt")
    numbers = lambda count, entries: [draw.randrange(entries) for _ in range(count)]
    if family == "cosyvoice2":
        tokens, source = {id: numbers(length, 6561) for id, length in lengths.items()}, "vocabulary: 6561"
    else:
        # Whole groups of two ids of 60 ms and three of 40 ms; Flowmill leaves out what is beyond the end of the recording.
        groups = lambda length: {"vq02": numbers(length // 3 * 2 + 2, 1024), "vq06": numbers(length + 2, 4096)}
        tokens, source = {id: groups(length) for id, length in lengths.items()}, "dual: {linguistic: 1024, semantic: 4096}"
    torch.save(tokens, folder / "utt2speech_token.pt")
    place = folder.resolve()
    (folder / "recipe.yaml").write_text(
        f"""base: {pathlib.Path(recipe).resolve()}
name: {name}
prep:
  data: {place}/kaldi
  min_duration: 0.1
  split: {{by: list, lists: {{train: {place}/train.list, dev: {place}/dev.list}}}}
embed: {{extractor: {{kind: import, embeddings: {place}/utt2embedding.pt, dimensions: {SPEAKER}}}}}
tokens: {{extractor: {{kind: import, tokens: {place}/utt2speech_token.pt, {source}}}}}
{settings}"""
    )


def batch(config, family, lengths):
    """A batch of items with these numbers of tokens, as tensors that flow_torch reads."""
    import torch

    items, longest, bins = len(lengths), max(lengths), config["output_size"]
    return {
        "speech_token": torch.randint(config["vocab_size"], (items, longest) + ((2,) if family == "step-audio" else ())),
        "speech_token_len": torch.tensor(lengths),
        "speech_feat": torch.randn(items, 2 * longest, bins),
        "embedding": torch.randn(items, config["spk_embed_dim"]),
        "z": torch.randn(items, bins, 2 * longest),
        "t": torch.rand(items),
        "cfg_keep": torch.ones(items),
        "cond_len": torch.zeros(items, dtype=torch.int64),
    }
