"""Each optimiser against PyTorch's over 20 steps; LAMB and LARS against their papers' formulas in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tg_frontend import Tensor
from tg_nn import gradients, optimizers, schedules
from tg_nn.errors import StateError, TgError
from tg_nn.layers import BatchNorm1d, Linear
from tg_nn.module import Sequential

SHAPES = ((3, 4), (4, 2), (3,))
STEPS = 20
CASES = {
    "SGD": {"lr": 0.1},
    "SGD-momentum": {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.01},
    "SGD-nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "Adam": {"lr": 0.05},
    "Adam-options": {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": 0.1, "amsgrad": True},
    "AdamW": {"lr": 0.05, "weight_decay": 0.1},
    "Adafactor": {"lr": 0.05, "weight_decay": 0.1},
    "Muon": {"lr": 0.05},
    "Muon-rms": {"lr": 0.05, "nesterov": False, "adjust_lr_fn": "match_rms_adamw"},
}


def start(only_matrices: bool = False) -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    shapes = SHAPES[:2] if only_matrices else SHAPES
    return [generator.normal(size=shape).astype("float32") for shape in shapes]


def mine(values: list[np.ndarray]) -> list[Tensor]:
    return [Tensor(value, requires_grad=True) for value in values]


def loss_of(params: list) -> object:
    """Not quadratic, with gradients that differ a lot in size; of either library's tensors."""
    return sum((p * p * 0.5 + (p * 3).sin() * 0.3).sum() * 10.0**-i for i, p in enumerate(params))


def run(optimizer: object, params: list, steps: int = STEPS) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(params).backward()
        optimizer.step()


def values(params: list) -> list[np.ndarray]:
    return [p.detach().numpy() for p in params]


@pytest.mark.parametrize("name", CASES)
def test_optimizer_over_20_steps_equals_pytorch(name: str):
    kind = name.partition("-")[0]
    begin = start(kind == "Muon")
    ours, theirs = mine(begin), [torch.tensor(value, requires_grad=True) for value in begin]
    run(getattr(optimizers, kind)(ours, **CASES[name]), ours)
    run(getattr(torch.optim, kind)(theirs, **CASES[name]), theirs)
    tolerance = 0.02 if kind == "Muon" else 2e-5  # Muon iterates in bfloat16, whose eps is 0.008
    for got, want in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def lamb(p: np.ndarray, g: np.ndarray, s: dict, t: int) -> np.ndarray:
    s["m"], s["v"] = 0.9 * s.get("m", 0) + 0.1 * g, 0.999 * s.get("v", 0) + 0.001 * g * g
    move = s["m"] / (1 - 0.9**t) / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-6) + 0.01 * p
    return p - 0.05 * np.linalg.norm(p) / np.linalg.norm(move) * move


def lars(p: np.ndarray, g: np.ndarray, s: dict, t: int) -> np.ndarray:
    rate = 1e-3 * np.linalg.norm(p) / (np.linalg.norm(g) + 0.1 * np.linalg.norm(p) + 1e-8)
    s["m"] = 0.9 * s.get("m", 0) + 0.05 * rate * (g + 0.1 * p)
    return p - s["m"]


@pytest.mark.parametrize(
    ("optimizer", "rule"),
    [
        (lambda p: optimizers.LAMB(p, lr=0.05), lamb),
        (lambda p: optimizers.LARS(p, lr=0.05, weight_decay=0.1), lars),
    ],
    ids=["LAMB", "LARS"],
)
def test_optimizer_by_layer_over_20_steps_equals_the_formula(optimizer: Callable, rule: Callable):
    begin = start()
    ours = mine(begin)
    run(optimizer(ours), ours)
    theirs, states = [value.astype("float64") for value in begin], [{} for _ in begin]
    for t in range(1, STEPS + 1):
        grads = [(p + 0.9 * np.cos(3 * p)) * 10.0**-i for i, p in enumerate(theirs)]
        theirs = [rule(p, g, s, t) for p, g, s in zip(theirs, grads, states, strict=True)]
    for got, want in zip(values(ours), theirs, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_groups_have_rates_of_their_own():
    ours, theirs = mine(start()), [torch.tensor(value, requires_grad=True) for value in start()]
    for library, params in ((optimizers, ours), (torch.optim, theirs)):
        groups = [{"params": params[:1], "lr": 0.1}, {"params": params[1:], "weight_decay": 0.3}]
        run(library.AdamW(groups, lr=0.02), params)
    for got, want in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["SGD-momentum", "Adam-options", "Adafactor"])
