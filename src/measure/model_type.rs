//! A model's type as llama-bench writes it: `llama 7B Q4_0`.

use crate::gguf::Gguf;
use crate::model::Model;
use crate::quant::GgmlType;

/// What llama.cpp calls the numbers in `general.file_type` (its `llama_ftype`).
const FILE_TYPES: [(u32, &str); 35] = [
    (0, "all F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K - Medium"),
    (11, "Q3_K - Small"),
    (12, "Q3_K - Medium"),
    (13, "Q3_K - Large"),
    (14, "Q4_K - Small"),
    (15, "Q4_K - Medium"),
    (16, "Q5_K - Small"),
    (17, "Q5_K - Medium"),
    (18, "Q6_K"),
    (19, "IQ2_XXS - 2.0625 bpw"),
    (20, "IQ2_XS - 2.3125 bpw"),
    (21, "Q2_K - Small"),
    (22, "IQ3_XS - 3.3 bpw"),
    (23, "IQ3_XXS - 3.0625 bpw"),
    (24, "IQ1_S - 1.5625 bpw"),
    (25, "IQ4_NL - 4.5 bpw"),
    (26, "IQ3_S - 3.4375 bpw"),
    (27, "IQ3_S mix - 3.66 bpw"),
    (28, "IQ2_S - 2.5 bpw"),
    (29, "IQ2_M - 2.7 bpw"),
    (30, "IQ4_XS - 4.25 bpw"),
    (31, "IQ1_M - 1.75 bpw"),
    (32, "BF16"),
    (36, "TQ1_0 - 1.69 bpw ternary"),
    (37, "TQ2_0 - 2.06 bpw ternary"),
    (38, "MXFP4 MoE"),
    (39, "NVFP4"),
    (40, "Q1_0"),
];

/// Architecture, size and type of file, as llama-bench has them in `model_type`: `qwen2 1.5B Q8_0`, `llama ?B Q4_K - Medium`.
pub fn model_type(model: &Model) -> String {
    let config = &model.config;
    format!("{} {} {}", config.arch, config.size_class(), file_type(&model.gguf))
}

/// What the file says of its type; where it says nothing, what its tensors say.
fn file_type(gguf: &Gguf) -> String {
    let stated = gguf.metadata().u32("general.file_type").ok().flatten();
    match stated {
        Some(number) => named(number).to_owned(),
        None => format!("{} (guessed)", of_tensors(gguf)),
    }
}

fn named(number: u32) -> &'static str {
    FILE_TYPES.iter().find(|(of, _)| *of == number).map_or("unknown, may not work", |(_, name)| name)
}

/// The type of most tensors, as the type of a file that has mostly those.
fn of_tensors(gguf: &Gguf) -> &'static str {
    let mut counts: Vec<(GgmlType, usize)> = Vec::new();
    let mut most: Option<(GgmlType, usize)> = None;
    for tensor in gguf.tensors() {
        let at = counts.iter().position(|(dtype, _)| *dtype == tensor.dtype).unwrap_or_else(|| {
            counts.push((tensor.dtype, 0));
            counts.len() - 1
        });
        counts[at].1 += 1;
        // Of as many, the one that has them first.
        if most.is_none_or(|(_, n)| n < counts[at].1) {
            most = Some(counts[at]);
        }
    }
    let name = most.map_or("F32", |(dtype, _)| dtype.name());
    let of_type = |of: &&(u32, &'static str)| of.1 == name || of.1.starts_with(&format!("{name} - "));
    match name {
        // Of those in several mixtures.
        "Q3_K" => named(12),
        "Q4_K" => named(15),
        "Q5_K" => named(17),
        _ => FILE_TYPES.iter().find(of_type).map_or(named(0), |(_, name)| name),
    }
}
