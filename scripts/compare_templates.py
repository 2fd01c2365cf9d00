"""Renders chat templates with Jinja2, set up as transformers does, and with powerinfer-run, and compares.

    pip install jinja2
    cargo build --bin powerinfer-run
    python scripts/compare_templates.py target/debug/powerinfer-run             every template and snippet in tests/golden/templates
    python scripts/compare_templates.py target/debug/powerinfer-run A.jinja...  other templates (files, or GGUF files with one)
    python scripts/compare_templates.py --write                                 writes expected.json for the tests

Every template (*.jinja) gets every conversation. powerinfer-run is asked as it asks itself: it starts itself with
--render-chat-template for each template and takes a request from standard input.
"""

import argparse
import datetime
import json
import pathlib
import struct
import subprocess
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "templates"
# Templates that look for parts in messages get lists of them from those who use transformers.
PARTS = {
    "smolvlm.jinja": {"system", "user", "assistant"},
    "llava.jinja": {"system", "user", "assistant"},
    "system-text-user-parts.jinja": {"user", "assistant"},
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Where, as in \"Zürich\" <b>"},
        "days": {"type": ["integer", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "extra": {"type": "object", "additionalProperties": {"type": "number"}},
    },
    "required": ["city"],
}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "It's the weather", "parameters": SCHEMA}}]


def say(*texts, system=None):
    roles = ["user", "assistant"] * len(texts)
    messages = [] if system is None else [{"role": "system", "content": system}]
    return messages + [{"role": role, "content": text} for role, text in zip(roles, texts)]


CONVERSATIONS = {
    "a question": (say("What is 1 + 1?"), {}),
    "a system message": (say(" Hi <b>&'\"? \n", system=" Be brief. "), {}),
    "several turns": (say("Hello", " Hi! ", "And\n\nnow?", "No.", "{{ bye }} 100 % {% x %}", system="S"), {}),
    "thoughts": (say("Why?", "<think>\nHm.\n</think>\n\nBecause.", "Oh"), {}),
    "a closed turn": (say("a", "b"), {"add_generation_prompt": False}),
    "other letters": (say("Grüße 你好 \U0001f600 \u00a0\u2003end\u3000", "ẞ", "\tx\r\ny"), {}),
    "tools": (say("Weather?", system="S"), {"tools": TOOLS}),
    "tools without a system message": (say("Weather?", "Where?", "Here"), {"tools": TOOLS, "tools_in_user_message": False}),
    "out of turn": ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], {}),
    "documents": (say("What do they say?"), {"documents": [{"title": "t", "text": "d"}], "enable_thinking": False}),
}


class Generation(jinja2.ext.Extension):
    """The tag by which transformers finds the words of the model: here it only renders what stands in it."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    env.globals["strftime_now"] = lambda form: now.strftime(form)
    return env


def by_jinja(source, messages, variables, parts=frozenset()):
    """The prompt, or None where the template fails."""
    listed = [
        {**m, "content": [{"type": "text", "text": m["content"]}]} if m["role"] in parts else m for m in messages
    ]
    given = {"messages": listed, "tools": None, "documents": None, "add_generation_prompt": True, **TOKENS, **variables}
    try:
        return environment().from_string(source).render(**given)
    except Exception as e:
        return None if not VERBOSE else print(f"    jinja2: {e}")


def by_powerinfer(program, source, messages, variables):
    variables = {**TOKENS, **variables}
    opens = variables.pop("add_generation_prompt", True)
    request = {"source": source, "messages": messages, "variables": variables, "add_generation_prompt": opens}
    text = json.dumps(request).encode()
    answer = subprocess.run([program, "--render-chat-template"], input=text, capture_output=True)
    try:
        answer = json.loads(answer.stdout)
    except json.JSONDecodeError:
        answer = {"Unusable": f"ended with {answer.returncode}: {answer.stderr.decode()}"}
    if VERBOSE and "Prompt" not in answer:
        print(f"    powerinfer-run: {list(answer.values())[0]}")
    return answer.get("Prompt")


def from_gguf(path):
    """The value of tokenizer.chat_template, found by its name: good enough for a file that is well formed."""
    data = path.read_bytes()
    key = b"tokenizer.chat_template" + struct.pack("<I", 8)
    at = data.index(key) + len(key)
    (length,) = struct.unpack("<Q", data[at : at + 8])
    return data[at + 8 : at + 8 + length].decode()


def templates(paths):
    for path in paths:
        source = from_gguf(path) if path.suffix == ".gguf" else path.read_bytes().decode()
        yield path.name, source


def compare(program, paths):
    agree = 0
    differing = []
    for name, source in templates(paths or sorted(FOLDER.glob("*.jinja"))):
        wrong = []
        for title, (messages, variables) in CONVERSATIONS.items():
            parts = PARTS.get(name, frozenset())
            expected = by_jinja(source, messages, variables, parts)
            if paths and expected is not None and not all(m["content"].strip() in expected for m in messages):
                parts = {m["role"] for m in messages}
                listed = by_jinja(source, messages, variables, parts)
                expected = listed if listed and all(m["content"].strip() in listed for m in messages) else expected
            found = by_powerinfer(program, source, messages, variables)
            if expected != found:
                wrong.append(f"  {title}:\n    jinja2         {expected!r}\n    powerinfer-run {found!r}")
        agree += not wrong
        if wrong:
            differing.append(f"{name}\n" + "\n".join(wrong))
    print("\n".join(differing) + "\n" if differing else "", end="")
    print(f"{agree} of {agree + len(differing)} templates agree in {len(CONVERSATIONS)} conversations each")
    n_differing = len(differing)
    if not paths:
        wrong = []
        snippets = json.loads((FOLDER / "snippets.json").read_text())
        for snippet in snippets:
            messages = say("hello")
            expected = by_jinja(snippet, messages, {"tools": TOOLS})
            # As a variable: messages that a template leaves out are refused.
            found = by_powerinfer(program, snippet, [], {"tools": TOOLS, "messages": messages})
            if expected != found:
                wrong.append(f"{snippet!r}\n    jinja2         {expected!r}\n    powerinfer-run {found!r}")
        print("\n".join(wrong) + "\n" if wrong else "", end="")
        print(f"{len(snippets) - len(wrong)} of {len(snippets)} snippets agree")
        n_differing += len(wrong)
    return n_differing


def write():
    expected = {"conversations": {}, "templates": {}, "snippets": []}
    for title, (messages, variables) in CONVERSATIONS.items():
        expected["conversations"][title] = {"messages": messages, "variables": {**TOKENS, **variables}}
    for name, source in templates(sorted(FOLDER.glob("*.jinja"))):
        parts = PARTS.get(name, frozenset())
        expected["templates"][name] = {
            title: by_jinja(source, messages, variables, parts) for title, (messages, variables) in CONVERSATIONS.items()
        }
    for snippet in json.loads((FOLDER / "snippets.json").read_text()):
        expected["snippets"].append([snippet, by_jinja(snippet, say("hello"), {"tools": TOOLS})])
    expected["snippet_variables"] = {**TOKENS, "tools": TOOLS, "messages": say("hello")}
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write expected.json, with jinja2 alone")
    parser.add_argument("--verbose", action="store_true", help="print why templates fail")
    parser.add_argument("program", nargs="?", help="powerinfer-run")
    parser.add_argument("template", nargs="*", type=pathlib.Path, help="other templates")
    args = parser.parse_args()
    VERBOSE = args.verbose
    if args.write:
        write()
    elif args.program:
        sys.exit(compare(args.program, args.template) > 0)
    else:
        parser.error("give powerinfer-run, or --write")
