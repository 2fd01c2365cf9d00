//! Which types the recipes give to which matrices: what llama.cpp gives them.

use crate::support::{ModelFile, Tensor, Value};
use powerinfer::gguf::Gguf;
use powerinfer::quant::GgmlType;
use powerinfer::variant::{Choices, Conversion, Recipe};
use std::path::Path;

/// What llama-quantize writes for models of these shapes: the types of `output` and `token_embd`, then, by layer where they differ,
/// of the matrices that make values, of `ffn_down`, `attn_output`, `attn_k` and `ffn_up`. Each letter is one of [`LETTERS`].
type Expected = (&'static str, &'static [(&'static str, &'static str)]);

#[rustfmt::skip]
const EXPECTED: [Expected; 6] = [
    ("gqa", &[
        ("f32", "f f f f f f f"),
        ("f16", "h h h h h h h"),
        ("bf16", "g g g g g g g"),
        ("q8_0", "8 8 8 8 8 8 8"),
        ("q4_0", "6 a a a a a a"),
        ("q4_1", "6 b b b b b b"),
        ("q5_0", "6 c c c c c c"),
        ("q5_1", "6 d d d d d d"),
        ("q2_k", "6 2 4 3 3 2 2"),
        ("q3_k_s", "6 3 3 3 3 3 3"),
        ("q3_k_m", "6 3 5544444444444444 5444444444444444 4 3 3"),
        ("q3_k_l", "6 3 5 5 5 3 3"),
        ("q4_k_s", "6 4 5555444444444444 5544444444444444 4 4 4"),
        ("q4_k_m", "6 4 6644644644644666 6644644644644666 4 4 4"),
        ("q5_k_s", "6 5 5 5 5 5 5"),
        ("q5_k_m", "6 5 6655655655655666 6655655655655666 5 5 5"),
        ("q6_k", "6 6 6 6 6 6 6"),
        ("iq4_nl", "6 n 5 55nnnnnnnnnnnnnn n n n"),
        ("iq4_xs", "6 x 5 55xxxxxxxxxxxxxx x x x"),
    ]),
    ("llama", &[
        ("q8_0", "8 8 8 8 8 8 8"),
        ("q4_0", "6 a a a a a a"),
        ("q4_1", "6 b b b b b b"),
        ("q5_0", "6 c c c c c c"),
        ("q5_1", "6 d d d d d d"),
        ("q2_k", "6 2 3 3 3 2 2"),
        ("q3_k_s", "6 3 3 3 3 3 3"),
        ("q3_k_m", "6 3 5544444444444444 5444444444444444 4 3 3"),
        ("q3_k_l", "6 3 5 5 5 3 3"),
        ("q4_k_s", "6 4 5555444444444444 5544444444444444 4 4 4"),
        ("q4_k_m", "6 4 6644644644644666 6644644644644666 4 4 4"),
        ("q5_k_s", "6 5 5 5 5 5 5"),
        ("q5_k_m", "6 5 6655655655655666 6655655655655666 5 5 5"),
        ("q6_k", "6 6 6 6 6 6 6"),
        ("iq4_nl", "6 n n 55nnnnnnnnnnnnnn n n n"),
        ("iq4_xs", "6 x x 55xxxxxxxxxxxxxx x x x"),
    ]),
    ("mixtral", &[
        ("q8_0", "8 8 8 8 8 8 8"),
        ("q4_0", "6 a 8 a a 8 a"),
        ("q4_1", "6 b 8 b b 8 b"),
        ("q5_0", "6 c 8 c c 8 c"),
        ("q5_1", "6 d 8 d d 8 d"),
        ("q2_k", "6 2 8 3 5 8 2"),
        ("q3_k_s", "6 3 8 3 5 8 3"),
        ("q3_k_m", "6 3 8 5444444444444444 5 8 3"),
        ("q3_k_l", "6 3 8 5 3 8 3"),
        ("q4_k_s", "6 4 8 5544444444444444 5 8 4"),
        ("q4_k_m", "6 4 8 6644644644644666 5 8 4"),
        ("q5_k_s", "6 5 8 5 5 8 5"),
        ("q5_k_m", "6 5 8 6655655655655666 5 8 5"),
        ("q6_k", "6 6 8 6 6 8 6"),
        ("iq4_nl", "6 n 8 55nnnnnnnnnnnnnn 5 8 n"),
        ("iq4_xs", "6 x 8 55xxxxxxxxxxxxxx 5 8 x"),
    ]),
    ("tied", &[
        ("q8_0", "- 8 8 8 8 8 8"),
        ("q4_0", "- 6 a a a a a"),
        ("q4_1", "- 6 b b b b b"),
        ("q5_0", "- 6 c c c c c"),
        ("q5_1", "- 6 d d d d d"),
        ("q2_k", "- 6 3 3 3 2 2"),
        ("q3_k_s", "- 6 3 3 3 3 3"),
        ("q3_k_m", "- 6 554444444 4 4 3 3"),
        ("q3_k_l", "- 6 5 5 5 3 3"),
        ("q4_k_s", "- 6 555544444 544444444 4 4 4"),
        ("q4_k_m", "- 6 644644666 644644666 4 4 4"),
        ("q5_k_s", "- 6 5 5 5 5 5"),
        ("q5_k_m", "- 6 655655666 655655666 5 5 5"),
        ("q6_k", "- 6 6 6 6 6 6"),
        ("iq4_nl", "- 6 n 5nnnnnnnn n n n"),
        ("iq4_xs", "- 6 x 5xxxxxxxx x x x"),
    ]),
    ("narrow", &[
        ("q8_0", "8 8 8 8 8 8 8"),
        ("q4_0", "8 a a a a a a"),
        ("q4_1", "8 b b b b b b"),
        ("q5_0", "8 c c c c c c"),
        ("q5_1", "8 d d d d d d"),
        ("q2_k", "8 a a a a a a"),
        ("q3_k_s", "8 a a a a a a"),
        ("q3_k_m", "8 a ddcccccccccccccc dccccccccccccccc c a a"),
        ("q3_k_l", "8 a d d d a a"),
        ("q4_k_s", "8 c ddddcccccccccccc ddcccccccccccccc c c c"),
        ("q4_k_m", "8 c 88cc8cc8cc8cc888 88cc8cc8cc8cc888 c c c"),
        ("q5_k_s", "8 d d d d d d"),
        ("q5_k_m", "8 d 88dd8dd8dd8dd888 88dd8dd8dd8dd888 d d d"),
        ("q6_k", "8 8 8 8 8 8 8"),
        ("iq4_nl", "8 n n ddnnnnnnnnnnnnnn n n n"),
        ("iq4_xs", "8 n n ddnnnnnnnnnnnnnn n n n"),
    ]),
    ("falcon", &[
        ("q8_0", "8 8 8 8 8 - 8"),
        ("q4_0", "8 a a a a - a"),
        ("q4_1", "8 b b b b - b"),
        ("q5_0", "8 c c c c - c"),
        ("q5_1", "8 d d d d - d"),
        ("q2_k", "8 2 4 3 2 - 2"),
        ("q3_k_s", "8 3 3 3 3 - 3"),
        ("q3_k_m", "8 3 5544444444444444 5433433433433444 3 - 3"),
        ("q3_k_l", "8 3 5 4 4 - 3"),
        ("q4_k_s", "8 4 5555444444444444 4 4 - 4"),
        ("q4_k_m", "8 4 6644644644644666 6544544544544555 4 - 4"),
        ("q5_k_s", "8 5 5 5 5 - 5"),
        ("q5_k_m", "8 5 6655655655655666 6655655655655666 5 - 5"),
        ("q6_k", "8 6 6 6 6 - 6"),
        ("iq4_nl", "8 n 5 55nnnnnnnnnnnnnn n - n"),
        ("iq4_xs", "8 x 5 55xxxxxxxxxxxxxx x - x"),
    ]),
];

