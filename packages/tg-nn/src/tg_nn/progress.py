"""What a run shows while it goes on: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Self

__all__ = ["Progress", "format_seconds"]

_BLOCKS = " ▏▎▍▌▋▊▉"
_LINE_EVERY_S = 10.0


def format_seconds(seconds: float) -> str:
    """For example 7 s, 3:05 or 1:02:00."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


class Progress:
    """A bar with loss, accuracy, samples a second and the time to go; loss and speed are running means."""

    def __init__(self, title: str, total: int, done: int = 0, quiet: bool = False):
        self.title, self.total, self.first, self.quiet = title, total, done, quiet
        self.started, self.shown = time.monotonic(), 0.0
        self.means: dict[str, float] = {}
        self.terminal = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self.quiet and self.terminal:
            sys.stderr.write("\n")

    def show(self, row: dict[str, float]) -> None:
        """After a step."""
        for name in ("loss", "accuracy", "samples_per_s"):
            self.means[name] = self.means.get(name, row[name]) * 0.9 + row[name] * 0.1
        now = time.monotonic()
        last = row["step"] == self.total
        if self.quiet or (now - self.shown < (0.1 if self.terminal else _LINE_EVERY_S) and not last):
            return
        self.shown = now
        self._write(self.line(int(row["step"]), now - self.started))

    def line(self, step: int, seconds: float) -> str:
        """The line after a step."""
        share = step / self.total
        left = seconds / max(step - self.first, 1) * (self.total - step)
        means = self.means
        return (
            f"{self.title} {_bar(share)} {share:4.0%}  loss {means['loss']:.4f}  accuracy {means['accuracy']:.1%}  "
            f"{means['samples_per_s']:,.0f} samples/s  {format_seconds(left)} to go"
        )

    def note(self, row: dict[str, float]) -> None:
        """After an epoch's evaluation."""
        text = f"epoch {row['epoch'] + 1}: test loss {row['test_loss']:.4f}, test accuracy {row['test_accuracy']:.2%}"
        if not self.quiet:
            self._write(text, stays=True)

    def _write(self, text: str, stays: bool = False) -> None:
        if self.terminal:
            sys.stderr.write(f"\r\x1b[K{text}" + ("\n" if stays else ""))
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _bar(share: float, width: int = 20) -> str:
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_BLOCKS[rest] + " " * (width - full - 1) if full < width else "")