def test_state_dict_goes_to_pytorch_and_back_without_a_trace(name: str):
    kind, options = name.partition("-")[0], CASES[name]
    ours, theirs = mine(start()), [torch.tensor(value, requires_grad=True) for value in start()]
    mine_, other = getattr(optimizers, kind)(ours, **options), getattr(torch.optim, kind)(theirs, **options)
    run(mine_, ours, 7)
    run(other, theirs, 7)
    fresh = getattr(optimizers, kind)(ours, lr=9.0)
    saved = mine_.state_dict()
    as_torch = {
        number: {k: torch.tensor(v.numpy()) for k, v in state.items()}
        for number, state in saved["state"].items()
    }
    groups = [
        own | group
        for own, group in zip(other.state_dict()["param_groups"], saved["param_groups"], strict=True)
    ]
    fresh.load_state_dict(other.state_dict())
    other.load_state_dict({"state": as_torch, "param_groups": groups})
    run(fresh, ours, 7)
    run(other, theirs, 7)
    for got, want in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_load_state_dict_of_another_model_or_rule_says_so():
    params = mine(start())
    optimizer = optimizers.Adam(params)
    run(optimizer, params, 1)
    saved = optimizer.state_dict()
    with pytest.raises(StateError, match=r"got groups of \[3\] parameters, want \[2\]"):
        optimizers.Adam(params[:2]).load_state_dict(saved)
    with pytest.raises(StateError, match="parameter 0 has no momentum_buffer"):
        optimizers.SGD(params, momentum=0.9).load_state_dict(saved)
    with pytest.raises(StateError, match=r"exp_avg of parameter 0 got \(3, 4\), want \(3,\)"):
        optimizers.Adam(params[::-1]).load_state_dict(saved)
    with pytest.raises(TgError, match="got option 'momentum', want one of lr, betas"):
        optimizers.Adam(params, momentum=0.9)


def test_step_reads_no_value():
    params = mine(start())
    optimizer = optimizers.AdamW(params, lr=schedules.cosine(0.1, 10))
    loss_of(params).backward()
    optimizer.step()
    assert all(p.node.value is None for p in params), "nothing is computed before a value is asked for"


def torch_rates(make: Callable, steps: int, lr: float = 0.5) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


lr = torch.optim.lr_scheduler
SCHEDULES = {
    "constant": (schedules.constant(0.5), lambda o: lr.ConstantLR(o, 1.0, 1)),
    "linear": (schedules.linear(0.1, 0.5, 10), lambda o: lr.LinearLR(o, 0.2, 1.0, 10)),
    "cosine": (schedules.cosine(0.5, 16, 0.1), lambda o: lr.CosineAnnealingLR(o, 16, 0.1)),
    "polynomial": (schedules.polynomial(0.5, 10, 2.0), lambda o: lr.PolynomialLR(o, 10, 2.0)),
    "step": (schedules.step(0.5, 4, 0.3), lambda o: lr.StepLR(o, 4, 0.3)),
    "milestones": (schedules.step(0.5, [3, 7]), lambda o: lr.MultiStepLR(o, [3, 7])),
    "one-cycle": (schedules.one_cycle(0.5, 16), lambda o: lr.OneCycleLR(o, 0.5, 16)),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_equals_pytorch(name: str):
    ours, theirs = SCHEDULES[name]
    np.testing.assert_allclose([ours(t) for t in range(16)], torch_rates(theirs, 16), rtol=1e-9, atol=1e-12)


def test_one_cycle_of_a_few_steps_has_rates_within_its_limits():
    for steps in (1, 2, 3, 4):
        rates = [schedules.one_cycle(0.5, steps)(t) for t in range(steps)]
        assert rates[0] == pytest.approx(0.02) and all(0 < rate <= 0.5 for rate in rates)


def test_warm_up_rises_to_the_start_of_what_follows():
    ours = schedules.warm_up(schedules.cosine(0.5, 10), 4)
    got = [ours(t) for t in range(15)]
    np.testing.assert_allclose(got[:5], [0, 0.125, 0.25, 0.375, 0.5])
    np.testing.assert_allclose(got[4:], [schedules.cosine(0.5, 10)(t) for t in range(11)])


def test_optimizer_with_a_schedule_equals_pytorch_with_a_scheduler():
    ours, theirs = mine(start()), [torch.tensor(value, requires_grad=True) for value in start()]
    run(optimizers.Adam(ours, lr=schedules.cosine(0.1, STEPS)), ours)
    other = torch.optim.Adam(theirs, lr=0.1)
    scheduler = lr.CosineAnnealingLR(other, STEPS)
    for _ in range(STEPS):
        run(other, theirs, 1)
        scheduler.step()
    for got, want in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


# ---- around the step -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clipping_equals_pytorch(limit: float):
    ours, theirs = mine(start()), [torch.tensor(value, requires_grad=True) for value in start()]
    loss_of(ours).backward()
    loss_of(theirs).backward()
    norm = gradients.clip_grad_norm_(ours, limit)
    assert norm.item() == pytest.approx(torch.nn.utils.clip_grad_norm_(theirs, limit).item(), rel=1e-6)
    gradients.clip_grad_value_(ours, 0.05)
    torch.nn.utils.clip_grad_value_(theirs, 0.05)
    for got, want in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got.grad.numpy(), want.grad.numpy(), rtol=1e-6)


