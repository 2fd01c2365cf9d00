//! `--explain`: layers whose figures are all the same share a row, and no layer is left out.

use crate::support::{Outcome, tool};

const CARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hardware/rtx-4090-ddr5.toml");

/// First and last layer of each row.
fn rows(args: &[&str]) -> Vec<(usize, usize)> {
    let mut command = tool("split");
    command.args(["--dry-run", "--explain", "--hardware", CARD]).args(args);
    let table = Outcome::from(command.output().unwrap()).ok().stdout;
    let from = table.lines().skip_while(|line| !line.trim_start().starts_with("layer ")).skip(1);
    let names = from.map_while(|line| {
        let name = line.split_whitespace().next()?;
        let (first, last) = name.split_once('-').unwrap_or((name, name));
        Some((first.parse().ok()?, last.parse().ok()?))
    });
    names.collect()
}

#[test]
fn equal_layers_are_folded_and_none_is_missing() {
    for (shape, n_layer) in [("mistral-7b", 32), ("llama-70b:q4_0", 80)] {
        let rows = rows(&["--shape", shape, "--vram-budget", "20GB"]);
        assert!(rows.len() < n_layer, "{shape}: {rows:?}");
        let next = rows.iter().try_fold(0, |next, (first, last)| (*first == next && last >= first).then_some(last + 1));
        assert_eq!(next, Some(n_layer), "{shape}: {rows:?}");
    }
}
