#!/usr/bin/env python3
"""Compares the losses of two trainings, step by step.

usage: compare_metrics.py EXPECTED.jsonl FOUND.jsonl TOLERANCE      the tolerance is relative; 0 requires equal numbers
"""
import json
import sys
from pathlib import Path


def losses(path):
    """Returns the training and validation losses by step and name."""
    found = {}
    for line in Path(path).read_text().splitlines():
        row = json.loads(line)
        for kind, values in (("training", row), ("validation", row.get("validation", {}))):
            if "loss" in values:
                found[row["step"], kind] = values["loss"]
    return found


def main(expected_path, found_path, tolerance):
    expected, found = losses(expected_path), losses(found_path)
    if not expected or expected.keys() != found.keys():
        sys.exit(f"other steps: {sorted(expected.keys() ^ found.keys())[:10]} of {len(expected)} and {len(found)} losses")
    apart = {key: abs(found[key] - value) / max(abs(value), 1e-6) for key, value in expected.items()}
    worst = max(apart, key=apart.get)
    print(f"{len(apart)} losses, the worst {apart[worst]:.2e} apart ({worst[1]} of step {worst[0]})")
    if not apart[worst] <= float(tolerance):
        sys.exit(f"more than {tolerance} apart: {expected[worst]} and {found[worst]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
