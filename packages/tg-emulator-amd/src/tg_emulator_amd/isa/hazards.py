"""placeholder"""
from __future__ import annotations
class Hazards: pass
def hazards_of(op, ops): return None
class History:
    def step(self, op, g, monitor): pass
    @staticmethod
    def join(l): return History()
