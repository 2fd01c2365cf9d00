//! Chat templates by the names that llama.cpp has for such formats, for files that have none or a wrong one.

/// Names and templates, in the order of the names.
const TEMPLATES: [(&str, &str); 32] = [
    ("chatglm3", include_str!("builtin/chatglm3.jinja")),
    ("chatglm4", include_str!("builtin/chatglm4.jinja")),
    ("chatml", include_str!("builtin/chatml.jinja")),
    ("command-r", include_str!("builtin/command-r.jinja")),
    ("deepseek", include_str!("builtin/deepseek.jinja")),
    ("deepseek2", include_str!("builtin/deepseek2.jinja")),
    ("deepseek3", include_str!("builtin/deepseek3.jinja")),
    ("exaone3", include_str!("builtin/exaone3.jinja")),
    ("falcon3", include_str!("builtin/falcon3.jinja")),
    ("gemma", include_str!("builtin/gemma.jinja")),
    ("gpt-oss", include_str!("builtin/gpt-oss.jinja")),
    ("granite", include_str!("builtin/granite.jinja")),
    ("kimi-k2", include_str!("builtin/kimi-k2.jinja")),
    ("llama2", include_str!("builtin/llama2.jinja")),
    ("llama3", include_str!("builtin/llama3.jinja")),
    ("llama4", include_str!("builtin/llama4.jinja")),
    ("megrez", include_str!("builtin/megrez.jinja")),
    ("minicpm", include_str!("builtin/minicpm.jinja")),
    ("mistral-v1", include_str!("builtin/mistral-v1.jinja")),
    ("mistral-v3", include_str!("builtin/mistral-v3.jinja")),
    ("mistral-v3-tekken", include_str!("builtin/mistral-v3-tekken.jinja")),
    ("mistral-v7", include_str!("builtin/mistral-v7.jinja")),
    ("mistral-v7-tekken", include_str!("builtin/mistral-v7-tekken.jinja")),
    ("monarch", include_str!("builtin/monarch.jinja")),
    ("openchat", include_str!("builtin/openchat.jinja")),
    ("orion", include_str!("builtin/orion.jinja")),
    ("phi3", include_str!("builtin/phi3.jinja")),
    ("phi4", include_str!("builtin/phi4.jinja")),
    ("rwkv-world", include_str!("builtin/rwkv-world.jinja")),
    ("vicuna", include_str!("builtin/vicuna.jinja")),
    ("vicuna-orca", include_str!("builtin/vicuna-orca.jinja")),
    ("zephyr", include_str!("builtin/zephyr.jinja")),
];

/// Other names of theirs.
const SAME: [(&str, &str); 4] =
    [("llama2-sys", "llama2"), ("llama2-sys-bos", "llama2"), ("llama2-sys-strip", "llama2"), ("glmedge", "chatglm4")];

/// The template of that name.
pub fn named(name: &str) -> Option<&'static str> {
    let name = SAME.iter().find(|(other, _)| *other == name).map_or(name, |(_, name)| *name);
    TEMPLATES.iter().find(|(known, _)| *known == name).map(|(_, template)| *template)
}

