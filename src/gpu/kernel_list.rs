//! Which kernels a token of a model runs on a card, and at which shapes; all of them measured.

use super::matrix::{DeviceMatrix, planes};
use super::meter::{Launching, Meter};
use super::reading::{Reader, Shape};
use super::vectors::{Timed, Token};
use crate::model::{Activation, Down, Layer, Matrix, Model, NeuronGroup, Part, Role, Scores};
use crate::placement::hardware;
use crate::progress::{self, Progress};
use crate::quant::GgmlType;
use anyhow::{Context, Result};

/// Attention is measured over half of the context, and over no longer one than this.
const MOST_CONTEXT: usize = 4096;
/// The part of a kernel that reads a list of one row in ten.
const LISTED: &str = "10 %";

/// A kernel that reads weights, at a shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The kernel.
    pub reader: Reader,
    /// What it is for, in a word.
    pub part: String,
    /// What it reads.
    pub shape: Shape,
    /// Whether only one row in ten is read.
    pub listed: bool,
}

/// The kernels of a model that read weights, each shape once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cases {
    /// In the order of a token.
    pub cases: Vec<Case>,
    /// Types that cannot be measured, and why.
    pub left_out: Vec<(GgmlType, String)>,
}

impl Cases {
    /// Those of `model`; with `types`, as if all of its weights had each of these instead of their own.
    pub fn of(model: &Model, types: &[GgmlType]) -> Self {
        let mut cases = Self::default();
        let own = [None];
        let instead: Vec<_> = types.iter().copied().map(Some).collect();
        for instead in if types.is_empty() { &own[..] } else { &instead } {
            for layer in &model.weights.layers {
                cases.layer(layer, model.config.activation.activation, *instead);
            }
            cases.add(Reader::Matvec { activation: None }, "head", &[model.weights.head()], *instead);
        }
        cases
    }

    /// Types that are read.
    pub fn types(&self) -> Vec<GgmlType> {
        self.cases.iter().map(|case| case.shape.dtype).collect()
    }

    fn add(&mut self, reader: Reader, part: &str, matrices: &[&Matrix], instead: Option<GgmlType>) {
        let Some(first) = matrices.first() else { return };
        let (dtype, n_cols) = (instead.unwrap_or(first.dtype()), first.n_cols);
        let n_rows = matrices.iter().map(|m| m.n_rows).collect();
        self.push(reader, part.to_owned(), Shape { dtype, n_rows, n_cols }, false);
    }

    fn push(&mut self, reader: Reader, part: String, shape: Shape, listed: bool) {
        if let Err(why) = planes(shape.dtype).and_then(|_| DeviceMatrix::bytes(shape.dtype, 1, shape.n_cols)) {
            if self.left_out.iter().all(|(dtype, _)| *dtype != shape.dtype) {
                self.left_out.push((shape.dtype, format!("{why:#}")));
            }
            return;
        }
        let case = Case { reader, part, shape, listed };
        if !self.cases.contains(&case) {
            self.cases.push(case);
        }
    }

    fn layer(&mut self, layer: &Layer, activation: Activation, instead: Option<GgmlType>) {
        let plain = Reader::Matvec { activation: None };
        let linears = [Role::AttnQ, Role::AttnK, Role::AttnV].map(|role| layer.find(role).map(Part::matrix));
        let linears: Vec<_> = linears.into_iter().flatten().zip(["q", "k", "v"]).collect();
        // As many of them in a launch as are of one type.
        for alike in linears.chunk_by(|(a, _), (b, _)| instead.is_some() || a.dtype() == b.dtype()) {
            let (matrices, names): (Vec<_>, Vec<_>) = alike.iter().copied().unzip();
            self.add(plain, &names.concat(), &matrices, instead);
        }
        if let Some(output) = layer.find(Role::AttnOutput) {
            self.add(plain, "attention output", &[output.matrix()], instead);
        }
        for (role, part) in [(Role::SsmIn, "recurrent input"), (Role::SsmOut, "recurrent output")] {
            if let Some(matrix) = layer.find(role) {
                self.add(plain, part, &[matrix.matrix()], instead);
            }
        }
        if let Some(router) = layer.router {
            self.add(plain, "router", &[layer.part(Role::Router).matrix()], instead);
            if let Some(group) = layer.groups.iter().find(|group| group.is_routed()) {
                self.experts(group, router.n_used, instead);
            }
        }
        let always = layer.groups.iter().filter(|group| !group.is_routed());
        always.for_each(|group| self.group(group, activation, instead));
    }

