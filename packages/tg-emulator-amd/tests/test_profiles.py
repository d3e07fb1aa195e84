"""The rows of the imitated machines."""

from __future__ import annotations

import pytest

from tg_emulator_amd import PROFILES, EmulatorError, profile


@pytest.mark.parametrize("target", PROFILES)
def test_profile_counts_fit_together(target: str):
    row = profile(target)
    assert row.compute_units <= row.shader_arrays * row.cus_per_array
    assert row.compute_units % row.xccs == 0
    major, minor, stepping = int(target[3:-2]), int(target[-2], 16), int(target[-1], 16)
    assert row.gfx_version == 10000 * major + 100 * minor + stepping


def test_profile_of_an_unknown_target_names_the_known_ones():
    with pytest.raises(EmulatorError, match=r"gfx803.*gfx942"):
        profile("gfx803")
