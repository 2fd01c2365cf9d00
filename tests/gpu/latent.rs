//! Groups of neurons of another width than the residual stream's, on a card, with one beside them that has the stream's.

use super::architectures::{compare, golden, widened};
use super::gpu;
use super::support::{ModelFile, Value, convert};
use anyhow::Result;
use powerinfer::gguf::{Gguf, TensorInfo};
use powerinfer::model::Model;
use powerinfer::quant::GgmlType;

/// Of the largest logit, of F32 and of Q8_0, where a rounding may move an activation to the next of 127 steps.
const TOLERANCES: [[f32; 2]; 2] = [[1e-5, 1e-2], [5e-3, 0.3]];
/// The golden model without its recurrent layer, number 1 of four.
fn without_recurrence(mut file: ModelFile) -> ModelFile {
    const GONE: usize = 1;
    for (key, value) in &mut file.keys {
        match (key.split_once('.').map_or("", |(_, rest)| rest), &mut *value) {
            ("block_count", value) => *value = Value::U32(3),
            ("attention.head_count_kv" | "feed_forward_length", Value::Array(_, n, bytes)) => {
                *n -= 1;
                bytes.drain(4 * GONE..4 * (GONE + 1));
            }
            _ => {}
        }
    }
    file.tensors.retain(|tensor| !tensor.name.starts_with("blk.1."));
    for tensor in &mut file.tensors {
        for (layer, before) in [(2, 1), (3, 2)] {
            tensor.name = tensor.name.replace(&format!("blk.{layer}."), &format!("blk.{before}."));
        }
    }
    file
}

#[test]
fn experts_of_another_width_give_on_a_card_what_they_give_on_the_cpu() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let model = widened(without_recurrence(golden("nemotron_h_moe-latent")?), None, folder.path())?;
    compare("F32", &model, &device, TOLERANCES[0], true)?;
    let path = folder.path().join("q8_0.gguf");
    let dtype = |t: &TensorInfo| {
        let matrix = t.dims.len() > 1 && t.name.ends_with(".weight");
        if matrix { GgmlType::Q8_0 } else { t.dtype }
    };
    convert::write(&model, dtype, &path)?;
    compare("Q8_0", &Model::new(Gguf::open(&path)?, None)?, &device, TOLERANCES[1], true)
}
