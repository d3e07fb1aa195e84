"""From tensor graphs to programs of kernels: fusion and memory plan."""

from __future__ import annotations

from tg_schedule.pipeline import Scheduled, schedule
from tg_schedule.plan_memory import peak_bytes

__all__ = ["Scheduled", "peak_bytes", "schedule"]
