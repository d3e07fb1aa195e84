"""Importing the package is light: neither NumPy nor ctypes is loaded before it is needed."""

from __future__ import annotations

import subprocess
import sys


def test_import_in_a_new_process_loads_neither_numpy_nor_ctypes():
    program = "import sys, tg_frontend; print(*sorted({'numpy', 'ctypes'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
