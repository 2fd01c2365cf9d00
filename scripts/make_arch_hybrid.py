"""Tiny random models whose layers are one mixer or one FFN each, some of them recurrent (Mamba-2): for make_arch_gguf.py.

A letter stands for each layer: M recurs, A attends, F is an FFN, E a mixture of experts. Of six experts two are chosen. Keys say
how much rotates, and nothing does.

    nemotron_h     text of bytes (GPT-2, cut as Pixtral does), a context of a million, output of its own
    nemotron_h-biases  no tokenizer, biases of all matrices, three taps, one group of heads, tied output
    nemotron_h_moe  no tokenizer, as Nemotron 3 Nano: experts, one of them for all tokens
    nemotron_h_moe-latent  no tokenizer, as Nemotron 3 Super: experts of another width than the residual stream
    nemotron_h_moe-old  no tokenizer, no key that says how many neurons an expert has, as in files of 2025
    nemotron_h_moe-ahead  no tokenizer, a block behind the others that predicts further tokens, as many experts as each layer says
    nemotron_h_moe-ollama  no tokenizer, names of Ollama's files, no key of the experts' width, tensors that predict further tokens

To add one: as in make_arch_gguf.py.
"""

from dataclasses import dataclass, replace

import numpy as np

from make_arch_parts import Shape, attention, gpt2_bytes, no_vocab

ALL = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")


@dataclass(frozen=True)
class Mamba:
    n_heads: int = 4
    head_dim: int = 3
    n_groups: int = 2
    n_state: int = 6
    n_conv: int = 4

    @property
    def n_inner(self):
        return self.n_heads * self.head_dim


@dataclass(frozen=True)
class Experts:
    n: int = 6
    # One number, or one for each layer.
    n_used: int | tuple = 2
    n_ff: int = 10
    n_shared: int = 14
    latent: int | None = None


def pixtral_bytes(writer, shape):
    return gpt2_bytes(writer, shape, "pixtral")


def write_keys(writer, shape, n_vocab, kinds, mamba, n_ff_of):
    writer.add_vocab_size(n_vocab)
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(len(kinds))
    writer.add_feed_forward_length([n_ff_of if kind in "FEX" else 0 for kind in kinds])
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv([shape.n_head_kv if kind in "AX" else 0 for kind in kinds])
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(0.02)
    writer.add_layer_norm_eps(0.02)
    writer.add_rope_dimension_count(shape.head_dim - 2)
    writer.add_ssm_conv_kernel(mamba.n_conv)
    writer.add_ssm_inner_size(mamba.n_inner)
    writer.add_ssm_state_size(mamba.n_state)
    writer.add_ssm_time_step_rank(mamba.n_heads)
    writer.add_ssm_group_count(mamba.n_groups)


