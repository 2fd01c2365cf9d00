//! Queries, keys and values where the last two come from one narrow vector (DeepSeek-V2, arXiv 2405.04434).

use super::buffers::Buffers;
use super::compute::{Compute, How};
use super::norm::normalize;
use super::product::load;
use crate::model::{Config, Layer, Role, Vector};

/// Queries, keys and values of `layer`, as wide as those of any other attention and not rotated yet, from the stream
/// `from`: into the buffers of these names.
pub(super) fn project(cx: Compute, how: How, config: &Config, layer: &Layer, from: Vector, b: &mut Buffers) {
    let [q, narrow, norm, wide] =
        [Role::AttnQ, Role::AttnKvA, Role::AttnKvANorm, Role::AttnKvB].map(|role| layer.part(role));
    let (n_narrow, n_shared) = (wide.matrix().n_cols, config.rope.n_dims);
    let (n_own, n_value) = (config.rope.first, config.value_dim);
    let kinds = [q, narrow].map(|part| cx.isa.kernels(part.matrix().dtype()).act);
    load(cx, how, &mut b.forms, (&b.streams[from.index()], config.n_embd), kinds);
    // In `v` are the narrow vectors, each with the end of the keys that all heads share.
    b.products.of(cx, how, [q, narrow], &b.forms, [&mut b.q, &mut b.v]);
    b.gathered.clear();
    b.v.chunks_exact(n_narrow + n_shared).for_each(|row| b.gathered.extend_from_slice(&row[..n_narrow]));
    b.spare.resize(b.gathered.len(), 0.0);
    normalize(config.norm, config.norm_eps, norm, &b.gathered, &mut b.spare);
    load(cx, how, &mut b.forms, (&b.spare, n_narrow), [cx.isa.kernels(wide.matrix().dtype()).act]);
    b.products.of(cx, how, [wide], &b.forms, [&mut b.gathered]);
    b.k.clear();
    let tokens = b.gathered.chunks_exact(config.n_head * (n_own + n_value));
    for (heads, shared) in tokens.zip(b.v.chunks_exact(n_narrow + n_shared)) {
        for head in heads.chunks_exact(n_own + n_value) {
            b.k.extend_from_slice(&head[..n_own]);
            b.k.extend_from_slice(&shared[n_narrow..]);
        }
    }
    b.v.clear();
    b.gathered.chunks_exact(n_own + n_value).for_each(|head| b.v.extend_from_slice(&head[n_own..]));
}
