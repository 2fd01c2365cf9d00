//! Layers of several groups that are stored in different ways.

use crate::support::compare::{max_difference, same_bits};
use crate::support::groups::in_two;
use crate::support::real::{decode, open, params, placed, prefill, source, split, story};
use anyhow::Result;
use powerinfer::executor::{Executor, Mode};
use powerinfer::model::{Down, Model};
use powerinfer::placement::Placement;
use powerinfer::variant::Options;
use std::path::Path;

const N_TOKENS: usize = 24;
/// Of logits: sums are divided differently. Measured: 4e-6 in decode, 1.4e-5 in prefill.
const TOLERANCE: f32 = 1e-4;

/// Groups of a layer: `down` by columns, two that share the neurons of a variant, by rows, of different sizes, and
/// columns again.
fn mixed(folder: &Path) -> Result<Model> {
    let variant = split(source(), Options::default(), &folder.join("variant.gguf"))?;
    let mut model = in_two(&variant, open)?;
    let mut number = 0;
    for (layer, plain) in model.weights.layers.iter_mut().zip(&source().weights.layers) {
        layer.groups.insert(0, plain.groups[0].clone());
        layer.groups.push(plain.groups[0].clone());
        layer.first_group = number;
        number += layer.groups.len();
    }
    let by_rows = model.weights.groups().map(|(_, group)| matches!(group.ffn_down(), Down::Rows(_)));
    assert_eq!(by_rows.take(4).collect::<Vec<_>>(), [false, true, true, false]);
    Ok(model)
}

/// The same neurons, all by columns.
fn by_columns() -> Result<Model> {
    let mut model = open(Path::new(source().gguf.source().name()))?;
    let mut number = 0;
    for layer in &mut model.weights.layers {
        layer.groups = vec![layer.groups[0].clone(); 3];
        layer.first_group = number;
        number += 3;
    }
    Ok(model)
}

#[test]
fn groups_stored_in_different_ways_add_up_to_the_same() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (model, alike, tokens) = (mixed(folder.path())?, by_columns()?, story(N_TOKENS)?);
    let cold = || Placement::all_cold(&model);
    let expected = decode(&mut placed(&model, Mode::Dense, 1, cold())?, &tokens)?;
    let difference = |got: &[Vec<f32>]| max_difference(&expected.concat(), &got.concat());
    let others = decode(&mut placed(&alike, Mode::Dense, 1, Placement::all_cold(&alike))?, &tokens)?;
    println!("decode differs by {:e}", difference(&others));
    assert!(difference(&others) <= TOLERANCE, "{}", difference(&others));
    // On however many threads; what is hot is told of variants alone.
    for n_threads in [1, 3] {
        same_bits(&expected, &decode(&mut placed(&model, Mode::Exact, n_threads, cold())?, &tokens)?)?;
        same_bits(&expected, &decode(&mut placed(&model, Mode::Dense, n_threads, cold())?, &tokens)?)?;
        let mut executor = Executor::new(&model, cold(), params(Mode::Exact, n_threads))?;
        let mut several = Vec::new();
        for tokens in tokens.chunks(5) {
            let logits = executor.decode_several(tokens)?;
            several.extend(logits.chunks_exact(model.config.n_vocab).map(<[f32]>::to_vec));
        }
        same_bits(&expected, &several)?;
    }
    let at_once = prefill(&mut placed(&model, Mode::Dense, 1, cold())?, &tokens, N_TOKENS)?;
    println!("prefill differs by {:e}", difference(&at_once));
    assert!(difference(&at_once) <= TOLERANCE, "{}", difference(&at_once));
    for (mode, n_threads, n_batch) in [(Mode::Exact, 3, 7), (Mode::Exact, 2, N_TOKENS), (Mode::Dense, 3, 5)] {
        same_bits(&at_once, &prefill(&mut placed(&model, mode, n_threads, cold())?, &tokens, n_batch)?)?;
    }
    Ok(())
}
