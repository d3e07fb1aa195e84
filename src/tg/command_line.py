"""The command `tg`: train, devices, bench, tune, doctor. What each does stands in a module of its own."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tg_ir.errors import TgError

__all__ = ["main"]

_DESCRIPTION = """\
Train and measure with machine code of our own.

    tg train digits     learn handwritten digits; a report lies in runs/digits afterwards
    tg devices          what was found to compute on
    tg doctor           whether everything works, and what to do where it does not
    tg bench            how fast this machine is, and how much of that kernels reach
    tg tune program.py  look for faster kernels while a program runs, and remember them
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0 if it did what was asked, 1 if not, 130 after Ctrl-C."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    if getattr(options, "device", None):
        os.environ["TG_DEVICE"] = options.device
    try:
        return import_module(f"tg.command_{options.command}").run(options)
    except (TgError, OSError) as error:
        print(f"tg {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="tg", description=_DESCRIPTION, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", metavar="command")

    train = commands.add_parser(
        "train",
        help="train a model",
        formatter_class=raw,
        description="Train a model. Ctrl-C saves and ends; the same command with --resume goes on.\n\n"
        "    digits    1,797 digits of 8x8 pixels, in the package: a convnet\n"
        "    mnist     70,000 digits of 28x28 pixels: a convnet\n"
        "    fashion   70,000 articles of clothing of 28x28 pixels: a convnet\n"
        "    gpt       text from files, by default Python's standard library: a byte-level GPT\n",
    )
    train.add_argument("task", choices=("digits", "mnist", "fashion", "gpt"), help="what to learn")
    train.add_argument("--data", action="append", metavar="PATH", help="file or folder; may be given again")
    train.add_argument("--device", metavar="NAME", help="where to compute, such as CPU; see `tg devices`")
    train.add_argument("--epochs", type=_positive, metavar="N", help="how often to go through the data")
    train.add_argument("--batch-size", type=_positive, metavar="N", help="samples a step")
    train.add_argument("--seed", type=int, default=0, metavar="N", help="another seed is another run (0)")
    train.add_argument("--out", type=Path, metavar="FOLDER", help="where the run lies (runs/<task>)")
    train.add_argument("--resume", action="store_true", help="go on with the run that lies there")

    commands.add_parser("devices", help="show what was found to compute on, and why the rest is not used")
    commands.add_parser("doctor", help="check this installation: a verdict a line, with the remedy")
    bench = commands.add_parser("bench", help="measure this machine, and kernels against it")
    bench.add_argument("--device", metavar="NAME", help="what to measure; see `tg devices`")
    tune = commands.add_parser("tune", help="run a program, and look for faster plans of its kernels")
    tune.add_argument("--seconds", type=_positive, default=10, metavar="N", help="time for each kernel (10)")
    tune.add_argument("program", type=Path, help="a Python file")
    tune.add_argument("arguments", nargs=argparse.REMAINDER, help="what it is given")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {number}, want 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
