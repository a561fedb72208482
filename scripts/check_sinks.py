"""Reads the TensorBoard and Weights & Biases files of a training with their own packages; see check_sinks."""

import glob
import gzip
import http.server
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def single(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def expected_scalars(run):
    """Every number of metrics.jsonl, by tag and step, as a single-precision number."""
    expected = {}
    for line in open(f"{run}/metrics.jsonl"):
        line = json.loads(line)
        if "command" in line or "groups" in line:
            continue
        kind, values = ("validation", line["validation"]) if "validation" in line else ("train", line)
        flat = {k: v for k, v in values.items() if k not in ("step", "epoch", "parts")}
        flat.update(values.get("parts", {}))
        for name, value in flat.items():
            if value is not None:
                expected[f"{kind}/{name}", line["step"]] = single(value)
    return expected


def differ(what, found, expected):
    return f"{what} differ: {sorted(set(found.items()) ^ set(expected.items()))[:5]}"


def check_tensorboard(run, expected):
    everything = {"scalars": 0, "tensors": 0, "images": 0, "audio": 0, "histograms": 0}
    events = EventAccumulator(f"{run}/tensorboard", size_guidance=everything)
    events.Reload()
    tags = events.Tags()
    found = {(tag, event.step): event.value for tag in tags["scalars"] for event in events.Scalars(tag)}
    found = {(tag, step): value for (tag, step), value in found.items() if not tag.startswith("group")}
    assert found == expected, differ("scalars", found, expected)
    counts = [f"{len(found)} scalars"]
    for kind, read in (("histograms", events.Histograms), ("images", events.Images), ("audio", events.Audio)):
        every = [event for tag in tags[kind] for event in read(tag)]
        counts.append(f"{len(every)} {kind}")
        for event in every:
            if kind == "histograms":
                value = event.histogram_value
                assert value.num == sum(value.bucket) and value.min <= value.max, value
                assert sorted(value.bucket_limit) == list(value.bucket_limit)
            elif kind == "images":
                assert event.encoded_image_string.startswith(b"\x89PNG") and event.width > 100 and event.height > 100
            else:
                assert event.encoded_audio_string.startswith(b"RIFF") and event.content_type == "audio/wav"
                assert event.sample_rate >= 8000 and event.length_frames > 0
    return ", ".join(counts)


def check_dated(run, expected):
    """The events next to the stages: speed and memory, with dates."""
    events = EventAccumulator(os.path.join(os.path.dirname(os.path.abspath(run)), "tensorboard"))
    events.Reload()
    names = ["speed/steps_per_second", "speed/samples_per_second", "speed/data_wait", "memory/megabytes", "train/loss"]
    scalars = {name: events.Scalars(name) for name in names}
    last = max(step for _, step in expected)
    for name, points in scalars.items():
        assert points and points[-1].step == last, (name, last)
        assert all(1.7e9 < point.wall_time <= time.time() for point in points), name
        assert [point.step for point in points] == sorted({point.step for point in points}), name
    assert all(point.value > 0 for point in scalars["speed/steps_per_second"] + scalars["memory/megabytes"])
    return f"{len(scalars['train/loss'])} points with dates"


class StandIn(http.server.BaseHTTPRequestHandler):
    """Answers `wandb sync` on this machine as far as it needs, and keeps what it sends."""

    requests = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.requests.append((self.path, json.loads(body or b"{}")))
        answer = json.dumps({"data": {}} if self.path.startswith("/graphql") else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


def sync(folder):
    """Runs `wandb sync` against a stand-in for its server; what was uploaded."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as scratch:
        environment = {
            **os.environ,
            "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
            "WANDB_API_KEY": "0" * 40,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_DIR": scratch,
        }
        wandb = os.path.join(os.path.dirname(sys.executable), "wandb")
        # On a copy, because it leaves a mark.
        copy = os.path.join(scratch, os.path.basename(folder))
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.synced"))
        command = [wandb, "sync", copy]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    server.shutdown()
    assert done.returncode == 0 and "Finished syncing" in done.stderr + done.stdout, done.stderr + done.stdout
    return StandIn.requests


def check_wandb(run, expected):
    folders = glob.glob(f"{run}/wandb/offline-run-*")
    if not folders:
        return "no run was asked for (train.wandb)"
    assert len(folders) == 1, folders
    about, history, complete = None, {}, False
    for path, body in sync(folders[0]):
        if "UpsertBucket" in body.get("query", ""):
            about = about or body["variables"]
        for row in body.get("files", {}).get("wandb-history.jsonl", {}).get("content", []):
            row = json.loads(row)
            assert row["_step"] not in history, "one row for every step"
            history[row["_step"]] = row
        complete = complete or (body.get("complete") is True and body.get("exitcode") == 0)
    assert about and about["project"] and about["displayName"] and complete, about
    config = json.loads(about["config"])
    assert "optim" in config and "model" in config, config.keys()
    values = ((name, step, value) for step, row in history.items() for name, value in row.items())
    found = {(name, step): single(value) for name, step, value in values if name[0] != "_" and value is not None}
    found = {(name, step): value for (name, step), value in found.items() if not name.startswith("group")}
    assert found == expected, differ("rows", found, expected)
    name = f"project {about['project']}, name {about['displayName']}"
    return f"wandb sync uploads {name}, {len(config)} settings, {len(history)} rows, {len(found)} values, complete"


def main():
    run = sys.argv[1]
    expected = expected_scalars(run)
    assert expected, f"{run}/metrics.jsonl has no numbers"
    unwell = 0
    for name, check in (("tensorboard", check_tensorboard), ("speed and memory", check_dated), ("wandb", check_wandb)):
        try:
            print(f"{name}: well: {check(run, expected)}")
        except AssertionError as error:
            print(f"{name}: UNWELL: {error}")
            unwell += 1
    sys.exit(1 if unwell else 0)


main()
