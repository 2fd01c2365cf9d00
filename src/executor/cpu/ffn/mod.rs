//! The FFN of a group of neurons: two shards, hot and cold, for a few tokens; tiles for many.
//!
//! Both shards begin; then each adds its part to the same vectors, hot first. Contributions are added in the order of
//! slots by whichever thread owns the output column, so neither threads, nor the size of the hot prefix, nor the neurons
//! that were skipped change a bit of the result.

pub(super) mod many;
pub(super) mod shard;
