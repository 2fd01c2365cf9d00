#!/usr/bin/env python3
"""Write GGUF models of scripts/make_arch_gguf.py as folders that the Hugging Face hub would have, for tests of the converter.

    pip install -r scripts/requirements.txt
    python scripts/make_hf_checkpoint.py --out DIR [--type f32|f16|bf16] [--shards N] tests/golden/arch/*.gguf

Each becomes DIR/NAME with config.json, *.safetensors and tokenizer.json or tokenizer.model, named and laid out as transformers' code for the
architecture has them. It shares no code with scripts/convert, so that what both ways give must be what there was. Models
without a vocabulary get a made-up one of SentencePiece's kind.
"""

import argparse
import json
import struct
from pathlib import Path

import gguf
import numpy as np

from make_hf_experts import granite, granitemoe, mixtral, qwen3moe, smallthinker
from make_hf_hybrid import nemotron_h, nemotron_h_moe
from make_hf_parts import FOLLOW, Source, in_halves, less_one, usual_config, with_names

BITS = {"f32": ("F32", "<f4"), "f16": ("F16", "<f2"), "bf16": ("BF16", "<u2")}


# Architectures: (config.json, tensors).


def llama(source):
    if source.key("expert_count"):
        return mixtral(source)
    return usual_config(source, "LlamaForCausalLM", "llama", hidden_act="silu"), in_halves(source, with_names(source))


def bamboo(source):
    return usual_config(source, "BambooForCausalLM", "bamboo", hidden_act="relu"), in_halves(source, with_names(source))


def arcee(source):
    return usual_config(source, "ArceeForCausalLM", "arcee", hidden_act="relu2"), in_halves(source, with_names(source))


def qwen2(source):
    return usual_config(source, "Qwen2ForCausalLM", "qwen2", hidden_act="silu"), with_names(source)


def qwen3(source):
    return usual_config(source, "Qwen3ForCausalLM", "qwen3", hidden_act="silu"), with_names(source)


def minicpm(source):
    n_layer = source.key("block_count")
    scales = {
        "scale_emb": source.key("embedding_scale", 12.0),
        "scale_depth": source.key("residual_scale", 1.4 / n_layer**0.5) * n_layer**0.5,
        "dim_model_base": source.key("embedding_length") / source.key("logit_scale", source.key("embedding_length") / 256),
    }
    return usual_config(source, "MiniCPMForCausalLM", "minicpm", **scales), in_halves(source, with_names(source))


def smollm3(source):
    rotated = [int((i + 1) % 4 != 0) for i in range(source.key("block_count"))]
    config = usual_config(source, "SmolLM3ForCausalLM", "smollm3", no_rope_layers=rotated, use_sliding_window=False)
    return config, in_halves(source, with_names(source))


def nemotron(source):
    config = usual_config(source, "NemotronForCausalLM", "nemotron", "norm_eps", hidden_act="relu2")
    return config | {"attention_bias": True, "mlp_bias": True}, less_one(with_names(source))


