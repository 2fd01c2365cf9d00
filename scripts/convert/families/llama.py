"""LLaMA 1 to 3, Mistral, Mixtral, and their ReLU-fied relatives."""

from ..family import LAYER, Family, with_experts

EXPERT = "block_sparse_moe.experts.{expert}"
EXPERTS = with_experts("block_sparse_moe.gate", f"{EXPERT}.w1", f"{EXPERT}.w3", f"{EXPERT}.w2")


def n_experts(config):
    """Those of Mixtral."""
    n = config.count("n_expert")
    return n if n > 1 else 0


FAMILY = Family(
    arch="llama",
    classes=("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "SparseLlamaForCausalLM"),
    types=("llama", "mistral", "mixtral", "sparsellama"),
    interleaved=True,
    experts=n_experts,
    layer=lambda config: EXPERTS if n_experts(config) else LAYER,
)