def recurrent(weights, block, n_embd, mamba):
    m, n_inner = mamba.n_heads, mamba.n_inner
    n_channels = n_inner + 2 * mamba.n_groups * mamba.n_state
    weights.matrix(f"{block}.ssm_in.weight", n_inner + n_channels + m, n_embd)
    weights.add(f"{block}.ssm_conv1d.weight", weights.rng.standard_normal((n_channels, mamba.n_conv)))
    weights.bias(f"{block}.ssm_conv1d.bias", n_channels)
    weights.bias(f"{block}.ssm_dt.bias", m)
    # From states that fade within a token to those that last.
    weights.add(f"{block}.ssm_a", -np.exp(weights.rng.uniform(-4, 1, (m, 1))))
    weights.add(f"{block}.ssm_d", weights.rng.standard_normal((m, 1)))
    weights.norm(f"{block}.ssm_norm.weight", (mamba.n_groups, n_inner // mamba.n_groups))
    weights.matrix(f"{block}.ssm_out.weight", n_embd, n_inner)


def mixture(weights, block, shape, experts, latent_names):
    width = experts.latent or shape.n_embd
    weights.matrix(f"{block}.ffn_gate_inp.weight", experts.n, shape.n_embd, 2.0)
    # So large that it has a say.
    weights.add(f"{block}.exp_probs_b.bias", 0.3 * weights.rng.standard_normal(experts.n))
    if experts.latent:
        into, out_of = latent_names
        weights.matrix(f"{block}.{into}.weight", width, shape.n_embd)
        weights.matrix(f"{block}.{out_of}.weight", shape.n_embd, width)
    for name, rows, columns in (("ffn_up_exps", experts.n_ff, width), ("ffn_down_exps", width, experts.n_ff)):
        weights.add(f"{block}.{name}.weight", weights.rng.standard_normal((experts.n, rows, columns)) / np.sqrt(columns))
    if experts.n_shared:
        weights.matrix(f"{block}.ffn_up_shexp.weight", experts.n_shared, shape.n_embd)
        weights.matrix(f"{block}.ffn_down_shexp.weight", shape.n_embd, experts.n_shared)


def hybrid(
    writer, weights, shape, n_vocab, *, kinds, mamba=Mamba(), experts=None, biases=(), tied=False, stated=True,
    latent_names=("ffn_latent_down", "ffn_latent_up"),
):  # fmt: skip
    """`stated` says whether keys have the sizes of experts. X is a block that predicts further tokens."""
    n_ff = shape.n_ff
    if experts:
        # Where no key says how many neurons an expert has, these are divided by how many are chosen.
        n_ff = experts.n_ff if stated else experts.n_ff * experts.n_used
        writer.add_expert_count(experts.n)
        if isinstance(experts.n_used, tuple):
            writer.add_array(f"{writer.arch}.expert_used_count", list(experts.n_used))
        else:
            writer.add_expert_used_count(experts.n_used)
        if stated:
            writer.add_expert_feed_forward_length(experts.n_ff)
        writer.add_expert_shared_feed_forward_length(experts.n_shared)
        writer.add_expert_shared_count(1)
        writer.add_expert_weights_norm(True)
        writer.add_expert_weights_scale(2.5)
        writer.add_expert_group_count(1)
        if experts.latent and latent_names[0] == "ffn_latent_down":
            writer.add_moe_latent_size(experts.latent)
    write_keys(writer, shape, n_vocab, kinds, mamba, n_ff)
    if "X" in kinds:
        writer.add_nextn_predict_layers(kinds.count("X"))
    weights.matrix("token_embd.weight", n_vocab, shape.n_embd, np.sqrt(shape.n_embd))
    for i, kind in enumerate(kinds):
        block = f"blk.{i}"
        weights.norm(f"{block}.attn_norm.weight", shape.n_embd)
        if kind == "M":
            recurrent(weights, block, shape.n_embd, mamba)
        if kind in "AX":
            attention(weights, block, shape, biases)
        if kind == "F":
            for name, rows, columns in (("ffn_up", n_ff, shape.n_embd), ("ffn_down", shape.n_embd, n_ff)):
                weights.matrix(f"{block}.{name}.weight", rows, columns)
                if name in biases:
                    weights.bias(f"{block}.{name}.bias", rows)
        if kind in "EX":
            mixture(weights, block, shape, experts, latent_names)
        if kind == "X":
            weights.norm(f"{block}.post_attention_norm.weight", shape.n_embd)
            for name in ("enorm", "hnorm", "shared_head_norm"):
                weights.norm(f"{block}.nextn.{name}.weight", shape.n_embd)
            weights.matrix(f"{block}.nextn.eh_proj.weight", shape.n_embd, 2 * shape.n_embd)
    weights.norm("output_norm.weight", shape.n_embd)
    if not tied:
        weights.matrix("output.weight", n_vocab, shape.n_embd)


def nemotron_h(writer, weights, shape, n_vocab, **kinds):
    hybrid(writer, weights, shape, n_vocab, **kinds)


def nemotron_h_moe(writer, weights, shape, n_vocab, *, ahead=(), **kinds):
    hybrid(writer, weights, shape, n_vocab, **kinds)
    for name in ahead:
        weights.matrix(name, shape.n_embd, shape.n_embd)


# As MODELS of make_arch_gguf.py.
SMALL = Shape(n_embd=16, n_ff=20, n_head=4, n_head_kv=2, key_length=6)
MODELS = {
    "nemotron_h": (nemotron_h, pixtral_bytes, replace(SMALL, n_ctx=1 << 20), {"kinds": "MFAMFM"}),
    "nemotron_h-biases": (
        nemotron_h, no_vocab, SMALL,
        {"kinds": "AMFM", "biases": ALL, "tied": True, "mamba": Mamba(3, 5, 1, 7, 3)},
    ),
    "nemotron_h_moe": (nemotron_h_moe, no_vocab, SMALL, {"kinds": "MEAEM", "experts": Experts()}),
    "nemotron_h_moe-latent": (nemotron_h_moe, no_vocab, SMALL, {"kinds": "EMAE", "experts": Experts(latent=9)}),
    "nemotron_h_moe-old": (nemotron_h_moe, no_vocab, SMALL, {"kinds": "MEA", "experts": Experts(), "stated": False, "tied": True}),
    "nemotron_h_moe-ahead": (
        nemotron_h_moe, no_vocab, SMALL, {"kinds": "MEAEX", "experts": Experts(n_used=(0, 2, 0, 3, 2))},
    ),
    "nemotron_h_moe-ollama": (
        nemotron_h_moe, no_vocab, SMALL,
        {
            "kinds": "MEA", "experts": Experts(latent=9), "latent_names": ("ffn_latent_in", "ffn_latent_out"),
            "ahead": ("mtp.layers.0.enorm.weight", "mtp.eh_proj.weight"),
        },
    ),
}  # fmt: skip
NAMES = {}
