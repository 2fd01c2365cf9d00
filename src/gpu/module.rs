//! The kernels: their PTX, loaded for a card, and launching them with checked arguments.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use super::device::Device;
use super::driver::{Function, Module, NOT_FOUND};
use super::memory::Ptr;
use super::stream::Stream;
use anyhow::{Context, Result, bail, ensure};
use cudarc::driver::sys::CUjit_option;
use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::fmt;
use std::ptr::null_mut;

/// The PTX of one `.cu`, for one or several compute capabilities.
#[derive(Debug, Clone, Copy)]
pub struct File {
    /// Name of the `.cu`, without ending.
    pub name: &'static str,
    /// Compute capability (75 is 7.5) and PTX, in rising order: a card takes the highest that it has.
    pub targets: &'static [(u32, &'static str)],
}

/// `file!("gemm": 75, 80)` is `kernels/ptx/gemm.sm75.ptx` and `gemm.sm80.ptx`.
macro_rules! file {
    ($name:literal: $($target:literal),+) => {
        File {
            name: $name,
            targets: &[$((
                $target,
                include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/ptx/", $name, ".sm", $target, ".ptx")),
            )),+],
        }
    };
}

/// All files, one line each.
pub const FILES: &[File] = &[
    file!("attention": 75),
    file!("attention_prefill": 75),
    file!("down": 75),
    file!("ffn": 75),
    file!("gemm": 75, 80),
    file!("matvec": 75),
    file!("norm": 75),
    file!("predict": 75),
    file!("repack": 75),
    file!("rope": 75),
    file!("select": 75),
    file!("token": 75),
];

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

/// An argument, stored as the kernel takes it.
#[derive(Debug, Clone, Copy)]
enum Arg {
    Ptr(u64),
    I32(i32),
    U32(u32),
    F32(f32),
}

impl Arg {
    fn kind(&self) -> Parameter {
        match self {
            Self::Ptr(_) => Parameter::Ptr,
            Self::I32(_) | Self::U32(_) => Parameter::Word,
            Self::F32(_) => Parameter::Float,
        }
    }

    /// Where its value lies.
    fn place(&mut self) -> *mut c_void {
        match self {
            Self::Ptr(v) => (v as *mut u64).cast(),
            Self::I32(v) => (v as *mut i32).cast(),
            Self::U32(v) => (v as *mut u32).cast(),
            Self::F32(v) => (v as *mut f32).cast(),
        }
    }
}

/// The arguments of a launch, in the order of the kernel's parameters.
#[derive(Debug, Clone, Default)]
pub struct Args {
    values: Vec<Arg>,
    /// A number that no `int` holds.
    too_large: Option<usize>,
}

impl Args {
    /// No arguments yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, value: Arg) -> Self {
        self.values.push(value);
        self
    }

    /// A pointer.
    #[must_use]
    pub fn ptr(self, value: Ptr) -> Self {
        self.with(Arg::Ptr(value.0))
    }

    /// An `int`.
    #[must_use]
    pub fn i32(self, value: i32) -> Self {
        self.with(Arg::I32(value))
    }

    /// An `int` that is a size; the launch fails where it is too large for one.
    #[must_use]
    pub fn n(mut self, value: usize) -> Self {
        let int = i32::try_from(value).unwrap_or_else(|_| {
            self.too_large = Some(value);
            0
        });
        self.i32(int)
    }

    /// An `unsigned`.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.with(Arg::U32(value))
    }

    /// A `float`.
    #[must_use]
    pub fn f32(self, value: f32) -> Self {
        self.with(Arg::F32(value))
    }
}

/// A kernel that is loaded.
struct Kernel {
    function: Function,
    parameters: Vec<Parameter>,
    max_threads: u64,
}

/// All kernels, loaded for one card.
pub struct Kernels {
    device: Device,
    modules: Vec<Module>,
    kernels: BTreeMap<String, Kernel>,
}

// SAFETY: handles of the driver, whose functions may be called from any thread; they do not change after loading.
unsafe impl Send for Kernels {}
// SAFETY: as above.
unsafe impl Sync for Kernels {}

/// The most threads of a block on any card.
const MAX_THREADS: u64 = 1024;
/// The most blocks along y and z on any card.
const MAX_GRID_YZ: u32 = 65_535;

impl Kernels {
    /// Loads all [`FILES`]. The driver compiles them for the card, and keeps the result for the next time.
    ///
    /// # Errors
    /// What the driver says of a file; a kernel that is there twice.
    pub fn load(device: &Device) -> Result<Self> {
        let mut files = Vec::new();
        for file in FILES {
            files.push((file.name, chosen(file, device.compute_capability())?));
        }
        Self::of(device, &files)
    }

