//! Transposes a quantized `ffn_down` without quantizing it again: quants by neuron, the source's scales beside them.

use crate::gguf::TensorInfo;
use crate::model::NeuronId;
use crate::parallel;
use crate::quant::GgmlType;
use crate::quant::blocks::QK;

/// A `Q8_0` or `Q4_0` `ffn_down` (`[n_embd][n_ff]`).
pub(super) struct QuantizedDown<'a> {
    data: &'a [u8],
    dtype: GgmlType,
    row_bytes: usize,
}

impl<'a> QuantizedDown<'a> {
    pub fn new(data: &'a [u8], tensor: &TensorInfo) -> Self {
        Self { data, dtype: tensor.dtype, row_bytes: data.len() / tensor.n_rows() }
    }

    fn block(&self, column: usize, block: usize) -> &'a [u8] {
        let bytes = self.dtype.block_bytes();
        &self.data[column * self.row_bytes + block * bytes..][..bytes]
    }

    /// The stored quant of a neuron in an output column: a byte, or a half.
    fn quant(&self, column: usize, neuron: usize) -> u8 {
        let (block, i) = (&self.block(column, neuron / QK)[2..], neuron % QK);
        if self.dtype == GgmlType::Q8_0 {
            block[i]
        } else if i < QK / 2 {
            block[i] & 15
        } else {
            block[i - QK / 2] >> 4
        }
    }

    /// Bytes of one neuron's quants.
    pub fn neuron_bytes(&self, n_embd: usize) -> usize {
        if self.dtype == GgmlType::Q8_0 { n_embd } else { n_embd / 2 }
    }

    /// The quants of these neurons, one after another.
    pub fn quants(&self, ids: &[NeuronId], n_embd: usize) -> Vec<u8> {
        let bytes = self.neuron_bytes(n_embd);
        let mut out = vec![0; ids.len() * bytes];
        parallel::each(out.chunks_mut(bytes).zip(ids), |_, (out, id)| {
            let quant = |column| self.quant(column, id.0 as usize);
            for (i, out) in out.iter_mut().enumerate() {
                *out = if self.dtype == GgmlType::Q8_0 {
                    quant(i)
                } else {
                    let column = i / (QK / 2) * QK + i % (QK / 2);
                    quant(column) | quant(column + QK / 2) << 4
                };
            }
        });
        out
    }

    /// The scales of one block of neurons, for each output column.
    pub fn scales(&self, block: usize, n_embd: usize) -> Vec<u8> {
        (0..n_embd).flat_map(|column| self.block(column, block)[..2].iter().copied()).collect()
    }
}
