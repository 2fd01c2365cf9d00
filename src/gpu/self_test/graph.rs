//! The beginning of a layer as a graph, launched twice: the bits that the same kernels give one by one.

use super::Test;
use super::memory::{Memory, equal};
use super::weights::Weights;
use crate::gpu::Ptr;
use crate::gpu::ops::matvec::{Rows, matvec};
use crate::gpu::ops::norm::{Acts, Merge, Norm, merge_norm, norm, x8_bytes};
use crate::model::NormKind;
use crate::quant::GgmlType;
use anyhow::{Context, Result};

const N: usize = 416;
const LAUNCHES: usize = 2;

pub(super) fn all(test: &mut Test) -> Result<()> {
    test.of("graph", replayed)
}

struct Layer {
    x: Ptr,
    y: Ptr,
    acts: Acts,
    norm: Norm,
    w: Weights,
}

impl Layer {
    fn new(m: &mut Memory) -> Result<Self> {
        let weight = m.random.values(N);
        Ok(Self {
            x: m.room_of::<f32>(N)?,
            y: m.room_of::<f32>(N)?,
            acts: Acts { f32: m.room_of::<f32>(N)?, x8: m.room(x8_bytes(N))? },
            norm: Norm { kind: NormKind::Rms, eps: 1e-5, weight: m.put(&weight)?, bias: Ptr::NULL },
            w: Weights::random(m, GgmlType::Q8_0, N, N)?,
        })
    }

    /// Changes `x`.
    fn enqueue(&self, m: &Memory) -> Result<()> {
        let (kernels, stream) = (&m.kernels, &m.stream);
        norm(kernels, stream, self.x, N, 1, &self.norm, self.acts)?;
        matvec(kernels, stream, &[Rows::all(&self.w.matrix, self.y)], self.acts, None)?;
        let merge = Merge { a: self.y, ..Merge::nothing(self.x, N) };
        merge_norm(kernels, stream, &merge, Some(&self.norm), self.acts)
    }
}

fn replayed(m: &mut Memory) -> Result<()> {
    let layer = Layer::new(m)?;
    let x = m.random.values(N);
    let begin = |m: &mut Memory| {
        m.wait()?;
        m.stream.write(layer.x, &x)
    };
    begin(m)?;
    let mut expected = Vec::new();
    for _ in 0..LAUNCHES {
        layer.enqueue(m)?;
        expected.push(m.get::<f32>(layer.x, N)?);
    }
    let graph = m.stream.capture(|| layer.enqueue(m))?;
    begin(m)?;
    let mut launches = expected.iter().enumerate();
    launches.try_for_each(|(i, expected)| {
        let launched = graph.launch(&m.stream).and_then(|()| equal("value", &m.get::<f32>(layer.x, N)?, expected));
        launched.with_context(|| format!("launch {}", i + 1))
    })
}
