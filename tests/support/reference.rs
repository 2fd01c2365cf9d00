//! The forward pass once more: naive, in 64 bits, and sharing nothing with the library.
#![allow(clippy::needless_range_loop, reason = "the formulas have indices")]

use super::kind::{EPS, HeadNorms, Kind, Order, Pairing, Tensors};

/// Logits after each of `tokens`.
pub fn logits(kind: &Kind, weights: &Tensors, tokens: &[usize]) -> Vec<Vec<f64>> {
    let vector = |name: &str| weights[name].values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let embd = vector("token_embd.weight");
    let n = kind.n_embd;
    let embedded = |t: &usize| embd[t * n..(t + 1) * n].iter().map(|v| v * f64::from(kind.embedding_scale)).collect();
    let mut x: Vec<Vec<f64>> = tokens.iter().map(embedded).collect();
    let scale = f64::from(kind.scale);
    let add = |x: &mut [f64], y: &[f64]| (0..n).for_each(|j| x[j] += scale * y[j]);
    for i in 0..kind.n_ff.len() {
        let normed = |part: &str, x: &[f64]| norm(kind, weights, &format!("blk.{i}.{part}"), x);
        let all = |part: &str, x: &[Vec<f64>]| x.iter().map(|x| normed(part, x)).collect::<Vec<_>>();
        let raw = x.clone();
        let ffn = |t: usize, h: &[f64]| ffn(kind, weights, i, h, &raw[t]);
        let n_tokens = tokens.len();
        match kind.order {
            Order::Serial => {
                let attn = attention(kind, weights, i, &all("attn_norm", &x));
                (0..n_tokens).for_each(|t| add(&mut x[t], &attn[t]));
                for t in 0..n_tokens {
                    let y = ffn(t, &normed("ffn_norm", &x[t]));
                    add(&mut x[t], &y);
                }
            }
            Order::Parallel | Order::TwoNorms => {
                let of_attention = if kind.order == Order::TwoNorms { "attn_norm_2" } else { "attn_norm" };
                let attn = attention(kind, weights, i, &all(of_attention, &x));
                for t in 0..n_tokens {
                    let y = ffn(t, &normed("attn_norm", &x[t]));
                    add(&mut x[t], &attn[t]);
                    add(&mut x[t], &y);
                }
            }
            Order::PostNorms => {
                let attn = attention(kind, weights, i, &x);
                (0..n_tokens).for_each(|t| add(&mut x[t], &normed("post_attention_norm", &attn[t])));
                for t in 0..n_tokens {
                    let y = ffn(t, &x[t]);
                    add(&mut x[t], &normed("post_ffw_norm", &y));
                }
            }
            Order::BothNorms => {
                let attn = attention(kind, weights, i, &all("attn_norm", &x));
                (0..n_tokens).for_each(|t| add(&mut x[t], &normed("post_attention_norm", &attn[t])));
                for t in 0..n_tokens {
                    let y = ffn(t, &normed("ffn_norm", &x[t]));
                    add(&mut x[t], &normed("post_ffw_norm", &y));
                }
            }
            Order::OneMixer if i % 2 == 0 => {
                let attn = attention(kind, weights, i, &all("attn_norm", &x));
                (0..n_tokens).for_each(|t| add(&mut x[t], &attn[t]));
            }
            Order::OneMixer => {
                for t in 0..n_tokens {
                    let y = ffn(t, &normed("attn_norm", &x[t]));
                    add(&mut x[t], &y);
                }
            }
        }
    }
    let head = if kind.tied { "token_embd.weight" } else { "output.weight" };
    let logits = |x: &Vec<f64>| product(weights, head, &norm(kind, weights, "output_norm", x));
    let scaled = |logits: Vec<f64>| logits.iter().map(|v| v / f64::from(kind.logit_scale)).collect();
    x.iter().map(|x| scaled(logits(x))).collect()
}

/// `y[o] = sum over i of w[o][i] * x[i]`.
fn product(weights: &Tensors, name: &str, x: &[f64]) -> Vec<f64> {
    let w = &weights[name];
    let (n_in, n_out) = (w.dims[0], w.dims[1]);
    assert_eq!(n_in, x.len(), "{name}");
    let mut y = vec![0.0; n_out];
    for o in 0..n_out {
        for i in 0..n_in {
            y[o] += f64::from(w.values[o * n_in + i]) * x[i];
        }
    }
    y
}

