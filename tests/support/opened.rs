//! Files of models as files under construction, to be changed and written again.

use super::model_file::{ModelFile, Tensor, Value};
use anyhow::{Result, bail};
use powerinfer::gguf::Gguf;
use std::path::Path;

impl ModelFile {
    /// What is in a file. Of the types of single values it knows those that our scripts write, by their
    /// numbers in GGUF.
    pub fn opened(path: &Path) -> Result<Self> {
        let gguf = Gguf::open(path)?;
        let metadata = gguf.metadata();
        let mut file = Self::default();
        for entry in metadata.entries() {
            let bytes = metadata.raw_value(entry);
            let word = || u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
            let value = match entry.value_type as u32 {
                4 => Value::U32(word()),
                5 => Value::I32(word() as i32),
                6 => Value::F32(f32::from_bits(word())),
                7 => Value::Bool(bytes[0] != 0),
                10 => Value::U64(u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))),
                8 => Value::Str(metadata.str(&entry.key)?.expect("it is there").to_owned()),
                9 => {
                    let array = metadata.array(&entry.key)?.expect("it is there");
                    match array.strings() {
                        Ok(strings) => {
                            Value::Strings(strings.into_iter().map(|s| String::from_utf8_lossy(s).into()).collect())
                        }
                        Err(_) => Value::Array(word(), array.len, bytes[12..].to_vec()),
                    }
                }
                other => bail!("{}: a value of type {other}", entry.key),
            };
            file.keys.push((entry.key.clone(), value));
        }
        for tensor in gguf.tensors() {
            let (name, dtype, dims) = (tensor.name.clone(), tensor.dtype, tensor.dims.clone());
            file.push(Tensor { name, dtype, dims, bytes: gguf.data(tensor).to_vec() });
        }
        Ok(file)
    }
}