    /// As many groups as a router chooses, all like this one.
    fn experts(&mut self, group: &NeuronGroup, n_used: usize, instead: Option<GgmlType>) {
        let (mask, n_ff, gated) = (group.mask_matrix(), group.n_ff(), group.gate.is_some());
        let shape = |dtype: GgmlType, n: usize| Shape {
            dtype: instead.unwrap_or(dtype),
            n_rows: vec![n_ff; n],
            n_cols: mask.n_cols,
        };
        let n = if gated { 2 * n_used } else { n_used };
        self.push(Reader::Experts { gated }, format!("{n_used} experts"), shape(mask.dtype(), n), false);
        let down = shape(down_type(group), n_used);
        self.push(Reader::ExpertsDown, format!("{LISTED} of {n_used} experts"), down.clone(), true);
        self.push(Reader::ExpertsDown, format!("{n_used} experts"), down, false);
    }

    fn group(&mut self, group: &NeuronGroup, activation: Activation, instead: Option<GgmlType>) {
        let plain = Reader::Matvec { activation: None };
        let (mask, n_ff) = (group.mask_matrix(), group.n_ff());
        self.add(Reader::Matvec { activation: Some(activation) }, "mask", &[mask], instead);
        let some_and_all = |cases: &mut Self, reader: Reader, shape: &Shape| {
            cases.push(reader, LISTED.to_owned(), shape.clone(), true);
            cases.push(reader, "all".to_owned(), shape.clone(), false);
        };
        if group.gate.is_some() {
            let up = group.ffn_up();
            let shape = Shape { dtype: instead.unwrap_or(up.dtype()), n_rows: vec![n_ff], n_cols: up.n_cols };
            some_and_all(self, Reader::Up, &shape);
            // Where `up` has a mask of its own, too, gates are counted before it.
            if (instead.is_some() || up.dtype() == mask.dtype()) && !activation.has_two_masks() {
                self.push(Reader::GateUp, "both".to_owned(), Shape { n_rows: vec![n_ff; 2], ..shape }, false);
            }
        }
        let dtype = instead.unwrap_or(down_type(group));
        some_and_all(self, Reader::Down, &Shape { dtype, n_rows: vec![n_ff], n_cols: mask.n_cols });
        if let Some(Scores::Factors { input, output, .. }) = group.predictor.as_ref().map(|p| &p.scores) {
            self.add(plain, "predictor first", &[input], None);
            self.add(plain, "predictor second", &[output], None);
        }
    }
}

/// The type of a group's `down`, by neurons, as variants have it.
fn down_type(group: &NeuronGroup) -> GgmlType {
    match group.ffn_down() {
        Down::Rows(matrix) | Down::Columns(matrix) => matrix.dtype(),
        Down::Lossless(down) => down.dtype(),
    }
}

/// What was measured of a kernel, and what the planner counts with.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The kernel.
    pub timed: Timed,
    /// Bytes per second that the planner takes for such reading, where it does.
    pub planned: Option<f64>,
}

/// What the planner takes for the reading of a kernel, where it does, on a card that was probed as `probed`.
fn planned(timed: &Timed, probed: &hardware::Device) -> Option<f64> {
    let bandwidths = &probed.gpu.bandwidth;
    let b = bandwidths.of(timed.dtype?);
    let listed = timed.part.starts_with(LISTED);
    match timed.kernel {
        "matvec" | "gate_up" | "up" | "experts" => Some(if listed { b.gather } else { b.stream }),
        "down" | "experts_down" => Some(if listed { b.add_gather } else { b.add_stream }),
        // Keys like rows of products, values like those of sums.
        "attention" => Some(2.0 / (1.0 / b.stream + 1.0 / b.add_stream)),
        "sign_scores" => Some(bandwidths.of(GgmlType::I8).stream),
        _ => None,
    }
}