fn projection(kind: &Kind, weights: &Tensors, name: &str, x: &[f64]) -> Vec<f64> {
    let mut y = product(weights, &format!("{name}.weight"), x);
    if kind.biases {
        for (i, y) in y.iter_mut().enumerate() {
            *y += f64::from(weights[&format!("{name}.bias")].values[i]);
        }
    }
    y
}

fn norm(kind: &Kind, weights: &Tensors, name: &str, x: &[f64]) -> Vec<f64> {
    let n = x.len() as f64;
    let w = &weights[&format!("{name}.weight")].values;
    let mean = if kind.layer_norm { x.iter().sum::<f64>() / n } else { 0.0 };
    let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    let mut y = vec![0.0; x.len()];
    for i in 0..x.len() {
        y[i] = (x[i] - mean) / (variance + f64::from(EPS)).sqrt() * f64::from(w[i]);
        if kind.layer_norm {
            y[i] += f64::from(weights[&format!("{name}.bias")].values[i]);
        }
    }
    y
}

fn rotate(kind: &Kind, weights: &Tensors, position: usize, head: &mut [f64]) {
    if kind.rope == Pairing::Absent {
        return;
    }
    let (factor, base, n_rot) = (f64::from(kind.rope_factor), f64::from(kind.rope_base), kind.n_rot as f64);
    let mut magnitude = f64::from(kind.attn_factor);
    if let Some(yarn) = kind.yarn {
        magnitude *= 1.0 + 0.1 * factor.ln();
        magnitude /= 1.0 + 0.1 * f64::from(yarn.log_multiplier) * factor.ln();
    }
    for i in 0..kind.n_rot / 2 {
        let mut angle = position as f64 * base.powf(-2.0 * i as f64 / n_rot);
        match kind.yarn {
            None => angle /= factor,
            Some(yarn) => {
                let turns = |beta: f32| {
                    let length = yarn.n_ctx as f64 / (2.0 * std::f64::consts::PI * f64::from(beta));
                    n_rot * length.ln() / (2.0 * base.ln())
                };
                let first = turns(yarn.beta_fast).floor().max(0.0);
                let last = turns(yarn.beta_slow).ceil().min(n_rot - 1.0);
                let scaled = ((i as f64 - first) / (last - first).max(0.001)).clamp(0.0, 1.0);
                let kept = (1.0 - scaled) * f64::from(yarn.share);
                angle = angle * kept + angle / factor * (1.0 - kept);
            }
        }
        if kind.rope_freqs {
            angle /= f64::from(weights["rope_freqs.weight"].values[i]);
        }
        let (a, b) = match kind.rope {
            Pairing::Interleaved => (2 * i, 2 * i + 1),
            _ => (i, i + kind.n_rot / 2),
        };
        let (x, y) = (head[a], head[b]);
        head[a] = magnitude * (x * angle.cos() - y * angle.sin());
        head[b] = magnitude * (x * angle.sin() + y * angle.cos());
    }
}

fn attention(kind: &Kind, weights: &Tensors, layer: usize, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let d = kind.head_dim;
    let scale = match kind.attention_scale {
        0.0 => 1.0 / (d as f64).sqrt(),
        scale => f64::from(scale),
    };
    let project = |part: &str, rotated: bool| -> Vec<Vec<f64>> {
        let mut all: Vec<_> = x.iter().map(|x| projection(kind, weights, &format!("blk.{layer}.{part}"), x)).collect();
        for (position, heads) in all.iter_mut().enumerate().filter(|_| rotated) {
            let name = format!("blk.{layer}.{part}_norm");
            match kind.head_norms {
                HeadNorms::Absent => {}
                HeadNorms::Each => {
                    heads.chunks_mut(d).for_each(|head| head.copy_from_slice(&norm(kind, weights, &name, head)));
                }
                HeadNorms::Together => *heads = norm(kind, weights, &name, heads),
            }
            if kind.rotates(layer) {
                heads.chunks_mut(d).for_each(|head| rotate(kind, weights, position, head));
            }
        }
        all
    };
    let (q, k, v) = (project("attn_q", true), project("attn_k", true), project("attn_v", false));
    let mut out = Vec::new();
    for t in 0..x.len() {
        let mut mixed = vec![0.0; kind.n_head * d];
        for head in 0..kind.n_head {
            let shared = head * kind.n_head_kv / kind.n_head;
            let mut shares = Vec::new();
            for s in 0..=t {
                let mut score = 0.0;
                for j in 0..d {
                    score += q[t][head * d + j] * k[s][shared * d + j];
                }
                if let Some((sharper, n_ctx)) = kind.temperature {
                    score *= 1.0 + f64::from(sharper) * f64::from((t / n_ctx) as u32 + 1).ln();
                }
                shares.push((score * scale).exp());
            }
            let sum: f64 = shares.iter().sum();
            for s in 0..=t {
                for j in 0..d {
                    mixed[head * d + j] += shares[s] / sum * v[s][shared * d + j];
                }
            }
        }
        out.push(projection(kind, weights, &format!("blk.{layer}.attn_output"), &mixed));
    }
    out
}

