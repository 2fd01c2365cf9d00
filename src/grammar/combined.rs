//! Schemas whose parts hold at once, those that refer to one another again and again, and what is refused of them.

use super::Rules;
use super::graph::Graph;
use super::tests::start;
use serde_json::{Value, json};

fn check(value: &Value, good: &[&str], bad: &[&str]) {
    let rules = Rules::from_json_schema(&value.to_string(), "s").unwrap_or_else(|error| panic!("{value}: {error:#}"));
    let (mut automaton, begin) = start(&rules);
    let mut accepts = |text: &str| {
        let state = text.bytes().fold(begin, |state, byte| automaton.after(state, byte).unwrap());
        automaton.is_complete(state)
    };
    good.iter().for_each(|good| assert!(accepts(good), "{value} refuses {good}"));
    bad.iter().for_each(|bad| assert!(!accepts(bad), "{value} accepts {bad}"));
}

fn refused(value: &Value, message: &str) {
    let error = Rules::from_json_schema(&value.to_string(), "s").map(drop).expect_err(&value.to_string());
    let error = format!("{error:#}");
    assert!(error.contains(message) && error.lines().count() == 1, "{value}: {error}");
}

#[test]
fn of_listed_values_those_count_that_the_rest_of_the_schema_allows() {
    let values = json!([1, 2.5, -3, "a", "abc", null, true, [], [1, "x"], {}, {"a": 1}, {"b": "x"}]);
    let with = |mut schema: Value| {
        schema["enum"] = values.clone();
        schema
    };
    for (schema, good) in [
        (json!({"type": "integer"}), "1 -3"),
        (json!({"type": ["string", "null"]}), "\"a\" \"abc\" null"),
        (json!({"type": "number", "minimum": 1, "exclusiveMaximum": 2.5}), "1"),
        (json!({"type": "string", "maxLength": 1}), "\"a\""),
        (json!({"type": "string", "pattern": "b"}), "\"abc\""),
        (json!({"type": "array", "items": {"type": "string"}}), "[]"),
        (json!({"type": "array", "prefixItems": [{"const": 1}], "items": false}), "[]"),
        (json!({"type": "array", "minItems": 1}), "[1,\"x\"]"),
        (json!({"type": "object", "required": ["a"]}), "{\"a\":1}"),
        (json!({"type": "object", "properties": {"b": true}, "additionalProperties": false}), "{} {\"b\":\"x\"}"),
        (
            json!({"type": "object", "additionalProperties": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "integer"}}}),
            "{} {\"a\":1}",
        ),
        (json!({"const": 1.0}), "1"),
        (json!({"anyOf": [{"type": "boolean"}, {"const": "a"}]}), "true \"a\""),
        (json!({"allOf": [{"type": "integer"}, {"maximum": 0}]}), "-3"),
        (json!({"minimum": 2, "minLength": 2}), "2.5 \"abc\" null true [] [1,\"x\"] {} {\"a\":1} {\"b\":\"x\"}"),
    ] {
        let good: Vec<&str> = good.split(' ').collect();
        let all: Vec<String> = values.as_array().unwrap().iter().map(Value::to_string).collect();
        let bad: Vec<&str> = all.iter().map(String::as_str).filter(|value| !good.contains(value)).collect();
        assert_eq!(good.len() + bad.len(), all.len(), "{schema}");
        check(&with(schema), &good, &bad);
    }
    for schema in [json!({"type": "string", "const": 1}), json!({"enum": [1, 2], "minimum": 3})] {
        refused(&schema, "no value of enum or const is what the rest of the schema allows");
    }
    let message = "no value of enum or const is what the rest of the schema allows";
    refused(&json!({"enum": [[1]], "contains": {"const": 2}}), message);
    refused(&json!({"enum": [{"a": 1}], "properties": {"a": {"multipleOf": 2}}}), message);
    refused(
        &json!({"enum": [{"a": 1}], "properties": {"a": {"if": {}, "then": {}}}}),
        "if cannot be kept to; write the cases",
    );
    refused(
        &json!({"enum": [{"a": 1}], "dependencies": {"a": {}}}),
        "dependencies cannot be kept to where they are schemas",
    );
}

