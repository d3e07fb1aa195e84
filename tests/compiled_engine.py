"""The engine of the meta-package as that of any package's tests.

pytest -p compiled_engine packages/tg-frontend/tests     with `tests` and `src` on PYTHONPATH: all of them compiled
"""

from __future__ import annotations

from tg.engine import install

install()