/// The error function by its series, of what is not large.
fn erf(z: f64) -> f64 {
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// `raw` is the layer's input.
fn ffn(kind: &Kind, weights: &Tensors, layer: usize, x: &[f64], raw: &[f64]) -> Vec<f64> {
    let Some(routed) = kind.routed else { return group(kind, weights, layer, x, None) };
    let scores = product(weights, &format!("blk.{layer}.ffn_gate_inp.weight"), if routed.early { raw } else { x });
    let sum: f64 = scores.iter().map(|s| s.exp()).sum();
    let mut shares: Vec<f64> = scores.iter().map(|s| s.exp() / sum).collect();
    if routed.n_used == 1 {
        let worse = if shares[0] >= shares[1] { 1 } else { 0 };
        shares[worse] = 0.0;
    }
    if routed.normalised {
        let sum: f64 = shares.iter().sum();
        shares.iter_mut().for_each(|s| *s /= sum);
    }
    let mut y = vec![0.0; x.len()];
    for (e, share) in shares.iter().enumerate() {
        let of_group = group(kind, weights, layer, x, Some(e));
        (0..y.len()).for_each(|j| y[j] += share * of_group[j]);
    }
    y
}

/// A dense layer's neurons, or group `e` of a stack.
fn group(kind: &Kind, weights: &Tensors, layer: usize, x: &[f64], e: Option<usize>) -> Vec<f64> {
    let project = |part: &str, x: &[f64]| -> Vec<f64> {
        let stem = format!("blk.{layer}.{part}{}", if e.is_some() { "_exps" } else { "" });
        let w = &weights[&format!("{stem}.weight")];
        let (n_in, n_out, e) = (w.dims[0], w.dims[1], e.unwrap_or(0));
        let mut y = vec![0.0; n_out];
        for o in 0..n_out {
            for i in 0..n_in {
                y[o] += f64::from(w.values[(e * n_out + o) * n_in + i]) * x[i];
            }
            if kind.ffn_biases {
                y[o] += f64::from(weights[&format!("{stem}.bias")].values[e * n_out + o]);
            }
        }
        y
    };
    let (activation, threshold) = kind.activation();
    let act = |v: f64| match activation {
        "silu" => v / (1.0 + (-v).exp()),
        "gelu" => 0.5 * v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v * v * v)).tanh()),
        "gelu_erf" => 0.5 * v * (1.0 + erf(v / 2f64.sqrt())),
        "gelu_quick" => v / (1.0 + (-1.702 * v).exp()),
        "relu" | "drelu" => v.max(0.0),
        "fatrelu" if v > f64::from(threshold.expect("a threshold")) => v,
        "fatrelu" => 0.0,
        "relu2" => v.max(0.0) * v.max(0.0),
        other => panic!("{other}"),
    };
    let mut h = project("ffn_up", x);
    if kind.gated {
        let gate = project("ffn_gate", x);
        for i in 0..h.len() {
            let up = if activation == "drelu" { h[i].max(0.0) } else { h[i] };
            h[i] = act(gate[i]) * up;
        }
    } else {
        for h in h.iter_mut() {
            *h = act(*h);
        }
    }
    project("ffn_down", &h)
}
