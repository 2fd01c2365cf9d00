//! As what keys and values are kept, of a command that takes lists of types.

use clap::Args;
use powerinfer::executor::KvType;
use powerinfer::quant::GgmlType;

/// Flags that say so.
#[derive(Args)]
#[command(next_help_heading = "Processor")]
pub struct CacheTypes {
    /// Types of keys and values in the KV cache: f16, q8_0, f32, or two of them as in q8_0/f16 [default: f16]
    #[arg(long, value_name = "TYPE,TYPE", value_delimiter = ',')]
    cache_type: Vec<KvType>,
    /// Types of keys (-ctk), each with each of values [default: those of --cache-type]
    #[arg(long, value_name = "TYPE,TYPE", value_delimiter = ',', value_parser = KvType::one)]
    cache_type_k: Vec<GgmlType>,
    /// Types of values (-ctv) [default: those of --cache-type]
    #[arg(long, value_name = "TYPE,TYPE", value_delimiter = ',', value_parser = KvType::one)]
    cache_type_v: Vec<GgmlType>,
}

impl CacheTypes {
    /// Whether they say anything.
    pub fn is_given(&self) -> bool {
        !(self.cache_type.is_empty() && self.cache_type_k.is_empty() && self.cache_type_v.is_empty())
    }

    /// What is to be measured, each once: `usual` where nothing is said.
    pub fn all(&self, usual: KvType) -> Vec<KvType> {
        let both = if self.cache_type.is_empty() { &[usual] } else { self.cache_type.as_slice() };
        let mut all = Vec::new();
        for KvType { k, v } in both {
            let keys = if self.cache_type_k.is_empty() { std::slice::from_ref(k) } else { &self.cache_type_k };
            let values = if self.cache_type_v.is_empty() { std::slice::from_ref(v) } else { &self.cache_type_v };
            all.extend(keys.iter().flat_map(|k| values.iter().map(|v| KvType { k: *k, v: *v })));
        }
        let mut once: Vec<KvType> = Vec::new();
        for kv_type in all {
            if !once.contains(&kv_type) {
                once.push(kv_type);
            }
        }
        once
    }
}
