//! `model_type` of `bench`, as llama-bench writes it.

use crate::support::{ModelFile, Outcome, Value, tool};
use serde_json::Value as Json;

fn row(model: &ModelFile) -> Json {
    let folder = tempfile::tempdir().unwrap();
    let path = model.written(folder.path(), "tiny.gguf");
    let mut command = tool("bench");
    command.arg("-m").arg(path).args(["-p", "0", "-n", "1", "-r", "1", "-t", "1", "-o", "jsonl"]);
    serde_json::from_str(&Outcome::from(command.output().unwrap()).ok().stdout).unwrap()
}

#[test]
fn rows_say_architecture_size_and_type_of_file() {
    let mut model = ModelFile::tiny();
    model.set("general.name", Value::Str("A tiny one".to_owned()));
    let row_of = row(&model);
    assert_eq!(row_of["model_name"], "A tiny one");
    // Without the key it is guessed, as llama.cpp does.
    assert_eq!(row_of["model_type"], "llama ?B all F32 (guessed)");
    model.set("general.file_type", Value::U32(15));
    assert_eq!(row(&model)["model_type"], "llama ?B Q4_K - Medium");
    // As many layers as a Llama 3.2 1B.
    let mut layered = ModelFile::layered(16, 32, 32);
    layered.set("general.file_type", Value::U32(7));
    assert_eq!(row(&layered)["model_type"], "llama 1B Q8_0");
}
