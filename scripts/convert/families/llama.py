"""LLaMA 1 to 3, Mistral, and their ReLU-fied relatives."""

from ..family import Family


def check(config):
    window, n_ctx = config.raw.get("sliding_window"), config["n_ctx"]
    if isinstance(window, int) and window < n_ctx:
        print(f"{config.path}: sliding window of {window} is dropped, attention is full")


FAMILY = Family(
    arch="llama",
    classes=("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "SparseLlamaForCausalLM"),
    types=("llama", "mistral", "sparsellama"),
    interleaved=True,
    check=check,
)
