"""Reads the metrics of a training."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Curve(NamedTuple):
    """The values of a metric at steps."""

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


def metrics(path: str | os.PathLike[str]) -> dict[str, Curve]:
    """Returns the curves in ``metrics.jsonl``, or in the folder of stage 4 that has one, by the names of TensorBoard's tags.

    Such names are ``train/loss``, ``train/lr`` and ``validation/loss``. A value that was not finite is NaN. A torn last line, as a
    crash leaves it, is ignored.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "metrics.jsonl"
    points: dict[str, list[tuple[int, float]]] = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if isinstance(values, dict) and "step" in values and "command" not in values:
                for name, value in _values(values):
                    points.setdefault(name, []).append((values["step"], value))
    return {name: _curve(found) for name, found in points.items()}


def _values(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for label, norms in line.get("groups", {}).items():
        for name, value in norms.items():
            yield f"groups/{label}/{name}", _number(value)
    if "groups" in line:
        return
    kind, values = ("validation", line["validation"]) if "validation" in line else ("train", line)
    for name, value in {**values, **values.get("parts", {})}.items():
        if name not in ("step", "epoch", "parts"):
            yield f"{kind}/{name}", _number(value)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _curve(points: list[tuple[int, float]]) -> Curve:
    return Curve(np.array([step for step, _ in points], np.int64), np.array([value for _, value in points], np.float64))