    /// Loads these files: names for errors, and PTX.
    ///
    /// # Errors
    /// As [`Kernels::load`].
    pub fn of(device: &Device, files: &[(&str, &str)]) -> Result<Self> {
        let mut loaded = Self { device: device.clone(), modules: Vec::new(), kernels: BTreeMap::new() };
        for (name, ptx) in files {
            loaded.add(name, ptx).with_context(|| format!("kernels of {name}.cu"))?;
        }
        Ok(loaded)
    }

    fn add(&mut self, name: &str, ptx: &str) -> Result<()> {
        const LOG_BYTES: usize = 4096;
        let image = CString::new(ptx).with_context(|| format!("{name}: zero byte"))?;
        let mut log = vec![0u8; LOG_BYTES];
        let mut keys =
            [CUjit_option::CU_JIT_ERROR_LOG_BUFFER as u32, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES as u32];
        // The second value is the number itself, in the place of a pointer.
        let mut values = [log.as_mut_ptr().cast::<c_void>(), std::ptr::without_provenance_mut(LOG_BYTES)];
        let mut module = null_mut();
        let code = self.device.call_code(|api| {
            // SAFETY: the text ends in 0; two keys with two values; the log has the size that is passed with it.
            unsafe {
                (api.cuModuleLoadDataEx)(
                    &mut module,
                    image.as_ptr().cast(),
                    keys.len() as u32,
                    keys.as_mut_ptr(),
                    values.as_mut_ptr(),
                )
            }
        })?;
        if code != 0 {
            let log = String::from_utf8_lossy(log.split(|b| *b == 0).next().unwrap_or_default()).into_owned();
            let error = self.device.failure("compiling PTX", code);
            return Err(if log.trim().is_empty() { error } else { error.context(one_line(&log)) });
        }
        self.modules.push(module);
        for entry in entries(ptx) {
            let name = CString::new(entry.name)?;
            let mut function = null_mut();
            let code = self.device.call_code(|api| {
                // SAFETY: the module is loaded; the name ends in 0; the pointer is to a local variable.
                unsafe { (api.cuModuleGetFunction)(&mut function, module, name.as_ptr()) }
            })?;
            match code {
                0 => {}
                NOT_FOUND => bail!("kernel {} is missing", entry.name),
                _ => return Err(self.device.failure(&format!("kernel {}", entry.name), code)),
            }
            let max_threads = entry.max_threads.unwrap_or(MAX_THREADS);
            let kernel = Kernel { function, parameters: entry.parameters, max_threads };
            let twice = self.kernels.insert(entry.name.to_owned(), kernel).is_some();
            ensure!(!twice, "kernel {} is there twice", entry.name);
        }
        Ok(())
    }

    /// The card that they are loaded for.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether kernel `name` is loaded.
    pub fn has(&self, name: &str) -> bool {
        self.kernels.contains_key(name)
    }

    /// Enqueues kernel `name` on `stream`: `grid` blocks of `block` threads. Arguments are copied now; what pointers
    /// point to must be there when it runs, and large enough: that is what the functions in [`super::ops`] answer for.
    ///
    /// # Errors
    /// When there is no such kernel, when number, order or kinds of the arguments are not those of its parameters, when
    /// the grid is empty or blocks are larger than it was compiled for, and when the card has failed.
    pub fn launch(&self, stream: &Stream, name: &str, grid: [u32; 3], block: [u32; 3], args: Args) -> Result<()> {
        let kernel = self.kernels.get(name).with_context(|| format!("kernel {name} is not in any PTX file"))?;
        ensure!(args.too_large.is_none(), "kernel {name}: {} is too large", args.too_large.unwrap_or_default());
        check(name, kernel, grid, block, &args)?;
        let mut values = args.values;
        let mut places: Vec<*mut c_void> = values.iter_mut().map(Arg::place).collect();
        let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
        let code = self.device.call_code(|api| {
            // SAFETY: as many pointers as the kernel has parameters, each to a value of its size; the driver copies
            // the values before it returns. No dynamic shared memory, no extra options.
            unsafe {
                (api.cuLaunchKernel)(
                    kernel.function,
                    gx,
                    gy,
                    gz,
                    bx,
                    by,
                    bz,
                    0,
                    stream.raw(),
                    places.as_mut_ptr(),
                    null_mut(),
                )
            }
        })?;
        if code != 0 {
            return Err(self.device.failure(&format!("launching {name}"), code));
        }
        Ok(())
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        for module in self.modules.drain(..) {
            // SAFETY: loaded by `add`, unloaded once.
            drop(self.device.call_code(|api| unsafe { (api.cuModuleUnload)(module) }));
        }
    }
}

