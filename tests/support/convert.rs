//! Plain GGUF files of another type.

use anyhow::Result;
use powerinfer::gguf::write::{MetadataBuilder, PlannedTensor, Writer};
use powerinfer::gguf::{Gguf, TensorInfo};
use powerinfer::model::Model;
use powerinfer::progress::Silent;
use powerinfer::quant::{GgmlType, convert};
use std::path::Path;

/// Writes `model` with all matrices converted to `dtype`, in the order they had, and opens it.
pub fn plain(model: &Model, dtype: GgmlType, path: &Path) -> Result<Model> {
    converted(model, |t| if t.dims.len() > 1 { dtype } else { t.dtype }, path)
}

/// Writes `model` with each tensor converted to the type that `wanted` says, in the order they had, and opens it.
pub fn converted(model: &Model, wanted: impl Fn(&TensorInfo) -> GgmlType, path: &Path) -> Result<Model> {
    write(model, wanted, path)?;
    Model::new(Gguf::open(path)?, None)
}

/// The same without opening it.
pub fn write(model: &Model, wanted: impl Fn(&TensorInfo) -> GgmlType, path: &Path) -> Result<()> {
    let gguf = &model.gguf;
    let mut metadata = MetadataBuilder::default();
    for entry in gguf.metadata().entries() {
        metadata.add_raw(&entry.key, entry.value_type, gguf.metadata().raw_value(entry));
    }
    let planned = |t: &TensorInfo| PlannedTensor { name: t.name.clone(), dtype: wanted(t), dims: t.dims.clone() };
    let tensors: Vec<_> = gguf.tensors().iter().map(planned).collect();
    let mut writer = Writer::create(path, &metadata, &tensors, gguf.alignment(), &Silent)?;
    for (tensor, target) in gguf.tensors().iter().zip(&tensors) {
        if target.dtype == tensor.dtype {
            writer.append(gguf.data(tensor))?;
            continue;
        }
        let mut values = vec![0.0; tensor.n_cols() * tensor.n_rows()];
        convert::dequantizer(tensor.dtype)?(gguf.data(tensor), &mut values);
        let mut bytes = vec![0; target.n_bytes()?];
        convert::quantizer(target.dtype)?(&values, &mut bytes);
        writer.append(&bytes)?;
    }
    writer.finish()?;
    Ok(())
}
