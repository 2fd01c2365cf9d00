//! Keywords that count, that need others, and that tell alike from different.

use super::{accepts, schema, start};
use crate::grammar::Rules;
use serde_json::{Value, json};
use std::ops::RangeInclusive;

#[test]
fn keys_are_counted_and_need_each_other() {
    let cases = [
        (
            json!({"properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "minProperties": 1, "maxProperties": 2}),
            vec![r#"{"a":1}"#, r#"{"a":1,"c":3}"#, r#"{"b":2,"c":3}"#],
            vec!["{}", r#"{"a":1,"b":2,"c":3}"#],
        ),
        (json!({"minProperties": 1}), vec![r#"{"x":[]}"#, r#"{"x":1,"y":2}"#], vec!["{}"]),
        (json!({"type": "object", "maxProperties": 0}), vec!["{}", "{ }"], vec![r#"{"x":1}"#]),
        (json!({"maxProperties": 2}), vec!["{}", r#"{"a":1,"b":{"c":1,"d":2,"e":3}}"#], vec![r#"{"a":1,"b":2,"c":3}"#]),
        (
            json!({"properties": {"a": {"const": 1}}, "additionalProperties": {"const": 2}, "minProperties": 2, "maxProperties": 3}),
            vec![r#"{"a":1,"b":2}"#, r#"{"a":1,"b":2,"c":2}"#],
            // Two of a kind could be the same.
            vec![r#"{"a":1}"#, r#"{"b":2,"c":2}"#, r#"{"a":1,"b":2,"c":2,"d":2}"#],
        ),
        (
            json!({"properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "dependentRequired": {"a": ["c", "b"]}}),
            vec!["{}", r#"{"b":2}"#, r#"{"a":1,"b":2,"c":3}"#, r#"{"b":2,"c":3}"#],
            vec![r#"{"a":1}"#, r#"{"a":1,"b":2}"#, r#"{"a":1,"c":3}"#],
        ),
        (
            // What is needed comes before what needs it.
            json!({"properties": {"a": {"const": 1}, "b": {"const": 2}}, "dependencies": {"b": ["a"]}}),
            vec!["{}", r#"{"a":1}"#, r#"{"a":1,"b":2}"#],
            vec![r#"{"b":2}"#],
        ),
        (
            json!({"properties": {"a": {"const": 1}}, "dependentRequired": {"a": ["z"], "q": ["r"]}, "additionalProperties": false}),
            vec!["{}"],
            vec![r#"{"a":1}"#],
        ),
        (
            json!({"properties": {"a": {"const": 1}}, "dependentRequired": {"a": ["z"]}, "additionalProperties": {"const": 2}}),
            vec!["{}", r#"{"a":1,"z":2}"#, r#"{"z":2}"#, r#"{"q":2}"#],
            vec![r#"{"a":1}"#, r#"{"a":1,"q":2}"#],
        ),
    ];
    check(&cases);
}

#[test]
fn keys_match_patterns_and_names_what_is_said_of_them() {
    let cases = [
        (
            json!({"patternProperties": {"^x-[a-z]+$": {"const": 1}, "^[0-9]+$": {"const": 2}}}),
            vec!["{}", r#"{"x-ab":1,"12":2}"#],
            vec![r#"{"x-ab":2}"#, r#"{"12":1}"#, r#"{"y":1}"#, r#"{"x-":1}"#],
        ),
        (
            json!({"properties": {"name": {"const": 0}}, "required": ["name"], "patternProperties": {"^x-": {"const": 1}}, "additionalProperties": false}),
            vec![r#"{"name":0}"#, r#"{"name":0,"x-a":1,"x-":1}"#],
            vec!["{}", r#"{"name":1}"#, r#"{"x-a":1}"#],
        ),
        (
            json!({"propertyNames": {"pattern": "^[a-c]+$"}, "additionalProperties": {"const": 1}}),
            vec!["{}", r#"{"abc":1}"#],
            vec![r#"{"abd":1}"#, r#"{"abc":2}"#],
        ),
        (json!({"propertyNames": {"enum": ["p", "q"]}}), vec![r#"{"p":[1],"q":null}"#], vec![r#"{"r":1}"#]),
        (json!({"type": "object", "unevaluatedProperties": false}), vec!["{}"], vec![r#"{"a":1}"#]),
        (
            json!({"allOf": [{"properties": {"a": {"const": 1}}}], "unevaluatedProperties": {"const": 2}}),
            vec![r#"{"a":1,"b":2}"#],
            vec![r#"{"a":2}"#],
        ),
    ];
    check(&cases);
}

#[test]
fn items_are_told_apart_and_looked_for() {
    let cases = [
        (
            json!({"uniqueItems": true, "items": {"enum": ["a", "b", "c"]}, "minItems": 1}),
            vec![r#"["a"]"#, r#"["c","a"]"#, r#"["b", "c", "a"]"#],
            vec!["[]", r#"["a","a"]"#, r#"["a","b","a"]"#],
        ),
        (
            json!({"uniqueItems": true, "items": {"enum": ["a", "b", "c"]}, "maxItems": 2}),
            vec!["[]", r#"["c","b"]"#],
            vec![r#"["a","b","c"]"#],
        ),
        (
            json!({"uniqueItems": true, "items": {"type": "boolean"}}),
            vec!["[true,false]", "[false]"],
            vec!["[true,true]"],
        ),
        (json!({"uniqueItems": true, "maxItems": 1}), vec!["[]", "[{}]"], vec!["[1,2]"]),
        (json!({"uniqueItems": false, "items": {"const": 1}}), vec!["[1,1]"], vec![]),
        (
            json!({"items": {"enum": [1, 2]}, "contains": {"enum": [2, 3]}}),
            vec!["[2]", "[1,1,2,1]", "[2,2]"],
            vec!["[]", "[1]", "[3]", "[1,1]"],
        ),
        (
            json!({"items": {"enum": [1, 2]}, "contains": {"const": 2}, "minContains": 2, "minItems": 3, "maxItems": 4}),
            vec!["[2,2,1]", "[1,2,1,2]", "[2,2,2,2]"],
            vec!["[2,2]", "[1,1,2]", "[1,1,1,2]", "[2,2,1,1,1]"],
        ),
        (json!({"contains": {"const": 7}}), vec!["[7]", r#"["x",7,{}]"#], vec!["[]", "[6]"]),
        (json!({"contains": {"const": 7}, "minContains": 0}), vec!["[]", "[1]"], vec!["7"]),
        (
            json!({"items": [{"const": 1}], "additionalItems": {"const": 2}}),
            vec!["[1]", "[1,2,2]"],
            vec!["[2]", "[1,1]"],
        ),
        (json!({"prefixItems": [{"const": 1}], "unevaluatedItems": false}), vec!["[1]"], vec!["[1,2]"]),
    ];
    check(&cases);
}

#[test]
fn multiples_are_written_digit_by_digit() {
    let rules = schema(&json!({"type": "integer", "multipleOf": 7}));
    let whole = |rules: &Rules, n: RangeInclusive<i64>| -> Vec<i64> {
        let (mut automaton, start) = start(rules);
        let mut is = |text: String| {
            let state = text.bytes().fold(start, |state, byte| automaton.after(state, byte).unwrap());
            automaton.is_complete(state)
        };
        n.filter(|n| is(n.to_string())).collect()
    };
    assert_eq!(whole(&rules, -300..=3000), (-300..=3000).filter(|n| n % 7 == 0).collect::<Vec<_>>());
    let rules = schema(&json!({"type": "integer", "multipleOf": 25, "minimum": -60, "maximum": 101}));
    assert_eq!(whole(&rules, -300..=300), [-50, -25, 0, 25, 50, 75, 100]);
    let cases = [
        (json!({"multipleOf": 0.01}), vec!["1", "-1.5", "0.25", "12.00"], vec!["0.001", "1.", "1e5"]),
        (
            json!({"type": "number", "multipleOf": 0.25}),
            vec!["1", "0.5", "0.50", "7.75", "3.0"],
            vec!["0.2", "0.3", "0.125"],
        ),
        (json!({"type": "integer", "multipleOf": 0.5}), vec!["3", "-2"], vec!["0.5"]),
        (json!({"type": "number", "multipleOf": 10}), vec!["0", "120", "-10"], vec!["5", "10.5"]),
        (json!({"type": "integer", "multipleOf": 1, "minimum": 3}), vec!["3", "40"], vec!["2"]),
    ];
    check(&cases);
}

#[test]
fn strings_are_others_than_these_and_of_more_formats() {
    let cases = [
        (
            json!({"type": "string", "not": {"enum": ["ab", "b"]}}),
            vec![r#""a""#, r#""abc""#, r#""""#],
            vec![r#""ab""#, r#""b""#],
        ),
        (json!({"type": "string", "not": {"const": "x"}}), vec![r#""y""#], vec![r#""x""#]),
        (json!({"format": "ipv4"}), vec![r#""192.168.0.255""#], vec![r#""256.1.1.1""#, r#""1.2.3""#, r#""01.2.3.4""#]),
        (json!({"format": "email"}), vec![r#""a.b+c@mail.example.org""#], vec![r#""a@""#, r#""@b.c""#, r#""a b@c.d""#]),
        (json!({"format": "hostname"}), vec![r#""a-b.example""#], vec![r#""-a""#, r#""a..b""#]),
        (
            json!({"format": "duration"}),
            vec![r#""P3W""#, r#""P1Y2M3DT4H5M6S""#, r#""PT15M""#],
            vec![r#""P""#, r#""PT""#, r#""P1Y3D""#],
        ),
        (json!({"format": "ipv6"}), vec![r#""fe80:0:0:0:1:2:3:4""#], vec![r#""1:2""#]),
        (
            json!({"format": "uuid4"}),
            vec![r#""123e4567-e89b-42d3-a456-426614174000""#],
            vec![r#""123e4567-e89b-12d3-a456-426614174000""#],
        ),
        (json!({"if": {"const": 1}, "type": "null"}), vec!["null"], vec!["1"]),
        (json!({"then": {"const": 1}, "type": "null"}), vec!["null"], vec!["1"]),
    ];
    check(&cases);
}

#[test]
fn what_cannot_be_kept_to_is_named_with_what_helps() {
    for (value, message) in [
        (json!({"not": {"type": "null"}}), "not is known of strings"),
        (json!({"type": "string", "not": {"pattern": "a"}}), "not is known of strings"),
        (json!({"type": "string", "not": {"const": "a"}, "maxLength": 2}), "say what is allowed instead"),
        (json!({"if": {}, "then": {}}), "if cannot be kept to; write the cases as anyOf"),
        (json!({"dependentSchemas": {}}), "dependentSchemas cannot be kept to; write them as anyOf"),
        (json!({"dependencies": {"a": {"required": ["b"]}}}), "write them as anyOf"),
        (json!({"minProperties": 2}), "name 1 more"),
        (json!({"minProperties": 2, "maxProperties": 1}), "maxProperties is less than minProperties"),
        (json!({"required": ["a", "b"], "maxProperties": 1}), "no object can have the keys"),
        (
            json!({"properties": {"a": {}, "b": {}}, "required": ["a"], "dependentRequired": {"a": ["c"]}, "additionalProperties": false}),
            "no object can have the keys",
        ),
        (json!({"patternProperties": {"^a": {"const": 1}, "b$": {"const": 2}}}), "match the same keys"),
        (json!({"properties": {"ab": {}}, "patternProperties": {"^a": {"const": 1}}}), "matches the property \"ab\""),
        (json!({"patternProperties": {"a": {}}, "additionalProperties": {}}), "make that false"),
        (
            json!({"properties": {"a": {}}, "propertyNames": {"pattern": "a"}, "additionalProperties": {}}),
            "propertyNames beside",
        ),
        (json!({"propertyNames": {"anyOf": []}}), "propertyNames: only pattern"),
        (json!({"uniqueItems": true}), "uniqueItems can be kept to where items have an enum"),
        (json!({"uniqueItems": true, "items": {"type": "string"}}), "or leave it out"),
        (json!({"uniqueItems": true, "items": {"enum": [1]}, "minItems": 2}), "only 1 different items"),
        (json!({"contains": {}, "maxContains": 2}), "maxContains cannot be kept to; leave it out"),
        (json!({"contains": {}, "prefixItems": [{}]}), "contains beside prefixItems"),
        (json!({"multipleOf": 101}), "multipleOf is known of whole numbers up to 100"),
        (json!({"multipleOf": 1.5}), "multipleOf is known of"),
        (json!({"multipleOf": 0}), "multipleOf must be more than 0"),
        (json!({"multipleOf": 0.1, "maximum": 1}), "beside bounds"),
        (json!({"multipleOf": 50, "minimum": 1, "maximum": 49}), "no multiple of 50 is at least 1"),
    ] {
        let error = format!("{:#}", Rules::from_json_schema(&value.to_string(), "s").map(drop).unwrap_err());
        assert!(error.starts_with("s: ") && error.contains(message) && error.lines().count() == 1, "{value}: {error}");
    }
}

fn check(cases: &[(Value, Vec<&str>, Vec<&str>)]) {
    for (value, good, bad) in cases {
        let rules = schema(value);
        good.iter().for_each(|good| assert!(accepts(&rules, good), "{value} refuses {good}"));
        bad.iter().for_each(|bad| assert!(!accepts(&rules, bad), "{value} accepts {bad}"));
    }
}
