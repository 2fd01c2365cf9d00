//! Profiles of models whose routers choose: the same bytes for any division of the work, and counts that agree with each other.

use crate::support::kind::{Kind, Order, Routed};
use anyhow::{Context, Result};
use powerinfer::model::Model;
use powerinfer::profile::checkpoint::Checkpoint;
use powerinfer::profile::collect::{CollectParams, Collected, Profiling};
use powerinfer::profile::together::Together;
use powerinfer::profile::{Pool, Profile, RouterCounts, compare, experts, report};
use powerinfer::progress::{Interrupted, Progress, Silent};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const N_TOKENS: u64 = 200;
const SEED: u64 = 3;

fn kind() -> Kind {
    let routed = Some(Routed { n_used: 1, normalised: false, early: false });
    Kind { name: "one of two groups", routed, order: Order::OneMixer, n_ff: vec![56, 40, 56, 33], ..Kind::default() }
}

fn model(folder: &Path) -> Result<Model> {
    let (kind, path) = (kind(), folder.join("model.gguf"));
    std::fs::write(&path, kind.file(&kind.weights(7)).bytes())?;
    kind.load(&path)
}

fn params(n_threads: usize, part: &str) -> Result<CollectParams> {
    Ok(CollectParams { n_threads, part: part.parse()?, seed: SEED, n_samples: 20, ..CollectParams::new(16) })
}

fn profile(model: &Model, n_threads: usize, part: &str) -> Result<Profile> {
    let job = Profiling::over_random_tokens(model, N_TOKENS, params(n_threads, part)?)?;
    let Collected { profile, .. } = job.run(None, &Silent)?;
    Ok(profile)
}

#[track_caller]
fn refused_error<T>(result: Result<T>) -> String {
    format!("{:#}", result.err().expect("an error"))
}

#[test]
fn the_same_text_gives_the_same_bytes_however_it_is_divided() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = model(folder.path())?;
    let whole = profile(&model, 1, "1/1")?;
    assert_eq!(profile(&model, 3, "1/1")?.to_bytes(), whole.to_bytes());
    assert_eq!(Profile::from_bytes(&whole.to_bytes())?, whole);
    let parts: Vec<_> = ["1/3", "2/3", "3/3"].iter().map(|part| profile(&model, 2, part)).collect::<Result<_>>()?;
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let [a, b, c] = order.map(|i| parts[i].clone());
        let (mut left, mut right) = (a.clone(), b.clone());
        left.merge(&b)?;
        left.merge(&c)?;
        right.merge(&c)?;
        right.merge(&a)?;
        assert_eq!((left.to_bytes(), right.to_bytes()), (whole.to_bytes(), whole.to_bytes()));
    }
    // A variant of it counts the same neurons, wherever they lie.
    let variant = folder.path().join("variant.gguf");
    kind().split(Path::new(model.gguf.source().name()), &variant)?;
    assert_eq!(profile(&kind().load(&variant)?, 2, "1/1")?.routers, whole.routers);
    Ok(())
}

