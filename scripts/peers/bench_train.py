"""The parts of scripts/bench_train, one full training step (forward, backward, clip by norm, AdamW) in float32:

    bench_train.py check GOLDEN…                                  whether the PyTorch modules compute loss and gradients of golden files
    bench_train.py data FOLDER FAMILY RECIPE                      recordings, tokens and a recipe of one batch for Flowmill
    bench_train.py ours FLOWMILL FOLDER FAMILY STEPS THREADS      steps of `flowmill train --overfit`, as a line of JSON
    bench_train.py peer FAMILY STEPS THREADS                      steps of PyTorch eager, as a line of JSON
    bench_train.py table RESULTS                                  medians and ratios of such lines

FAMILY is cosyvoice2 or step-audio.
"""

import json
import os
import pathlib
import random
import resource
import statistics
import struct
import subprocess
import sys
import time
import wave

ITEMS, TOKENS, SPEAKER = 4, 100, 192
FRAMES, RATE, HOP = 2 * TOKENS, 24000, 480
LEARNING_RATE, CLIP = 1e-4, 5.0
OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 2e-5, 2e-4


def read_safetensors(path):
    import torch

    content = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    config = json.loads(header.pop("__metadata__")["config"])
    kinds = {"F32": torch.float32, "I64": torch.int64, "I32": torch.int32}
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        data = bytearray(content[start:end])
        tensors[name] = torch.frombuffer(data, dtype=kinds[entry["dtype"]]).reshape(entry["shape"])
    return config, tensors


def check(paths):
    """Every parameter by name, the loss, every gradient."""
    import torch

    from flow_torch import Flow

    passed = True
    for path in paths:
        config, tensors = read_safetensors(path)
        under = lambda prefix: {name[len(prefix) :]: x for name, x in tensors.items() if name.startswith(prefix)}
        flow = Flow(config)
        flow.load_state_dict(under("param."), strict=True)
        loss = flow.loss(under("in."))
        loss.backward()
        error = lambda found, expected, scale: float((found - expected).abs().max() / (scale.abs().max() + 1e-6))
        loss_error = error(loss.detach().reshape(1), tensors["out.loss"].reshape(1), tensors["out.loss"])
        found, expected = {name: weight.grad for name, weight in flow.named_parameters()}, under("grad.")
        # As in `flowmill parity`: a key's bias moves all scores of a query alike, so that its gradient is zero but for rounding, and is
        # measured against that of the weight beside it.
        vanishes = lambda name: name.endswith(("linear_k.bias", "to_k.bias", "k_norm.bias"))
        scale = lambda name: expected[name.replace("bias", "weight") if vanishes(name) else name]
        errors = {name: error(found[name], expected[name], scale(name)) for name in expected}
        worst = max(errors, key=errors.get)
        good = loss_error <= OUTPUT_TOLERANCE and errors[worst] <= GRADIENT_TOLERANCE and len(errors) > 0
        passed &= good
        gradients = f"{len(errors)} gradients {errors[worst]:.1e} ({worst})"
        print(f"{'ok  ' if good else 'FAIL'} {pathlib.Path(path).name}: loss {loss_error:.1e}, {gradients}")
    sys.exit(not passed)


