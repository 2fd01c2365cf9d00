//! Turns a conversation into a prompt with the chat template of the model file.

pub mod builtin;
mod calendar;
pub mod contained;
mod errors;
mod filters;
mod limits;
mod printf;
mod python;
mod request;
mod rewrite;
mod template;
#[cfg(test)]
mod tests;
mod tojson;

pub use calendar::utc_now;
pub use errors::{Refused, Unusable};
pub use minijinja::value::Value;
pub(crate) use request::unused_mark;
pub use request::{Message, Request};