/// Measures all of `cases`, and the kernels of `token` that read no weights, into `measured`.
fn measure(
    meter: &Meter,
    cases: &[Case],
    token: &Token,
    measured: &mut Vec<Measured>,
    progress: &dyn Progress,
) -> Result<()> {
    progress.begin("measuring kernels", cases.len() as u64 + 1);
    for case in cases {
        progress::check(progress)?;
        let Case { reader, part, shape, listed } = case;
        let name = reader.name();
        let what = || format!("{name}, {part}, {}", shape.dtype);
        let read = meter.read(*reader, shape, *listed).with_context(what)?;
        let sizes = match shape.n_rows[..] {
            // As many as a router chooses.
            [first, _, _, _, ..] => format!("{} times {first}", shape.n_rows.len()),
            ref few => few.iter().map(usize::to_string).collect::<Vec<_>>().join("+"),
        };
        let timed = Timed {
            kernel: name,
            part: format!("{part}: {sizes} x {}", shape.n_cols),
            dtype: Some(shape.dtype),
            bytes: read.bytes,
            times: read.times,
            n_copies: read.n_copies,
        };
        measured.push(Measured { timed, planned: None });
        progress.advance(1);
    }
    let vectors = meter.vectors(token, progress).context("kernels without weights")?;
    measured.extend(vectors.into_iter().map(|timed| Measured { timed, planned: None }));
    progress.advance(1);
    progress.end();
    Ok(())
}

/// What the kernels of `model` without weights work on, with a cache of `kv_type`.
pub fn token_of(model: &Model, kv_type: GgmlType) -> Token<'_> {
    let config = &model.config;
    let groups = || model.weights.groups().map(|(_, group)| group);
    let scores = || groups().filter_map(|group| group.predictor.as_ref());
    let router = |layer: &Layer| Some((layer.router?, layer.find(Role::Router)?.matrix().n_rows));
    let n_signs = scores().filter(|p| matches!(p.scores, Scores::Signs(_))).map(|p| p.bias.len()).max();
    Token {
        config,
        n_ff: groups().map(NeuronGroup::n_ff).max().unwrap_or(1),
        router: model.weights.layers.iter().find_map(router),
        n_signs,
        n_hidden: scores().filter_map(|p| Some(p.input()?.n_rows)).max(),
        kv_type,
        n_past: (config.n_ctx_train.min(MOST_CONTEXT) / 2).max(1),
    }
}

/// What was measured of a card.
#[derive(Debug, Clone)]
pub struct Card {
    /// Kernels in the order of a token.
    pub kernels: Vec<Measured>,
    /// Launches of each in one graph.
    pub n_launches: usize,
    /// What the planner gets; `None` where it did not come to that.
    pub probed: Option<hardware::Device>,
    /// What launching takes.
    pub launching: Launching,
    /// Seconds that loading the kernels took.
    pub loading: f64,
}

impl Card {
    fn measure(
        &mut self,
        meter: &Meter,
        model: &Model,
        cases: &Cases,
        kv_type: GgmlType,
        progress: &dyn Progress,
    ) -> Result<()> {
        measure(meter, &cases.cases, &token_of(model, kv_type), &mut self.kernels, progress)?;
        let mut types = cases.types();
        types.push(kv_type);
        types.sort_by_key(|t| t.id());
        types.dedup();
        let probed = meter.probe(&types, &self.launching, progress).context("measuring for the planner")?;
        self.kernels.iter_mut().for_each(|kernel| kernel.planned = planned(&kernel.timed, &probed));
        self.probed = Some(probed);
        Ok(())
    }
}

/// Measures what `model` runs on the card of `meter`: `cases`, and the kernels without weights; then probes it for the
/// planner. Where that ends early, because the card fails or has no memory left, sizes are not possible on it, or the user
/// stops it, what was measured before is there, too.
///
/// # Errors
/// When not even empty kernels can be launched.
pub fn measure_model(
    meter: &Meter,
    model: &Model,
    cases: &Cases,
    kv_type: GgmlType,
    progress: &dyn Progress,
) -> Result<(Card, Result<()>)> {
    let launching = meter.launching().context("launching empty kernels")?;
    let n_launches = meter.effort.n_launches;
    let mut card = Card { kernels: Vec::new(), n_launches, probed: None, launching, loading: meter.loading };
    let ended = card.measure(meter, model, cases, kv_type, progress);
    Ok((card, ended))
}
