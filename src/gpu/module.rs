//! The kernels, loaded for a card and launched with checked arguments.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use super::device::Device;
use super::driver::NOT_FOUND;
use super::entries::{Parameter, entries};
use super::loaded::{Kernel, Loaded};
use super::memory::Ptr;
use super::ptx::FILES;
use super::stream::Stream;
use anyhow::{Context, Result, bail, ensure};
use cudarc::driver::sys::CUjit_option;
use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

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
    /// A number that does not fit in an `int`.
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

    /// A size, as an `int`; the launch fails if it is too large for one.
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

/// All kernels, loaded for one card. Clones share them.
#[derive(Clone)]
pub struct Kernels {
    // First, so that what is loaded goes before the card is closed.
    loaded: Arc<Loaded>,
    device: Device,
}

/// The most threads of a block on any card.
const MAX_THREADS: u64 = 1024;
/// Kernels that the driver has compiled before are loaded in a tenth of it.
const SLOW_LOAD: Duration = Duration::from_millis(500);
/// The most blocks along y and z on any card.
const MAX_GRID_YZ: u32 = 65_535;

impl Kernels {
    /// All [`FILES`], loaded once for as long as the card is open. The driver compiles them for the card, and keeps the
    /// result for the next time; where that takes long, [`Device::on_slow_load`] is told.
    ///
    /// # Errors
    /// What the driver says about a file; a kernel that exists twice.
    pub fn load(device: &Device) -> Result<Self> {
        let loaded = device.kernels(|| {
            told_when_slow(device.slow_load(), || {
                let mut loaded = Loaded::new(device.handles());
                for file in FILES {
                    add(device, &mut loaded, file.name, &file.text_for(device.compute_capability())?)?;
                }
                Ok(loaded)
            })
        })?;
        Ok(Self { loaded, device: device.clone() })
    }

    /// Loads these files, each a name for errors and its PTX.
    ///
    /// # Errors
    /// As [`Kernels::load`].
    pub fn of(device: &Device, files: &[(&str, &str)]) -> Result<Self> {
        let mut loaded = Loaded::new(device.handles());
        for (name, ptx) in files {
            add(device, &mut loaded, name, ptx)?;
        }
        Ok(Self { loaded: Arc::new(loaded), device: device.clone() })
    }

    /// The card they are loaded for.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether kernel `name` is loaded.
    pub fn has(&self, name: &str) -> bool {
        self.loaded.kernels.contains_key(name)
    }

    /// Enqueues kernel `name` on `stream`: `grid` blocks of `block` threads. Arguments are copied now; what pointers
    /// point to must exist when it runs, and be large enough, for which the functions in [`super::ops`] are
    /// responsible.
    ///
    /// # Errors
    /// When there is no such kernel, when the arguments do not match its parameters in number, order and kind, when the
    /// grid is empty or blocks are larger than it was compiled for, and when the card has failed.
    pub fn launch(&self, stream: &Stream, name: &str, grid: [u32; 3], block: [u32; 3], args: Args) -> Result<()> {
        let kernel = self.loaded.kernels.get(name).with_context(|| format!("kernel {name} is not in any PTX file"))?;
        ensure!(args.too_large.is_none(), "kernel {name}: {} is too large", args.too_large.unwrap_or_default());
        check(name, kernel, grid, block, &args)?;
        let mut values = args.values;
        let mut places: Vec<*mut c_void> = values.iter_mut().map(Arg::place).collect();
        let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
        stream.make_room()?;
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

/// Calls `tell`, if there is one, once `load` has taken [`SLOW_LOAD`].
fn told_when_slow<T>(tell: Option<fn()>, load: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(tell) = tell else { return load() };
    let (done, waits) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if waits.recv_timeout(SLOW_LOAD) == Err(RecvTimeoutError::Timeout) {
                tell();
            }
        });
        let loaded = load();
        drop(done);
        loaded
    })
}

/// Loads one file.
fn add(device: &Device, loaded: &mut Loaded, name: &str, ptx: &str) -> Result<()> {
    compile(device, loaded, name, ptx).with_context(|| format!("kernels of {name}.cu"))
}

fn compile(device: &Device, loaded: &mut Loaded, name: &str, ptx: &str) -> Result<()> {
    const LOG_BYTES: usize = 4096;
    let image = CString::new(ptx).with_context(|| format!("{name}: zero byte"))?;
    let mut log = vec![0u8; LOG_BYTES];
    let mut keys =
        [CUjit_option::CU_JIT_ERROR_LOG_BUFFER as u32, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES as u32];
    // The second value is the number itself, in place of a pointer.
    let mut values = [log.as_mut_ptr().cast::<c_void>(), std::ptr::without_provenance_mut(LOG_BYTES)];
    let mut module = null_mut();
    let code = device.call_code(|api| {
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
        let error = device.failure("compiling PTX", code);
        return Err(if log.trim().is_empty() { error } else { error.context(one_line(&log)) });
    }
    loaded.modules.push(module);
    for entry in entries(ptx) {
        let name = CString::new(entry.name)?;
        let mut function = null_mut();
        let code = device.call_code(|api| {
            // SAFETY: the module is loaded; the name ends in 0; the pointer is to a local variable.
            unsafe { (api.cuModuleGetFunction)(&mut function, module, name.as_ptr()) }
        })?;
        match code {
            0 => {}
            NOT_FOUND => bail!("kernel {} is missing", entry.name),
            _ => return Err(device.failure(&format!("kernel {}", entry.name), code)),
        }
        let max_threads = entry.max_threads.unwrap_or(MAX_THREADS);
        let kernel = Kernel { function, parameters: entry.parameters, max_threads };
        let twice = loaded.kernels.insert(entry.name.to_owned(), kernel).is_some();
        ensure!(!twice, "kernel {} is there twice", entry.name);
    }
    Ok(())
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

/// Several lines as one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