/// The highest target of `file` that a card of this capability runs.
fn chosen(file: &File, (major, minor): (u32, u32)) -> Result<&'static str> {
    let fits = file.targets.iter().filter(|(target, _)| *target <= 10 * major + minor);
    let best = fits.max_by_key(|(target, _)| *target);
    best.map(|(_, ptx)| *ptx)
        .with_context(|| format!("{}.cu: no PTX for compute capability {major}.{minor}", file.name))
}

fn check(name: &str, kernel: &Kernel, grid: [u32; 3], block: [u32; 3], args: &Args) -> Result<()> {
    let given: Vec<Parameter> = args.values.iter().map(Arg::kind).collect();
    if given != kernel.parameters {
        let names = |p: &[Parameter]| p.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        bail!("kernel {name} takes ({}), and is given ({})", names(&kernel.parameters), names(&given));
    }
    let threads: u64 = block.iter().map(|n| u64::from(*n)).product();
    ensure!(grid.iter().all(|n| *n > 0), "kernel {name}: grid {grid:?} is empty");
    ensure!(grid[1].max(grid[2]) <= MAX_GRID_YZ, "kernel {name}: grid {grid:?}; {MAX_GRID_YZ} is the most behind x");
    ensure!(
        (1..=kernel.max_threads).contains(&threads),
        "kernel {name}: blocks of {threads} threads, 1 to {} are possible",
        kernel.max_threads
    );
    Ok(())
}

/// A text of several lines in one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
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

    fn kernel(parameters: &[Parameter]) -> Kernel {
        Kernel { function: null_mut(), parameters: parameters.to_vec(), max_threads: 256 }
    }

    #[test]
    fn arguments_are_those_of_the_kernel() {
        use Parameter::{Float, Ptr as Pointer, Word};
        let add = kernel(&[Pointer, Word, Float]);
        let args = || Args::new().ptr(Ptr(256)).n(3).f32(1.5);
        let fails = |kernel: &Kernel, grid, block, args: &Args| {
            check("add", kernel, grid, block, args).unwrap_err().to_string()
        };
        check("add", &add, [1, 1, 1], [32, 8, 1], &args()).unwrap();
        check("add", &kernel(&[Word, Word]), [1; 3], [1; 3], &Args::new().i32(-1).u32(7)).unwrap();
        let error = fails(&add, [1; 3], [1; 3], &args().i32(1));
        assert_eq!(error, "kernel add takes (pointer, int, float), and is given (pointer, int, float, int)");
        assert!(fails(&add, [1; 3], [1; 3], &Args::new()).contains("is given ()"));
        assert!(fails(&add, [1, 0, 1], [1; 3], &args()).contains("is empty"));
        assert!(fails(&add, [1; 3], [257, 1, 1], &args()).contains("257 threads"));
        assert!(fails(&add, [1; 3], [0, 1, 1], &args()).contains("0 threads"));
        assert!(Args::new().n(1 << 31).too_large.is_some() && args().too_large.is_none());
    }

    #[test]
    fn values_are_stored_in_their_own_size() {
        let mut args = Args::new().ptr(Ptr(1 << 40)).i32(-5).u32(6).f32(0.5);
        let places: Vec<_> = args.values.iter_mut().map(Arg::place).collect();
        // SAFETY: pointers to values of these types, which live on.
        unsafe {
            assert_eq!(*places[0].cast::<u64>(), 1 << 40);
            assert_eq!(*places[1].cast::<i32>(), -5);
            assert_eq!(*places[2].cast::<u32>(), 6);
            assert_eq!(*places[3].cast::<f32>(), 0.5);
        }
    }

    #[test]
    fn a_card_takes_the_highest_target_that_it_has() {
        let file = File { name: "gemm", targets: &[(75, "old"), (80, "new")] };
        assert_eq!(chosen(&file, (7, 5)).unwrap(), "old");
        assert_eq!(chosen(&file, (8, 0)).unwrap(), "new");
        assert_eq!(chosen(&file, (12, 0)).unwrap(), "new");
        assert!(chosen(&file, (7, 0)).unwrap_err().to_string().contains("gemm.cu"));
    }

    #[test]
    fn no_kernel_has_two_homes() {
        let mut homes = BTreeMap::new();
        for file in FILES {
            assert!(!file.targets.is_empty() && file.targets.is_sorted_by(|a, b| a.0 < b.0), "{}", file.name);
            for entry in entries(file.targets[0].1) {
                let other = homes.insert(entry.name, file.name);
                assert!(other.is_none(), "{} is in {} and {other:?}", entry.name, file.name);
                assert!(!entry.parameters.contains(&Parameter::Other), "{}", entry.name);
            }
        }
    }
}