const LETTERS: [(char, &str); 15] = [
    ('2', "Q2_K"),
    ('3', "Q3_K"),
    ('4', "Q4_K"),
    ('5', "Q5_K"),
    ('6', "Q6_K"),
    ('8', "Q8_0"),
    ('a', "Q4_0"),
    ('b', "Q4_1"),
    ('c', "Q5_0"),
    ('d', "Q5_1"),
    ('n', "IQ4_NL"),
    ('x', "IQ4_XS"),
    ('f', "F32"),
    ('g', "BF16"),
    ('h', "F16"),
];

/// Sizes that decide about types. No matrix has more than two rows, since only names and row lengths matter.
struct Shape {
    arch: &'static str,
    n_layer: usize,
    n_embd: usize,
    n_ff: usize,
    heads_kv: u32,
    n_expert: usize,
    tied: bool,
}

fn shape(name: &str) -> Shape {
    let gqa = Shape { arch: "llama", n_layer: 16, n_embd: 256, n_ff: 512, heads_kv: 2, n_expert: 0, tied: false };
    match name {
        "gqa" => gqa,
        "llama" => Shape { heads_kv: 8, ..gqa },
        "mixtral" => Shape { n_ff: 256, n_expert: 8, ..gqa },
        "tied" => Shape { n_layer: 9, heads_kv: 4, tied: true, ..gqa },
        "narrow" => Shape { n_embd: 96, n_ff: 160, heads_kv: 8, ..gqa },
        "falcon" => Shape { arch: "falcon", heads_kv: 1, ..gqa },
        _ => unreachable!("{name}"),
    }
}

