"""LSTM and GRU: a step for each element of the sequence, layer by layer, with PyTorch's names of weights.

Source: Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997; Cho et al., "Learning Phrase Representations", 2014.
"""

from __future__ import annotations

import math

from tg_frontend import Tensor, cat, stack, uniform, zeros
from tg_nn.module import Module

__all__ = ["GRU", "LSTM"]

State = tuple[Tensor, ...]


class _Recurrent(Module):
    gates: int
    states: int

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False,
    ):  # fmt: skip
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        self._bias = bias
        bound, rows = 1 / math.sqrt(hidden_size), self.gates * hidden_size
        for layer in range(num_layers):
            width = input_size if layer == 0 else hidden_size * (1 + bidirectional)
            for suffix in self._suffixes(layer):
                shapes = {"weight_ih": (rows, width), "weight_hh": (rows, hidden_size)}
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)} if bias else {}
                for name, shape in shapes.items():
                    setattr(self, name + suffix, uniform(*shape, low=-bound, high=bound, requires_grad=True))

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: 1 + self.bidirectional]

    def step(self, gates: tuple[Tensor, Tensor], state: State) -> State:
        """The next state from what input and state contribute to the gates."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: Tensor | State | None = None) -> tuple[Tensor, Tensor | State]:
        """The last layer's outputs, and the last states of all layers and directions.

        Shapes: x (L, N, input_size), with batch_first (N, L, input_size); states (layers * directions, N, hidden_size).
        """
        x = x.transpose(0, 1) if self.batch_first else x
        length, batch = int(x.shape[0]), x.shape[1]
        ways = 1 + self.bidirectional
        given = (state,) if isinstance(state, Tensor) else state
        if given is None:
            blank = zeros(self.num_layers * ways, batch, self.hidden_size, dtype=x.dtype, device=x.device)
            given = (blank,) * self.states
        final: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            for way, suffix in enumerate(self._suffixes(layer)):
                weights = [getattr(self, f"{name}{suffix}", None) for name in ("weight_ih", "bias_ih")]
                recurrent = [getattr(self, f"{name}{suffix}", None) for name in ("weight_hh", "bias_hh")]
                contributions = x.linear(*weights)
                current = tuple([part[layer * ways + way] for part in given])
                steps: list[Tensor] = []
                for position in range(length):
                    at = length - 1 - position if way else position
                    current = self.step((contributions[at], current[0].linear(*recurrent)), current)
                    steps.append(current[0])
                outputs.append(stack(steps[::-1] if way else steps))
                final.append(current)
            x = cat(outputs, -1) if self.bidirectional else outputs[0]
            if self.dropout and layer < self.num_layers - 1:
                x = x.dropout(self.dropout, self.training)
        last = tuple([stack([state[part] for state in final]) for part in range(self.states)])
        return (x.transpose(0, 1) if self.batch_first else x), (last if self.states > 1 else last[0])


class LSTM(_Recurrent):
    """Long short-term memory; its state is (h, c)."""

    gates, states = 4, 2

    def step(self, gates: tuple[Tensor, Tensor], state: State) -> State:
        """Gates in PyTorch's order: input, forget, cell, output."""
        i, f, g, o = (gates[0] + gates[1]).chunk(4, -1)
        cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell


class GRU(_Recurrent):
    """Gated recurrent unit; its state is h."""

    gates, states = 3, 1

    def step(self, gates: tuple[Tensor, Tensor], state: State) -> State:
        """Gates in PyTorch's order: reset, update, new."""
        (ir, iz, new), (hr, hz, hn) = [part.chunk(3, -1) for part in gates]
        z = (iz + hz).sigmoid()
        new = (new + (ir + hr).sigmoid() * hn).tanh()
        return (new + z * (state[0] - new),)
