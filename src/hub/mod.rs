//! Models of the Hugging Face hub: found in its cache, or fetched into it.

mod blob;
mod cache;
mod choice;
mod client;
mod fault;
mod fetch;
mod lock;
mod repo;
mod url;

pub use cache::Cache;
pub use client::{Config, Proxy};
pub use fetch::Hub;
pub use repo::{Reference, Repo};
