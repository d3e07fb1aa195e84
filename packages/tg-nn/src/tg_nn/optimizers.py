"""Optimisers. An update rule is a pure function from parameter, gradient and state to new parameter and state.

`step` writes what the rule gives: a graph of assignments in which no value is read on the host, so that a step can be
captured whole. The learning rate may be a `Schedule` (schedules.py), a function of the count of steps, which is a
tensor too. A parameter narrower than float32 gets a float32 master in the state, and is its rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar

from tg_frontend import Tensor, dtypes, frombuffer, no_grad, where
from tg_nn.errors import StateError, TgError

__all__ = ["LAMB", "LARS", "SGD", "Adafactor", "Adam", "AdamW", "Muon", "Optimizer"]

Group = dict[str, object]
State = dict[str, Tensor]
Scalar = float | Tensor


class Optimizer:
    """What changes parameters by their gradients.

    Args:
        params: tensors, or groups: dicts with `params` and options that differ from `options`.
        options: the rule's options, one dict key each; `lr` is a number or a function of the step.
    """

    defaults: ClassVar[dict[str, object]] = {}

    def __init__(self, params: Iterable[Tensor | Group], **options: object):
        for name in options:
            if name not in self.defaults:
                known = ", ".join(self.defaults)
                raise TgError(f"{type(self).__name__}: got option {name!r}, want one of {known}")
        given = list(params)
        if not given:
            raise TgError(f"{type(self).__name__}: got no parameters; pass model.parameters()")
        groups = given if isinstance(given[0], dict) else [{"params": given}]
        self.param_groups: list[Group] = [self.defaults | options | group for group in groups]
        for group in self.param_groups:
            group["params"] = (
                [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
            )
        tensors = self._parameters()
        if len(set(tensors)) != len(tensors):
            raise TgError(f"{type(self).__name__}: a parameter stands in the groups twice; name it once")
        # Weights that are still formulas of random bits would make the first step another graph than those after.
        tensors[0].realize(*tensors[1:])
        self.steps = _blank((), "int64", tensors[0].device)
        self.state: dict[Tensor, State] = {
            p: self._new_state(p, group) for group in self.param_groups for p in group["params"]
        }

    # ---- what a rule gives ---------------------------------------------------------------------------------------

    def initial(self, p: Tensor, group: Group) -> State:
        """The state before the first step."""
        raise NotImplementedError

    def update(
        self, p: Tensor, g: Tensor, state: State, group: Group, lr: Scalar, t: Tensor
    ) -> tuple[Tensor, State]:
        """The parameter and the state after step number `t`, which counts from 1 and is a float32 scalar."""
        raise NotImplementedError

    # ---- steps ---------------------------------------------------------------------------------------------------

    @no_grad()
    def step(self, skip: Tensor | None = None) -> None:
        """Update every parameter that has a gradient; where the scalar `skip` is true, change nothing."""

        def write(target: Tensor, value: Tensor) -> None:
            target.assign(value if skip is None else where(skip, target, value))

        before = self.steps.detach().clone()
        t = (before + 1).float()
        for group in self.param_groups:
            lr = group["lr"](before) if callable(group["lr"]) else group["lr"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                master = state.get("master")
                value = (p if master is None else master).detach()
                new, changed = self.update(value, p.grad.detach().to(value.dtype), state, group, lr, t)
                for name, tensor in changed.items():
                    write(state[name], tensor)
                if master is not None:
                    write(master, new)
                write(p, new.to(p.dtype))
        write(self.steps, before + 1)

    def _new_state(self, p: Tensor, group: Group) -> State:
        narrow = p.dtype.is_float and p.dtype.itemsize < 4
        value = p.detach().float() if narrow else p.detach()
        return self.initial(value, group) | ({"master": value.clone()} if narrow else {})

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self._parameters():
            p.grad = None

    # ---- saving --------------------------------------------------------------------------------------------------

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def state_dict(self) -> dict[str, object]:
        """`state` by the number of the parameter, `param_groups` and `steps`: PyTorch's layout and names."""
        numbers = {p: number for number, p in enumerate(self._parameters())}
        groups = [
            {k: v for k, v in group.items() if not callable(v) and k != "params"}
            | {"params": [numbers[p] for p in group["params"]]}
            for group in self.param_groups
        ]
        state = {numbers[p]: {"step": self.steps.float(), **own} for p, own in self.state.items()}
        return {"state": dict(sorted(state.items())), "param_groups": groups, "steps": self.steps.detach()}

    @no_grad()
    def load_state_dict(self, saved: Mapping[str, object]) -> None:
        """Go on from what `state_dict`, ours or PyTorch's, gave; functions of the step stay as they are here.

        Raises:
            StateError: the groups hold other numbers of parameters, or a state has another shape.
        """
        name, groups = f"{type(self).__name__}.load_state_dict", saved["param_groups"]
        sizes = [len(group["params"]) for group in self.param_groups]
        if [len(group["params"]) for group in groups] != sizes:
            got = [len(group["params"]) for group in groups]
            raise StateError(f"{name}: got groups of {got} parameters, want {sizes}; make the same groups")
        merged = [
            group | self._options(group, other)
            for group, other in zip(self.param_groups, groups, strict=True)
        ]
        owners = [(p, group) for group in merged for p in group["params"]]
        order = [number for group in groups for number in group["params"]]
        states = {int(number): state for number, state in saved["state"].items()}
        loaded = {p: self._new_state(p, group) for p, group in owners}
        for number, (p, _) in zip(order, owners, strict=True):
            if number not in states:
                continue
            made = loaded[p]
            for key, tensor in made.items():
                value = states[number].get(key)
                if value is None and key != "master":
                    raise StateError(
                        f"{name}: parameter {number} has no {key}; was it saved by another rule?"
                    )
                if value is not None:
                    value = value.detach() if isinstance(value, Tensor) else Tensor(value)
                    if value.shape != tensor.shape:
                        got, want = tuple(value.shape), tuple(tensor.shape)
                        raise StateError(f"{name}: {key} of parameter {number} got {got}, want {want}")
                    made[key] = value.to(dtype=tensor.dtype, device=tensor.device).clone()
        self.state = loaded
        steps = saved.get("steps", max([state.get("step", 1) for state in states.values()], default=0))
        self.steps.assign(Tensor(float(steps)).to("int64"))
        self.param_groups = merged

    def _options(self, group: Group, saved: Mapping[str, object]) -> Group:
        """The options of a saved group that this rule knows, but for functions of the step."""
        kept = {
            key: value for key, value in saved.items() if key in self.defaults and not callable(group[key])
        }
        return {key: tuple(value) if isinstance(value, list) else value for key, value in kept.items()}


