//! `split --json`: what was written, as one object.

use crate::common::terminal::print_json;
use anyhow::Result;
use powerinfer::gguf::Gguf;
use powerinfer::variant::Draft;
use serde_json::{Map, Value, json};
use std::path::Path;

/// What is told of a file.
pub struct Written<'a> {
    /// variant, quantized or packed.
    pub kind: &'static str,
    /// Of what it was made.
    pub source: &'a Gguf,
    /// Where it is.
    pub path: &'a Path,
    /// What was decided, of a variant that was made.
    pub draft: Option<&'a Draft>,
    /// Nats per token that quantizing costs, and over how many tokens; where it was measured.
    pub kl: Option<(f64, usize)>,
    /// What people would be told.
    pub notes: &'a [String],
}

impl<'a> Written<'a> {
    /// Of a file that was made of `source`, of which nothing else is known.
    pub fn of(source: &'a Gguf, path: &'a Path) -> Self {
        Self { kind: "", source, path, draft: None, kl: None, notes: &[] }
    }

    /// Prints it. Of a device or a pipe only what was decided is known.
    pub fn print(&self) -> Result<()> {
        let (file, file_bytes) = match self.path.is_file() {
            true => (Some(Gguf::open(self.path)?), Some(std::fs::metadata(self.path)?.len())),
            false => (None, None),
        };
        let groups =
            self.draft.map(|draft| draft.groups.iter().map(|g| json!({"neurons": g.order.len(), "hot": g.n_hot})));
        let groups: Option<Vec<Value>> = groups.map(Iterator::collect);
        let n_hot = self.draft.map(|draft| draft.groups.iter().map(|group| group.n_hot).sum::<usize>());
        let object = json!({
            "kind": self.kind,
            "path": self.path.display().to_string(),
            "file_bytes": file_bytes,
            "weights_bytes": file.as_ref().map(weights),
            "source": self.source.source().name(),
            "source_weights_bytes": weights(self.source),
            "types": file.as_ref().map(types),
            "groups": groups,
            "hot_neurons": n_hot,
            "density": self.draft.map(|draft| draft.density),
            "profiled_tokens": self.draft.and_then(|draft| draft.profile.as_ref()).map(|(_, n)| n),
            "kl_nats_per_token": self.kl.map(|(kl, _)| kl),
            "kl_tokens": self.kl.map(|(_, n)| n),
            "notes": self.notes,
        });
        print_json(serde_json::to_string_pretty(&object)?)
    }
}

fn weights(file: &Gguf) -> u64 {
    file.tensors().iter().map(|tensor| tensor.data.len() as u64).sum()
}

/// Tensors and bytes by type.
fn types(file: &Gguf) -> Value {
    let mut all: Map<String, Value> = Map::new();
    for tensor in file.tensors() {
        let sum = all.entry(tensor.dtype.name()).or_insert_with(|| json!({"tensors": 0, "bytes": 0}));
        for (field, n) in [("tensors", 1), ("bytes", tensor.data.len() as u64)] {
            sum[field] = (sum[field].as_u64().unwrap_or(0) + n).into();
        }
    }
    Value::Object(all)
}