#[test]
fn what_stands_beside_a_reference_holds_wherever_it_stands() {
    let defs = json!({"n": {"type": "integer"}, "m": {"$ref": "#/$defs/n", "minimum": 5}});
    for schema in [
        json!({"$ref": "#/$defs/n", "minimum": 5, "$defs": defs}),
        json!({"$ref": "#/$defs/m", "$defs": defs}),
        json!({"allOf": [{"$ref": "#/$defs/n", "minimum": 5}], "$defs": defs}),
        json!({"allOf": [{"$ref": "#/$defs/n"}, {"$ref": "#/$defs/m"}], "$defs": defs}),
        json!({"anyOf": [{"$ref": "#/$defs/m"}], "type": "number", "$defs": defs}),
        json!({"type": ["integer", "string"], "allOf": [{"type": ["number", "null"]}, {"minimum": 5}]}),
    ] {
        check(&schema, &["5", "17"], &["4", "-1", "5.5", "null", "\"\""]);
    }
    refused(&json!({"allOf": [{"type": "string"}, {"type": "integer"}]}), "nothing is of both types");
}

#[test]
fn what_one_part_names_is_an_additional_property_of_the_other() {
    let a = json!({"properties": {"a": {"const": 1}}, "additionalProperties": false});
    let b = json!({"properties": {"b": {"const": 2}}});
    for parts in [json!([a, b]), json!([b, a])] {
        check(&json!({ "allOf": parts }), &["{}", "{\"a\":1}"], &["{\"b\":2}", "{\"a\":1,\"b\":2}"]);
    }
    let whole = json!({"additionalProperties": {"type": "integer"}});
    let b = json!({"properties": {"b": {"minimum": 2, "type": "number"}}});
    check(&json!({"allOf": [whole, b]}), &["{\"b\":3}", "{\"c\":-1}"], &["{\"b\":2.5}", "{\"b\":1}", "{\"c\":\"x\"}"]);
    // A property that may be nothing is not there, under no rule for others either.
    let never = json!({"properties": {"a": false, "b": {"const": 2}}, "additionalProperties": {"const": 3}});
    check(&never, &["{}", "{\"b\":2}", "{\"c\":3}"], &["{\"a\":3}", "{\"a\":2}"]);
    refused(&json!({"properties": {"a": false}, "required": ["a"]}), "required \"a\" is allowed nothing");
    let tuple = json!({"prefixItems": [{"const": 1}]});
    refused(&json!({"allOf": [tuple, {"items": {"type": "string"}}]}), "cannot be put together");
}

#[test]
fn what_comes_again_and_again_is_converted_once() {
    let n_rules = |value: &Value| {
        let rules = Rules::from_json_schema(&value.to_string(), "s").unwrap_or_else(|e| panic!("{e:#}"));
        Graph::new(&rules, 10, &|_| Ok(0)).unwrap();
        rules.list.len()
    };
    let mut types = json!({"type": "integer"});
    for _ in 0..40 {
        types = json!({"type": ["array", "object", "array"], "items": types});
    }
    assert!(n_rules(&types) < 500);
    let mut defs = json!({"a60": {"type": "integer"}});
    for n in 0..60 {
        let next = json!({"$ref": format!("#/$defs/a{}", n + 1), "x-note": 1});
        defs[format!("a{n}")] = json!({"type": "object", "properties": {"x": next, "y": next}});
    }
    assert!(n_rules(&json!({"$ref": "#/$defs/a0", "$defs": defs})) < 1000);
    // A schema within itself, with something beside the reference.
    let tree = json!({"type": "object", "properties": {"l": {"$ref": "#", "type": "object"}, "v": {"const": 1}}});
    check(&tree, &["{}", "{\"l\":{\"l\":{\"v\":1}},\"v\":1}"], &["{\"l\":1}"]);
    for circle in [json!({"allOf": [{"$ref": "#"}]}), json!({"anyOf": [{"$ref": "#"}], "minimum": 1})] {
        let rules = Rules::from_json_schema(&circle.to_string(), "s");
        let graph = rules.and_then(|rules| Graph::new(&rules, 10, &|_| Ok(0)).map(drop));
        let error = format!("{:#}", graph.expect_err(&circle.to_string()));
        assert!(
            ["can begin with itself", "within each other", "without end", "cannot be put together"]
                .iter()
                .any(|message| error.contains(message)),
            "{error}"
        );
    }
}

