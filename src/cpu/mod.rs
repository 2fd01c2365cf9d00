//! Computing on the CPU: kernels per tensor type and instruction set, prepared activations, the thread pool.

pub mod activations;
pub mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod brand;
pub mod cores;
mod exp;
mod fetch;
pub mod floor;
pub mod gemm;
pub mod isa;
pub mod kernels;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod ordered;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod padded;
pub mod plain;
pub mod pool;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod row_group;
mod rounding;
pub mod rows;
pub mod several;
pub mod shared_scales;
pub mod signs;
pub mod ssm;
#[cfg(test)]
mod testing;

pub use activations::{ActKind, ActRow, Activations};
pub use isa::Isa;
pub use kernels::{Kernels, check_supported};
pub use ordered::Ordered;
pub use pool::{Pool, Region, Work};
pub use rows::{Rows, Which};
pub use shared_scales::Quants;

#[cfg(test)]
mod agreement;