def olmo2(source):
    """OLMo 3 has windows."""
    layer = "model.layers.{}."
    norms = {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
    names = {role: layer + name for role, name in norms.items()}
    number = 3 if source.key("attention.sliding_window") else 2
    return usual_config(source, f"Olmo{number}ForCausalLM", f"olmo{number}"), with_names(source, **names)


def mistral3(source):
    """With the text in a part of its own, as models that see have it."""
    text = usual_config(source, "Ministral3ForCausalLM", "ministral3")
    multiplier, temperature = source.key("rope.scaling.yarn_log_multiplier"), source.key("attention.temperature_scale")
    if multiplier is not None:
        text["rope_scaling"] |= {"mscale": 1.0, "mscale_all_dim": multiplier}
    if temperature is not None:
        text["rope_scaling"]["llama_4_scaling_beta"] = temperature
    text["rope_parameters"] = {"rope_type": "default"} | (text.pop("rope_scaling") or {}) | {"rope_theta": text.pop("rope_theta")}
    tensors = {f"language_model.{name}": values for name, values in in_halves(source, with_names(source)).items()}
    tensors["vision_tower.patch_conv.weight"] = np.zeros((2, 2), np.float32)
    config = {"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3", "text_config": text}
    return config, tensors


def stablelm(source):
    parallel = "blk.0.ffn_norm.weight" not in source.tensors
    config = usual_config(source, "StableLmForCausalLM", "stablelm", "layer_norm_eps", use_parallel_residual=parallel)
    tensors = {}
    for name, values in with_names(source).items():
        if ".q_norm." in name or ".k_norm." in name:
            config["qk_layernorm"] = True
            heads = name.replace("_norm.weight", "_layernorm.norms.{}.weight")
            tensors |= {heads.format(head): row for head, row in enumerate(values)}
        else:
            tensors[name] = values
    return config, tensors


def starcoder2(source):
    mlp = "model.layers.{}.mlp."
    names = {"ffn_up": mlp + "c_fc", "ffn_down": mlp + "c_proj"}
    config = usual_config(source, "Starcoder2ForCausalLM", "starcoder2", "norm_epsilon", hidden_act="gelu_pytorch_tanh")
    return config, with_names(source, **names)


def exaone(source):
    attention, mlp = "transformer.h.{}.attn.attention.", "transformer.h.{}.mlp."
    names = {
        "token_embd": "transformer.wte",
        "output_norm": "transformer.ln_f",
        "attn_norm": "transformer.h.{}.ln_1",
        "ffn_norm": "transformer.h.{}.ln_2",
        **{f"attn_{role}": f"{attention}{role[0] if role != 'output' else 'out'}_proj" for role in ("q", "k", "v", "output")},
        "ffn_gate": mlp + "c_fc_0",
        "ffn_up": mlp + "c_fc_1",
        "ffn_down": mlp + "c_proj",
    }
    config = usual_config(source, "ExaoneForCausalLM", "exaone", "layer_norm_epsilon", activation_function="silu")
    config["num_layers"] = config.pop("num_hidden_layers")
    return config, with_names(source, **names)


def opt(source):
    """The first two rows of its table of positions belong to no position."""
    names = {
        "token_embd": "model.decoder.embed_tokens",
        "position_embd": "model.decoder.embed_positions",
        "output_norm": "model.decoder.final_layer_norm",
        "attn_norm": "model.decoder.layers.{}.self_attn_layer_norm",
        "attn_output": "model.decoder.layers.{}.self_attn.out_proj",
        **{f"attn_{role}": f"model.decoder.layers.{{}}.self_attn.{role}_proj" for role in "qkv"},
        "ffn_norm": "model.decoder.layers.{}.final_layer_norm",
        "ffn_up": "model.decoder.layers.{}.fc1",
        "ffn_down": "model.decoder.layers.{}.fc2",
    }
    tensors = with_names(source, **names)
    table = tensors["model.decoder.embed_positions.weight"]
    tensors["model.decoder.embed_positions.weight"] = np.concatenate([table[:2] - 1, table])
    config = usual_config(source, "OPTForCausalLM", "opt", "layer_norm_eps", activation_function="relu")
    config["ffn_dim"] = config.pop("intermediate_size")
    return config | {"do_layer_norm_before": True, "word_embed_proj_dim": config["hidden_size"]}, tensors


def falcon(source):
    """Each group of heads has its queries, its key and its value in a row."""
    n_head, n_kv = source.key("attention.head_count"), source.key("attention.head_count_kv")
    head_dim = source.key("embedding_length") // n_head
    two = "blk.0.attn_norm_2.weight" in source.tensors
    names = {
        "token_embd": "transformer.word_embeddings",
        "output_norm": "transformer.ln_f",
        "attn_norm": "transformer.h.{}.ln_mlp" if two else "transformer.h.{}.input_layernorm",
        "attn_norm_2": "transformer.h.{}.ln_attn",
        "attn_qkv": "transformer.h.{}.self_attention.query_key_value",
        "attn_output": "transformer.h.{}.self_attention.dense",
        "ffn_up": "transformer.h.{}.mlp.dense_h_to_4h",
        "ffn_down": "transformer.h.{}.mlp.dense_4h_to_h",
    }
    tensors = with_names(source, **names)
    for name, values in tensors.items():
        if "query_key_value" in name:
            heads = [values[i : i + head_dim] for i in range(0, len(values), head_dim)]
            q, k, v = heads[:n_head], heads[n_head : n_head + n_kv], heads[n_head + n_kv :]
            per = n_head // n_kv
            tensors[name] = np.concatenate([head for g in range(n_kv) for head in (*q[g * per : (g + 1) * per], k[g], v[g])])
    new = two or n_kv > 1
    config = usual_config(source, "FalconForCausalLM", "falcon", "layer_norm_epsilon", activation="gelu_new")
    config["ffn_hidden_size"] = config.pop("intermediate_size")
    config["num_kv_heads"] = config.pop("num_key_value_heads") if new else 3
    config |= {"new_decoder_architecture": new, "multi_query": True, "parallel_attn": True, "alibi": False}
    return config | ({"num_ln_in_parallel_attn": 2 if two else 1} if new else {}), tensors


def jais2(source):
    return usual_config(source, "Jais2ForCausalLM", "jais2", "layer_norm_eps", hidden_act="relu2"), with_names(source)


def phi3(source):
    names = {"attn_qkv": "model.layers.{}.self_attn.qkv_proj", "ffn_up": "model.layers.{}.mlp.gate_up_proj"}
    config = usual_config(source, "Phi3ForCausalLM", "phi3")
    if config["rope_scaling"]:
        # Where Phi has it.
        config["original_max_position_embeddings"] = config["rope_scaling"].pop("original_max_position_embeddings")
    return config, with_names(source, **names)


GEMMA_NORMS = {
    "post_attention_norm": "model.layers.{}.post_attention_layernorm",
    "ffn_norm": "model.layers.{}.pre_feedforward_layernorm",
    "post_ffw_norm": "model.layers.{}.post_feedforward_layernorm",
}


def gemma_config(source, classes, model_type, **settings):
    config = usual_config(source, classes, model_type, hidden_activation="gelu_pytorch_tanh")
    scale = source.key("attention.scale")
    config["query_pre_attn_scalar"] = config["head_dim"] if scale is None else scale**-2
    for cap in ("attn_logit_softcapping", "final_logit_softcapping"):
        config[cap] = source.key(cap, settings.pop(cap, None))
    return config | settings


def gemma2(source):
    usual = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    config = gemma_config(source, "Gemma2ForCausalLM", "gemma2", **usual)
    # Its classes list them, older ones do not.
    config.pop("layer_types", None)
    config["sliding_window"] = source.key("attention.sliding_window", 4096)
    return config, less_one(with_names(source, **GEMMA_NORMS))


def gemma3(source):
    config = gemma_config(source, "Gemma3ForCausalLM", "gemma3_text")
    config["rope_local_base_freq"] = source.key("rope.freq_base_swa", 10000.0)
    config.pop("layer_types", None)
    config["sliding_window"] = source.key("attention.sliding_window", 4096)
    return config, less_one(with_names(source, **GEMMA_NORMS))


def plm(source):
    names = {"attn_kv_a_mqa": "kv_a_proj_with_mqa", "attn_kv_a_norm": "kv_a_layernorm", "attn_kv_b": "kv_b_proj"}
    names = {role: f"model.layers.{{}}.self_attn.{name}" for role, name in names.items()}
    config = usual_config(source, "PLMForCausalLM", "plm", hidden_act="relu2", q_lora_rank=None)
    turned = source.key("rope.dimension_count")
    sizes = {
        "kv_lora_rank": source.key("attention.kv_lora_rank"),
        "qk_rope_head_dim": turned,
        "qk_nope_head_dim": source.key("attention.key_length") - turned,
        "v_head_dim": source.key("attention.value_length"),
    }
    for name in ("head_dim", "partial_rotary_factor"):
        config.pop(name, None)
    return config | sizes, with_names(source, **names)


ARCHITECTURES = {
    function.__name__: function
    for function in (llama, bamboo, arcee, qwen2, qwen3, granite, minicpm, smollm3, nemotron, olmo2, mistral3, stablelm, starcoder2,
                     exaone, opt, falcon, jais2, phi3, gemma2, gemma3, plm, smallthinker, qwen3moe, granitemoe, nemotron_h,
                     nemotron_h_moe)
}  # fmt: skip
# What the hub calls activations that it calls otherwise.
ACTIVATIONS = {"gelu": "gelu_pytorch_tanh", "gelu_erf": "gelu", "gelu_quick": "quick_gelu"}


# Files.


def bits_of(values, kind):
    if kind == "bf16":
        # Of what is half-way, as of other values, the upper half: what it is rounded to does not matter here.
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2")
    return values.astype(BITS[kind][1])


def write_safetensors(path, tensors, kind):
    head, data, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, values in tensors.items():
        raw = bits_of(values, kind).tobytes()
        head[name] = {"dtype": BITS[kind][0], "shape": list(values.shape), "data_offsets": [at, at + len(raw)]}
        data.append(raw)
        at += len(raw)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))


