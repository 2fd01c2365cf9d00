//! A profile of the largest model that is foreseen, in bounded memory: 88 layers, 40 of which have 512 experts of 2,688 neurons.

use anyhow::{Context, Result};
use powerinfer::profile::{Fingerprint, GroupCounts, Profile, ProfiledText, RouterCounts, Tally, experts, report};
use std::time::Instant;

const N_TOKENS: u64 = 500_000;
const N_EXPERTS: u32 = 512;
const N_FF: usize = 2688;
const N_USED: u64 = 22;
/// Every second layer has experts, up to so many.
const ROUTED_LAYERS: u32 = 40;

/// The most memory that this process has had, in bytes.
fn peak() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
    Ok(1024 * line.split_whitespace().nth(1).context("no number")?.parse::<u64>()?)
}

/// As after half a million tokens: experts chosen by a power law, a tenth of their neurons firing.
fn profile() -> Profile {
    let (mut groups, mut layer_of, mut routers) = (Vec::new(), Vec::new(), Vec::new());
    let sum: f64 = (1..=N_EXPERTS).map(|rank| 1.0 / f64::from(rank)).sum();
    for i in 0..ROUTED_LAYERS {
        let layer = 2 * i + 1;
        let first = groups.len() as u32;
        let mut router = RouterCounts::new(layer, (first..first + N_EXPERTS).collect());
        for expert in 0..N_EXPERTS {
            let rank = 1 + (expert * 7 + i) % N_EXPERTS;
            let share = (N_USED as f64 / f64::from(rank) / sum).min(1.0);
            let chosen = (share * N_TOKENS as f64) as u64;
            (router.chosen[0][expert as usize], router.chosen[1][expert as usize]) = (chosen / 2, chosen - chosen / 2);
            let fired = |neuron: usize| chosen * (neuron as u64 * 2_654_435_761 % 1000) / 5000;
            groups.push(GroupCounts {
                fired: (0..N_FF).map(fired).collect(),
                mass: (0..N_FF).map(|neuron| 40_000 * fired(neuron)).collect(),
                opened: Tally::new(0),
            });
            layer_of.push(layer);
        }
        router.first = router.total();
        routers.push(router);
    }
    Profile {
        fingerprint: Fingerprint { family: [7; 32], samples: vec![1.0; 30_000] },
        arch: "nemotron_h_moe".to_owned(),
        name: "large".to_owned(),
        activation: "relu2".to_owned(),
        texts: vec![ProfiledText { sha256: [1; 32], n_tokens: N_TOKENS, n_ctx: 512 }],
        groups,
        layer_of,
        reuse: None,
        routers,
        fired_sets: None,
        unions: None,
        thresholds: None,
    }
}

#[test]
#[ignore = "half a gigabyte and a minute; run it alone: its peak of memory is the process's"]
fn a_profile_of_the_largest_model_takes_less_than_a_gigabyte() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("large.profile");
    let timed = |what: &str, begun: Instant| -> Result<()> {
        println!("{what}: {:.2} s, peak {:.0} MB", begun.elapsed().as_secs_f64(), peak()? as f64 / 1e6);
        Ok(())
    };
    let begun = Instant::now();
    let made = profile();
    timed("made", begun)?;
    let begun = Instant::now();
    made.write(&path)?;
    timed("written", begun)?;
    let sha256 = made.sha256();
    drop(made);
    let begun = Instant::now();
    let mut read = Profile::read(&path)?;
    timed("read", begun)?;
    println!("{} MB in the file", std::fs::metadata(&path)?.len() / 1_000_000);
    assert_eq!(read.sha256(), sha256);
    let begun = Instant::now();
    println!("{}{}", report::table(&read), experts::table(&read));
    timed("told", begun)?;
    let begun = Instant::now();
    read.merge(&Profile::read(&path)?)?;
    timed("merged", begun)?;
    assert!(peak()? < 1 << 30, "{} bytes", peak()?);
    Ok(())
}
