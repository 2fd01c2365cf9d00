#!/usr/bin/env python3
"""Golden values for the tests, computed with PyTorch from the model's Hugging Face directory.

    pip install -r scripts/requirements.txt
    python scripts/make_golden.py --hf DIR --out tests/golden [--text FILE] [--n-ctx 256]

DIR is what scripts/train_tiny.py writes: a LLaMA-shaped model with tokenizer.json and a BOS token. The weights
are computed with in float32 (eager attention, no KV cache, one thread). Written are:

golden.json
    model      n_vocab, n_layer, n_embd, n_ff, bos
    prompts    text, token ids (BOS first) and `logits`, the offset in bytes in golden.bin of the last
               position's logits, n_vocab values
    greedy     prompt, its ids, 200 token ids that follow it (no stop at EOS), and at each step the margin by
               which the best logit leads the second
    loss       text, n_ctx, the negative log likelihood in nats summed per window, how many tokens were scored,
               nats per token and perplexity; and per layer the share of gate values <= 0 over the windows,
               which is the share of neurons that a ReLU turns off
golden.bin
    little-endian f32

The loss follows llama.cpp's perplexity tool: the text's tokens, BOS first, are cut into consecutive windows of
n_ctx and what is left is dropped; each window's first token is replaced by BOS; in each window the predictions
of tokens n_ctx/2+1 ..= n_ctx-1 count.
"""

import argparse
import json
import math
import os
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM
from transformers.utils import logging

GREEDY_PROMPT = "Once upon a time"
GREEDY_TOKENS = 200
LONG_PROMPT_TOKENS = 256

# From Lewis Carroll, "Alice's Adventures in Wonderland" (1865), in the public domain.
LONG_PROMPT = """\
Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or \
twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, "and what \
is the use of a book," thought Alice, "without pictures or conversations?"

So she was considering in her own mind (as well as she could, for the hot day made her feel very sleepy and stupid), \
whether the pleasure of making a daisy-chain would be worth the trouble of getting up and picking the daisies, when \
suddenly a White Rabbit with pink eyes ran close by her.

There was nothing so very remarkable in that; nor did Alice think it so very much out of the way to hear the Rabbit \
say to itself, "Oh dear! Oh dear! I shall be late!" (when she thought it over afterwards, it occurred to her that \
she ought to have wondered at this, but at the time it all seemed quite natural); but when the Rabbit actually took \
a watch out of its waistcoat-pocket, and looked at it, and then hurried on, Alice started to her feet, for it flashed \
across her mind that she had never before seen a rabbit with either a waistcoat-pocket, or a watch to take out of \
it, and burning with curiosity, she ran across the field after it."""

PROMPTS = [
    "Hello",
    "The little dog ran to the river and saw a big red boat.",
    "Zoë’s naïve café — 你好, мир! 🦀\t<|x|>  3.14159\n\n\u200b\x07End ",
    LONG_PROMPT,
]

STORY = """\
Once there was a girl named Nora who lived in a small white house at the edge of a village. Behind the house was a \
garden, and behind the garden was a hill. Every morning Nora looked at the hill and asked her grandmother, "What is \
on the other side?"

"Another village," said her grandmother. "And behind it there is another hill. Eat your bread, my dear."

But Nora was not happy with this answer. She wanted to see it with her own eyes. So one day, when the sun was warm \
and the wind was soft, she put an apple and a piece of cheese into her bag. She put on her red hat, and she told the \
cat to take care of the house. "I will be back before dark," she said. The cat looked at her and went back to sleep.

The path up the hill was long. First Nora walked past the old mill, where the miller waved at her. Then she walked \
past a field with three brown cows. One of the cows came to the fence and looked at her bag. "No," said Nora, "the \
apple is for me." The cow looked so sad that Nora laughed. She took the apple out of her bag, broke it in two, and \
gave one half to the cow.

After the field there were trees, and under the trees it was cool and dark. Nora heard a small voice. It sounded as \
if someone was crying. She looked behind a rock, and there she found a little gray bird. It was sitting on the ground, \
and it could not fly, because a thin string was tied around its leg.

"Do not be afraid," said Nora. "I will help you." She sat down and held the bird in one hand. With the other hand she \
pulled at the string. It was not easy, because the knot was very small. She tried again and again. At last the string \
came off. The bird jumped onto her finger and shook its wings.

"Thank you," said the bird. "Nobody else stopped for me. A fox came by, but he only wanted to eat me. A man came by, \
but he was singing so loudly that he did not hear me. Where are you going?"

"I am going to the top of the hill," said Nora. "I want to see what is on the other side."

"Then I will show you the short way," said the bird. It flew from tree to tree, and Nora followed it. They crossed a \
stream on five flat stones. They climbed over a fallen tree. They walked through grass that was taller than Nora, so \
that only her red hat could be seen. And then, all at once, there was no more hill to climb.

Nora stood still and looked. On the other side of the hill there was no village at all. There was the sea. It was \
blue and green, and it went on and on until it touched the sky. There were boats with white sails, and they were so \
far away that they looked like toys. Nora had never seen so much water. She sat down on the grass and ate her cheese, \
and she gave the crumbs to the bird.

"Why did my grandmother tell me that there was a village?" she asked.

"Maybe she has never been here," said the bird. "Many people live next to a hill all their lives and never climb it."

When the sun was low, Nora said goodbye to her new friend and ran home. Her grandmother was standing at the door with \
a lamp in her hand. She was a little angry and very glad. "Where have you been?" she asked.

"I have been to the top of the hill," said Nora. "There is no village, Grandmother. There is the sea!"

Her grandmother was quiet for a long time. Then she smiled. "When I was a girl, my mother told me that there was a \
village," she said, "and I never asked again. Will you show me tomorrow?"

So the next day they went together, slowly, hand in hand. They gave the cow a whole apple. And when they came to the \
top, the old woman took off her shoes, looked at the blue water, and laughed like a child. The little gray bird sat \
on her shoulder and sang. From that day on, when Nora asked a question, her grandmother always said, "I do not know, \
my dear. Let us go and see."
"""