def _blank(shape: Sequence[int], dtype: object, device: str) -> Tensor:
    """Zeros in memory of their own: a formula would be another graph in the first step than in those after."""
    size = math.prod(shape) * dtypes.dtype_of(dtype).itemsize
    return frombuffer(bytearray(size), dtype=dtype, shape=tuple(shape), device=device)


def _zeros(p: Tensor, *names: str) -> State:
    return {name: _blank(p.shape, p.dtype, p.device) for name in names}


def _norm(x: Tensor) -> Tensor:
    return x.square().sum().sqrt()


def _one_minus_power(base: float, t: Tensor) -> Tensor:
    """1 - base ** t without cancellation."""
    return -(t * math.log(base)).expm1() if base else t * 0 + 1


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, Nesterov's too."""

    defaults: ClassVar = {
        "lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False,
    }  # fmt: skip

    def initial(self, p: Tensor, group: Group) -> State:
        """A running sum of gradients, with momentum."""
        return _zeros(p, "momentum_buffer") if group["momentum"] else {}

    def update(
        self, p: Tensor, g: Tensor, state: State, group: Group, lr: Scalar, t: Tensor
    ) -> tuple[Tensor, State]:
        """p - lr * (g or its running sum)."""
        g = g + p * group["weight_decay"] if group["weight_decay"] else g
        if not group["momentum"]:
            return p - g * lr, {}
        fresh = g * (1 - group["dampening"]) if group["dampening"] else g
        total = state["momentum_buffer"] * group["momentum"] + fresh
        total = where(t == 1, g, total) if group["dampening"] else total
        move = g + total * group["momentum"] if group["nesterov"] else total
        return p - move * lr, {"momentum_buffer": total}


