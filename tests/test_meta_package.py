"""`import tg` is light and finds its names in the packages that own them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tg
import tg_frontend
import tg_ir.dtypes


def test_import_in_a_new_process_loads_no_other_package():
    program = "import sys, tg; print(*(name for name in sys.modules if name.startswith(('tg_', 'numpy'))))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_dir_of_the_module_lists_its_public_names():
    assert {"Device", "Tensor", "Variable", "dtypes", "jit", "nn"} <= set(dir(tg))


def test_names_in_the_module_are_those_of_their_packages():
    assert tg.Tensor is tg_frontend.Tensor
    assert tg.Variable is tg_frontend.Variable
    assert tg.dtypes is tg_ir.dtypes


def test_engine_of_the_meta_package_evaluates_unless_another_was_chosen():
    first = "import tg; tg.Tensor; import tg_frontend.engine as e; print(type(e.current_engine()).__module__)"
    other = "import tg_frontend as f; from tg_ir.reference import *; f.set_engine(ReferenceEngine());" + first
    for program, module in ((first, "tg.engine"), (other, "tg_ir.reference")):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.split() == [module]


def test_jit_is_the_function_however_it_is_imported():
    program = "from tg.capture import jit; import tg; assert tg.jit is jit; from tg import jit as b; assert b is jit"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_dtypes_as_the_first_use_in_a_new_process_is_found():
    subprocess.run([sys.executable, "-c", "import tg; assert tg.dtypes.float32"], check=True)


def test_attribute_that_does_not_exist_raises():
    with pytest.raises(AttributeError, match="module 'tg' has no attribute 'tensor'"):
        _ = tg.tensor