/// All names, but for second ones.
pub fn names() -> impl Iterator<Item = &'static str> {
    TEMPLATES.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Request, Value};

    /// What a template makes of: system S, user U, assistant A, user V.
    const PROMPTS: [(&str, &str); 32] = [
        ("chatglm3", "[gMASK]sop<|system|>\n S<|user|>\n U<|assistant|>\n A<|user|>\n V<|assistant|>"),
        ("chatglm4", "[gMASK]<sop><|system|>\nS<|user|>\nU<|assistant|>\nA<|user|>\nV<|assistant|>\n"),
        (
            "chatml",
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n\
             <|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "command-r",
            "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>U\
             <|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>A<|END_OF_TURN_TOKEN|>\
             <|START_OF_TURN_TOKEN|><|USER_TOKEN|>V<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        ),
        ("deepseek", "S### Instruction:\nU\n### Response:\nA\n<|EOT|>\n### Instruction:\nV\n### Response:\n"),
        ("deepseek2", "S\n\nUser: U\n\nAssistant: A<｜end▁of▁sentence｜>User: V\n\nAssistant:"),
        ("deepseek3", "S\n\n<｜User｜>U<｜Assistant｜>A<｜end▁of▁sentence｜><｜User｜>V<｜Assistant｜>"),
        ("exaone3", "[|system|]S[|endofturn|]\n[|user|]U\n[|assistant|]A[|endofturn|]\n[|user|]V\n[|assistant|]"),
        ("falcon3", "<|system|>\nS\n<|user|>\nU\n<|assistant|>\nA\n<|user|>\nV\n<|assistant|>\n"),
        (
            "gemma",
            "<start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n\
             <start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            "gpt-oss",
            "<|start|>system<|message|>S<|end|><|start|>user<|message|>U<|end|><|start|>assistant<|message|>A<|end|>\
             <|start|>user<|message|>V<|end|><|start|>assistant",
        ),
        (
            "granite",
            "<|start_of_role|>system<|end_of_role|>S<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>U<|end_of_text|>\n\
             <|start_of_role|>assistant<|end_of_role|>A<|end_of_text|>\n\
             <|start_of_role|>user<|end_of_role|>V<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
        ),
        (
            "kimi-k2",
            "<|im_system|>system<|im_middle|>S<|im_end|><|im_user|>user<|im_middle|>U<|im_end|>\
             <|im_assistant|>assistant<|im_middle|>A<|im_end|><|im_user|>user<|im_middle|>V<|im_end|>\
             <|im_assistant|>assistant<|im_middle|>",
        ),
        ("llama2", "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s><s>[INST] V [/INST]"),
        (
            "llama3",
            "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            "llama4",
            "<|header_start|>system<|header_end|>\n\nS<|eot|><|header_start|>user<|header_end|>\n\nU<|eot|>\
             <|header_start|>assistant<|header_end|>\n\nA<|eot|><|header_start|>user<|header_end|>\n\nV<|eot|>\
             <|header_start|>assistant<|header_end|>\n\n",
        ),
        (
            "megrez",
            "<|role_start|>system<|role_end|>S<|turn_end|><|role_start|>user<|role_end|>U<|turn_end|>\
             <|role_start|>assistant<|role_end|>A<|turn_end|><|role_start|>user<|role_end|>V<|turn_end|>\
             <|role_start|>assistant<|role_end|>",
        ),
        ("minicpm", "S<用户>U<AI>A<用户>V<AI>"),
        ("mistral-v1", " [INST] S\n\nU [/INST] A</s> [INST] V [/INST]"),
        ("mistral-v3", "[INST] S\n\nU[/INST] A</s>[INST] V[/INST]"),
        ("mistral-v3-tekken", "[INST]S\n\nU[/INST]A</s>[INST]V[/INST]"),
        ("mistral-v7", "[SYSTEM_PROMPT] S[/SYSTEM_PROMPT][INST] U[/INST] A</s>[INST] V[/INST]"),
        ("mistral-v7-tekken", "[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST]U[/INST]A</s>[INST]V[/INST]"),
        ("monarch", "<s>system\nS</s>\n<s>user\nU</s>\n<s>assistant\nA</s>\n<s>user\nV</s>\n<s>assistant\n"),
        (
            "openchat",
            "S<|end_of_turn|>GPT4 Correct User: U<|end_of_turn|>GPT4 Correct Assistant: A<|end_of_turn|>\
             GPT4 Correct User: V<|end_of_turn|>GPT4 Correct Assistant:",
        ),
        ("orion", "Human: S\n\nU\n\nAssistant: </s>A</s>Human: V\n\nAssistant: </s>"),
        (
            "phi3",
            "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n<|assistant|>\n",
        ),
        (
            "phi4",
            "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>U<|im_end|>\
             <|im_start|>assistant<|im_sep|>A<|im_end|><|im_start|>user<|im_sep|>V<|im_end|><|im_start|>assistant<|im_sep|>",
        ),
        ("rwkv-world", "System: S\n\nUser: U\n\nAssistant: A\n\nUser: V\n\nAssistant:"),
        ("vicuna", "S\n\nUSER: U\nASSISTANT: A</s>\nUSER: V\nASSISTANT:"),
        ("vicuna-orca", "SYSTEM: S\nUSER: U\nASSISTANT: A</s>\nUSER: V\nASSISTANT:"),
        ("zephyr", "<|system|>\nS</s>\n<|user|>\nU</s>\n<|assistant|>\nA</s>\n<|user|>\nV</s>\n<|assistant|>\n"),
    ];

    fn prompt(source: &str, said: &[(&str, &str)]) -> String {
        let message =
            |(role, content): &(&str, &str)| Message { role: (*role).to_owned(), content: (*content).to_owned() };
        let variables = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let variables = variables.map(|(name, text)| (name.to_owned(), Value::from(text)));
        let request = Request {
            source: source.to_owned(),
            messages: said.iter().map(message).collect(),
            variables: variables.into(),
            add_generation_prompt: true,
        };
        request.render().unwrap()
    }

    #[test]
    fn every_template_writes_its_format() {
        assert_eq!(PROMPTS.map(|(name, _)| name), TEMPLATES.map(|(name, _)| name));
        for (name, wanted) in PROMPTS {
            let said = [("system", "S"), ("user", "U"), ("assistant", "A"), ("user", "V")];
            let source = named(name).unwrap();
            assert_eq!(prompt(source, &said), wanted, "{name}");
            let first = prompt(source, &said[1..2]);
            assert!(first.contains('U') && !first.contains("SYS"), "{name}: {first}");
        }
    }

    #[test]
    fn names_are_sorted_and_second_names_lead_to_one() {
        assert!(TEMPLATES.is_sorted_by_key(|(name, _)| *name));
        for (second, first) in SAME {
            assert_eq!(named(second), named(first), "{second}");
        }
        assert_eq!(named("no-such-name"), None);
    }
}
