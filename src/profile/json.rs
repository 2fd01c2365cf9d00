//! What a profile says, as JSON.

use super::experts::{self, Hits, ONE_IN, per_token, set_size};
use super::file::Profile;
use super::pools::Pool;
use super::report;
use super::routers::RouterCounts;
use super::together::Together;
use serde_json::{Value, json};

/// One object: the figures of [`report::table`], of [`experts::table`] and of [`super::together::table`], and how often each
/// expert was chosen.
pub fn json(profile: &Profile) -> Value {
    let layers = Pool::all(profile).into_iter().map(|pool| {
        let figures = report::pool(profile, &pool);
        json!({
            "layer": profile.layer_of[pool.groups[0]],
            "label": pool.label,
            "groups": pool.groups.len(),
            "routed": pool.router.is_some(),
            "neurons": figures.n_ff,
            "sparsity": figures.sparsity,
            "gate_sparsity": figures.closed,
            "share_covering_80_percent": figures.skew,
            "dead": figures.dead,
            "unions": Together::of_pool(profile, &pool).json(),
        })
    });
    let routers = profile.routers.iter().enumerate().map(|(number, router)| {
        json!({
            "layer": router.layer,
            "experts": router.groups.len(),
            "experts_per_token": per_token(profile, router),
            "chosen": router.n_chosen(),
            "hits": hits(std::slice::from_ref(router)),
            "unions": Together::of_router(profile, number).json(),
        })
    });
    json!({
        "name": profile.name,
        "architecture": profile.arch,
        "activation": profile.activation,
        "tokens": profile.n_tokens(),
        "texts": profile.texts.len(),
        "sparsity": report::sparsity(profile),
        "gate_sparsity": report::closed(profile),
        "unions": Together::of_all(profile).json(),
        "layers": layers.collect::<Vec<_>>(),
        "routers": routers.collect::<Vec<_>>(),
        "hits": hits(&profile.routers),
        "favours": experts::favours(profile).map(|favoured| favoured.name()),
    })
}

fn hits(routers: &[RouterCounts]) -> Value {
    let of = |one_in: usize| {
        let hits = Hits::of(routers, one_in)?;
        let largest = routers.iter().map(|router| router.groups.len()).max().unwrap_or(0);
        Some(json!({
            "one_in": one_in,
            "experts": set_size(largest, one_in),
            "fixed": hits.fixed,
            "held_out": hits.held_out,
            "cache": hits.cache,
            "cache_at_most": hits.cache_at_most,
        }))
    };
    ONE_IN.into_iter().filter_map(of).collect()
}
