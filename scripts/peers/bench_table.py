"""Prints the medians of scripts/bench_data as a table: seconds of audio per second of work, and the ratio."""

import collections
import json
import statistics
import sys

speeds = collections.defaultdict(list)
for line in open(sys.argv[1]):
    chain, side, figures = line.split(" ", 2)
    figures = json.loads(figures)
    speeds[chain, side].append(figures["audio_seconds"] / figures["seconds"])

print("| chain | Flowmill, x real time | Python peer, x real time | ratio |\n|---|---|---|---|")
for chain in dict.fromkeys(chain for chain, _ in speeds):
    ours, peer = (statistics.median(speeds[chain, side]) for side in ("ours", "peer"))
    print(f"| {chain} | {ours:,.0f} | {peer:,.0f} | {ours / peer:.2f} |")