#[test]
fn what_is_not_understood_is_refused_and_not_passed_over() {
    for key in ["anyOf", "oneOf", "allOf"] {
        for value in [json!({"type": "string"}), json!(5), json!("x")] {
            refused(&json!({ key: value }), &format!("{key} must be an array of schemas"));
        }
    }
    refused(&json!({"uniqueItems": false, "allOf": [{"uniqueItems": true}]}), "uniqueItems can be kept to where items");
    refused(&json!({"type": []}), "type is empty");
    for schema in [
        json!({"type": "integer", "minimum": 1e20}),
        json!({"type": "number", "maximum": -1e300}),
        json!({"type": "integer", "minimum": 1e16, "maximum": 2e16}),
    ] {
        refused(&schema, "a bound of more than 15 digits");
    }
    check(&json!({"type": "integer", "minimum": 0, "maximum": 1e300}), &["0", "999999999999999"], &["-1"]);
}

#[test]
fn numbers_within_bounds_are_those_and_no_others() {
    let ends = [-10.25, -3.0, -0.5, -0.05, 0.0, 0.07, 0.5, 1.0, 1.25, 3.0, 12.5];
    let texts: Vec<String> = (-1100..=1300).map(|n| (f64::from(n) / 100.0).to_string()).collect();
    let more =
        ["0.0", "0.00", "1.0", "0.070", "0.50", "0.5001", "0.4999", "1.250", "1.2501", "-0.50", "-0.501", "3.000001"];
    for least in ends {
        for most in ends.into_iter().filter(|most| *most >= least) {
            for (low, high) in
                [("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum"), ("minimum", "exclusiveMaximum")]
            {
                let value = json!({"type": "number", low: least, high: most});
                let holds = |text: &str| {
                    let number: f64 = text.parse().unwrap();
                    let above = if low == "minimum" { number >= least } else { number > least };
                    above && if high == "maximum" { number <= most } else { number < most }
                };
                if least == most && (low, high) != ("minimum", "maximum") {
                    refused(&value, "no number is");
                    continue;
                }
                let all = texts.iter().map(String::as_str).chain(more).step_by(if least == 0.0 { 1 } else { 7 });
                let (good, bad): (Vec<&str>, Vec<&str>) =
                    all.filter(|text| *text != "-0").partition(|text| holds(text));
                check(&value, &good, &bad);
            }
        }
    }
    refused(&json!({"type": "number", "minimum": 1e-20, "maximum": 1}), "a bound of more than 15 digits");
}

#[test]
fn keys_that_are_not_known_are_told() {
    let value = json!({"type": "object", "requried": ["a"], "title": "t", "x-order": 1, "$defs": {"odd": {"odd": 1}},
        "properties": {"a": {"type": "string", "maxlength": 3, "default": 1}, "mistake": true}, "allOf": [{"minProps": 1}]});
    let rules = Rules::from_json_schema(&value.to_string(), "s").unwrap();
    assert_eq!(rules.unknown.into_iter().collect::<Vec<_>>(), ["maxlength", "minProps", "requried"]);
}

#[test]
fn classes_of_characters_are_those_of_ecmascript() {
    check(&json!({"pattern": "^[a&&b]$"}), &["\"a\"", "\"&\"", "\"b\""], &["\"c\"", "\"\""]);
    check(&json!({"pattern": "^[a~~b[]$"}), &["\"a\"", "\"~\"", "\"[\""], &["\"c\""]);
    check(&json!({"pattern": "^[+--]+$"}), &["\"+,-\""], &["\".\"", "\"*\""]);
    check(&json!({"pattern": "^[\\d\\-[:]$"}), &["\"7\"", "\"-\"", "\"[\"", "\":\""], &["\"a\"", "\"\\\\\""]);
    for pattern in ["[]", "[]a]", "[^]", "[^]a]"] {
        refused(&json!({ "pattern": pattern }), "a class begins with ]");
    }
}

