//! The rows of all matrices, each one a function of seed, tensor, layer and row.
//!
//! The first [`N_CONSTANT`] channels of the residual stream hold 1 for every token: only masks of neurons and routers read them,
//! and nothing writes to them. A row of a mask (of a gate, or of `up` where there is none) is `a[c / 8] * sign[c]`, of rank
//! `n_embd / 8`, plus noise with a tenth of the variance; on the constant it has minus the threshold that a standard normal
//! number exceeds as often as the neuron should fire. A router's row is random, and has its expert's offset there (`popularity`).
//!
//! Where no `up` gives them a sign, neurons that fire about equally often take a row and its negative: otherwise all of them
//! together would add the same to every token.
//!
//! Rows of masks and embeddings are all different. The others come from a pool (`pool`).

use super::kind::Kind;
use super::neurons::{Family, families};
use super::norms::{LOGITS, attention_growth, recurrent_growth, variance};
use super::pool::{POOL_ROWS, Pools, Rows, choose, pool_row, scale_to};
use super::popularity::Choice;
use super::random::{Stream, permutation};
use super::recurrent::convolution;
use super::spec::{Layout, N_CONSTANT, Spec};
use crate::quant::GgmlType;
use crate::quant::convert::{Quantize, quantizer};
use anyhow::Result;

/// Channels that share a factor of a mask.
const GROUP: usize = 8;
/// Share of a mask's variance that is not of low rank.
const NOISE: f32 = 0.1;

/// Fills one row, given memory for its floats.
pub(super) type FillRow<'a> = Box<dyn Fn(usize, &mut [f32], &mut [u8]) + Sync + 'a>;

/// Everything that rows are made from.
pub(super) struct Weights<'a> {
    spec: &'a Spec,
    layout: Layout,
    /// How experts are chosen, where there are such.
    choice: Option<Choice>,
    /// The groups of neurons of each layer that has any.
    pub families: Vec<Family>,
}

impl<'a> Weights<'a> {
    /// Decides how often everything is computed.
    pub fn new(spec: &'a Spec, layout: Layout) -> Self {
        let choice = spec.sized.shape.experts.map(|experts| Choice::new(&experts, spec.sized.popularity()));
        let families = families(spec, choice.as_ref());
        Self { spec, layout, choice, families }
    }

    fn key(&self, kind: Kind, layer: usize, row: usize) -> [u64; 4] {
        [self.spec.seed, kind as u64, layer as u64, row as u64]
    }

    /// Which neuron lies in each slot of a variant, for a group of its layer.
    pub fn ids(&self, layer: usize, family: &Family, group: usize) -> Vec<u32> {
        permutation(self.key(Kind::Order, layer, family.first + group), family.n_ff)
    }

    /// Share of tokens that have each group of a family.
    pub fn shares(&self, layer: usize, family: &Family) -> Vec<f64> {
        match &self.choice {
            Some(choice) if family.routed => {
                let mut shares = vec![0.0; choice.shares.len()];
                let experts = self.experts(layer).into_iter().zip(&choice.shares);
                experts.for_each(|(expert, share)| shares[expert as usize] = *share);
                shares
            }
            _ => vec![1.0; family.n_groups],
        }
    }

    /// The experts of a layer by falling popularity.
    fn experts(&self, layer: usize) -> Vec<u32> {
        permutation(self.key(Kind::Experts, layer, 0), self.choice.as_ref().map_or(0, |choice| choice.shares.len()))
    }

    /// By row of the file, the neuron's number in its layer: of its group, and by slot of the variant.
    fn neurons(&self, layer: usize, family: &Family) -> Vec<u32> {
        let of_group = |group: usize| {
            let first = (family.first_neuron + group * family.n_ff) as u32;
            let mut slots: Vec<u32> = (0..family.n_ff as u32).collect();
            if self.layout == Layout::Plain {
                let ids = self.ids(layer, family, group);
                ids.iter().enumerate().for_each(|(slot, id)| slots[*id as usize] = slot as u32);
            }
            slots.into_iter().map(move |slot| first + slot)
        };
        (0..family.n_groups).flat_map(of_group).collect()
    }