class Adam(Optimizer):
    """Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015; amsgrad: Reddi et al., 2018."""

    defaults: ClassVar = {
        "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False,
    }  # fmt: skip
    decoupled = False

    def initial(self, p: Tensor, group: Group) -> State:
        """Running means of the gradient and of its square."""
        return _zeros(p, "exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group.get("amsgrad") else []))

    def update(
        self, p: Tensor, g: Tensor, state: State, group: Group, lr: Scalar, t: Tensor
    ) -> tuple[Tensor, State]:
        """The mean over the root of the mean square, both freed of their bias to zero."""
        decay = group["weight_decay"]
        if decay:
            p, g = (p * (1 - lr * decay), g) if self.decoupled else (p, g + p * decay)
        changed, mean, square = _moments(g, state, group, t)
        if group["amsgrad"]:
            greatest = state["max_exp_avg_sq"].maximum(changed["exp_avg_sq"])
            changed["max_exp_avg_sq"] = greatest
            square = greatest / _one_minus_power(group["betas"][1], t)
        return p - mean / (square.sqrt() + group["eps"]) * lr, changed


def _moments(g: Tensor, state: State, group: Group, t: Tensor) -> tuple[State, Tensor, Tensor]:
    """The running means of g and its square; and the same without their bias towards zero."""
    one, two = group["betas"]
    mean = state["exp_avg"] * one + g * (1 - one)
    square = state["exp_avg_sq"] * two + g * g * (1 - two)
    unbiased = mean / _one_minus_power(one, t), square / _one_minus_power(two, t)
    return {"exp_avg": mean, "exp_avg_sq": square}, *unbiased


class AdamW(Adam):
    """Adam whose weight decay does not pass through the moments.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.
    """

    defaults: ClassVar = Adam.defaults | {"weight_decay": 1e-2}
    decoupled = True


class LAMB(Adam):
    """Adam with a step as long as the parameter, by layer.

    Source: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2020.
    """

    defaults: ClassVar = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 1e-2}

    def update(
        self, p: Tensor, g: Tensor, state: State, group: Group, lr: Scalar, t: Tensor
    ) -> tuple[Tensor, State]:
        """The direction of AdamW, as long as the parameter."""
        changed, mean, square = _moments(g, state, group, t)
        move = mean / (square.sqrt() + group["eps"]) + p * group["weight_decay"]
        return p - move * (_ratio(_norm(p), _norm(move)) * lr), changed


def _ratio(p: Tensor, other: Tensor) -> Tensor:
    """p / other, and 1 where either is 0."""
    return where((p > 0) & (other > 0), p / other, 1.0)


class LARS(Optimizer):
    """Momentum with a rate by layer. Source: You et al., "Large Batch Training of Convolutional Networks", 2017."""

    defaults: ClassVar = {
        "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "trust_coefficient": 1e-3, "eps": 1e-8,
    }  # fmt: skip

    def initial(self, p: Tensor, group: Group) -> State:
        """A running sum of scaled gradients."""
        return _zeros(p, "momentum_buffer")

    def update(
        self, p: Tensor, g: Tensor, state: State, group: Group, lr: Scalar, t: Tensor
    ) -> tuple[Tensor, State]:
        """The gradient scaled to a share of the parameter's length."""
        decay, length = group["weight_decay"], _norm(p)
        slope = _norm(g) + length * decay + group["eps"]
        local = where(length > 0, length / slope * group["trust_coefficient"], 1.0)
        total = state["momentum_buffer"] * group["momentum"] + (g + p * decay) * (local * lr)
        return p - total, {"momentum_buffer": total}


