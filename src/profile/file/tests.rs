//! The profile file survives, merges, and refuses damage.

use super::*;
use crate::profile::samples::SampleKey;
use crate::profile::together::{self, Together};

fn profile(seed: u64) -> Profile {
    let layer = |n: u64| GroupCounts {
        fired: (0..n).map(|i| (i * seed) % 10).collect(),
        mass: (0..n).map(|i| i * seed * 1000).collect(),
        opened: Tally::new(0),
    };
    Profile {
        fingerprint: Fingerprint { family: [7; 32], samples: vec![1.0, -2.0] },
        arch: "llama".to_owned(),
        name: format!("name {seed}"),
        activation: "relu".to_owned(),
        texts: vec![ProfiledText { sha256: [seed as u8; 32], n_tokens: 10 + seed, n_ctx: 512 }],
        groups: vec![layer(4), layer(6)],
        layer_of: vec![0, 1],
        reuse: Some(vec![reuse(seed, 4), reuse(seed, 6)]),
        routers: Vec::new(),
        fired_sets: Some(fired_sets(seed)),
        unions: Some(unions(seed)),
        thresholds: None,
    }
}

fn reuse(seed: u64, n_ff: u64) -> ReuseCounts {
    let fired: u64 = (0..n_ff).map(|i| (i * seed) % 10).sum();
    let mut counts = ReuseCounts { first: fired / 3, ..Default::default() };
    counts.buckets[seed as usize] = fired - fired / 3;
    counts
}

/// Of ten tokens or more, of which each fires what no other does.
fn unions(seed: u64) -> UnionCounts {
    let n_ff = [4u64, 6];
    let fired = n_ff.map(|n| {
        let fired: u64 = (0..n).map(|i| (i * seed) % 10).sum();
        [fired / 2, fired / 3, fired / 4, 0].map(|sum| sum.min(n))
    });
    UnionCounts { blocks: [5, 2, 1, 0], fired: fired.to_vec(), chosen: Vec::new() }
}

fn fired_sets(seed: u64) -> FiredSets {
    let mut keys: Vec<_> = (0..4).map(|t| SampleKey::new(1, [seed as u8; 32], t)).collect();
    keys.sort();
    FiredSets { seed: 1, capacity: 8, keys, bits: (0..8).map(|i| 1 << (i * seed % 4)).collect() }
}

/// The file of `p` as the first version of this program wrote it.
fn version_1(p: &Profile, optional: Option<&[u8; 4]>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(1u32.to_le_bytes());
    let of_v2 = p.to_bytes();
    let mut file = SectionFile::from_bytes(&of_v2, MAGIC, &VERSIONS, WHAT).unwrap();
    let mut sections: Vec<_> =
        [b"MODL", b"TEXT", b"FIRE", b"MASS"].map(|tag| (tag, file.section(tag).unwrap().unwrap())).into();
    sections.extend(optional.map(|tag| (tag, vec![1, 2, 3])));
    bytes.extend((sections.len() as u32).to_le_bytes());
    for (tag, payload) in sections {
        bytes.extend(tag);
        bytes.extend((payload.len() as u64).to_le_bytes());
        bytes.extend(payload);
    }
    let checksum = Sha256::digest(&bytes);
    bytes.extend(checksum);
    bytes
}

fn merged(order: &[u64]) -> Vec<u8> {
    let mut all = profile(order[0]);
    order[1..].iter().for_each(|s| all.merge(&profile(*s)).unwrap());
    all.to_bytes()
}

#[test]
fn a_profile_survives_the_file() {
    let p = profile(3);
    assert_eq!(Profile::from_bytes(&p.to_bytes()).unwrap(), p);
}

/// With counts of gates, too.
fn of_two_masks(seed: u64) -> Profile {
    let mut p = Profile { activation: "drelu".to_owned(), ..profile(seed) };
    p.groups.iter_mut().for_each(|group| group.opened = group.fired.iter().map(|n| n + seed).collect());
    p
}