    /// The rows of a matrix of type `dtype` with `n_cols` columns; `family` is that of a matrix of neurons.
    ///
    /// # Errors
    /// When the type cannot be written.
    pub fn rows(
        &'a self,
        pools: &mut Pools,
        kind: Kind,
        (layer, family): (usize, usize),
        dtype: GgmlType,
        n_cols: usize,
    ) -> Result<FillRow<'a>> {
        let quantize = quantizer(dtype)?;
        let seed = self.spec.seed;
        let mut pool = |kind, n_constant, square| pools.rows(seed, Rows { kind, dtype, n_cols, n_constant, square });
        Ok(match kind {
            Kind::TokenEmbd => Box::new(move |token, row, out| {
                let n_data = row.len() - N_CONSTANT;
                pool_row(self.key(kind, 0, token), N_CONSTANT, n_data as f64, row);
                row[..N_CONSTANT].fill(1.0);
                quantize(row, out);
            }),
            Kind::Output => Box::new(move |token, row, out| {
                pool_row(self.key(kind, 0, token), N_CONSTANT, LOGITS * LOGITS, row);
                quantize(row, out);
            }),
            Kind::FfnGate => self.masks(kind, layer, &self.families[family], quantize),
            Kind::FfnUp if !self.families[family].gated => self.masks(kind, layer, &self.families[family], quantize),
            Kind::FfnUp => {
                let (neurons, inputs) =
                    (self.neurons(layer, &self.families[family]), pool(Kind::Inputs, N_CONSTANT, 1.0)?);
                Box::new(move |row, _, out| {
                    let chosen = choose(self.key(kind, layer, neurons[row] as usize));
                    out.copy_from_slice(inputs.row(chosen));
                })
            }
            Kind::FfnDown => self.down(pools, layer, &self.families[family], dtype, quantize)?,
            Kind::AttnOutput => {
                let heads = pool(Kind::Heads, 0, attention_growth(self.spec))?;
                self.outputs(kind, layer, quantize, move |chosen, out| out.copy_from_slice(heads.row(chosen)))
            }
            Kind::SsmOut => {
                let rows = pool(kind, 0, recurrent_growth(self.spec))?;
                self.outputs(kind, layer, quantize, move |chosen, out| out.copy_from_slice(rows.row(chosen)))
            }
            Kind::LatentUp => {
                let rows = pool(kind, N_CONSTANT, 1.0)?;
                self.outputs(kind, layer, quantize, move |chosen, out| out.copy_from_slice(rows.row(chosen)))
            }
            Kind::LatentDown => {
                let inputs = pool(Kind::Inputs, N_CONSTANT, 1.0)?;
                Box::new(move |row, values, out| {
                    if row < N_CONSTANT {
                        values.fill(0.0);
                        values[..N_CONSTANT].fill(1.0 / N_CONSTANT as f32);
                        quantize(values, out);
                    } else {
                        out.copy_from_slice(inputs.row(choose(self.key(kind, layer, row))));
                    }
                })
            }
            Kind::Router => self.router(layer, quantize),
            Kind::SsmConv => Box::new(move |row, taps, out| {
                convolution(self.key(kind, layer, row), taps);
                quantize(taps, out);
            }),
            _ => {
                let inputs = pool(Kind::Inputs, N_CONSTANT, 1.0)?;
                Box::new(move |row, _, out| out.copy_from_slice(inputs.row(choose(self.key(kind, layer, row)))))
            }
        })
    }

    /// Rows that add to the residual stream, but for its constant.
    fn outputs(
        &'a self,
        kind: Kind,
        layer: usize,
        quantize: Quantize,
        copy: impl Fn(u16, &mut [u8]) + Sync + 'a,
    ) -> FillRow<'a> {
        Box::new(move |row, values, out| {
            if row < N_CONSTANT {
                values.fill(0.0);
                quantize(values, out);
            } else {
                copy(choose(self.key(kind, layer, row)), out);
            }
        })
    }

    /// Scores of variance 1 beside the offsets.
    fn router(&self, layer: usize, quantize: Quantize) -> FillRow<'_> {
        let mut offsets = vec![0.0; self.choice.as_ref().map_or(0, |choice| choice.offsets.len())];
        let by_rank = self.choice.iter().flat_map(|choice| &choice.offsets);
        self.experts(layer).into_iter().zip(by_rank).for_each(|(expert, offset)| offsets[expert as usize] = *offset);
        let square = if self.spec.routes_early() { 1.0 / variance(self.spec, layer, false) } else { 1.0 };
        Box::new(move |row, values, out| {
            pool_row(self.key(Kind::Router, layer, row), N_CONSTANT, square, values);
            values[..N_CONSTANT].fill((offsets[row] / N_CONSTANT as f64) as f32);
            quantize(values, out);
        })
    }

    fn masks(&'a self, kind: Kind, layer: usize, family: &'a Family, quantize: Quantize) -> FillRow<'a> {
        let neurons = self.neurons(layer, family);
        let signs: Vec<Vec<f32>> = (0..family.n_groups)
            .map(|group| {
                let mut stream = Stream::new(self.key(Kind::Signs, layer, family.first + group));
                (0..family.width).map(|_| if stream.next() & 1 == 0 { 1.0 } else { -1.0 }).collect()
            })
            .collect();
        let (common, noise) = ((1.0 - NOISE).sqrt(), NOISE.sqrt());
        Box::new(move |row, values, out| {
            let neuron = neurons[row] as usize;
            let slot = (neuron - family.first_neuron) % family.n_ff;
            let signs = &signs[row / family.n_ff];
            let mut stream = Stream::new(self.key(kind, layer, neuron));
            let (constant, data) = values.split_at_mut(N_CONSTANT);
            constant.fill((-family.units[slot].threshold / N_CONSTANT as f64) as f32);
            for (group, signs) in data.chunks_exact_mut(GROUP).zip(signs[N_CONSTANT..].chunks_exact(GROUP)) {
                let factor = stream.normal() * common;
                for (values, signs) in group.chunks_exact_mut(4).zip(signs.chunks_exact(4)) {
                    for ((v, s), n) in values.iter_mut().zip(signs).zip(stream.uniform4()) {
                        *v = factor * s + noise * n;
                    }
                }
            }
            scale_to(1.0, data);
            quantize(values, out);
        })
    }

    fn down(
        &'a self,
        pools: &mut Pools,
        layer: usize,
        family: &'a Family,
        dtype: GgmlType,
        quantize: Quantize,
    ) -> Result<FillRow<'a>> {
        let choose = move |neuron: usize| {
            let key = |neuron| self.key(Kind::FfnDown, layer, neuron);
            // The second of a pair has the negative of the first.
            if family.gated { choose(key(neuron)) } else { choose(key(neuron / 2)) ^ (neuron & 1) as u16 }
        };
        let n_cols = family.width;
        let square = family.down_square(n_cols - N_CONSTANT);
        let rows = Rows { kind: Kind::Down, dtype, n_cols, n_constant: N_CONSTANT, square };
        Ok(match self.layout {
            Layout::Variant => {
                let pool = pools.rows(self.spec.seed, rows)?;
                Box::new(move |row, _, out| out.copy_from_slice(pool.row(choose(family.first_neuron + row))))
            }
            Layout::Plain => {
                let columns = pools.columns(self.spec.seed, rows);
                let neurons = self.neurons(layer, family);
                let chosen: Vec<u16> = neurons.into_iter().map(|neuron| choose(neuron as usize)).collect();
                Box::new(move |row, values, out| {
                    let (group, row) = (row / family.width, row % family.width);
                    let pool = &columns[row * POOL_ROWS..][..POOL_ROWS];
                    for (v, chosen) in values.iter_mut().zip(&chosen[group * family.n_ff..]) {
                        let value = pool[usize::from(chosen >> 1)];
                        *v = if chosen & 1 == 0 { value } else { -value };
                    }
                    quantize(values, out);
                })
            }
        })
    }
}
