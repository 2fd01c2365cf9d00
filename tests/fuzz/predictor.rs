//! Files of predictors.

use super::models;
use super::parts::Parts;
use super::target::Target;
use crate::support::Random;
use anyhow::Result;
use powerinfer::gguf::Gguf;
use powerinfer::model::{Model, NeuronId};
use powerinfer::predictor::{ALWAYS, LayerMeasures, LayerPredictor, Predictors, Tensor, Weights, table};
use powerinfer::profile::Fingerprint;
use powerinfer::quant::GgmlType;

const WORDS: &[&str] = &[
    "powerinfer.predictor.version",
    "powerinfer.predictor.kinds",
    "powerinfer.predictor.target",
    "powerinfer.predictor.source_family",
    "blk.0.ffn_pred_sign",
    "blk.0.ffn_pred_bias",
    "blk.0.ffn_pred_in.weight",
    "blk.0.ffn_pred_in.bias",
    "blk.0.ffn_pred_out.weight",
    "blk.1.ffn_pred_bias",
    "none",
    "sign",
    "lowrank",
    "mlp",
];

/// One of each kind, for a group of `model`.
pub fn weights(model: &Model) -> Vec<Weights> {
    let (n_embd, n_ff) = (model.config.n_embd, model.config.n_ff[0]);
    let mut random = Random::new(3);
    let mut matrix = |n_rows: usize, n_cols: usize| Tensor {
        dtype: GgmlType::F32,
        n_rows,
        n_cols,
        bytes: random.values(n_rows * n_cols).iter().flat_map(|v| v.to_le_bytes()).collect(),
    };
    let signs = Tensor { dtype: GgmlType::I8, n_rows: n_ff, n_cols: n_embd / 8, bytes: vec![0x5a; n_ff * n_embd / 8] };
    vec![
        Weights::Sign(signs),
        Weights::Factors { inner: matrix(2, n_embd), inner_bias: None, outer: matrix(n_ff, 2) },
        Weights::Factors { inner: matrix(2, n_embd), inner_bias: Some(vec![0.5; 2]), outer: matrix(n_ff, 2) },
    ]
}

/// The same weights for each layer of `model`.
///
/// # Errors
/// When the model has no fingerprint.
pub fn of(model: &Model, weights: Weights) -> Result<Predictors> {
    let measured =
        LayerMeasures { target: 1.0, recall: 0.9, recall_count: 0.9, precision: 0.5, active: 0.5, fired: 0.25 };
    let layer = |n_ff: &usize| {
        let bias = (0..*n_ff).map(|i| if i % 3 == 0 { ALWAYS } else { -0.5 }).collect();
        LayerPredictor { weights: weights.clone(), bias, measured }
    };
    let layers = model.config.n_ff.iter().map(layer).collect();
    Ok(Predictors { fingerprint: Fingerprint::of(model)?, name: "tiny".to_owned(), layers })
}

pub struct PredictorFiles {
    seeds: Vec<Parts>,
    model: Model,
}

impl PredictorFiles {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let model = Model::new(models::open(&models::file(&models::kind()).bytes()).expect("a file"), None);
        let model = model.expect("a model");
        let path = folder.path().join("predictor");
        let write = |weights: Weights| {
            of(&model, weights).and_then(|p| p.write(&path, &powerinfer::progress::Silent)).expect("a file");
            Parts::of(&Gguf::open(&path).expect("a file"))
        };
        let seeds = weights(&model).into_iter().chain([Weights::None]).map(write).collect();
        Self { seeds, model }
    }
}

impl Target for PredictorFiles {
    type Form = Parts;

    fn name(&self) -> &'static str {
        "predictor"
    }

    fn seeds(&self) -> Vec<Parts> {
        self.seeds.clone()
    }

    fn words(&self) -> &[&str] {
        WORDS
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        let predictors = Predictors::from_gguf(&models::open(input)?)?;
        for layer in &predictors.layers {
            let order: Vec<NeuronId> = (0..layer.bias.len() as u32).rev().map(NeuronId).collect();
            let _ = (layer.work(&order), layer.bytes_read());
            assert!(layer.n_bytes() <= input.len(), "more bytes than the file has");
        }
        predictors.check(&self.model)?;
        table(&self.model, &predictors).map(drop)
    }
}
