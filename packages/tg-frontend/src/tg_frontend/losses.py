"""Losses and distances: stable at extreme logits, reduced to their mean, their sum, or not at all."""

from __future__ import annotations

import math

from tg_frontend.core import Tensor, broadcast_shapes, promote, resolve_axis
from tg_frontend.elementwise import where
from tg_ir import graph
from tg_ir.dtypes import int64
from tg_ir.errors import DTypeError, ShapeError, TgError
from tg_ir.graph import format_shape

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss", "cosine_similarity",
    "cross_entropy", "ctc_loss", "gaussian_nll_loss", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss",
    "margin_ranking_loss", "mse_loss", "multi_margin_loss", "multilabel_margin_loss",
    "multilabel_soft_margin_loss", "nll_loss", "pairwise_distance", "poisson_nll_loss", "smooth_l1_loss",
    "soft_margin_loss", "triplet_margin_loss",
]  # fmt: skip


def _reduced(name: str, loss: Tensor, reduction: str) -> Tensor:
    match reduction:
        case "mean":
            return loss.mean()
        case "sum":
            return loss.sum()
        case "none":
            return loss
    raise TgError(f"{name}: got reduction {reduction!r}, want none, mean or sum")


def _check_reduction(name: str, reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise TgError(f"{name}: got reduction {reduction!r}, want none, mean or sum")


def _same_shape(name: str, *tensors: Tensor) -> None:
    for tensor in tensors[1:]:
        if tensor.shape != tensors[0].shape:
            shapes = " and ".join(format_shape(each.shape) for each in tensors)
            raise ShapeError(f"{name}: shapes are {shapes}, want them equal")


def _relu(x: Tensor) -> Tensor:
    return x.clamp_min(0)


# ---- differences ---------------------------------------------------------------------------------------------


def mse_loss(self: Tensor, target: Tensor, reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """(self - target) squared."""
    return _weighted("mse_loss", (self - target).square(), weight, reduction)


def l1_loss(self: Tensor, target: Tensor, reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """|self - target|."""
    return _weighted("l1_loss", (self - target).abs(), weight, reduction)


def _weighted(name: str, loss: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """The reduced loss; with a weight, the mean is divided by the sum of the weights, as in PyTorch."""
    if weight is None:
        return _reduced(name, loss, reduction)
    _same_shape(name, loss, weight)
    _check_reduction(name, reduction)
    return (
        (loss * weight).sum() / weight.sum()
        if reduction == "mean"
        else _reduced(name, loss * weight, reduction)
    )


def smooth_l1_loss(self: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """|d| - beta / 2, below beta d**2 / (2 beta), of the differences d."""
    if beta < 0:
        raise TgError(f"smooth_l1_loss: got beta {beta}, want >= 0")
    if beta == 0:
        return l1_loss(self, target, reduction)
    return _reduced("smooth_l1_loss", huber_loss(self, target, "none", beta) / beta, reduction)


def huber_loss(
    self: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """d**2 / 2 of the differences d up to delta, from there on delta * (|d| - delta / 2)."""
    if delta <= 0:
        raise TgError(f"huber_loss: got delta {delta}, want > 0")
    difference = self - target
    size = difference.abs()
    near = difference * difference * 0.5
    return _weighted("huber_loss", where(size < delta, near, delta * (size - 0.5 * delta)), weight, reduction)


def pairwise_distance(
    self: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """The p-norm of self - x2 + eps over the last axis."""
    return (self - x2 + eps).norm(p, -1, keepdim)


def cosine_similarity(self: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along `dim`; each norm counts as eps at least."""
    (a, b), dtype = promote("cosine_similarity", self, x2)
    if not dtype.is_float:
        raise DTypeError(f"cosine_similarity: got {dtype} tensors, want floats; cast first")
    shape = broadcast_shapes("cosine_similarity", a.shape, b.shape)
    a, b = a.to(dtype).expand(shape), b.to(dtype).expand(shape)
    unit = lambda x: x / x.norm(2, dim, True).clamp_min(eps)  # noqa: E731
    return (unit(a) * unit(b)).sum(dim)


# ---- classes -------------------------------------------------------------------------------------------------


def cross_entropy(
    self: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """-log softmax of the logits at the target class, or for each class weighted by target probabilities.

    The mean over class targets is weighted by `weight` and leaves out targets equal to `ignore_index`.

    Shapes: logits (C,), (N, C) or (N, C, ..) with classes (), (N,) or (N, ..), or with probabilities of one shape.
    """
    name = "cross_entropy"
    _check_reduction(name, reduction)
    if not 0 <= label_smoothing <= 1:
        raise TgError(f"{name}: got label_smoothing {label_smoothing}, want 0 to 1")
    axis = _class_axis(name, self)
    logs = self.log_softmax(axis)
    classes = self.shape[axis]
    column = None if weight is None else _class_weights(name, weight, self, axis)
    if target.dtype.is_float:
        _same_shape(name, self, target)
        if label_smoothing:
            target = target * (1 - label_smoothing) + label_smoothing / classes
        terms = -(logs * target.to(logs.dtype))
        loss = (terms if column is None else terms * column).sum(axis)
        return loss.sum() / math.prod(loss.shape) if reduction == "mean" else _reduced(name, loss, reduction)
    nll, weights = _picked(name, logs, target, weight, ignore_index, axis)
    if label_smoothing:
        smooth = -(logs if column is None else logs * column).sum(axis)
        smooth = where(target == ignore_index, 0.0, smooth)
        nll = nll * (1 - label_smoothing) + smooth * (label_smoothing / classes)
    return nll.sum() / weights.sum() if reduction == "mean" else _reduced(name, nll, reduction)


def nll_loss(
    self: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """-self at the target class, where self are logarithms of probabilities. Shapes: as `cross_entropy`."""
    _check_reduction("nll_loss", reduction)
    nll, weights = _picked("nll_loss", self, target, weight, ignore_index, _class_axis("nll_loss", self))
    return nll.sum() / weights.sum() if reduction == "mean" else _reduced("nll_loss", nll, reduction)


def _class_axis(name: str, self: Tensor) -> int:
    if not self.ndim or not self.dtype.is_float:
        raise ShapeError(
            f"{name}: got {self.dtype} {format_shape(self.shape)}, want floats (C,), (N, C) or (N, C, ..)"
        )
    return 0 if self.ndim == 1 else 1


def _class_weights(name: str, weight: Tensor, like: Tensor, axis: int) -> Tensor:
    if weight.shape != (like.shape[axis],):
        raise ShapeError(
            f"{name}: got weight {format_shape(weight.shape)}, want ({like.shape[axis]},), one a class"
        )
    return weight.to(like.dtype).reshape(*[n if i == axis else 1 for i, n in enumerate(like.shape)])


def _picked(
    name: str, logs: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, axis: int
) -> tuple[Tensor, Tensor]:
    """-weight * log at each target, and the weights: both 0 at targets to ignore.

    A class that does not exist gives NaN.
    """
    rest = (*logs.shape[:axis], *logs.shape[axis + 1 :])
    if target.shape != rest or not target.dtype.is_int:
        raise ShapeError(
            f"{name}: got target {target.dtype} {format_shape(target.shape)} for {format_shape(logs.shape)}, "
            f"want integers {format_shape(rest)}, or probabilities in a float dtype"
        )
    classes = logs.shape[axis]
    target = target.to(int64)
    ignored, known = target == ignore_index, (target >= 0) & (target < classes)
    index = where(known, target, 0)
    if isinstance(classes, int) and classes == 0:
        raise ShapeError(f"{name}: got {format_shape(logs.shape)}, want one class or more")
    picked = graph.reshape(graph.gather(logs.node, index.unsqueeze(axis).node, axis), rest)
    weights = Tensor.from_node(graph.expand(graph.const(1, logs.dtype, logs.device), rest))
    if weight is not None:
        _class_weights(name, weight, logs, axis)
        chosen = graph.gather(weight.to(logs.dtype).node, index.reshape(index.numel()).node, 0)
        weights = Tensor.from_node(graph.reshape(chosen, rest))
    weights = where(ignored, 0.0, weights)
    loss = where(ignored, 0.0, where(known, -Tensor.from_node(picked, logs) * weights, math.nan))
    return loss, weights


def multi_margin_loss(
    self: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The mean over the other classes of max(0, margin - self[target] + self[class]) ** p. Shapes: (N, C), (N,)."""
    name = "multi_margin_loss"
    if p not in (1, 2) or self.ndim not in (1, 2):
        raise TgError(f"{name}: got p {p} and {format_shape(self.shape)}, want 1 or 2 and (C,) or (N, C)")
    axis, classes = self.ndim - 1, self.shape[-1]
    own, _ = _picked(name, self, target, None, -1 - 2**62, axis)
    loss = _relu(margin + own.unsqueeze(axis) + self) ** p
    if weight is not None:
        _, weights = _picked(name, self.detach(), target, weight, -1 - 2**62, axis)
        loss = loss * weights.unsqueeze(axis)
    others = Tensor.from_node(graph.iota(classes, device=self.device)) != target.unsqueeze(axis)
    return _reduced(name, where(others, loss, 0.0).sum(axis) / classes, reduction)


def multilabel_margin_loss(self: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The mean over pairs of a target class and another of max(0, 1 - self[target] + self[other]).

    Shapes: (N, C) and integers (N, C): the target classes of a row come first, up to the first negative number.
    """
    name = "multilabel_margin_loss"
    _same_shape(name, self, target)
    classes = self.shape[-1]
    listed = (target < 0).to(int64).cumsum(-1) == 0
    index = where(listed, target, 0)
    numbers = Tensor.from_node(graph.iota(classes, device=self.device))
    is_target = ((index.unsqueeze(-1) == numbers) & listed.unsqueeze(-1)).any(-2)
    own = Tensor.from_node(graph.gather(self.node, index.node, self.ndim - 1), self)
    pairs = _relu(1 - own.unsqueeze(-1) + self.unsqueeze(-2))
    kept = listed.unsqueeze(-1) & ~is_target.unsqueeze(-2)
    return _reduced(name, where(kept, pairs, 0.0).sum((-1, -2)) / classes, reduction)


# ---- yes or no -----------------------------------------------------------------------------------------------


def binary_cross_entropy(
    self: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """-(target * log(self) + (1 - target) * log(1 - self)) of probabilities, logarithms limited to -100."""
    name = "binary_cross_entropy"
    _same_shape(name, self, target)
    log, log_other = [_limited_log(x) for x in (self, 1 - self)]
    loss = -(target * log + (1 - target) * log_other)
    return _reduced(name, loss if weight is None else loss * weight, reduction)


def _limited_log(x: Tensor) -> Tensor:
    """log(x), at least -100; its slope is 1 / max(x, 1e-12) and never infinite."""
    small = x < 1e-12
    steep = (x - x.detach()) * 1e12 + x.detach().log().clamp_min(-100)
    return where(small, steep, where(small, 1.0, x).log())


def binary_cross_entropy_with_logits(
    self: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """`binary_cross_entropy` of sigmoid(self), computed from the logits; pos_weight multiplies the positive part."""
    name = "binary_cross_entropy_with_logits"
    _same_shape(name, self, target)
    factor = 1 if pos_weight is None else 1 + (pos_weight - 1) * target
    loss = (1 - target) * self - _log_sigmoid(self) * factor
    return _reduced(name, loss if weight is None else loss * weight, reduction)


def _log_sigmoid(x: Tensor) -> Tensor:
    """min(x, 0) - log(1 + exp(-|x|)), with the sigmoid as its slope everywhere."""
    negative = x < 0
    size = where(negative, x, -x)
    return where(negative, x, 0.0) - size.exp().log1p()


def soft_margin_loss(self: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """log(1 + exp(-target * self)), where target is 1 or -1."""
    _same_shape("soft_margin_loss", self, target)
    return _reduced("soft_margin_loss", -_log_sigmoid(self * target), reduction)


def multilabel_soft_margin_loss(
    self: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """The mean over classes of `binary_cross_entropy_with_logits`. Shapes: (N, C), (N, C)."""
    loss = binary_cross_entropy_with_logits(self, target, weight, "none")
    return _reduced("multilabel_soft_margin_loss", loss.mean(-1), reduction)


# ---- distributions -------------------------------------------------------------------------------------------


def kl_div(self: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target * (log(target) - self), where self is a logarithm; `log_target`: the target is one, too.

    Reductions: none, mean, sum, and batchmean (the sum divided by the size of the first axis).
    """
    if log_target:
        loss = target.exp() * (target - self)
    else:
        positive = target > 0
        loss = (
            where(positive, target * where(positive, target, 1.0).log(), where(target == 0, 0.0, math.nan))
            - target * self
        )
    if reduction == "batchmean":
        return loss.sum() / (self.shape[0] if self.ndim else 1)
    return _reduced("kl_div", loss, reduction)


def poisson_nll_loss(
    self: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:
    """exp(self) - target * self (self - target * log(self + eps) without `log_input`); `full` adds Stirling's term."""
    loss = self.exp() - target * self if log_input else self - target * (self + eps).log()
    if full:
        large = target > 1
        safe = where(large, target, 1.0)
        loss = loss + where(large, safe * safe.log() - safe + 0.5 * (2 * math.pi * safe).log(), 0.0)
    return _reduced("poisson_nll_loss", loss, reduction)


def gaussian_nll_loss(
    self: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log(var) + (self - target)**2 / var) / 2, with var at least eps; `full` adds log(2 pi) / 2."""
    if not isinstance(var, Tensor):
        var = self * 0 + var
    if var.shape != self.shape:
        if var.shape == self.shape[:-1]:
            var = var.unsqueeze(-1)
        broadcast_shapes("gaussian_nll_loss", var.shape, self.shape)
    limited = var + (var.detach().clamp_min(eps) - var.detach())
    loss = 0.5 * (limited.log() + (self - target).square() / limited)
    return _reduced("gaussian_nll_loss", loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


# ---- margins -------------------------------------------------------------------------------------------------


def hinge_embedding_loss(
    self: Tensor, target: Tensor, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """self where the target is 1, max(0, margin - self) where it is -1."""
    loss = where(target == 1, 0.0, _relu(margin - self)) + where(target == -1, 0.0, self)
    return _reduced("hinge_embedding_loss", loss, reduction)


def margin_ranking_loss(
    self: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """max(0, margin - target * (self - input2)), where target is 1 or -1."""
    return _reduced("margin_ranking_loss", _relu(-target * (self - input2) + margin), reduction)


def cosine_embedding_loss(
    self: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """1 - cosine where the target is 1, max(0, cosine - margin) where it is -1. Shapes: (N, D), (N, D), (N,)."""
    eps = 1e-12
    product, a, b = [(x * y).sum(-1) for x, y in ((self, input2), (self, self), (input2, input2))]
    cosine = product / ((a + eps) * (b + eps)).sqrt()
    loss = where(target == 1, 1 - cosine, 0.0) + where(target == -1, _relu(cosine - margin), 0.0)
    return _reduced("cosine_embedding_loss", loss, reduction)


def triplet_margin_loss(
    self: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6,
    swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, margin + distance to the positive - distance to the negative)."""
    near, far = pairwise_distance(self, positive, p, eps), pairwise_distance(self, negative, p, eps)
    if swap:
        far = far.minimum(pairwise_distance(positive, negative, p, eps))
    return _reduced("triplet_margin_loss", _relu(margin + near - far), reduction)


# ---- sequences -----------------------------------------------------------------------------------------------


def ctc_loss(
    self: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, blank: int = 0,
    reduction: str = "mean", zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """-log of the probability that frames of classes, repeats and then blanks removed, read as the targets.

    Shapes: logarithms of probabilities (T, N, C), targets (N, S), lengths (N,). One step of the graph a frame.
    Source: Graves et al., "Connectionist Temporal Classification", 2006, section 4.1.
    """
    name = "ctc_loss"
    if self.ndim != 3 or targets.ndim != 2 or targets.shape[0] != self.shape[1]:
        raise ShapeError(
            f"{name}: got {format_shape(self.shape)} and targets {format_shape(targets.shape)}, "
            "want (T, N, C) and (N, S)"
        )
    frames, batch, classes = self.shape
    length = targets.shape[1]
    resolve_axis(f"{name}: blank", blank, classes)
    places = 2 * length + 1
    numbers = Tensor.from_node(graph.iota(length, device=self.device))
    targets = where(numbers < target_lengths.reshape(batch, 1), targets.to(int64), blank)
    pairs = [(0, 0), (0, 0), (1, 0)]
    blanks = graph.const(blank, int64, self.device)
    labels = graph.reshape(graph.pad(targets.unsqueeze(2).node, pairs, blanks), (batch, 2 * length))
    labels = Tensor.from_node(graph.pad(labels, [(0, 0), (0, 1)], blanks))  # blank, t1, blank, t2, .., blank
    before = Tensor.from_node(
        graph.shrink(graph.pad(labels.node, [(0, 0), (2, 0)], blanks), [(0, batch), (0, places)])
    )
    skips = (labels != blank) & (labels != before)
    none = graph.const(
        -1e30, self.dtype, self.device
    )  # stands for log 0, so that no infinities are subtracted
    index = graph.expand(labels.unsqueeze(0).node, (frames, batch, places))
    emitted = Tensor.from_node(graph.gather(self.node, index, 2), self).clamp_min(-1e30)
    place = Tensor.from_node(graph.iota(places, device=self.device))
    state = where(place < 2, emitted.select(0, 0), -1e30)
    back = lambda x, by: Tensor.from_node(  # noqa: E731
        graph.shrink(graph.pad(x.node, [(0, 0), (by, 0)], none), [(0, batch), (0, places)]), x
    )
    for frame in range(1, frames):
        ways = [state, back(state, 1), where(skips, back(state, 2), -1e30)]
        top = ways[0].maximum(ways[1]).maximum(ways[2]).detach()
        total = sum([(way - top).exp() for way in ways[1:]], start=(ways[0] - top).exp()).log() + top
        state = where(frame < input_lengths.reshape(batch, 1), total + emitted.select(0, frame), state)
    last = 2 * target_lengths.reshape(batch, 1)
    ends = where((place == last) | (place == last - 1), state, -1e30)
    top = ends.amax(1, True).detach()
    loss = -(((ends - top).exp().sum(1, True).log() + top).reshape(batch))
    impossible = loss > 1e29
    loss = where(impossible, 0.0 if zero_infinity else math.inf, loss)
    if reduction == "mean":
        return (loss / target_lengths.clamp_min(1).to(loss.dtype)).mean()
    return _reduced(name, loss, reduction)