#[test]
fn gates_are_counted_where_up_has_a_mask_of_its_own() {
    let (a, b) = (of_two_masks(1), of_two_masks(2));
    assert_eq!(Profile::from_bytes(&a.to_bytes()).unwrap(), a);
    assert!(a.has_two_masks() && !profile(1).has_two_masks() && profile(1).open_rates(0).is_none());
    assert_eq!(a.open_rates(0).unwrap()[3], 4.0 / 11.0);
    let mut merged = a.clone();
    merged.merge(&b).unwrap();
    assert_eq!(merged.groups[0].opened, vec![3, 6, 9, 12].into());
    let mut other_way = b;
    other_way.merge(&a).unwrap();
    assert_eq!(other_way.to_bytes(), merged.to_bytes());
    let mut less = a.clone();
    less.groups[0].opened = vec![1, 2, 3, 2].into();
    assert!(Profile::from_bytes(&less.to_bytes()).unwrap_err().to_string().contains("above zero"));
    let mut more = a;
    more.groups[1].opened = vec![12, 2, 3, 4, 5, 6].into();
    assert!(Profile::from_bytes(&more.to_bytes()).is_err());
}

#[test]
fn merging_gives_the_same_bytes_in_any_order_and_grouping() {
    let expected = merged(&[1, 2, 3]);
    for order in [[1, 3, 2], [2, 1, 3], [3, 2, 1]] {
        assert_eq!(merged(&order), expected);
    }
    let mut right = profile(2);
    right.merge(&profile(3)).unwrap();
    let mut grouped = profile(1);
    grouped.merge(&right).unwrap();
    assert_eq!(grouped.to_bytes(), expected);
}

#[test]
fn every_truncation_and_every_flipped_byte_is_refused() {
    let bytes = profile(5).to_bytes();
    for n in 0..bytes.len() {
        assert!(Profile::from_bytes(&bytes[..n]).is_err(), "cut at {n}");
        let mut flipped = bytes.clone();
        flipped[n] ^= 0x10;
        assert!(Profile::from_bytes(&flipped).is_err(), "flipped at {n}");
    }
}

#[test]
fn a_profile_of_another_model_is_not_merged() {
    let mut other = profile(2);
    other.fingerprint.family = [8; 32];
    assert!(profile(1).merge(&other).unwrap_err().to_string().contains("another model"));
    let mut other = profile(2);
    other.activation = "silu".to_owned();
    assert!(profile(1).merge(&other).unwrap_err().to_string().contains("activation silu"));
}

#[test]
fn sections_in_lower_case_are_skipped_and_others_refused() {
    let with_section = |tag: &[u8; 4]| {
        let p = profile(1);
        let mut list = p.sections(None);
        list.insert(1, Section::of_bytes(*tag, vec![1, 2, 3]));
        let mut bytes = Vec::new();
        let mut append = |b: &[u8]| {
            bytes.extend_from_slice(b);
            Ok(())
        };
        sections::emit(MAGIC, VERSION, &list, &mut append).unwrap();
        Profile::from_bytes(&bytes)
    };
    assert_eq!(with_section(b"hist").unwrap(), profile(1));
    assert!(with_section(b"HIST").unwrap_err().to_string().contains("HIST"));
    assert!(with_section(b"TEXT").unwrap_err().to_string().contains("twice"));
}

#[test]
fn version_1_is_read_and_every_damage_to_it_refused() {
    let without = Profile { reuse: None, fired_sets: None, unions: None, ..profile(3) };
    let bytes = version_1(&profile(3), Some(b"hist"));
    assert_eq!(Profile::from_bytes(&bytes).unwrap(), without);
    assert!(Profile::from_bytes(&version_1(&profile(3), Some(b"HIST"))).is_err());
    for n in 0..bytes.len() {
        assert!(Profile::from_bytes(&bytes[..n]).is_err(), "cut at {n}");
        let mut flipped = bytes.clone();
        flipped[n] ^= 0x10;
        assert!(Profile::from_bytes(&flipped).is_err(), "flipped at {n}");
    }
    let mut merged = without;
    merged.merge(&profile(4)).unwrap();
    assert_eq!((merged.reuse, merged.fired_sets, merged.unions), (None, None, None));
    let mut newer = bytes;
    newer[8] = 4;
    let error = Profile::from_bytes(&newer).unwrap_err().to_string();
    assert!(error.contains("of version 4") && error.contains("1, 2 and 3"), "{error}");
}

