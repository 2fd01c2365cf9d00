//! As what keys and values are kept, of commands that take one type of each.

use clap::Args;
use powerinfer::executor::KvType;
use powerinfer::quant::GgmlType;

/// Flags that say so.
#[derive(Args)]
#[command(next_help_heading = "Processor")]
pub struct CacheArgs {
    /// Types of keys and values in the KV cache: f16, q8_0 or f32, or two of them as in q8_0/f16
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    cache_type: KvType,
    /// Type of keys (-ctk) [default: that of --cache-type]
    #[arg(long, value_name = "TYPE", value_parser = KvType::one)]
    cache_type_k: Option<GgmlType>,
    /// Type of values (-ctv) [default: that of --cache-type]
    #[arg(long, value_name = "TYPE", value_parser = KvType::one)]
    cache_type_v: Option<GgmlType>,
}

impl CacheArgs {
    /// What they say together.
    pub fn kv_type(&self) -> KvType {
        let KvType { k, v } = self.cache_type;
        KvType { k: self.cache_type_k.unwrap_or(k), v: self.cache_type_v.unwrap_or(v) }
    }
}
