//! Runs one kernel of the CPU over so many rows: what `scripts/instructions.py` counts the instructions of.
//!
//! ```text
//! row_products TYPE ISA dot|add|prompt VECTORS ROWS COLUMNS
//! ```
//!
//! `dot`: the products of each row with some vectors. `add`: the scaled addition of each row to one vector. `prompt`: the
//! products of a prompt of so many tokens, by tiles.

use anyhow::{Context, Result, bail, ensure};
use powerinfer::cpu::gemm::{self, Packed};
use powerinfer::cpu::several::{CHOICE, Vectors};
use powerinfer::cpu::{Activations, Isa, Pool, Rows, check_supported};
use powerinfer::quant::GgmlType;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [dtype, isa, what, vectors, rows, columns] = &arguments[..] else {
        bail!("usage: row_products TYPE ISA dot|add|prompt VECTORS ROWS COLUMNS");
    };
    let dtype = GgmlType::from_name(&dtype.to_uppercase()).with_context(|| format!("{dtype}: no such type"))?;
    check_supported(dtype)?;
    let isa: Isa = isa.parse()?;
    let [n_vectors, n_rows, n_cols] = [vectors, rows, columns].map(|n| n.parse::<usize>());
    let (n_vectors, n_rows, n_cols) = (n_vectors?, n_rows?, n_cols?);
    let row_bytes = dtype.row_bytes(n_cols).filter(|bytes| *bytes > 0).context("COLUMNS are not whole blocks")?;
    // Zeros, which the system gives: what would write others would be counted with the kernel.
    let data = vec![0; n_rows * row_bytes];
    let x: Vec<f32> = (0..n_vectors * n_cols).map(|i| (i as f32 * 0.37).sin()).collect();
    let rows = Rows::range(&data, row_bytes, 0, n_rows);
    let kernels = isa.kernels(dtype);
    let mut activations = Activations::default();
    match what.as_str() {
        "dot" => {
            ensure!((1..=CHOICE).contains(&n_vectors), "VECTORS are 1 to {CHOICE}");
            activations.load(&x, n_cols, [kernels.act]);
            let vectors = Vectors::of(n_vectors, |i| activations.row(i));
            let mut out = vec![0.0; n_rows * n_vectors];
            kernels.dots(rows, 0..n_rows, &vectors, &mut out, n_vectors);
            std::hint::black_box(out);
        }
        "add" => {
            let mut y = vec![0.0; n_cols];
            (kernels.add_scaled)(rows, &vec![0.5; n_rows], &mut y);
            std::hint::black_box(y);
        }
        "prompt" => {
            let mut packed = Packed::default();
            let quantized = kernels.act != powerinfer::cpu::ActKind::F32;
            activations.load_many(&x, n_cols, quantized, &Pool::new(1)?);
            packed.load(&activations, [(dtype, None)], &Pool::new(1)?);
            let mut out = vec![0.0; n_rows * n_vectors];
            gemm::rows_times(isa, dtype, rows, packed.section(0), &mut out);
            std::hint::black_box(out);
        }
        _ => bail!("{what}: dot, add and prompt are known"),
    }
    Ok(())
}
