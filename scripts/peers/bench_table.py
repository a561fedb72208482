"""Prints the medians of scripts/bench_data as a table: seconds of audio per second of work, and the ratio."""

import collections
import json
import re
import statistics
import sys

# Our line's name, and the peer's chain that does the same.
CHAINS = [
    ("decode", "decode"),
    ("decode + resample to 24 kHz + mel", "mel"),
    ("floor: decode + transforms of the mel", None),
    ("decode + Kaldi fbank at 16 kHz", "fbank"),
    ("floor: decode + transforms of the fbank", None),
    ("pack", "pack"),
]

ours, peer = collections.defaultdict(list), collections.defaultdict(list)
for line in open(sys.argv[1]):
    if match := re.match(r"ours: (.+?)\s+([\d.]+) x real time", line):
        ours[match[1]].append(float(match[2]))
    elif match := re.match(r"peer: (\w+) (\{.*\})", line):
        figures = json.loads(match[2])
        peer[match[1]].append(figures["audio_seconds"] / figures["seconds"])

print("| chain | Flowmill, x real time | Python peer, x real time | ratio |\n|---|---|---|---|")
for name, chain in CHAINS:
    mine = statistics.median(ours[name])
    if chain is None:
        print(f"| {name} | {mine:,.0f} | | |")
        continue
    theirs = statistics.median(peer[chain])
    print(f"| {name} | {mine:,.0f} | {theirs:,.0f} | {mine / theirs:.2f} |")