def test_gradients_add_up_over_several_backwards():
    params = mine(start())
    loss_of(params).backward()
    once = [p.grad.numpy() for p in params]
    loss_of(params).backward()
    for p, grad in zip(params, once, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), 2 * grad, rtol=1e-6)


def test_bfloat16_parameters_are_the_rounding_of_float32_masters():
    wide = mine(start())
    narrow = [p.detach().bfloat16().requires_grad_() for p in wide]
    optimizer = optimizers.SGD(narrow, lr=1e-4)  # far below what bfloat16 resolves at 1
    for _ in range(STEPS):
        optimizer.zero_grad()
        sum(p.float().sum() for p in narrow).backward()
        optimizer.step()
    for p, begin in zip(narrow, wide, strict=True):
        master = optimizer.state[p]["master"]
        np.testing.assert_allclose(
            master.numpy(), begin.detach().bfloat16().numpy() - STEPS * 1e-4, rtol=1e-5, atol=1e-6
        )
        assert p.dtype.name == "bfloat16" and p.tolist() == master.bfloat16().tolist()


def test_loss_scaler_skips_overflows_and_grows_after_an_interval():
    p = Tensor([1.0, 2.0], requires_grad=True)
    optimizer = optimizers.Adam([p], lr=0.1)
    scaler = gradients.LossScaler(scale=1024.0, interval=2)
    seen = []
    for factor in (1.0, math.inf, 1.0, 1.0):
        optimizer.zero_grad()
        scaler.scale_loss((p * factor).sum()).backward()
        skipped = scaler.step(optimizer)
        seen.append((bool(skipped), scaler.scale.item(), optimizer.steps.item(), round(p.tolist()[0], 4)))
    assert seen == [(False, 1024, 1, 0.9), (True, 512, 1, 0.9), (False, 512, 2, 0.8), (False, 1024, 3, 0.7)]


def test_weight_average_follows_the_model_and_goes_back():
    model = Linear(1, 1, bias=False)
    model.load_state_dict({"weight": Tensor([[1.0]])})
    average = gradients.WeightAverage(model, decay=0.75)
    for value in (3.0, 5.0):
        model.load_state_dict({"weight": Tensor([[value]])})
        average.update()
    with average.applied():
        assert model.weight.item() == pytest.approx((1 * 0.75 + 3 * 0.25) * 0.75 + 5 * 0.25)
    assert model.weight.item() == 5.0


def test_narrow_weights_leaves_normalisations_in_float32():
    model = gradients.narrow_weights(Sequential(Linear(3, 4), BatchNorm1d(4), Linear(4, 2)), "bfloat16")
    dtypes = {name: tensor.dtype.name for name, tensor in model.state_dict().items()}
    assert dtypes["0.weight"] == dtypes["2.bias"] == "bfloat16"
    assert dtypes["1.weight"] == dtypes["1.running_var"] == "float32"
    out = model(Tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]))
    assert out.dtype.name == "bfloat16"
    out.float().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
