//! Which texts grammars and schemas accept, and that what they produce is what they describe.

mod keywords;

use super::automaton::{Automaton, DEAD, State};
use super::graph::Graph;
use super::*;
use serde_json::{Value, json};

pub(super) fn start(rules: &Rules) -> (Automaton, State) {
    Graph::new(rules, 10, &|text| bail!("{text}?")).and_then(Automaton::new).unwrap()
}

fn accepts(rules: &Rules, text: &str) -> bool {
    let (mut automaton, mut state) = start(rules);
    for byte in text.bytes() {
        state = automaton.after(state, byte).unwrap();
    }
    automaton.is_complete(state)
}

fn gbnf(text: &str) -> Rules {
    Rules::from_gbnf(text, "g").unwrap()
}

fn schema(value: &Value) -> Rules {
    Rules::from_json_schema(&value.to_string(), "s").unwrap()
}

#[test]
fn a_grammar_accepts_what_it_describes_and_nothing_else() {
    let cases: [(&str, &[&str], &[&str]); 15] = [
        (r#"root ::= "a" [] | "b" []? | ([] | "c")"#, &["b", "c"], &["", "a"]),
        (r#"root ::= "ab" | "c""#, &["ab", "c"], &["", "a", "abc", "b"]),
        (r#"root ::= "a"* "b"+ "c"?"#, &["b", "aabbc", "bc"], &["", "a", "ac", "bcc"]),
        (r#"root ::= "x"{2} | "y"{1,3} | "z"{2,}"#, &["xx", "y", "yyy", "zz", "zzzzz"], &["x", "xxx", "yyyy", "z"]),
        (r#"root ::= [a-c_\-]+ | [^a-z\n]"#, &["a_-c", "Q", "é", "🦙"], &["d", "\n", "", "é🦙"]),
        ("root ::= [\\x41\\u00e9\\U0001F999]+", &["A", "é🦙"], &["a", "🦊"]),
        ("root ::= .", &["a", "é", "中", "🦙", "\n"], &["", "ab"]),
        (r#"root ::= "\"\\\n\t""#, &["\"\\\n\t"], &["\"\\n"]),
        // Which of two lexemes it is shows only later.
        (r#"root ::= [a-z]* "x" [0-9]"#, &["x1", "axx2"], &["x", "a1"]),
        (r#"root ::= "" | ("a"*)* | ("" | "b")+"#, &["", "aaa", "bb"], &["ab"]),
        (
            "root ::= expr # a comment\n\nexpr ::= num (op\n num)* |\n \"(\" expr \")\"\nop ::= [-+]\nnum ::= [0-9]+",
            &["1+2-3", "((7))"],
            &["1+", "(1"],
        ),
        ("root ::= list\nlist ::= \"[\" (list (\",\" list)*)? \"]\"", &["[]", "[[],[[]]]"], &["[", "[,]", "[]]"]),
        // A rule that ends with itself, and one that is empty before it does.
        ("root ::= \"a\" root | e \"b\"\ne ::= \"\"", &["b", "aaab"], &["a"]),
        ("root ::= \"a\"\n  | \"b\"\n  | \"c\"", &["a", "c"], &["d"]),
        ("root ::= (\"a\" | \"ab\") (\"c\" | \"bcd\")", &["ac", "abc", "abcd", "abbcd"], &["abd", "ab"]),
    ];
    for (text, good, bad) in cases {
        let rules = gbnf(text);
        good.iter().for_each(|good| assert!(accepts(&rules, good), "{text} refuses {good:?}"));
        bad.iter().for_each(|bad| assert!(!accepts(&rules, bad), "{text} accepts {bad:?}"));
    }
    let many = gbnf("root ::= ((\"ab\"{500}){20}){2,9}");
    assert!(accepts(&many, &"ab".repeat(20_000)) && accepts(&many, &"ab".repeat(90_000)));
    assert!(!accepts(&many, &"ab".repeat(20_001)) && !accepts(&many, &"ab".repeat(100_000)));
    let deep = gbnf("root ::= \"[\" root? \"]\"");
    assert!(accepts(&deep, &("[".repeat(10_000) + &"]".repeat(10_000))));
    assert!(!accepts(&deep, &("[".repeat(10_000) + &"]".repeat(9_999))));
}

#[test]
fn half_a_character_is_no_text() {
    let (mut automaton, state) = start(&gbnf("root ::= [中]"));
    let bytes = "中".as_bytes();
    let first = automaton.after(state, bytes[0]).unwrap();
    assert!(first != DEAD && !automaton.is_complete(first));
    assert_eq!(automaton.after(first, b'x').unwrap(), DEAD);
    let (mut any, state) = start(&gbnf("root ::= ."));
    for byte in [0x80, 0xc0, 0xc1, 0xf5, 0xff] {
        assert_eq!(any.after(state, byte).unwrap(), DEAD, "{byte:x}");
    }
    // Surrogates, and beyond the last character.
    for [first, second] in [[0xed, 0xa0], [0xf4, 0x90], [0xe0, 0x80], [0xf0, 0x80]] {
        let state = any.after(state, first).unwrap();
        assert_eq!(any.after(state, second).unwrap(), DEAD, "{first:x} {second:x}");
    }
}

#[test]
fn grammars_without_end_are_refused() {
    let error = |text: &str| format!("{:#}", Graph::new(&gbnf(text), 10, &|_| Ok(0)).map(drop).unwrap_err());
    assert_eq!(error("root ::= root \"a\" | \"b\""), "rule root can begin with itself, which would never end");
    assert!(error("root ::= a\na ::= \"\" b\nb ::= [x]? a \"y\"").contains("can begin with itself"));
    assert!(error(&format!("root ::= {}", "[a]{10000} ".repeat(60))).contains("too large"));
    assert!(error("root ::= <[10]>").contains("only 10 tokens"));
}

#[test]
fn schemas_accept_what_they_describe_and_nothing_else() {
    let cases = [
        (json!({"type": "integer"}), vec!["0", "-7", "123456789012345"], vec!["01", "1.5", "--1", "+1", ""]),
        (
            json!({"type": "integer", "minimum": -12, "maximum": 105}),
            vec!["-12", "-1", "0", "9", "42", "100", "105"],
            vec!["-13", "106", "1000", "-0"],
        ),
        (
            json!({"type": "integer", "exclusiveMinimum": 9, "exclusiveMaximum": 12}),
            vec!["10", "11"],
            vec!["9", "12", "1"],
        ),
        (json!({"type": "integer", "minimum": 1000}), vec!["1000", "999999"], vec!["999", "-1000"]),
        (
            json!({"type": "number", "minimum": 0, "maximum": 2}),
            vec!["0", "0.5", "1.999", "2"],
            vec!["2.1", "-0.1", "3"],
        ),
        (json!({"type": "number", "maximum": -1}), vec!["-1", "-1.5", "-20"], vec!["-0.5", "1", "0"]),
        (json!({"type": "number"}), vec!["1e5", "-0.25E-3", "7"], vec!["1.", ".5", "1e", "1e1234"]),
        (
            json!({"type": "string", "minLength": 1, "maxLength": 3}),
            vec!["\"a\"", "\"é中🦙\"", "\"\\n\\u00e9\\\"\""],
            vec!["\"\"", "\"abcd\"", "\"\\x\"", "\"\\ud800\"", "\"\n\""],
        ),
        (
            json!({"type": "string", "pattern": "^\\d{3}-[\\w\"]+$"}),
            vec!["\"123-a_\"", "\"123-\\\"\""],
            vec!["\"12-a\"", "\"123-\"\"", "\"٣٣٣-a\""],
        ),
        (json!({"pattern": "b|c$"}), vec!["\"abx\"", "\"c\""], vec!["\"cx\"", "\"\""]),
        (json!({"format": "date-time"}), vec!["\"2024-02-29T23:59:00Z\""], vec!["\"2024-13-01T00:00:00Z\""]),
        (json!({"enum": ["a", 1, null, {"b": [true]}]}), vec!["\"a\"", "1", "null", "{\"b\":[true]}"], vec!["a", "2"]),
        (json!({"const": "x\ny"}), vec!["\"x\\ny\""], vec!["\"x\ny\""]),
        (json!({"type": ["null", "boolean"]}), vec!["null", "true"], vec!["\"\""]),
        (
            json!({"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 3}),
            vec!["[null,null]", "[ null, null,\n  null]"],
            vec!["[null]", "[null,null,null,null]", "[null,null,]"],
        ),
        (json!({"type": "array", "items": {"const": 1}, "maxItems": 0}), vec!["[]"], vec!["[1]"]),
        (
            json!({"prefixItems": [{"const": 1}, {"const": 2}], "items": {"const": 3}}),
            vec!["[1,2]", "[1,2,3,3]"],
            vec!["[1]", "[1,3]", "[]"],
        ),
        (
            json!({"properties": {"a": {"const": 1}, "b": {"const": 2}}, "required": ["b"]}),
            vec!["{\"b\":2}", "{\"a\":1,\"b\":2}", "{ \"a\": 1, \"b\": 2 }"],
            vec!["{}", "{\"a\":1}", "{\"b\":2,\"a\":1}", "{\"b\":2,}", "{,\"b\":2}", "{\"b\":2,\"c\":3}"],
        ),
        (
            json!({"properties": {"ab": {"const": 1}}, "additionalProperties": {"const": 2}}),
            vec!["{}", "{\"ab\":1}", "{\"a\":2,\"abc\":2,\"\":2}", "{\"ab\":1,\"b\":2}"],
            vec!["{\"ab\":2}", "{\"\\u0061b\":2}", "{\"b\":1}"],
        ),
        (json!({"required": ["q\""]}), vec!["{\"q\\\"\":[1,{}]}"], vec!["{}"]),
        (json!({"type": "object"}), vec!["{}", "{\"a\":{\"b\":[1,\"c\"]}}"], vec!["[]", "1"]),
        (json!({}), vec!["{\"a\":1}"], vec!["1", "[]"]),
        (json!({"items": true}), vec!["[1,{},\"x\"]"], vec!["1"]),
        (
            json!({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/t"}], "$defs": {"t": {"properties": {"l": {"$ref": "#"}}, "required": ["l"]}}}),
            vec!["null", "{\"l\":{\"l\":null}}"],
            vec!["{}", "{\"l\":1}"],
        ),
        (
            json!({"allOf": [{"properties": {"a": {"type": "number"}}}, {"$ref": "#/definitions/b"}], "required": ["a"], "definitions": {"b": {"properties": {"a": {"type": "integer"}, "b": {"const": 1}}, "required": ["b"]}}}),
            vec!["{\"a\":1,\"b\":1}"],
            vec!["{\"a\":1.5,\"b\":1}", "{\"a\":1}", "{\"b\":1}"],
        ),
        (
            json!({"type": "object", "properties": {"k": {"const": 1}}, "oneOf": [{"required": ["k"]}, {"properties": {"m": {"const": 2}}, "required": ["m"]}]}),
            vec!["{\"k\":1}", "{\"k\":1,\"m\":2}", "{\"m\":2}"],
            vec!["{}"],
        ),
    ];
    for (value, good, bad) in cases {
        let rules = schema(&value);
        good.iter().for_each(|good| assert!(accepts(&rules, good), "{value} refuses {good}"));
        bad.iter().for_each(|bad| assert!(!accepts(&rules, bad), "{value} accepts {bad}"));
    }
}

#[test]
fn keys_come_in_the_order_of_the_schema() {
    let rules = Rules::from_json_schema(r#"{"properties": {"b": {"const": 1}, "a": {"const": 2}}}"#, "s").unwrap();
    assert!(accepts(&rules, "{\"b\":1,\"a\":2}") && !accepts(&rules, "{\"a\":2,\"b\":1}"));
}

#[test]
fn schemas_that_cannot_be_kept_to_are_refused_with_their_place() {
    for (value, message) in [
        (json!({"multipleOf": 1.5}), "s: the schema: multipleOf is known of"),
        (json!({"properties": {"a": {"items": {"not": {}}}}}), "s: /properties/a/items: not is known of strings"),
        (json!({"type": "text"}), "\"text\" is no type"),
        (json!(7), "a schema is an object, or true"),
        (json!(false), "false allows nothing"),
        (json!({"$ref": "#/nowhere"}), "$ref #/nowhere: there is no such place"),
        (json!({"$ref": "http://x/y"}), "only places in the same schema"),
        (json!({"pattern": "a(?=b)"}), "pattern: look-around"),
        (json!({"pattern": "a^b"}), "pattern: ^, $ and \\b"),
        (json!({"pattern": "("}), "pattern: unclosed group"),
        (json!({"pattern": "a", "minLength": 2}), "a length cannot be kept to"),
        (json!({"type": "integer", "minimum": 2, "maximum": 1}), "no whole number is at least 2 and at most 1"),
        (json!({"required": ["x"], "additionalProperties": false}), "required \"x\" is no property"),
        (json!({"enum": []}), "enum is empty"),
        (json!({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}), "pattern stands in two parts"),
    ] {
        let error = Rules::from_json_schema(&value.to_string(), "s").map(drop).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.starts_with("s: ") && error.contains(message), "{value}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert!(format!("{:#}", Rules::from_json_schema("{\"type\":", "s").unwrap_err()).contains("line 1 column"));
    let circle =
        schema(&json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}));
    assert!(Graph::new(&circle, 10, &|_| Ok(0)).unwrap_err().to_string().contains("can begin with itself"));
}

/// A text that `rules` describe, by random bytes, with a liking for those that end it.
fn random_text(automaton: &mut Automaton, mut state: State, seed: &mut u64) -> String {
    let mut random = |n: usize| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as usize % n
    };
    let mut text = Vec::new();
    loop {
        let next = |automaton: &mut Automaton, byte: &u8| automaton.after(state, *byte).unwrap() != DEAD;
        let all: Vec<u8> = (0..=255).filter(|byte| next(automaton, byte)).collect();
        if automaton.is_complete(state) && (all.is_empty() || random(4) > 0) {
            return String::from_utf8(text).unwrap();
        }
        let closing: Vec<u8> = all.iter().copied().filter(|byte| b"\"]}:,".contains(byte)).collect();
        let some = if !closing.is_empty() && (text.len() > 200 || random(3) == 0) { &closing } else { &all };
        let byte = some[random(some.len())];
        text.push(byte);
        state = automaton.after(state, byte).unwrap();
    }
}

#[test]
fn whatever_a_schema_lets_through_is_json_of_it() {
    let value = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 130},
            "weight": {"type": "number", "exclusiveMinimum": -3, "maximum": 7},
            "friends": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
            "colour": {"enum": ["red", "green"]},
            "more": true
        },
        "required": ["name", "age"],
        "additionalProperties": {"type": "boolean"}
    });
    fn holds(value: &Value) -> bool {
        value.as_object().unwrap().iter().all(|(key, value)| match key.as_str() {
            "name" => value.as_str().is_some_and(|text| text.chars().count() <= 12),
            "age" => value.as_u64().is_some_and(|age| age <= 130),
            "weight" => value.as_f64().is_some_and(|weight| weight > -3.0 && weight <= 7.0),
            "friends" => value.as_array().is_some_and(|list| list.len() <= 2 && list.iter().all(holds)),
            "colour" => value == "red" || value == "green",
            "more" => true,
            _ => value.is_boolean(),
        }) && value["name"].is_string()
            && value["age"].is_u64()
    }
    let (mut automaton, start) = start(&schema(&value));
    let mut seed = 1;
    for _ in 0..300 {
        let text = random_text(&mut automaton, start, &mut seed);
        let read: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(holds(&read), "{text}");
    }
}

#[test]
fn integers_within_bounds_are_those_and_no_others() {
    for (least, most) in [(0, 9), (-5, 5), (7, 123), (-1050, -7), (99, 1001), (-3, 0), (13, 13), (190, 2019)] {
        let rules = schema(&json!({"type": "integer", "minimum": least, "maximum": most}));
        for n in -1200i32..2100 {
            assert_eq!(accepts(&rules, &n.to_string()), (least..=most).contains(&n), "{least} {n} {most}");
        }
    }
}