#[test]
fn listed_values_are_held_against_every_keyword() {
    let values = json!([0.3, 7, "ab", "2024-02-30", "::1", [1, 1.0], [1, 2, 2], [2], {}, {"a": 1}, {"b": 2, "x-c": 3}]);
    for (mut schema, good) in [
        (json!({"type": "number", "multipleOf": 0.1}), "0.3 7"),
        (json!({"type": "number", "multipleOf": 3.5}), "7"),
        (json!({"type": "string", "not": {"maxLength": 3}}), "\"2024-02-30\""),
        (json!({"type": "string", "format": "date"}), ""),
        (json!({"type": "string", "format": "ipv6"}), "\"::1\""),
        (json!({"type": "string", "format": "no-such", "pattern": "b"}), "\"ab\""),
        (json!({"not": {"type": ["string", "array", "object"]}}), "0.3 7"),
        (json!({"type": "array", "uniqueItems": true}), "[2]"),
        (json!({"type": "array", "contains": {"const": 2}}), "[1,2,2] [2]"),
        (json!({"type": "array", "contains": {"const": 1}, "minContains": 0, "maxContains": 1}), "[1,2,2] [2]"),
        (json!({"type": "array", "contains": {"minimum": 1}, "minContains": 2, "maxContains": 2}), "[1,1.0]"),
        (json!({"type": "array", "prefixItems": [{"const": 1}], "unevaluatedItems": {"const": 2}}), "[1,2,2]"),
        (json!({"type": "array", "items": [{"const": 1}], "additionalItems": {"const": 2}}), "[1,2,2]"),
        (json!({"type": "array", "unevaluatedItems": {"const": 2}}), "[2]"),
        (json!({"type": "object", "minProperties": 1, "maxProperties": 1}), "{\"a\":1}"),
        (json!({"type": "object", "dependentRequired": {"b": ["x-c"], "a": ["b"]}}), "{} {\"b\":2,\"x-c\":3}"),
        (json!({"type": "object", "dependencies": {"b": ["a"]}}), "{} {\"a\":1}"),
        (json!({"type": "object", "propertyNames": {"pattern": "^.$"}}), "{} {\"a\":1}"),
        (json!({"type": "object", "patternProperties": {"^x-": {"const": 4}}}), "{} {\"a\":1}"),
        (
            json!({"type": "object", "properties": {"b": {"const": 2}}, "patternProperties": {"^x-": {}}, "unevaluatedProperties": false}),
            "{} {\"b\":2,\"x-c\":3}",
        ),
        (
            json!({"type": "object", "properties": {"a": {"oneOf": [{"const": 1}, {"type": "integer"}]}}}),
            "{} {\"b\":2,\"x-c\":3}",
        ),
    ] {
        let good: Vec<&str> = good.split_terminator(' ').collect();
        let all: Vec<String> = values.as_array().unwrap().iter().map(Value::to_string).collect();
        let bad: Vec<&str> = all.iter().map(String::as_str).filter(|value| !good.contains(value)).collect();
        assert_eq!(good.len() + bad.len(), all.len(), "{schema}");
        schema["enum"] = values.clone();
        match good[..] {
            [] => refused(&schema, "no value of enum or const is what the rest of the schema allows"),
            _ => check(&schema, &good, &bad),
        }
    }
    let elsewhere = json!({"properties": {"a": {}}, "allOf": [{}], "unevaluatedProperties": false});
    refused(
        &json!({"enum": [{"a": {}}], "properties": {"a": elsewhere}}),
        "unevaluatedProperties beside allOf cannot be kept to",
    );
    refused(&json!({"enum": [1], "multipleOf": 0}), "multipleOf must be more than 0");
    refused(&json!({"enum": [1e200], "multipleOf": 3}), "more digits than can be divided");
}

#[test]
fn lists_within_other_keywords_hold_to_what_stands_beside_them() {
    let some = json!({"enum": ["a", "bb", "a", 1, 1.0], "type": "string", "maxLength": 1});
    check(&json!({"propertyNames": some}), &["{}", "{\"a\":1}"], &["{\"bb\":1}", "{\"1\":1}"]);
    check(&json!({"propertyNames": {"const": "a"}}), &["{}", "{\"a\":1}"], &["{\"b\":1}"]);
    check(&json!({"propertyNames": {"const": 1}}), &["{}"], &["{\"b\":1}", "{\"1\":1}"]);
    check(&json!({"uniqueItems": true, "items": some}), &["[]", "[\"a\"]"], &["[\"bb\"]", "[\"a\",\"a\"]"]);
    let numbers = json!({"enum": [1, 1.0, 2, 3], "not": {"const": 3}});
    check(&json!({"uniqueItems": true, "items": numbers}), &["[1,2]", "[2,1]"], &["[1,1.0]", "[3]"]);
    let truths = json!({"type": "boolean", "not": {"const": false}});
    check(&json!({"uniqueItems": true, "items": truths}), &["[]", "[true]"], &["[false]", "[true,true]"]);
    check(&json!({"unevaluatedItems": {"const": 1}}), &["[]", "[1,1]"], &["[2]"]);
}