#[test]
fn samples_are_read_by_who_asks_only() {
    let mut keys: Vec<_> = (0..3).map(|t| SampleKey::new(1, [0; 32], t)).collect();
    keys.sort();
    let x = vec![vec![half::f16::ONE; 6]; 2];
    let samples = Samples { seed: 1, capacity: 5, keys, x };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p");
    profile(3).write_with(&path, Some(&samples), &Silent).unwrap();
    assert_eq!(Profile::read(&path).unwrap(), profile(3));
    assert_eq!(Samples::read(&path).unwrap(), samples);
    let bytes = std::fs::read(&path).unwrap();
    let start = bytes.len() - samples.len() * 48 - 24;
    for n in [start, start + 30, bytes.len() - 1] {
        let mut flipped = bytes.clone();
        flipped[n] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        assert_eq!(Profile::read(&path).unwrap(), profile(3), "samples are not looked at");
        let error = format!("{:#}", Samples::read(&path).unwrap_err());
        assert!(error.contains("samp") || error.contains("sampled"), "{error}");
    }
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(Profile::read(&path).is_err() && Samples::read(&path).is_err());
    profile(3).write(&path).unwrap();
    assert!(format!("{:#}", Samples::read(&path).unwrap_err()).contains("--samples"));
}

#[test]
fn unions_are_optional_and_held_against_the_other_counts() {
    let old = Profile { unions: None, ..profile(3) };
    let read = Profile::from_bytes(&old.to_bytes()).unwrap();
    assert_eq!(read, old);
    let of = Together::of_all(&read);
    assert!(of.consecutive == [None; 4] && of.unrelated[1].unwrap() > of.alone.unwrap(), "{of:?}");
    let mut merged = profile(1);
    merged.merge(&Profile { unions: None, ..profile(2) }).unwrap();
    assert_eq!(merged.unions, None);
    let mut whole = profile(1);
    whole.merge(&profile(2)).unwrap();
    assert_eq!(whole.unions.as_ref().unwrap().blocks, [10, 4, 2, 0]);
    let table = together::table(&whole);
    assert!(!table.contains("NaN") && table.lines().count() == 6, "{table}");
    let wrong = |change: fn(&mut UnionCounts)| {
        let mut p = profile(3);
        p.unions.iter_mut().for_each(change);
        Profile::from_bytes(&p.to_bytes()).unwrap_err().to_string()
    };
    assert!(wrong(|u| u.blocks[0] = 7).contains("more blocks than 13 tokens"));
    assert!(wrong(|u| u.fired[1][0] = 31).contains("more in blocks"));
    assert!(wrong(|u| u.fired.truncate(1)).contains("cut short"));
    assert!(wrong(|u| u.chosen.push([0; 4])).contains("unio"));
}

#[test]
fn parts_of_a_text_are_one_text() {
    let mut whole = profile(3);
    whole.merge(&profile(3)).unwrap();
    assert_eq!(whole.texts, [ProfiledText { sha256: [3; 32], n_tokens: 26, n_ctx: 512 }]);
}

#[test]
fn cold_neurons_that_fired_are_counted_by_token() {
    let p = profile(1);
    let order = p.order(1);
    assert_eq!(order[0], NeuronId(5));
    let all = p.cold_histogram(1, &order, 0);
    assert_eq!(all.len(), 4);
    assert!(all.iter().all(|n| *n == 1) && p.cold_histogram(1, &order, 6) == [0; 4]);
    assert!(p.cold_histogram(1, &order, 7).is_empty() || p.cold_histogram(1, &order, 7) == [0; 4]);
    assert!(Profile { fired_sets: None, ..p }.cold_histogram(1, &order, 0).is_empty());
}
