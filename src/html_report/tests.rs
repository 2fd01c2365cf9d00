//! The page holds what it is about, escaped, and needs nothing else.

use super::*;
use crate::model::{KvType, Mode};
use crate::placement::hardware::Hardware;
use crate::placement::plan::{Planner, Room, Run};
use crate::placement::workload::Workload;
use crate::profile::{Fingerprint, GroupCounts, ProfiledText};
use crate::shapes::Sized;
use std::path::Path;

fn profile(name: &str, n_layer: u32) -> Profile {
    let counts = |layer: u64| {
        let fired: Vec<u64> = (0..64).map(|i| 64 * (layer + 1) / (i + 1)).collect();
        GroupCounts { fired: fired.into(), ..GroupCounts::new(64, false) }
    };
    Profile {
        fingerprint: Fingerprint { family: [7; 32], samples: vec![1.0] },
        arch: "<llama>".to_owned(),
        name: name.to_owned(),
        activation: "relu".to_owned(),
        texts: vec![ProfiledText { sha256: [0xAB; 32], n_tokens: 4096, n_ctx: 64 }],
        groups: (0..u64::from(n_layer)).map(counts).collect(),
        layer_of: (0..n_layer).collect(),
        reuse: None,
        routers: vec![],
        fired_sets: None,
        unions: None,
        thresholds: None,
    }
}

/// Tags that are open at some point are closed in order, but for those that have no end.
fn is_well_formed(page: &str) -> bool {
    let mut open: Vec<&str> = Vec::new();
    for part in page.split('<').skip(1) {
        let Some((tag, rest)) = part.split_once('>') else { return false };
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap_or_default();
        if rest.contains('>') && name != "style" {
            return false;
        }
        match tag {
            _ if tag.starts_with('!') || name == "meta" || tag.ends_with('/') => {}
            _ if tag.starts_with('/') => {
                if open.pop() != Some(name) {
                    return false;
                }
            }
            _ => open.push(name),
        }
    }
    open.is_empty()
}

#[test]
fn a_hostile_name_stays_text_and_nothing_comes_from_elsewhere() {
    let hostile = "</title><script>alert(1)</script><img src=x onerror='alert(2)'>\u{1b}]0;\u{202e}";
    let profile = profile(hostile, 3);
    let page = Report { profile: &profile, plan: Err("no <plan> & why".to_owned()) }.html().unwrap();
    assert!(is_well_formed(&page));
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains(['\u{1b}', '\u{202e}']));
    assert!(
        page.contains("&lt;script&gt;") && page.contains("&lt;llama&gt;") && page.contains("no &lt;plan&gt; &amp; why")
    );
    let elsewhere = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!elsewhere.contains("http:") && !elsewhere.contains("https:") && !elsewhere.contains("url("));
    for words in [
        "What fires",
        "<h2>Layers</h2>",
        "share of activations",
        "prefers-color-scheme: dark",
        "abababab",
        "@media print",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert_eq!(page.matches("<svg").count(), 3);
}

#[test]
fn a_plan_is_told_and_drawn_and_pages_repeat() {
    let hardware = Hardware::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("hardware/rtx-4090-ddr5.toml")).unwrap();
    let sized: Sized = "mistral-7b".parse().unwrap();
    let work = Workload::of_shape(&sized).unwrap();
    let run = Run {
        n_ctx: 2048,
        n_past: 2048,
        kv_type: KvType::F16,
        n_ubatch: 512,
        mode: Mode::Exact,
        room: Room::default(),
    };
    let prepared = Planner { hardware: &hardware, work: &work, run: &run }.prepare();
    let plan = prepared.plan(None).unwrap();
    let explained = Explained::new(&prepared, &plan);
    let profile = profile("a model", plan.n_hot().len() as u32);
    let page = || Report { profile: &profile, plan: Ok(&explained) }.html().unwrap();
    assert!(is_well_formed(&page()) && page() == page());
    for words in ["Plan for RTX 4090", "tokens/s predicted", "hot in the plan", "What computes each layer", "size, MiB"]
    {
        assert!(page().contains(words), "{words}");
    }
    let other = Report {
        profile: &Profile { groups: profile.groups[..1].to_vec(), layer_of: vec![0], ..profile.clone() },
        plan: Ok(&explained),
    };
    assert!(other.html().unwrap_err().to_string().contains("other groups"));
}
