"""Environment variables of the scheduler: name, type, default, one sentence."""

from __future__ import annotations

import os

__all__ = ["fuse_attention", "verify"]


def verify() -> bool:
    """`TG_VERIFY`, bool, 0: graphs and programs are verified between passes."""
    return os.environ.get("TG_VERIFY") == "1"


def fuse_attention() -> bool:
    """`TG_FUSE_ATTENTION`, bool, 0: attention forward is one kernel, without memory for its scores.

    Off until the code generator computes a score once for all features of a value: until then three kernels are faster.
    """
    return os.environ.get("TG_FUSE_ATTENTION") == "1"