def read_text(path):
    if path is None:
        return STORY
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as e:
        raise SystemExit(f"{path}: {getattr(e, 'strerror', None) or e}")


class Golden:
    def __init__(self, folder):
        if not (folder / "config.json").is_file():
            raise SystemExit(f"{folder}: no config.json")
        try:
            self.model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as e:  # the tokenizers package raises bare Exception
            raise SystemExit(f"{folder}: {e}")
        self.config = self.model.config
        self.bos = self.config.bos_token_id
        self.gates = []
        for layer in self.model.model.layers:
            layer.mlp.gate_proj.register_forward_hook(lambda module, args, out: self.gates.append(out))

    def encode(self, text):
        return [self.bos] + self.tokenizer.encode(text, add_special_tokens=False).ids

    def logits(self, ids):
        """Logits of all positions; self.gates then has every layer's gate values."""
        self.gates.clear()
        return self.model(torch.tensor([ids]), use_cache=False).logits[0]

    def prompts(self):
        rows, data = [], b""
        for text in PROMPTS:
            ids = self.encode(text)
            rows.append({"text": text, "tokens": ids, "logits": len(data)})
            data += self.logits(ids)[-1].numpy().astype("<f4").tobytes()
        if len(ids) <= LONG_PROMPT_TOKENS:
            raise SystemExit(f"the long prompt has only {len(ids)} tokens with this tokenizer")
        return rows, data

    def greedy(self):
        ids, margins = self.encode(GREEDY_PROMPT), []
        prompt = list(ids)
        for _ in range(GREEDY_TOKENS):
            best = self.logits(ids)[-1].topk(2)
            ids.append(best.indices[0].item())
            margins.append(round((best.values[0] - best.values[1]).item(), 6))
        return {"prompt": GREEDY_PROMPT, "prompt_tokens": prompt, "tokens": ids[len(prompt) :], "margins": margins}

    def loss(self, text, n_ctx):
        ids = self.encode(text)
        n_windows = len(ids) // n_ctx
        if n_windows < 2:
            raise SystemExit(f"the text's {len(ids)} tokens make fewer than two windows of {n_ctx}")
        first, sums = n_ctx // 2, []
        off = np.zeros(self.config.num_hidden_layers)
        for w in range(n_windows):
            window = [self.bos] + ids[w * n_ctx + 1 : (w + 1) * n_ctx]
            log_p = self.logits(window).double().log_softmax(-1)
            targets = torch.tensor(window[first + 1 :])
            sums.append(-log_p[first : n_ctx - 1].gather(1, targets[:, None]).sum().item())
            off += [(gate <= 0).double().mean().item() for gate in self.gates]
        count = n_windows * (n_ctx - first - 1)
        nats = sum(sums) / count
        return {
            "text": text,
            "n_ctx": n_ctx,
            "n_tokens": len(ids),
            "window_nll": sums,
            "count": count,
            "nats_per_token": nats,
            "perplexity": math.exp(nats),
            "sparsity_per_layer": [round(s, 6) for s in (off / n_windows).tolist()],
        }


def write(path, data):
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--hf", type=Path, required=True, metavar="DIR", help="Hugging Face model directory")
    ap.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for golden.json and golden.bin")
    ap.add_argument("--text", type=Path, metavar="FILE", help="text for the loss (default: a story in this script)")
    ap.add_argument("--n-ctx", type=int, default=256, metavar="N", help="window for the loss (default: 256)")
    args = ap.parse_args()

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    golden = Golden(args.hf)
    text = read_text(args.text)
    with torch.no_grad():
        prompts, data = golden.prompts()
        out = {
            "model": {
                "n_vocab": golden.config.vocab_size,
                "n_layer": golden.config.num_hidden_layers,
                "n_embd": golden.config.hidden_size,
                "n_ff": golden.config.intermediate_size,
                "bos": golden.bos,
            },
            "prompts": prompts,
            "greedy": golden.greedy(),
            "loss": golden.loss(text, args.n_ctx),
        }
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "golden.bin", data)
    write(args.out / "golden.json", (json.dumps(out, ensure_ascii=False) + "\n").encode())
    loss = out["loss"]
    print(f"{args.out}: {len(prompts)} prompts, perplexity {loss['perplexity']:.4f} over {loss['count']} tokens")


if __name__ == "__main__":
    main()