def data(folder, family, recipe):
    """Noise of exactly so many frames, random tokens and speakers, as files that Flowmill imports."""
    import torch

    folder, draw = pathlib.Path(folder), random.Random(7)
    names = [f"{split}{item}" for split in ("train", "dev") for item in range(ITEMS if split == "train" else 1)]
    (folder / "kaldi").mkdir(parents=True, exist_ok=True)
    for name in names:
        with wave.open(str(folder / "kaldi" / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
            samples = [draw.randint(-3000, 3000) for _ in range(FRAMES * HOP)]
            file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    table = lambda file, value: (folder / "kaldi" / file).write_text("".join(f"{name} {value(name)}\n" for name in sorted(names)))
    table("wav.scp", lambda name: f"{name}.wav")
    table("text", lambda name: "NOISE")
    table("utt2spk", lambda name: "someone")
    for split in ("train", "dev"):
        (folder / f"{split}.list").write_text("".join(f"{name}\n" for name in names if name.startswith(split)))
    numbers = lambda count, entries: [draw.randrange(entries) for _ in range(count)]
    embeddings = {name: [draw.gauss(0, 1) for _ in range(SPEAKER)] for name in names}
    torch.save(embeddings, folder / "utt2embedding.pt")
    if family == "cosyvoice2":
        tokens, source = {name: numbers(TOKENS, 6561) for name in names}, "vocabulary: 6561"
    else:
        # Whole groups of two ids of 60 ms and three of 40 ms; Flowmill leaves out the two frames beyond the end of the recording.
        tokens = {name: {"vq02": numbers(TOKENS // 3 * 2 + 2, 1024), "vq06": numbers(TOKENS + 2, 4096)} for name in names}
        source = "dual: {linguistic: 1024, semantic: 4096}"
    torch.save(tokens, folder / "utt2speech_token.pt")
    (folder / "recipe.yaml").write_text(
        f"""base: {pathlib.Path(recipe).resolve()}
name: bench-train
prep:
  data: {folder.resolve()}/kaldi
  split: {{by: list, lists: {{train: {folder.resolve()}/train.list, dev: {folder.resolve()}/dev.list}}}}
embed: {{extractor: {{kind: import, embeddings: {folder.resolve()}/utt2embedding.pt, dimensions: {SPEAKER}}}}}
tokens: {{extractor: {{kind: import, tokens: {folder.resolve()}/utt2speech_token.pt, {source}}}}}
train:
  model:
    encoder: {{dropout_rate: 0, positional_dropout_rate: 0, attention_dropout_rate: 0}}
    matching: {{streaming_rate: 0}}
  optim: {{lr: {LEARNING_RATE}}}
  grad_clip: {CLIP}
"""
    )


def ours(flowmill, folder, steps, threads):
    """Time between the lines of two steps; the first step is the warm-up. Asked for two batches, Flowmill tells that one holds all."""
    command = [flowmill, "train", folder, "--overfit", "2", "--steps", str(steps + 1), "--jobs", str(threads)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines, times = [], []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("step "):
            times.append(time.perf_counter())
    _, _, usage = os.wait4(process.pid, 0)
    if len(times) != steps + 1 or not any("1 batch," in line for line in lines):
        sys.exit(f"{' '.join(command)} did not do {steps + 1} steps on one batch:\n{''.join(lines)}")
    return {"step": [after - before for before, after in zip(times, times[1:])], "megabytes": usage.ru_maxrss / 1024}


def peer(family, steps, threads):
    """PyTorch as it comes: eager, the default implementation of AdamW. The first step is the warm-up."""
    import torch

    from flow_torch import PUBLISHED, Flow

    torch.set_num_threads(threads)
    torch.manual_seed(7)
    config = PUBLISHED[family]
    flow, bins = Flow(config), config["output_size"]
    batch = {
        "speech_token": torch.randint(config["vocab_size"], (ITEMS, TOKENS) + ((2,) if family == "step-audio" else ())),
        "speech_token_len": torch.full((ITEMS,), TOKENS),
        "speech_feat": torch.randn(ITEMS, FRAMES, bins),
        "embedding": torch.randn(ITEMS, config["spk_embed_dim"]),
        "z": torch.randn(ITEMS, bins, FRAMES),
        "t": torch.rand(ITEMS),
        "cfg_keep": torch.ones(ITEMS),
        "cond_len": torch.zeros(ITEMS, dtype=torch.int64),
    }
    optimiser = torch.optim.AdamW(flow.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    result = {part: [] for part in ("step", "forward", "backward", "optimiser")}
    for step in range(steps + 1):
        times = [time.perf_counter()]
        optimiser.zero_grad(set_to_none=True)
        loss = flow.loss(batch)
        times.append(time.perf_counter())
        loss.backward()
        times.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
        optimiser.step()
        loss.item()
        times.append(time.perf_counter())
        if step > 0:
            result["step"].append(times[3] - times[0])
            for part, before, after in zip(("forward", "backward", "optimiser"), times, times[1:]):
                result[part].append(after - before)
    result["parameters"] = sum(weight.numel() for weight in flow.parameters())
    return result | {"megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def table(path):
    results = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    sides = "Flowmill, s per step | PyTorch, s per step (forward, backward, optimiser) | time | Flowmill, MB | PyTorch, MB | memory"
    print(f"| flow | parameters | {sides} |\n|---|---|---|---|---|---|---|---|")
    for family in dict.fromkeys(result["family"] for result in results):
        runs = {side: [r for r in results if (r["family"], r["side"]) == (family, side)] for side in ("ours", "peer")}
        median = lambda side, part: statistics.median(x for run in runs[side] for x in run[part])
        peak = lambda side: statistics.median(run["megabytes"] for run in runs[side])
        ours, peer = median("ours", "step"), median("peer", "step")
        parts = ", ".join(f"{median('peer', part):.2f}" for part in ("forward", "backward", "optimiser"))
        size = f"{runs['peer'][0]['parameters'] / 1e6:.1f} M"
        memory = f"{peak('ours'):,.0f} | {peak('peer'):,.0f} | {peak('ours') / peak('peer'):.2f}x"
        print(f"| {family} | {size} | {ours:.2f} | {peer:.2f} ({parts}) | {ours / peer:.2f}x | {memory} |")


def main():
    command, *arguments = sys.argv[1:]
    if command == "check":
        check(arguments)
    elif command == "data":
        data(*arguments)
    elif command == "ours":
        flowmill, folder, family, steps, threads = arguments
        print(json.dumps({"family": family, "side": "ours"} | ours(flowmill, folder, int(steps), int(threads))))
    elif command == "peer":
        family, steps, threads = arguments
        print(json.dumps({"family": family, "side": "peer"} | peer(family, int(steps), int(threads))))
    elif command == "table":
        table(*arguments)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
