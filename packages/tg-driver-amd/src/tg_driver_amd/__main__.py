"""`python -m tg_driver_amd` is `tg-amd`."""

from __future__ import annotations

import sys

from .command_line import main

sys.exit(main())
