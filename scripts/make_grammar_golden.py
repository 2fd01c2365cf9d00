#!/usr/bin/env python3
"""Write what llama.cpp's own grammar code makes of grammars and texts: which are no grammars, and which texts are whole, go on, or fit not.

    pip install xllamacpp
    python scripts/make_grammar_golden.py --out tests/golden/grammars.json

Calls the functions of the library that is in xllamacpp (--library names another one) as llama.cpp's tests do, code point by code
point, without a vocabulary. Texts are those that stand here and such that chance makes of them; the seed is fixed. `cargo test --lib
grammar::golden` compares.
"""

import argparse
import ctypes
import importlib.util
import json
import multiprocessing
import random
from pathlib import Path

INIT = "_Z23llama_grammar_init_implPK11llama_vocabPKcS3_bPS3_mPKim"
ACCEPT = "_Z20llama_grammar_acceptP13llama_grammarj"
STACKS = "_Z24llama_grammar_get_stacksP13llama_grammar"
FREE = "_Z23llama_grammar_free_implP13llama_grammar"
# Texts that chance makes, for each grammar.
N_CHANGED = 14
# Seconds that a grammar may take: some never end.
LIMIT = 10

NUMBER = r"""root ::= "-"? ("0" | [1-9] [0-9]*) ("." [0-9]+)? ([eE] [-+]? [0-9]+)?"""
JSON = r"""root ::= object
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}" ws
array ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [1-9] [0-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""
ARITHMETIC = r"""root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"""

# Grammars with texts to begin with.
GRAMMARS = [
    ('root ::= "ab"', ["ab", "a", ""]),
    ('root ::= "a" | "b" | "cd"', ["a", "cd", "c"]),
    ('root ::= ""', ["", "a"]),
    ('root ::= "a"?', ["", "a", "aa"]),
    ('root ::= "a"*', ["", "aaa", "b"]),
    ('root ::= "a"+ "b"*', ["aab", "a", "b"]),
    ('root ::= ("a" | "b")* "c"', ["ababc", "c", "ab"]),
    ('root ::= "a"{3}', ["aaa", "aa", "aaaa"]),
    ('root ::= "a"{2,}', ["aa", "aaaaa", "a"]),
    ('root ::= "a"{1,3} "b"', ["ab", "aaab", "aaaab"]),
    ('root ::= "a"{0,2}', ["", "aa", "aaa"]),
    ('root ::= ("ab" "c"?){2}', ["abab", "abcabc", "abc"]),
    ('root ::= ("a" ("b" | "c"){1,2}){0,3} "."', ["abbac.", ".", "a."]),
    ("root ::= [a-z]", ["q", "Q", ""]),
    ("root ::= [^a-z]", ["Q", "q", "é"]),
    ("root ::= [a-zA-Z0-9_.-]+", ["aZ_9.-", "-", " "]),
    (r"root ::= [\]\[\\^-]+", ["]^-", "\\[", "a"]),
    (r"root ::= [^\n\t\"\\]*", ["abc", "a\n", 'a"']),
    ("root ::= [^]a]", ["b", "]", "a"]),
    ("root ::= [-a]", ["-", "a", "b"]),
    ("root ::= [a-]", ["-", "a", "b"]),
    (r"root ::= [\x41-\x43]+", ["ABC", "D", "A"]),
    (r"root ::= [\u00e0-\u00ff]+", ["éü", "e", "ÿ"]),
    (r"root ::= [\U0001F600-\U0001F64F]", ["😀", "🙏", "🦙"]),
    (r"root ::= [぀-ゟァ-ヿ]+", ["ひらカナ", "漢", "ひ"]),
    ("root ::= .", ["a", "é", "🦙", "\n", "ab"]),
    ('root ::= "<" .* ">"', ["<a>", "<>>", "<"]),
    (r'root ::= "\"" "\\" "\n" "\t" "\r"', ['"\\\n\t\r', '"\\']),
    (r'root ::= "\x41\u00e9\U0001F999"', ["Aé🦙", "Aé"]),
    ('root ::= "日本" | "日" "語"', ["日本", "日語", "日"]),
    ('root ::= a b\na ::= "x"\nb ::= "y"?', ["x", "xy", "y"]),
    ('root ::= "(" root? ")"', ["()", "((()))", "(()"]),
    ('root ::= "a" root "b" | ""', ["aabb", "", "aab"]),
    ('root ::= list\nlist ::= "[" (list ("," list)*)? "]"', ["[]", "[[],[[]]]", "[,]"]),
    ('root ::= "a" root | "b"', ["aab", "b", "aa"]),
    ('root ::= word (" " word){0,2}\nword ::= [a-z]+', ["a bc d", "a b c d", " a"]),
    ("root ::= (a | b)+ # comment\n\n# another\na ::= \"x\"\n\n\nb ::= \"y\"", ["xyx", "z", ""]),
    ('root ::=\n  "a"\n  | "b"\n  | "c"', ["a", "c", "d"]),
    ('root ::= ("a"\n  "b") |\n  "c"', ["ab", "c", "a"]),
    ('root-rule ::= "x"\nroot ::= root-rule "y"', ["xy", "x"]),
    ('root ::= (("a"?) ("b"?))', ["", "ab", "b", "ba"]),
    ('root ::= "" | "a" ""', ["", "a", "aa"]),
    ('root ::= ("a" | "ab") ("c" | "bcd")', ["ac", "abc", "abcd", "abbcd", "abd"]),
    ('root ::= "a"* "a"* "b"', ["aaab", "b", "aaa"]),
    ('root ::= [a-c]{2}[0-9]{2,3}', ["ab12", "cc123", "a12"]),
    ('root ::= "yes" | "no" | "y" [a-z] "z"', ["yes", "yaz", "yez", "ye"]),
    ('root ::= a{2}\na ::= "x" | "y" a', ["xx", "yxyyx", "x"]),
    ('root ::= "0x" [0-9a-fA-F]{1,8}', ["0xfF", "0x", "0x123456789"]),
    ('root ::= [0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])', ["2026-11-30", "2026-13-01", "2026-11-"]),
    ('root ::= ((((("a")))))', ["a", ""]),
    ('root ::= "a" ("b" ("c" ("d")?)?)?', ["a", "abcd", "abd"]),
    ('root ::= "1" "2"? "3"* "4"+', ["14", "1233444", "123"]),
    (NUMBER, ["0", "-12.5e+3", "01", "1.", "1e"]),
    (JSON, ['{"a": [1, -2.5e3, "x\\u00e9\\n"], "b": {}}', "{}", '{"a":}', '{"a":1,}', '{"é🦙": null}']),
    (ARITHMETIC, ["a+1=2\n", "(a_1 * 23) / b = 7\nq=0\n", "a+=1\n", "a=1"]),
    ('root ::= ([^<>] | "<" [a-z]+ ">")*', ["a<b>c", "<", "<B>"]),
    (r'root ::= "//" [^\n]* "\n"', ["// x\n", "//\n", "/ \n"]),
    ('root ::= item+\nitem ::= "- " [^\\n]+ "\\n"', ["- a\n- b\n", "- \n", "-a\n"]),
    ('root ::= ws "a" ws\nws ::= [ \\t\\n]*', [" a\n", "a", "  "]),
    ('root ::= "a" | root2\nroot2 ::= "b" root2 | "c"', ["a", "bbc", "b"]),
    # No grammars, or such that only look odd.
    ('root ::= "a', []),
    ("root ::= [a", []),
    ('root ::= ("a"', []),
    ('root ::= "a")', []),
    ('root ::= missing', []),
    ('root = "a"', []),
    ('other ::= "a"', []),
    ('root ::= *', []),
    ('root ::= "a"{2', []),
    ('root ::= "a"{3,1}', []),
    ('root ::= "a"{x}', []),
    (r'root ::= "\q"', []),
    (r'root ::= "\x4"', []),
    ('root ::= root "a" | "b"', []),
    ('root ::= a\na ::= b\nb ::= a', []),
    ('root ::= ("a"?)* root | "b"', []),
    ('', []),
    ('root ::=', ["", "a"]),
    ('root ::= |', ["", "a"]),
    ('root ::= "a" | ', ["", "a"]),
    ('root ::= () "a"', ["a", ""]),
    ('root ::= "a" "b"\nroot ::= "c"', ["ab", "c"]),
    ('root::="a"', ["a", ""]),
    ('root ::= "a"  "b"   #end', ["ab", "a"]),
    ('1root ::= "a"\nroot ::= 1root', ["a"]),
    ('Root ::= "a"\nroot ::= Root Root', ["aa", "a"]),
]  # fmt: skip


class Llama:
    """llama.cpp's grammars, on their own."""

    def __init__(self, library):
        lib = ctypes.CDLL(str(library))
        self.init, self.accept, self.stacks, self.free = (getattr(lib, name) for name in (INIT, ACCEPT, STACKS, FREE))
        self.init.restype = self.stacks.restype = ctypes.c_void_p
        self.init.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_bool] + [
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t,
        ]  # fmt: skip
        self.accept.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        self.stacks.argtypes = self.free.argtypes = [ctypes.c_void_p]
        self.accept.restype = self.free.restype = None

    def grammar(self, text):
        return self.init(None, text.encode(), b"root", False, None, 0, None, 0)

    def state(self, grammar):
        """no: nothing fits; whole: the text may end; begins: it may not yet."""
        first, last = (ctypes.c_void_p * 2).from_address(self.stacks(grammar))
        n = ((last or 0) - (first or 0)) // 24
        ends = [(ctypes.c_void_p * 2).from_address(first + 24 * i) for i in range(n)]
        if not ends:
            return "no"
        return "whole" if any(begin == end for begin, end in map(tuple, ends)) else "begins"

    def judge(self, text, candidate):
        grammar = self.grammar(text)
        try:
            for c in candidate:
                self.accept(grammar, ord(c))
                if self.state(grammar) == "no":
                    return "no"
            return self.state(grammar)
        finally:
            self.free(grammar)