fn model(shape: &Shape) -> ModelFile {
    let mut model = ModelFile::default();
    let key = |name: &str| format!("{}.{name}", shape.arch);
    model.set("general.architecture", Value::Str(shape.arch.into()));
    model.set(&key("block_count"), Value::U32(shape.n_layer as u32));
    model.set(&key("attention.head_count"), Value::U32(8));
    model.set(&key("attention.head_count_kv"), Value::U32(shape.heads_kv));
    if shape.n_expert > 0 {
        model.set(&key("expert_count"), Value::U32(shape.n_expert as u32));
    }
    let mut add = |name: &str, dims: &[usize]| {
        let dtype = if dims.len() > 1 { GgmlType::F16 } else { GgmlType::F32 };
        model.push(Tensor::zeros(name, dtype, dims));
    };
    let (n_embd, n_ff) = (shape.n_embd, shape.n_ff);
    add("token_embd.weight", &[n_embd, 2]);
    add("output_norm.weight", &[n_embd]);
    if !shape.tied {
        add("output.weight", &[n_embd, 2]);
    }
    for i in 0..shape.n_layer {
        let mut of_layer = |part: &str, dims: &[usize]| add(&format!("blk.{i}.{part}.weight"), dims);
        of_layer("attn_norm", &[n_embd]);
        let attention: &[&str] = if shape.arch == "falcon" {
            &["attn_qkv", "attn_output"]
        } else {
            &["attn_q", "attn_k", "attn_v", "attn_output"]
        };
        attention.iter().for_each(|part| of_layer(part, &[n_embd, 2]));
        if shape.n_expert > 0 {
            of_layer("ffn_gate_inp", &[n_embd, shape.n_expert]);
            of_layer("ffn_up_exps", &[n_embd, 2, shape.n_expert]);
            of_layer("ffn_down_exps", &[n_ff, 2, shape.n_expert]);
        } else {
            of_layer("ffn_up", &[n_embd, 2]);
            of_layer("ffn_down", &[n_ff, 2]);
        }
    }
    model
}

fn opened(model: &ModelFile, folder: &Path) -> Gguf {
    Gguf::open(&model.written(folder, "model.gguf")).unwrap()
}

fn type_of(conversion: &Conversion, name: &str) -> Option<GgmlType> {
    conversion.tensors.iter().find(|t| t.name == name).map(|t| t.dtype)
}

