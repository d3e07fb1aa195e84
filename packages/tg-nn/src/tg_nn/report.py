"""A run's log as a page: curves of loss and accuracy as SVG, and a table of epochs. With matplotlib also as PNG."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

from tg_nn.state import atomic_write

__all__ = ["read_log", "write_report"]

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 260, 56, 28
_COLOURS = ("#2b6cb0", "#c05621")
_STYLE = "body{font:15px system-ui;max-width:44em;margin:2em auto;color:#222}td,th{padding:.1em .9em;text-align:right}"


def read_log(path: Path) -> list[dict[str, float]]:
    """The lines of log.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_report(folder: Path, title: str) -> Path:
    """Write report.html (and loss.png where matplotlib is installed) from the folder's log.jsonl."""
    rows = read_log(folder / "log.jsonl")
    steps = [row for row in rows if "loss" in row]
    epochs = [row for row in rows if "test_loss" in row]
    curves = {
        "loss": [
            [(row["step"], row["loss"]) for row in steps],
            [(row["step"], row["test_loss"]) for row in epochs],
        ],
        "accuracy": [
            [(row["step"], row["accuracy"]) for row in steps],
            [(row["step"], row["test_accuracy"]) for row in epochs],
        ],
    }
    cells = "".join(
        [
            f"<tr><td>{row['epoch'] + 1}<td>{row['step']}<td>{row['test_loss']:.4f}<td>{row['test_accuracy']:.2%}"
            for row in epochs
        ]
    )
    body = "".join([f"<h2>{name}</h2>{_chart(lines)}" for name, lines in curves.items()])
    page = (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><p>{len(steps)} steps. Blue: training; orange: test.{body}"
        f"<table><tr><th>epoch<th>step<th>test loss<th>test accuracy{cells}</table>"
    )
    with atomic_write(folder / "report.html") as file:
        file.write(page.encode())
    _write_png(folder / "loss.png", curves["loss"])
    return folder / "report.html"


def _chart(lines: Sequence[Points]) -> str:
    """Lines over common axes, as SVG."""
    points = [point for line in lines for point in line if abs(point[1]) < 1e30]
    if not points:
        return "<p>nothing yet"
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    across, up = (right - left) or 1, (high - low) or 1

    def place(x: float, y: float) -> str:
        return (
            f"{_LEFT + (x - left) / across * (_WIDTH - _LEFT - 8):.1f},"
            f"{8 + (high - y) / up * (_HEIGHT - _BOTTOM - 8):.1f}"
        )

    drawn = "".join(
        [
            f'<polyline fill="none" stroke="{colour}" points="{" ".join([place(*p) for p in _thin(line)])}"/>'
            for line, colour in zip(lines, _COLOURS, strict=True)
        ]
    )
    marks = "".join(
        [
            f'<text x="{_LEFT - 6}" y="{place(left, y).split(",")[1]}" text-anchor="end">{y:.3g}</text>'
            for y in dict.fromkeys((low, (low + high) / 2, high))
        ]
        + [
            f'<text x="{x}" y="{_HEIGHT - 6}" text-anchor="{anchor}">step {step:.0f}</text>'
            for x, anchor, step in ((_LEFT, "start", left), (_WIDTH - 8, "end", right))
        ]
    )
    return f'<svg width="{_WIDTH}" height="{_HEIGHT}" font-size="12" fill="#555">{drawn}{marks}</svg>'


def _thin(line: Points, limit: int = 1000) -> Points:
    """At most `limit` of the points, each the mean of its neighbours."""
    size = -(-len(line) // limit) or 1
    groups = [line[at : at + size] for at in range(0, len(line), size)]
    finite = [[point for point in group if abs(point[1]) < 1e30] for group in groups]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in finite if group]


def _write_png(path: Path, lines: Sequence[Points]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:  # the extra `plot` is not installed: the page has the same curves
        return
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for line, label in zip(lines, ("training", "test"), strict=True):
        if line:
            axes.plot(*zip(*line, strict=True), label=label)
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()
    figure.savefig(path)
