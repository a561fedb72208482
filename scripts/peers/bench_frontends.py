"""Runs onnxruntime on the features that `front_ends` wrote, and prints the table of `scripts/bench_frontends`.

    python bench_frontends.py KIND FOLDER THREADS     prints the seconds of one pass and the largest relative difference to ours
    python bench_frontends.py table RESULTS SECONDS   prints medians and ratios
"""

import statistics
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import onnxruntime

BINS = {"campplus": 80}


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def timed(embed, items, workers):
    for item in items[:4]:
        embed(item)
    start = time.perf_counter()
    if workers == 1:
        results = [embed(item) for item in items]
    else:
        with ThreadPoolExecutor(workers) as pool:
            results = list(pool.map(embed, items))
    return time.perf_counter() - start, results


def run(kind, folder, threads):
    files = sorted(file for file in (folder / "features").glob("*.f32") if file.stem.isdigit())
    items = [numpy.fromfile(file, dtype="float32").reshape(1, -1, BINS[kind]) for file in files]
    order = sorted(range(len(items)), key=lambda index: -items[index].shape[1])
    longest_first = [items[index] for index in order]
    best = None
    # Both ways to use the threads: inside of a recording, and one recording per thread. The faster one counts.
    for inside, workers in {(threads, 1), (1, threads)}:
        model = session(folder / "model.onnx", inside)
        name = model.get_inputs()[0].name
        result = timed(lambda item: model.run(None, {name: item})[0], longest_first, workers)
        if best is None or result[0] < best[0]:
            best = result
    embeddings = [None] * len(items)
    for index, embedding in zip(order, best[1]):
        embeddings[index] = embedding.ravel()
    ours = numpy.fromfile(folder / "features" / "ours.f32", dtype="float32").reshape(len(items), -1)
    difference = max(abs(a - b).max() / abs(b).max() for a, b in zip(ours, embeddings))
    print(f"{best[0]:.4f} {difference:.1e}")


def table(results, seconds):
    times, differences = defaultdict(list), defaultdict(list)
    for line in Path(results).read_text().splitlines():
        kind, threads, side, *values = line.split()
        times[kind, threads, side].append(float(values[0]))
        if side == "peer":
            differences[kind, threads].append(float(values[1]))
    print("| front-end | threads | ours, x real time | onnxruntime, x real time | ratio | largest relative difference |")
    print("|---|---|---|---|---|---|")
    for (kind, threads), difference in differences.items():
        ours, peer = (statistics.median(times[kind, threads, side]) for side in ("ours", "peer"))
        print(f"| {kind} | {threads} | {seconds / ours:.1f} | {seconds / peer:.1f} | {peer / ours:.2f} | {max(difference):.0e} |")


if sys.argv[1] == "table":
    table(sys.argv[2], float(sys.argv[3]))
else:
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