#[test]
fn counts_agree_with_each_other() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let profile = profile(&model(folder.path())?, 1, "1/1")?;
    let layers: Vec<_> = profile.routers.iter().map(|router| (router.layer, router.groups.clone())).collect();
    assert_eq!(layers, [(1, vec![0, 1]), (3, vec![2, 3])]);
    for (i, router) in profile.routers.iter().enumerate() {
        assert_eq!(router.total(), N_TOKENS);
        // 13 windows, of which seven are the first half.
        assert_eq!(router.chosen.each_ref().map(|half| half.iter().sum::<u64>()), [7 * 16, N_TOKENS - 7 * 16]);
        // With two experts a cache of both misses those that are new in a window.
        assert_eq!(router.cache_hits(2) + router.first, N_TOKENS);
        assert!((13..=26).contains(&router.first), "{}", router.first);
        for row in 0..2 {
            let group = 2 * i + row;
            assert_eq!(profile.n_computed(group), router.n_chosen()[row]);
            // Every activation is positive or not, so over half of the tokens about half of them is.
            let fired = profile.groups[group].fired.sum() as f64;
            let possible = (profile.n_computed(group) * profile.groups[group].fired.len() as u64) as f64;
            assert!((0.35..0.65).contains(&(fired / possible)), "{}", fired / possible);
        }
    }
    // Twelve windows of 16 tokens, and one of 8. Of two experts both are chosen sooner or later.
    let unions = profile.unions.as_ref().context("no unions")?;
    assert_eq!((unions.blocks, unions.fired.len(), unions.chosen.len()), ([100, 50, 25, 12], 4, 2));
    for router in 0..2 {
        let together = Together::of_router(&profile, router);
        let chosen = together.consecutive.map(|share| share.unwrap_or(0.0));
        assert!(together.alone == Some(0.5) && chosen[0] > 0.5 && chosen[3] > 0.99, "{together:?}");
    }
    let all = Together::of_all(&profile);
    let rising = [all.alone].into_iter().chain(all.consecutive).collect::<Option<Vec<_>>>().context("no blocks")?;
    assert!(rising.is_sorted_by(|few, many| few < many) && rising[4] < 1.0, "{rising:?}");
    let pools = Pool::all(&profile);
    assert_eq!(pools.iter().map(|pool| &*pool.label).collect::<Vec<_>>(), ["1x2", "3x2"]);
    let sparsity = report::pool(&profile, &pools[0]).sparsity.context("no tokens")?;
    assert!((0.35..0.65).contains(&sparsity), "{sparsity}");
    let table = report::table(&profile) + &report::cold_table(&profile) + &experts::table(&profile);
    assert!(table.contains("1x2") && table.contains("the model favours") && !table.contains("NaN"), "{table}");
    let compared = compare::table(&profile, &profile)?;
    assert!(compared.contains("the most chosen in A") && !compared.contains("NaN"), "{compared}");
    Ok(())
}

/// Interrupts a job after so many steps.
struct After(AtomicUsize);

impl Progress for After {
    fn cancelled(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_err()
    }
}

#[test]
fn a_job_goes_on_where_it_was_interrupted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (model, part) = (model(folder.path())?, folder.path().join("part"));
    let whole = profile(&model, 1, "1/1")?.to_bytes();
    let job = || Profiling::over_random_tokens(&model, N_TOKENS, params(2, "1/1")?);
    let mut done = 0;
    for steps in [1, 3, 2, 4] {
        let mut job = job()?;
        let before = job.resume(&part)?.map_or(0, |(done, _)| done);
        assert!(before >= done);
        done = before;
        let stopped = job.run(Some(Checkpoint::new(&part, Duration::ZERO)), &After(AtomicUsize::new(steps)));
        assert!(stopped.err().context("was not interrupted")?.is::<Interrupted>());
    }
    assert_eq!(done, 2);
    let mut job = job()?;
    job.resume(&part)?;
    assert_eq!(job.run(None, &Silent)?.profile.to_bytes(), whole);
    Ok(())
}

#[test]
fn profiles_that_contradict_themselves_or_each_other_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let profile = profile(&model(folder.path())?, 1, "1/1")?;
    let read = |change: &dyn Fn(&mut Profile)| {
        let mut wrong = profile.clone();
        change(&mut wrong);
        refused_error(Profile::from_bytes(&wrong.to_bytes()))
    };
    // An expert whose neurons fire more often than it is chosen.
    let rarely = read(&|p| {
        let router = &mut p.routers[0];
        let left: u64 = router.chosen.iter().map(|half| half[0]).sum();
        router.chosen[0][1] += left;
        router.chosen.iter_mut().for_each(|half| half[0] = 0);
    });
    assert!(rarely.contains("more often"), "{rarely}");
    let layer = read(&|p| p.routers[1].layer = 2);
    assert!(layer.contains("layer 2 does not have"), "{layer}");
    let fewer = |p: &Profile| Profile { routers: p.routers[..1].to_vec(), ..p.clone() };
    let merged = refused_error(profile.clone().merge(&fewer(&profile)));
    assert!(merged.contains("routers in other layers"), "{merged}");
    let compared = refused_error(compare::table(&profile, &fewer(&profile)));
    assert!(compared.contains("routers in different layers"), "{compared}");
    Ok(())
}

/// Damage is told as such, whatever the damaged bytes would mean.
#[test]
fn every_flipped_byte_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let bytes = profile(&model(folder.path())?, 1, "1/1")?.to_bytes();
    for at in (0..bytes.len()).step_by(37) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        assert!(Profile::from_bytes(&flipped).is_err(), "flipped at {at}");
        assert!(Profile::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
    }
    assert!(RouterCounts::of_model(&model(folder.path())?).len() == 2);
    Ok(())
}