#[test]
fn parts_limit_keys_of_patterns_and_those_that_are_not_evaluated() {
    let a = json!({"properties": {"a": {"const": 1}}});
    let mut own = a.clone();
    own["unevaluatedProperties"] = json!(false);
    let b = json!({"properties": {"b": {"const": 2}}});
    // What is not evaluated within a part is also what another part names; what is not evaluated beside the parts is not.
    for parts in [json!([own, b]), json!([b, own])] {
        check(&json!({ "allOf": parts }), &["{}", "{\"a\":1}"], &["{\"b\":2}", "{\"a\":1,\"b\":2}"]);
    }
    check(&json!({"allOf": [a, b], "unevaluatedProperties": false}), &["{\"a\":1,\"b\":2}"], &["{\"c\":1}"]);
    let patterns = json!({"patternProperties": {"^x": {"const": 1}}, "additionalProperties": false});
    check(&json!({"allOf": [patterns, a]}), &["{}", "{\"xy\":1}"], &["{\"a\":1}", "{\"xy\":2}"]);
    let open = json!({"patternProperties": {"^x": {"const": 1}}});
    refused(&json!({"allOf": [open, {"additionalProperties": false}]}), "they cannot be put together");
    let never = json!({"patternProperties": {"^x": {"const": 1}, "^y": false}});
    check(&never, &["{}", "{\"x\":1}"], &["{\"y\":1}"]);
    let forbidden =
        json!({"properties": {"a": {"const": 1}, "b": false}, "dependentRequired": {"a": ["b"]}, "minProperties": 0});
    check(&forbidden, &["{}"], &["{\"a\":1}", "{\"b\":1}", "{\"a\":1,\"b\":1}"]);
    check(&json!({"allOf": [{"enum": [1, 2]}, {"enum": [2.0, 3]}]}), &["2"], &["1", "3"]);
}

#[test]
fn multiples_keep_to_bounds_that_leave_their_number_out() {
    let of = |low: &str, high: &str| json!({"type": "integer", "multipleOf": 5, low: 5, high: 15});
    check(&of("minimum", "maximum"), &["5", "10", "15"], &["0", "20"]);
    check(&of("exclusiveMinimum", "exclusiveMaximum"), &["10"], &["5", "15"]);
    check(&json!({"multipleOf": 5, "minimum": 4.5, "exclusiveMaximum": 10.5}), &["5", "10"], &["0", "15", "5.5"]);
    refused(
        &json!({"multipleOf": 5, "exclusiveMinimum": 5, "exclusiveMaximum": 10}),
        "no multiple of 5 is above 5 and below 10",
    );
    refused(&json!({"multipleOf": 5, "minimum": 1e20}), "a bound of more than 15 digits");
}

#[test]
fn schemas_under_any_keyword_are_converted_once() {
    for key in ["patternProperties", "contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties"] {
        let mut defs = json!({"a40": {"type": "array", "items": {"const": "x"}}});
        for n in 0..40 {
            let next = json!({"$ref": format!("#/$defs/a{}", n + 1), "x-note": 1});
            defs[format!("a{n}")] = match key {
                "patternProperties" => json!({ key: {"^a$": next, "^b$": next} }),
                "contains" => json!({ key: next, "items": next }),
                "propertyNames" => json!({ key: {"enum": ["p", "q"]}, "additionalProperties": next }),
                "unevaluatedItems" => json!({ "prefixItems": [next], key: next }),
                _ => json!({ "properties": {"a": next}, key: next }),
            };
        }
        if key == "contains" {
            defs["a2"] = json!({"type": "integer"});
        }
        let value = json!({"$ref": "#/$defs/a0", "$defs": defs});
        let rules = Rules::from_json_schema(&value.to_string(), "s").unwrap_or_else(|e| panic!("{key}: {e:#}"));
        assert!(rules.list.len() < 1500, "{key}: {}", rules.list.len());
        assert!(rules.unknown.is_empty());
    }
}
