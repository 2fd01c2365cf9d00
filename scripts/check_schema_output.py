#!/usr/bin/env python3
"""Let a model write JSON to a schema many times, and hold each text against Python's json and the schema.

    cargo build --release
    python scripts/check_schema_output.py                     # 1,000 texts of the embedded model at temperature 1
    python scripts/check_schema_output.py -n 50 --model model.gguf
"""

import argparse
import concurrent.futures
import json
import subprocess
import sys

# Without a bound nothing makes a small model end a text before its context does.
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "height": {"type": "number", "minimum": 0, "maximum": 3},
        "colour": {"enum": ["red", "green", "blue", None]},
        "born": {"type": "string", "format": "date"},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-\\d{4}$"},
        "notes": {"type": "object", "properties": {"true": {"const": "yes"}, "kind": {"type": "boolean"}}},
        "friends": {"type": "array", "items": {"$ref": "#/$defs/friend"}, "maxItems": 3},
    },
    "required": ["name", "age", "code"],
    "$defs": {
        "friend": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 20}, "best": {"anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/friend"}]}},
            "required": ["name"],
        }
    },
}


def friend(value):
    assert set(value) <= {"name", "best"} and isinstance(value["name"], str) and len(value["name"]) <= 20
    if isinstance(value.get("best"), dict):
        friend(value["best"])
    else:
        assert isinstance(value.get("best", True), bool)


def holds(value):
    """What SCHEMA says, said again."""
    assert isinstance(value, dict) and set(value) <= set(SCHEMA["properties"]), "keys"
    assert isinstance(value["name"], str) and 1 <= len(value["name"]) <= 40, "name"
    assert type(value["age"]) is int and 0 <= value["age"] <= 130, "age"
    assert type(value.get("height", 0)) in (int, float) and 0 <= value.get("height", 0) <= 3, "height"
    assert value.get("colour") in ("red", "green", "blue", None), "colour"
    if "born" in value:
        year, month, day = value["born"].split("-")
        assert len(year) == 4 and 1 <= int(month) <= 12 and 1 <= int(day) <= 31, "born"
    code = value["code"]
    assert len(code) == 7 and code[:2].isupper() and code[2] == "-" and code[3:].isdigit(), "code"
    assert len(value.get("friends", [])) <= 3, "friends"
    for one in value.get("friends", []):
        friend(one)
    notes = value.get("notes", {})
    assert set(notes) <= {"true", "kind"} and notes.get("true", "yes") == "yes", "notes"
    assert isinstance(notes.get("kind", True), bool), "notes"


def write(args, seed):
    command = [args.bin + "/powerinfer-run", "-p", args.prompt, "--no-display-prompt", "--temp", "1", "-s", str(seed), "-t", "1"]
    command += ["-j", json.dumps(SCHEMA), "-n", str(args.tokens), *(["-m", args.model] if args.model else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        assert done.returncode == 0, done.stderr
        holds(json.loads(done.stdout))
    except (AssertionError, ValueError, KeyError) as error:
        return f"seed {seed}: {error!r}\n{done.stdout}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=1000, help="texts")
    parser.add_argument("--bin", default="target/release", help="folder of the commands")
    parser.add_argument("--model", help="a GGUF file [default: the embedded model]")
    parser.add_argument("--prompt", default="Once there was a cat:", help="what the text follows")
    parser.add_argument("--tokens", type=int, default=480, help="tokens of a text at most")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        failures = [failure for failure in pool.map(lambda seed: write(args, seed), range(args.n)) if failure]
    print(*failures[:5], sep="\n")
    print(f"{args.n - len(failures)} of {args.n} texts are JSON of the schema")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