def write_weights(folder, tensors, kind, n_shards):
    if n_shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, kind)
        return
    names, places = list(tensors), {}
    for i in range(n_shards):
        name = f"model-{i + 1:05}-of-{n_shards:05}.safetensors"
        share = names[i::n_shards]
        write_safetensors(folder / name, {key: tensors[key] for key in share}, kind)
        places |= dict.fromkeys(share, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}, indent=1))


def made_up_tokens(n):
    return ["<unk>", "<s>", "</s>", *(chr(ord("!") + i) for i in range(n - 3))]


def byte_fallback_json(tokens):
    """tokenizer.json of SentencePiece's kind, the first three tokens of which are special."""
    pairs = [["t", "h"], ["▁", "th"], ["▁th", "e"]]
    return {
        "added_tokens": [{"id": i, "content": tokens[i], "special": True} for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]},
        "pre_tokenizer": None,
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "unk_token": "<unk>",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [pair for pair in pairs if "".join(pair) in tokens],
        },
    }


def made_up_tokenizer(n_vocab):
    """(tokenizer.json, tokenizer_config.json) for a model that has none."""
    return byte_fallback_json(made_up_tokens(n_vocab)), {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def varint(n):
    head = []
    while n > 0x7F:
        head.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*head, n])


def field(number, value):
    """A field of a protocol buffer: a whole number, a float, or bytes."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def sentencepiece_model(source):
    """tokenizer.model of a file's vocabulary."""
    pieces = zip(*(source.tokenizer(f"ggml.{name}") for name in ("tokens", "scores", "token_type")))
    model = b"".join(field(1, field(1, text.encode()) + field(2, score) + field(3, kind)) for text, score, kind in pieces)
    # Fields with numbers of two bytes, and of all kinds, are passed over.
    trainer = field(3, 2) + field(35, 1) + field(45, b"<unk>") + field(10, 0.9995)
    prefix = int(source.tokenizer("ggml.add_space_prefix", True))
    return model + field(2, trainer) + field(3, field(1, b"identity") + field(3, prefix))


SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"


def words(pre):
    """How text is cut into words, as tokenizer.json has it."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}

    def split(regex):
        return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}

    if pre == "gpt-2":
        return [byte_level]
    if pre == "falcon":
        digits = {"type": "Digits", "individual_digits": False}
        return [{"type": "Punctuation", "behavior": "Contiguous"}, byte_level, digits, split("[0-9][0-9][0-9]")]
    regexes = {
        "llama-bpe": SPLIT + r"|\s+(?!\S)|\s+",
        "pixtral": SPLIT + r"|\s+(?!\S)|\s+",
        "qwen2": SPLIT.replace("{1,3}", "") + r"|\s+(?!\S)|\s+",
        "jais-2": SPLIT + "".join(rf"|\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4, 2, 1)) + r"|\s+",
    }
    return [split(regexes[pre]), byte_level | {"use_regex": False}]


def tokenizer_json(source, n_vocab):
    """(tokenizer.json, tokenizer_config.json)"""
    model, tokens = source.tokenizer("ggml.model"), source.tokenizer("ggml.tokens")
    if model == "gpt2":
        kinds = source.tokenizer("ggml.token_type")
        special = [i for i, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL]
        tokenizer = {
            "added_tokens": [{"id": i, "content": tokens[i], "special": True} for i in special],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": words(source.tokenizer("ggml.pre"))},
            "model": {
                "type": "BPE",
                "ignore_merges": source.tokenizer("ggml.pre") in ("llama-bpe", "pixtral"),
                "vocab": {token: i for i, token in enumerate(tokens) if i not in special},
                "merges": source.tokenizer("ggml.merges"),
            },
        }
    else:
        tokenizer = byte_fallback_json(tokens or made_up_tokens(n_vocab))
        tokens = tokens or made_up_tokens(n_vocab)
    settings = {"chat_template": source.tokenizer("chat_template")}
    for kind in ("bos", "eos", "unknown", "padding"):
        i = source.tokenizer(f"ggml.{kind}_token_id", {"bos": 1, "eos": 2, "unknown": 0}.get(kind) if model != "gpt2" else None)
        settings[f"{kind[:3]}_token"] = None if i is None else tokens[i]
        settings[f"add_{kind}_token"] = source.tokenizer(f"ggml.add_{kind}_token")
    return tokenizer, {key: value for key, value in settings.items() if value is not None}


def write(path, folder, kind="f32", n_shards=1):
    """The model at `path` as a folder."""
    source = Source(path)
    if source.arch not in ARCHITECTURES:
        raise SystemExit(f"{path}: architecture {source.arch} is not known; {', '.join(ARCHITECTURES)} are")
    config, tensors = ARCHITECTURES[source.arch](source)
    activation, threshold = source.key("hidden_activation"), source.key("activation_threshold")
    if activation:
        its = next((name for name in ("hidden_activation", "activation_function", "activation") if name in config), "hidden_act")
        config[its] = ACTIVATIONS.get(activation, activation)
    if threshold is not None:
        config["hidden_act_param"] = threshold
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    write_weights(folder, tensors, kind, n_shards)
    tokenizer, settings = tokenizer_json(source, len(source.tensors["token_embd.weight"]))
    if source.tokenizer("ggml.model") == "llama":
        (folder / "tokenizer.model").write_bytes(sentencepiece_model(source))
    else:
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("models", type=Path, nargs="+", metavar="MODEL.gguf")
    ap.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the folders")
    ap.add_argument("--type", choices=BITS, default="f32", help="type of all tensors (default: f32)")
    ap.add_argument("--shards", type=int, default=1, help="files of weights (default: 1)")
    args = ap.parse_args()
    for path in args.models:
        write(path, args.out / path.stem, args.type, args.shards)
        print(args.out / path.stem)


if __name__ == "__main__":
    main()
