"""Every layer against PyTorch's of the same name, with PyTorch's weights: values, gradients, running statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tg_frontend import Tensor
from tg_nn import attention, layers, recurrent
from tg_nn.errors import StateError
from tg_nn.module import Module, Sequential

CASES = {
    "Linear": ((5, 4), {}, (3, 5)),
    "Linear-no-bias": ((5, 4), {"bias": False}, (2, 3, 5)),
    "Conv1d": ((4, 6, 3), {"groups": 2, "padding": 1}, (2, 4, 7)),
    "Conv2d": ((3, 4, 3), {"stride": 2, "padding": (1, 0)}, (2, 3, 6, 5)),
    "Conv3d": ((2, 3, 2), {"dilation": 2}, (1, 2, 4, 4, 4)),
    "ConvTranspose1d": ((4, 6, 3), {"stride": 2, "output_padding": 1}, (2, 4, 5)),
    "ConvTranspose2d": ((4, 2, 3), {"groups": 2, "padding": 1}, (2, 4, 3, 3)),
    "ConvTranspose3d": ((2, 3, 2), {}, (1, 2, 2, 2, 2)),
    "BatchNorm1d": ((4,), {}, (5, 4)),
    "BatchNorm2d": ((3,), {"momentum": None}, (2, 3, 4, 4)),
    "BatchNorm2d-plain": ((3,), {"affine": False, "track_running_stats": False}, (2, 3, 4, 4)),
    "BatchNorm3d": ((2,), {}, (2, 2, 2, 2, 2)),
    "InstanceNorm1d": ((3,), {"affine": True}, (2, 3, 5)),
    "InstanceNorm2d": ((3,), {"track_running_stats": True}, (2, 3, 4, 4)),
    "InstanceNorm3d": ((2,), {}, (2, 2, 2, 2, 2)),
    "LayerNorm": (((3, 4),), {}, (2, 3, 4)),
    "RMSNorm": ((6,), {"eps": 1e-5}, (2, 6)),
    "GroupNorm": ((2, 4), {}, (2, 4, 3)),
    "LSTM": ((3, 4), {"num_layers": 2, "bidirectional": True, "batch_first": True}, (2, 5, 3)),
    "GRU": ((3, 4), {"num_layers": 2, "bidirectional": True}, (5, 2, 3)),
    "GRU-no-bias": ((3, 4), {"bias": False}, (4, 2, 3)),
    "GELU": ((), {"approximate": "tanh"}, (3, 4)),
    "Softmax": ((-1,), {}, (3, 4)),
    "MaxPool2d": ((2,), {"stride": 1}, (1, 2, 4, 4)),
    "AdaptiveAvgPool2d": ((1,), {}, (1, 2, 4, 4)),
    "Flatten": ((), {}, (2, 3, 4)),
    "Dropout": ((0.0,), {}, (2, 3)),
    "Upsample": ((), {"scale_factor": 2}, (1, 2, 3, 3)),
}  # fmt: skip


def find(name: str) -> type[Module]:
    return next(getattr(home, name) for home in (layers, recurrent, attention) if hasattr(home, name))


def first(result: object):
    return result[0] if isinstance(result, tuple) else result


def close(got: Tensor, want: torch.Tensor, what: str) -> None:
    want = want.detach().numpy()
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=2e-5, atol=2e-5, err_msg=what)


def build(name: str) -> tuple[Module, torch.nn.Module, np.ndarray]:
    torch.manual_seed(0)
    arguments, options, shape = CASES[name]
    kind = name.partition("-")[0]
    theirs = getattr(torch.nn, kind)(*arguments, **options)
    with torch.no_grad():  # weights of ones would hide that they are used
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    ours = find(kind)(*arguments, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs, torch.randn(shape).numpy()


@pytest.mark.parametrize("name", CASES)
def test_layer_with_weights_of_pytorch_gives_its_values_gradients_and_statistics(name: str):
    ours, theirs, data = build(name)
    x, tx = Tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
    for _ in range(2):
        got, want = first(ours(x)), first(theirs(tx))
        close(got, want, "value")
    (got * got.detach().cos()).sum().backward()
    (want * want.detach().cos()).sum().backward()
    close(x.grad, tx.grad, "gradient of the input")
    for (label, mine), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        close(mine.grad, other.grad, f"gradient of {label}")
    for (label, mine), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        close(mine, other, label)
    close(first(ours.eval()(x)), first(theirs.eval()(tx)), "value in inference")


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("masked", ["none", "padding", "floats", "causal"])
def test_multihead_attention_equals_pytorch(masked: str, batch_first: bool):
    torch.manual_seed(1)
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=batch_first)
    ours = attention.MultiheadAttention(8, 2, batch_first=batch_first)
    ours.load_state_dict(theirs.state_dict())
    shapes = [(3, 4, 8), (3, 5, 8)] if batch_first else [(4, 3, 8), (5, 3, 8)]
    if masked == "causal":
        shapes = shapes[:1] * 2
    q, k = [torch.randn(shape) for shape in shapes]
    options = {
        "none": {},
        "padding": {"key_padding_mask": torch.arange(5).expand(3, 5) > torch.tensor([[3], [4], [2]])},
        "floats": {"attn_mask": torch.randn(6, 4, 5)},
        "causal": {"attn_mask": ~torch.ones(4, 4, dtype=torch.bool).tril()},
    }[masked]
    want, shares = theirs(q, k, k, need_weights=True, **options)
    mine = {name: Tensor(value) for name, value in options.items()}
    got, weights = ours(Tensor(q), Tensor(k), Tensor(k), need_weights=True, **mine)
    close(got, want, "value")
    close(weights, shares, "weights")
    if masked == "causal":
        close(ours(Tensor(q), Tensor(k), Tensor(k), is_causal=True)[0], want, "is_causal")


class Shared(Module):
    def __init__(self):
        self.table = layers.Embedding(4, 3)
        self.blocks = [layers.Linear(3, 3), Sequential(layers.Linear(3, 3), Tensor.relu)]
        self.named = {"head": layers.Linear(3, 4, bias=False)}
        self.named["head"].weight = self.table.weight
        self._scratch = Tensor([1.0])


def test_module_names_walk_lists_dicts_and_shared_tensors():
    names = ["table.weight", "blocks.0.weight", "blocks.0.bias", "blocks.1.0.weight", "blocks.1.0.bias"]
    model = Shared()
    assert list(model.state_dict()) == [*names, "named.head.weight"]
    assert [name for name, _ in model.named_parameters()] == names
    assert model.num_parameters() == 12 + 2 * 12
    assert "(table): Embedding(num_embeddings=4, embedding_dim=3" in repr(model)
    narrow = model.to("float16")
    assert narrow.named["head"].weight is narrow.table.weight
    assert {t.dtype.name for t in narrow.parameters()} == {"float16"}


def test_load_state_dict_with_missing_extra_and_misshapen_keys_names_them_and_changes_nothing():
    model = layers.Linear(2, 3)
    before = model.weight.tolist()
    with pytest.raises(StateError, match=r"weight got \(3, 3\), want \(3, 2\); missing bias"):
        model.load_state_dict({"weight": Tensor([[0.0] * 3] * 3), "extra": Tensor(1.0)})
    with pytest.raises(StateError, match="unexpected extra"):
        model.load_state_dict(model.state_dict() | {"extra": Tensor(1.0)})
    assert model.weight.tolist() == before
    model.load_state_dict({"bias": Tensor([1.0, 2.0, 3.0]), "extra": Tensor(1.0)}, strict=False)
    assert model.bias.tolist() == [1.0, 2.0, 3.0]


def test_rotary_positions_turn_pairs_by_angles_of_position():
    tables = attention.rotary_tables(Tensor([0, 3]), 4, base=100.0)
    x = Tensor([[1.0, 2.0, 3.0, 4.0]] * 2)
    got = attention.rotate(x, tables).numpy()
    np.testing.assert_allclose(got[0], [1, 2, 3, 4])
    for pair, angle in ((0, 3.0), (1, 0.3)):
        turned = complex(1 + pair, 3 + pair) * np.exp(1j * angle)
        np.testing.assert_allclose(got[1][[pair, pair + 2]], [turned.real, turned.imag], rtol=1e-5)
