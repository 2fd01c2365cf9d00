//! What PTX says of its kernels: their names, parameters and limits.

use std::fmt;

/// What a kernel's parameter is, by its size and register class in PTX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// A pointer (`u64`).
    Ptr,
    /// An `int` or `unsigned`.
    Word,
    /// A `float`.
    Float,
    /// Something that is never passed.
    Other,
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ptr => "pointer",
            Self::Word => "int",
            Self::Float => "float",
            Self::Other => "something else",
        })
    }
}

/// What PTX says of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its parameters, in order.
    pub parameters: Vec<Parameter>,
    /// Most threads of a block (`__launch_bounds__`), where that is limited.
    pub max_threads: Option<u64>,
}

/// The kernels of `ptx`, in the order of the text.
pub fn entries(ptx: &str) -> Vec<Entry<'_>> {
    let mut parts = ptx.split(".entry");
    parts.next();
    parts.filter_map(entry).collect()
}

/// Reads `name(.param .u64 a, .param .u32 b) .maxntid 256, 1, 1 {...`.
fn entry(text: &str) -> Option<Entry<'_>> {
    let (name, rest) = text.split_once('(')?;
    let (parameters, rest) = rest.split_once(')')?;
    let parameters = parameters.split(',').filter(|p| !p.trim().is_empty()).map(parameter).collect();
    let directives = rest.split('{').next().unwrap_or_default();
    let max_threads = directives.split_once(".maxntid").map(|(_, dims)| {
        let dims = dims.split('.').next().unwrap_or_default();
        dims.split(',').filter_map(|n| n.trim().parse::<u64>().ok()).product()
    });
    Some(Entry { name: name.trim(), parameters, max_threads })
}

/// Reads `.param .u64 a`.
fn parameter(text: &str) -> Parameter {
    let mut words = text.split_whitespace();
    match (words.next(), words.next()) {
        (Some(".param"), Some(".u64" | ".b64")) => Parameter::Ptr,
        (Some(".param"), Some(".u32" | ".s32" | ".b32")) => Parameter::Word,
        (Some(".param"), Some(".f32")) => Parameter::Float,
        _ => Parameter::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = "
.version 8.0
.target sm_75
.address_size 64

	// .globl	add_rows

.visible .entry add_rows(
	.param .u64 add_rows_param_0,
	.param .u32 add_rows_param_1,
	.param .f32 add_rows_param_2
)
.maxntid 256, 1, 1
.minnctapersm 2
{
	.reg .pred 	%p<2>;
	ret;
}
.visible .entry nothing()
{
	ret;
}
.visible .entry odd(
	.param .align 8 .b8 odd_param_0[16]
)
.maxntid 32, 4, 2
{
	ret;
}
";

    #[test]
    fn ptx_tells_what_kernels_take() {
        use Parameter::{Float, Other, Ptr, Word};
        let found = entries(PTX);
        let names: Vec<_> = found.iter().map(|e| (e.name, e.max_threads)).collect();
        assert_eq!(names, [("add_rows", Some(256)), ("nothing", None), ("odd", Some(256))]);
        assert_eq!(found[0].parameters, [Ptr, Word, Float]);
        assert!(found[1].parameters.is_empty());
        assert_eq!(found[2].parameters, [Other]);
        assert!(entries("").is_empty());
    }
}
