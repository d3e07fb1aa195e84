"""Modules: plain classes whose tensors are found by walking attributes.

A tensor that requires a gradient is a parameter, any other a buffer; both are state, unless the attribute's name starts
with `_`. Modules may stand in lists and dicts: `self.layers = [Block(), Block()]` gives `layers.0.weight`. Names and
their order are PyTorch's (a module's own tensors come before its children's), so state dicts are interchangeable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Self

from tg_frontend import Device, Tensor, dtypes, no_grad
from tg_nn.errors import StateError

__all__ = ["Module", "Sequential"]

StateDict = Mapping[str, Tensor]


class Module:
    """What has parameters, and computes something in `forward`."""

    training = True

    def forward(self, *args: object, **kwargs: object) -> object:
        """The result; a subclass says what."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self.forward(*args, **kwargs)

    # ---- walking ---------------------------------------------------------------------------------------------------

    def children(self) -> Iterator[tuple[str, Module]]:
        """The modules that stand in attributes, lists and dicts, each with its name."""
        for name, value in vars(self).items():
            if not name.startswith("_"):
                yield from _modules_in(name, value)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each once, parents first."""
        seen: set[int] = set()
        for name, module in self._walk(prefix):
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def _walk(self, prefix: str) -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, child in self.children():
            yield from child._walk(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def state_dict(self) -> dict[str, Tensor]:
        """Every parameter and buffer by its name; a shared one under each of its names. They are views: detached."""
        return {name: tensor.detach() for name, tensor in self._tensors()}

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for prefix, module in self._walk(""):
            own = [(name, value) for name, value in vars(module).items() if isinstance(value, Tensor)]
            own = [(name, value) for name, value in own if not name.startswith("_")]
            for name, value in sorted(own, key=lambda pair: not pair[1].requires_grad):
                yield (f"{prefix}.{name}" if prefix else name), value

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that require a gradient, each once."""
        seen: set[int] = set()
        for name, tensor in self._tensors():
            if tensor.requires_grad and id(tensor) not in seen:
                seen.add(id(tensor))
                yield name, tensor

    def parameters(self) -> list[Tensor]:
        """The tensors that require a gradient, each once."""
        return [tensor for _, tensor in self.named_parameters()]

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """The state that requires no gradient."""
        return ((name, tensor) for name, tensor in self._tensors() if not tensor.requires_grad)

    # ---- changing --------------------------------------------------------------------------------------------------

    def load_state_dict(self, state: StateDict, strict: bool = True) -> None:
        """Write the values of `state` to the tensors of the same names, converted to their dtypes.

        Raises:
            StateError: a name is missing or unexpected (unless not `strict`), or a shape differs. Nothing was written.
        """
        own = dict(self._tensors())
        problems = []
        for name, tensor in own.items():
            if name not in state:
                problems += [f"missing {name} {tuple(tensor.shape)}"] if strict else []
            elif tuple(state[name].shape) != tuple(tensor.shape):
                problems.append(f"{name} got {tuple(state[name].shape)}, want {tuple(tensor.shape)}")
        problems += [f"unexpected {name}" for name in state if name not in own] if strict else []
        if problems:
            shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
            hint = "rename or drop keys, or pass strict=False to load what fits by name"
            raise StateError(f"load_state_dict: {type(self).__name__} does not fit: {shown}; {hint}")
        with no_grad():
            for name, tensor in own.items():
                if name in state:
                    value = state[name]
                    tensor.assign(value.detach() if isinstance(value, Tensor) else Tensor(value))

    def to(self, dtype: str | dtypes.DType | None = None, device: str | None = None) -> Self:
        """Convert and move: floats to `dtype`, everything to `device`. Tensors are replaced: make optimisers after it.

        `to("CPU:1")` is a device.
        """
        if isinstance(dtype, str) and not hasattr(dtypes, dtype):
            dtype, device = None, Device.canonical(dtype)
        return self.replace_tensors(lambda t: t.to(dtype=dtype if t.dtype.is_float else None, device=device))

    def replace_tensors(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Put `change(tensor)` into the place of each tensor; those that were shared stay shared."""
        made: dict[int, Tensor] = {}
        for module in self.modules():
            for name, value in list(vars(module).items()):
                if not isinstance(value, Tensor):
                    continue
                if id(value) not in made:
                    new = change(value.detach())
                    keep = new.dtype is value.dtype and new.device == value.device
                    made[id(value)] = value if keep else new.detach().requires_grad_(value.requires_grad)
                setattr(module, name, made[id(value)])
        return self

    def train(self, mode: bool = True) -> Self:
        """Switch to training: dropout drops, batch normalisation uses the batch."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch to inference."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Thaw or freeze every float tensor that is or was a parameter (buffers of normalisation are left alone)."""
        for name, tensor in self._tensors():
            if tensor.dtype.is_float and not name.rpartition(".")[2].startswith("running_"):
                tensor.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def apply(self, function: Callable[[Module], object]) -> Self:
        """Call `function` with every module."""
        for module in self.modules():
            function(module)
        return self

    def num_parameters(self) -> int:
        """How many numbers are learned."""
        return sum(int(parameter.numel()) for parameter in self.parameters())

    # ---- showing ---------------------------------------------------------------------------------------------------

    def describe(self) -> str:
        """What stands between the parentheses of the printed module."""
        shown = {
            name: value
            for name, value in vars(self).items()
            if isinstance(value, int | float | str | tuple)
            and name != "training"
            and not name.startswith("_")
        }
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.children()]
        head = f"{type(self).__name__}({self.describe()}"
        return head + "".join(f"\n  {line}" for line in lines) + ("\n)" if lines else ")")


def _modules_in(name: str, value: object) -> Iterator[tuple[str, Module]]:
    if isinstance(value, Module):
        yield name, value
    elif isinstance(value, list | tuple | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _modules_in(f"{name}.{key}", item)


class Sequential(Module):
    """Modules, or plain functions of a tensor, one after the other; a dict gives them names."""

    def __init__(self, *steps: Callable | dict[str, Callable]):
        first = steps[0] if len(steps) == 1 else None
        named = first.items() if isinstance(first, dict) else [(str(i), step) for i, step in enumerate(steps)]
        self._steps = dict(named)

    def children(self) -> Iterator[tuple[str, Module]]:
        """The steps that are modules; the names count all steps."""
        return ((name, step) for name, step in self._steps.items() if isinstance(step, Module))

    def forward(self, x: Tensor) -> Tensor:
        """The last step's result."""
        for step in self._steps.values():
            x = step(x)
        return x

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> Callable:
        return list(self._steps.values())[index]

    def __iter__(self) -> Iterator[Callable]:
        return iter(self._steps.values())
