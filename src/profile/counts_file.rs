//! Counts of neurons as sections of a file: written and read group by group, since all of them as bytes would be in memory a
//! second time.

use super::GroupCounts;
use super::sections::{Section, SectionFile, Sink, Tag};
use super::tally::Tally;
use anyhow::{Context, Result, ensure};

/// How counts lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// A u64 each.
    Words,
    /// Group by group: a byte that says how many bytes each count has, the fewest that hold all of them, and the counts.
    Fewest,
}

/// Bytes that are passed on at a time.
const PIECE: usize = 1 << 20;

/// The section `tag` with one kind of counts of all `groups`.
pub(super) fn section<'a>(
    tag: Tag,
    groups: &'a [GroupCounts],
    of: fn(&GroupCounts) -> &Tally,
    packing: Packing,
) -> Section<'a> {
    let emit = move |sink: &mut Sink| -> Result<()> {
        let mut bytes = Vec::new();
        for tally in groups.iter().map(of) {
            match packing {
                Packing::Words => tally.put(8, &mut bytes),
                Packing::Fewest => {
                    let width = tally.width();
                    bytes.push(width as u8);
                    tally.put(width, &mut bytes);
                }
            }
            if bytes.len() >= PIECE {
                sink(&bytes)?;
                bytes.clear();
            }
        }
        sink(&bytes)
    };
    Section { tag, emit: Box::new(emit) }
}

/// The counts of groups of `n_ff` neurons again; `None` where the file has no such section.
pub(super) fn read(file: &mut SectionFile, tag: &Tag, n_ff: &[usize], packing: Packing) -> Result<Option<Vec<Tally>>> {
    let name = tag.escape_ascii();
    let mut unpacker = Unpacker { n_ff, packing, pending: Vec::new(), done: Vec::new() };
    let mut unpacked = Ok(());
    let there = file.stream(tag, &mut |bytes| {
        if unpacked.is_ok() {
            unpacked = unpacker.push(bytes);
        }
        Ok(())
    })?;
    if !there {
        return Ok(None);
    }
    // Groups without neurons have no bytes that would bring them about.
    unpacked.and_then(|()| unpacker.push(&[])).with_context(|| format!("section {name}"))?;
    let Unpacker { pending, done, .. } = unpacker;
    ensure!(done.len() == n_ff.len(), "section {name} is cut short");
    ensure!(pending.is_empty(), "section {name} is longer than its contents");
    Ok(Some(done))
}

/// Assembles counts from pieces of any length.
struct Unpacker<'a> {
    n_ff: &'a [usize],
    packing: Packing,
    pending: Vec<u8>,
    done: Vec<Tally>,
}

impl Unpacker<'_> {
    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(bytes);
        let mut rest = &*self.pending;
        while let Some(n_ff) = self.n_ff.get(self.done.len()) {
            let (width, counts) = match (self.packing, rest.split_first()) {
                (Packing::Words, _) => (8, rest),
                (Packing::Fewest, Some((width, counts))) => (usize::from(*width), counts),
                (Packing::Fewest, None) => break,
            };
            let Some((counts, others)) = n_ff.checked_mul(width).and_then(|n| counts.split_at_checked(n)) else {
                break;
            };
            let tally = Tally::read(counts, width)?;
            self.done.push(match self.packing {
                Packing::Words => tally.iter().collect(),
                Packing::Fewest => {
                    ensure!(tally.width() == width, "has counts in more bytes than they need");
                    tally
                }
            });
            rest = others;
        }
        let taken = self.pending.len() - rest.len();
        self.pending.drain(..taken);
        Ok(())
    }
}
