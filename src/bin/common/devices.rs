//! `--list-devices`: the cards that `--device` can name.

use powerinfer::gpu::Identity;

/// A line for each card, or why there is none.
pub fn list() -> String {
    let first = match Identity::of(0) {
        Ok(first) => first,
        Err(why) => return format!("no card: {why:#}\n"),
    };
    let others = (1..).map_while(|ordinal| Identity::of(ordinal).ok());
    let line = |card: Identity| format!("cuda:{}  {}  (driver {})\n", card.ordinal, card.name, card.driver);
    std::iter::once(first).chain(others).map(line).collect()
}
