"""Readers of the files that Flowmill writes, as numpy arrays: shards, checkpoints and metrics.

The program itself is installed as ``flowmill`` and started by ``python -m flowmill`` too.
"""

from ._checkpoint import checkpoint
from ._metrics import Curve, metrics
from ._shards import Row, shards

__all__ = ["Curve", "Row", "checkpoint", "metrics", "shards"]
