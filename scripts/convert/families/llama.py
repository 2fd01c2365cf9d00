"""LLaMA 1 to 3, Mistral, and their ReLU-fied relatives."""

from ..family import Family

FAMILY = Family(
    arch="llama",
    classes=("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "SparseLlamaForCausalLM"),
    types=("llama", "mistral", "sparsellama"),
    interleaved=True,
)
