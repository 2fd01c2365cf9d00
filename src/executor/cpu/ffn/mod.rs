//! The FFN of groups of neurons: two shards of each, hot and cold, for a few tokens; tiles for many.
//!
//! All shards find what fires; then they add their parts to the same vectors, group by group, hot first. Contributions
//! are added in the order of slots by whichever thread owns the output column, so neither threads, nor the size of the
//! hot prefix, nor the neurons that were skipped change a bit of the result.

pub(super) mod few;
pub(super) mod many;
pub(super) mod shard;
