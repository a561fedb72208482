"""The onnxruntime side of scripts/bench_s3: runs on the log-mels of a folder, one file at a time (the published graphs have batch size 1).

    bench_s3.py MODEL.onnx FOLDER THREADS [check]

Prints the seconds of one pass; with `check`, also the number of tokens equal to those that Flowmill wrote next to the log-mels.
"""

import pathlib
import sys
import time

import numpy as np
import onnxruntime


def main():
    model, folder, threads = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    read = lambda path: np.ascontiguousarray(np.fromfile(path, np.float32).reshape(-1, 128).T[None])
    mels = {path: read(path) for path in sorted(folder.glob("*.mel"))}
    session.run(["indices"], {"feats": next(iter(mels.values()))})  # warm-up
    started = time.perf_counter()
    tokens = {path: session.run(["indices"], {"feats": mel})[0][0] for path, mel in mels.items()}
    print(f"s3 {time.perf_counter() - started:.4f}")
    if "check" in sys.argv:
        ours = {path: np.array(path.with_suffix(".tokens").read_text().split(), int) for path in mels}
        equal = sum(int((ours[path] == found).sum()) for path, found in tokens.items())
        print(f"equal {equal} of {sum(len(found) for found in tokens.values())}")


if __name__ == "__main__":
    main()