def judge_all(library, text, texts, answer):
    llama = Llama(library)
    grammar = llama.grammar(text)
    answer.send({candidate: llama.judge(text, candidate) for candidate in texts} if grammar else None)


def judged_apart(library, text, texts):
    """What llama.cpp says of each text, None if of the grammar already; in a process of its own, which may hang or crash."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=judge_all, args=(library, text, texts, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(LIMIT) else "hangs"
    except EOFError:
        return "hangs"
    finally:
        process.kill()
        process.join()


def changed(rng, texts):
    """A text like one of these."""
    text = list(rng.choice(texts))
    letters = sorted(set("".join(texts))) + ["a", "0", " ", "é"]
    for _ in range(rng.choice([1, 1, 2, 3])):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(4):
            case 0:
                text.insert(at, rng.choice(letters))
            case 1 if text:
                del text[at - 1]
            case 2 if text:
                text[at - 1] = rng.choice(letters)
            case _:
                text = text[:at]
    return "".join(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--library", type=Path, help="a shared library that has llama.cpp's functions")
    args = parser.parse_args()
    library = args.library
    if library is None:
        library = next(Path(importlib.util.find_spec("xllamacpp").origin).parent.glob("xllamacpp*.so"))
    rng, cases, n = random.Random(1), [], 0
    for text, given in GRAMMARS:
        texts = list(dict.fromkeys(given + [changed(rng, given) for _ in range(N_CHANGED if given else 0)]))
        judged = judged_apart(library, text, texts)
        if judged == "hangs":
            print(f"left out, as llama.cpp does not end with it: {text!r}")
            continue
        cases.append({"grammar": text, "texts": judged})
        n += len(judged or [])
    args.out.write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")
    print(f"{args.out}: {len(cases)} grammars, {sum(case['texts'] is None for case in cases)} of them none, {n} texts")


if __name__ == "__main__":
    main()