class Muon(Optimizer):
    """Momentum whose update is brought near to the closest orthogonal matrix; for matrices only.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; "match_rms_adamw": Liu et
    al., "Muon is Scalable for LLM Training", 2025.
    """

    defaults: ClassVar = {
        "lr": 1e-3, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True, "eps": 1e-7, "ns_steps": 5,
        "ns_coefficients": (3.4445, -4.775, 2.0315), "adjust_lr_fn": "original",
    }  # fmt: skip

    def initial(self, p: Tensor, group: Group) -> State:
        """A running mean of gradients."""
        if p.ndim != 2:
            raise TgError(
                f"Muon: got a parameter of shape {tuple(p.shape)}, want matrices; use AdamW for others"
            )
        return _zeros(p, "momentum_buffer")

    def update(
        self, p: Tensor, g: Tensor, state: State, group: Group, lr: Scalar, t: Tensor
    ) -> tuple[Tensor, State]:
        """The mean made orthogonal in bfloat16."""
        momentum, (rows, columns) = group["momentum"], p.shape
        mean = state["momentum_buffer"] + (g - state["momentum_buffer"]) * (1 - momentum)
        move = g + (mean - g) * momentum if group["nesterov"] else mean
        move = orthogonalize(move.bfloat16(), group["ns_coefficients"], group["ns_steps"], group["eps"]).to(
            p.dtype
        )
        factors = {
            "original": max(1, rows / columns) ** 0.5,
            "match_rms_adamw": 0.2 * max(rows, columns) ** 0.5,
        }
        factor = factors[group["adjust_lr_fn"] or "original"]
        return p * (1 - lr * group["weight_decay"]) - move * (lr * factor), {"momentum_buffer": mean}


def orthogonalize(x: Tensor, coefficients: Sequence[float], steps: int, eps: float) -> Tensor:
    """Newton and Schulz's iteration of odd degree 5 towards the orthogonal factor of x."""
    a, b, c = coefficients
    tall = x.shape[0] > x.shape[1]
    x = x.t() if tall else x
    x = x / _norm(x.float()).to(x.dtype).clamp(min=eps)
    for _ in range(steps):  # each line rounds once, as a fused matrix product does
        wide = x.float()
        gram = (wide @ wide.t()).to(x.dtype).float()
        change = (gram * b + gram @ gram * c).to(x.dtype).float()
        x = (wide * a + change @ wide).to(x.dtype)
    return x.t() if tall else x


class Adafactor(Optimizer):
    """Adam's second moment as the product of a row and a column, and no first.

    Source: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018.
    """

    defaults: ClassVar = {
        "lr": 1e-2, "beta2_decay": -0.8, "eps": (None, 1e-3), "d": 1.0, "weight_decay": 0.0,
    }  # fmt: skip

    def initial(self, p: Tensor, group: Group) -> State:
        """Running means of the squared gradient along rows and columns; of all of it for vectors."""
        if p.ndim < 2:
            return _zeros(p, "variance")
        shapes = {"row_var": (*p.shape[:-1], 1), "col_var": (*p.shape[:-2], 1, p.shape[-1])}
        return {name: _blank(shape, p.dtype, p.device) for name, shape in shapes.items()}

    def update(
        self, p: Tensor, g: Tensor, state: State, group: Group, lr: Scalar, t: Tensor
    ) -> tuple[Tensor, State]:
        """The gradient over the root of its estimated mean square, clipped, as long as the parameter's elements."""
        floor = p.dtype.eps if group["eps"][0] is None else group["eps"][0]
        share, size = t ** group["beta2_decay"], math.sqrt(p.numel())
        rate = (_norm(p) / size).clamp(min=group["eps"][1]) * (1 / t.sqrt()).minimum(lr)
        p = p * (1 - lr * group["weight_decay"])
        follow: Callable[[str, Tensor], Tensor] = lambda name, x: state[name] + (x - state[name]) * share  # noqa: E731
        if p.ndim < 2:
            changed = {"variance": follow("variance", g * g)}
            estimate = changed["variance"]
        else:
            row, column = follow("row_var", (g * g).mean(-1, True)), follow("col_var", (g * g).mean(-2, True))
            changed = {"row_var": row, "col_var": column}
            estimate = row * column / row.mean(-2, True).clamp(min=floor)
        move = g * estimate.clamp(min=floor * floor).rsqrt()
        clip = (_norm(move) / (size * group["d"])).clamp(min=1.0)
        return p - move * (rate / clip), changed