#[test]
fn every_recipe_gives_every_matrix_what_llama_quantize_gives_it() {
    let folder = tempfile::tempdir().unwrap();
    for (name, recipes) in EXPECTED {
        let shape = shape(name);
        let gguf = opened(&model(&shape), folder.path());
        for (recipe, expected) in recipes {
            let conversion = Conversion::new(&gguf, recipe.parse().unwrap(), &Choices::default()).unwrap();
            let columns: Vec<&str> = expected.split(' ').collect();
            let check = |name: &str, letter: char| {
                let wanted = LETTERS.iter().find(|(l, _)| *l == letter).and_then(|(_, t)| GgmlType::from_name(t));
                assert_eq!(type_of(&conversion, name), wanted, "{}, {recipe}: {name}", shape.arch);
            };
            let first = |column: usize| columns[column].chars().next().unwrap();
            check("output.weight", first(0));
            check("token_embd.weight", first(1));
            let experts = if shape.n_expert > 0 { "_exps" } else { "" };
            let values = if shape.arch == "falcon" { "attn_qkv" } else { "attn_v" };
            let parts = [values, &format!("ffn_down{experts}"), "attn_output", "attn_k", &format!("ffn_up{experts}")];
            for (column, part) in columns[2..].iter().zip(parts) {
                for layer in 0..shape.n_layer {
                    let letter = column.chars().nth(if column.len() > 1 { layer } else { 0 }).unwrap();
                    check(&format!("blk.{layer}.{part}.weight"), letter);
                }
            }
            check("output_norm.weight", 'f');
            if shape.n_expert > 0 {
                check("blk.0.ffn_gate_inp.weight", 'h');
            }
            assert!(name == "narrow" || conversion.notes.is_empty(), "{:?}", conversion.notes);
        }
    }
}

#[test]
fn matrices_of_attention_are_counted_where_not_every_layer_has_them() {
    // Of the four, the third and the last get more bits.
    let folder = tempfile::tempdir().unwrap();
    let mut model = model(&shape("gqa"));
    model
        .tensors
        .retain(|t| !t.name.contains("attn_v") || t.name.split('.').nth(1).unwrap().parse::<usize>().unwrap() % 4 == 3);
    let conversion = Conversion::new(&opened(&model, folder.path()), Recipe::Q4KM, &Choices::default()).unwrap();
    let types = [3, 7, 11, 15].map(|layer| type_of(&conversion, &format!("blk.{layer}.attn_v.weight")).unwrap());
    assert_eq!(types, [GgmlType::Q4_K, GgmlType::Q4_K, GgmlType::Q6_K, GgmlType::Q6_K]);
}

#[test]
fn what_is_asked_for_by_name_comes_before_the_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let gguf = opened(&model(&shape("gqa")), folder.path());
    let of = |choices: Choices| Conversion::new(&gguf, Recipe::Q4KM, &choices).unwrap();
    let types = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect();
    let named = of(Choices { types: types(&["ffn_(up|down)=q8_0", "blk\\.0\\.=q5_1"]), ..Choices::default() });
    assert_eq!(type_of(&named, "blk.0.ffn_down.weight"), Some(GgmlType::Q8_0));
    assert_eq!(type_of(&named, "blk.0.attn_v.weight"), Some(GgmlType::Q5_1));
    // That of layer 0 is not counted: what layer 4 gets otherwise goes to layer 5.
    assert_eq!(type_of(&named, "blk.4.attn_v.weight"), Some(GgmlType::Q4_K));
    assert_eq!(type_of(&named, "blk.5.attn_v.weight"), Some(GgmlType::Q6_K));
    assert_eq!(type_of(&named, "output.weight"), Some(GgmlType::Q6_K));
    let pure = of(Choices { pure: true, ..Choices::default() });
    assert!(pure.types == [(GgmlType::Q4_K, 98)], "{:?}", pure.types);
    let outer = of(Choices { head: Some(GgmlType::Q5_0), embedding: Some(GgmlType::F16), ..Choices::default() });
    assert_eq!(type_of(&outer, "output.weight"), Some(GgmlType::Q5_0));
    assert_eq!(type_of(&outer, "token_embd.weight"), Some(GgmlType::F16));
    let kept = of(Choices { keep_head: true, ..Choices::default() });
    assert_eq!(type_of(&kept, "output.weight"), Some(GgmlType::F16));
    // What no layer has does not name the file.
    let none = of(Choices { types: types(&["blk=q8_0"]), ..Choices::default() });
    assert_eq!((none.file_type, none.notes.len()), (Some(7), 1));
}
