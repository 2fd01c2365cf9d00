//! The functions of the CUDA driver, found at run time.
//!
//! cudarc finds and loads the library. Its own wrappers are not called: they return a Rust enum, for which a code that
//! a newer driver has added is undefined behaviour, and they panic if a function is missing.
#![allow(unsafe_code, reason = "functions of a C library are looked up by name and called")]

use anyhow::{Context, Result, bail, ensure};
use cudarc::driver::sys;
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::sync::OnceLock;

/// What a call returned: 0 is success.
pub(super) type Code = u32;

/// Opaque handles of the driver.
pub(super) type Context_ = sys::CUcontext;
pub(super) type Module = sys::CUmodule;
pub(super) type Function = sys::CUfunction;
pub(super) type RawStream = sys::CUstream;
pub(super) type RawEvent = sys::CUevent;
pub(super) type RawGraph = sys::CUgraph;
pub(super) type GraphExec = sys::CUgraphExec;

/// Codes that get their own message.
pub(super) const OUT_OF_MEMORY: Code = sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY as Code;
const NO_DEVICE: Code = sys::CUresult::CUDA_ERROR_NO_DEVICE as Code;
const STUB_LIBRARY: Code = sys::CUresult::CUDA_ERROR_STUB_LIBRARY as Code;
const DRIVER_MISMATCH: Code = sys::CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH as Code;
pub(super) const NOT_FOUND: Code = sys::CUresult::CUDA_ERROR_NOT_FOUND as Code;
pub(super) const NOT_READY: Code = sys::CUresult::CUDA_ERROR_NOT_READY as Code;

/// The oldest version that reads the PTX (ISA 8.0), in the driver's numbering: CUDA 12.0.
const NEEDED: c_int = 12_000;
/// The drivers that have it.
const NEEDED_DRIVER: &str = "525";

/// Declares each function once: its type, and looking it up.
macro_rules! functions {
    ($($name:ident($($arg:ident: $kind:ty),* $(,)?);)*) => {
        /// The functions we use, under their names in the library.
        #[allow(non_snake_case, reason = "the names of the library")]
        pub(super) struct Api {
            $(pub $name: unsafe extern "C" fn($($arg: $kind),*) -> Code,)*
        }

        impl Api {
            fn find(lib: &Library) -> Result<Self> {
                // SAFETY: the types are those of cuda.h for the versioned names, which never change.
                Ok(unsafe { Self { $($name: lib.get(stringify!($name))?,)* } })
            }
        }
    };
}

functions! {
    cuInit(flags: c_uint);
    cuGetErrorName(code: Code, name: *mut *const c_char);
    cuGetErrorString(code: Code, text: *mut *const c_char);
    cuDeviceGetCount(count: *mut c_int);
    cuDeviceGet(device: *mut c_int, ordinal: c_int);
    cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int);
    cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: c_int);
    cuDevicePrimaryCtxRetain(context: *mut Context_, device: c_int);
    cuDevicePrimaryCtxRelease_v2(device: c_int);
    cuCtxSetCurrent(context: Context_);
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    cuMemAlloc_v2(ptr: *mut u64, bytes: usize);
    cuMemFree_v2(ptr: u64);
    cuMemHostAlloc(ptr: *mut *mut c_void, bytes: usize, flags: c_uint);
    cuMemHostGetDevicePointer_v2(device_ptr: *mut u64, ptr: *mut c_void, flags: c_uint);
    cuMemFreeHost(ptr: *mut c_void);
    cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: RawStream);
    cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: RawStream);
    cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: RawStream);
    cuMemsetD8Async(ptr: u64, value: u8, bytes: usize, stream: RawStream);
    cuStreamCreate(stream: *mut RawStream, flags: c_uint);
    cuStreamDestroy_v2(stream: RawStream);
    cuStreamQuery(stream: RawStream);
    cuStreamWaitEvent(stream: RawStream, event: RawEvent, flags: c_uint);
    cuStreamBeginCapture_v2(stream: RawStream, mode: c_uint);
    cuStreamEndCapture(stream: RawStream, graph: *mut RawGraph);
    cuEventCreate(event: *mut RawEvent, flags: c_uint);
    cuEventDestroy_v2(event: RawEvent);
    cuEventRecord(event: RawEvent, stream: RawStream);
    cuEventQuery(event: RawEvent);
    cuEventElapsedTime(milliseconds: *mut f32, start: RawEvent, end: RawEvent);
    cuModuleLoadDataEx(module: *mut Module, image: *const c_void, n: c_uint, keys: *mut c_uint, values: *mut *mut c_void);
    cuModuleGetFunction(function: *mut Function, module: Module, name: *const c_char);
    cuModuleUnload(module: Module);
    cuLaunchKernel(
        function: Function,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared_bytes: c_uint, stream: RawStream, args: *mut *mut c_void, extra: *mut *mut c_void,
    );
    cuGraphInstantiateWithFlags(exec: *mut GraphExec, graph: RawGraph, flags: c_ulonglong);
    cuGraphDestroy(graph: RawGraph);
    cuGraphExecDestroy(exec: GraphExec);
    cuGraphUpload(exec: GraphExec, stream: RawStream);
    cuGraphLaunch(exec: GraphExec, stream: RawStream);
}

/// The library, once it is known to be there.
struct Library;

impl Library {
    /// Looks for the library in the system's usual places.
    fn load() -> Result<Self> {
        // SAFETY: loading runs the library's initialisers; it is the driver's, or what the user put in its place.
        let present = unsafe { sys::is_culib_present() };
        let missing = match () {
            () if cfg!(windows) => "nvcuda.dll not found",
            () if cfg!(target_os = "macos") => "there is none for macOS",
            () => "libcuda.so.1 not found",
        };
        ensure!(present, "no NVIDIA driver ({missing})");
        Ok(Self)
    }

    /// The function `name`.
    ///
    /// # Safety
    /// `F` is the type of a pointer to this function.
    unsafe fn get<F: Copy>(&self, name: &str) -> Result<F> {
        // SAFETY: the library is present; without it `culib` would panic.
        let lib = unsafe { sys::culib() };
        // SAFETY: the caller answers for the type; the library stays loaded for as long as the program runs.
        let found = unsafe { lib.get::<F>(name.as_bytes()) };
        let found = found.map(|symbol| *symbol).ok();
        found
            .with_context(|| format!("the NVIDIA driver has no function {name}: update it to {NEEDED_DRIVER} or newer"))
    }
}

/// The driver, initialised once; later callers get the same result.
///
/// # Errors
/// One line that says what is missing and what helps.
pub(super) fn driver() -> Result<&'static Api> {
    static DRIVER: OnceLock<Result<Api, String>> = OnceLock::new();
    let found = DRIVER.get_or_init(|| start().map_err(|e| format!("{e:#}")));
    found.as_ref().map_err(|e| anyhow::anyhow!("{e}"))
}

/// Whether there is a driver to ask. Does not ask it.
pub fn is_installed() -> bool {
    Library::load().is_ok()
}

/// The version of the driver, as far as it can be told: that of its CUDA, then its own. Asks nothing else.
///
/// # Errors
/// When there is none.
pub fn version() -> Result<String> {
    let cuda = cuda_version(&Library::load()?)?.unwrap_or_default();
    let own = kernel_driver().map_or_else(String::new, |own| format!(" ({own})"));
    Ok(format!("{}.{}{own}", cuda / 1000, cuda % 1000 / 10))
}

/// What `cuDriverGetVersion` says; a stub has no version.
fn cuda_version(lib: &Library) -> Result<Option<c_int>> {
    type Version = unsafe extern "C" fn(*mut c_int) -> Code;
    // SAFETY: this is its type in cuda.h.
    let get_version = unsafe { lib.get::<Version>("cuDriverGetVersion") }?;
    let mut version = 0;
    // SAFETY: the pointer is to an int; this call needs no initialised driver.
    let code = unsafe { get_version(&mut version) };
    ensure!(code == 0 || code == STUB_LIBRARY, "the NVIDIA driver does not tell its version (error {code})");
    Ok((code == 0).then_some(version))
}

fn start() -> Result<Api> {
    let lib = Library::load()?;
    // What a stub is its other codes say.
    if let Some(version) = cuda_version(&lib)? {
        check_version(version, kernel_driver().as_deref())?;
    }
    let api = Api::find(&lib)?;
    // SAFETY: takes a number only.
    match unsafe { (api.cuInit)(0) } {
        0 => Ok(api),
        NO_DEVICE => bail!("the NVIDIA driver finds no card (CUDA_VISIBLE_DEVICES may hide it)"),
        STUB_LIBRARY => {
            bail!("libcuda.so.1 is the CUDA toolkit's stub, not a driver: remove `stubs` from LD_LIBRARY_PATH")
        }
        DRIVER_MISMATCH => {
            bail!("the NVIDIA driver was updated while its old kernel module is loaded: restart the machine")
        }
        code => bail!("the NVIDIA driver does not start: {}", api.text(code)),
    }
}

/// Refuses a driver that is too old; `installed` is its own version, if known.
fn check_version(version: c_int, installed: Option<&str>) -> Result<()> {
    let (major, minor) = (version / 1000, version % 1000 / 10);
    let name = installed.map_or_else(|| "the NVIDIA driver".to_owned(), |v| format!("NVIDIA driver {v}"));
    ensure!(
        version >= NEEDED,
        "{name} supports CUDA {major}.{minor}, 12.0 is needed: update to {NEEDED_DRIVER} or newer"
    );
    Ok(())
}

/// The version of the driver in the kernel, if Linux tells it.
fn kernel_driver() -> Option<String> {
    version_in(&std::fs::read_to_string("/proc/driver/nvidia/version").ok()?)
}

/// The first thing that looks like `470.182.03`.
fn version_in(text: &str) -> Option<String> {
    let is_version = |w: &&str| w.contains('.') && w.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

impl Api {
    /// What the driver calls `code`.
    pub(super) fn text(&self, code: Code) -> String {
        let of = |tell: unsafe extern "C" fn(Code, *mut *const c_char) -> Code| {
            let mut text: *const c_char = std::ptr::null();
            // SAFETY: the pointer is to a pointer; what is stored there is null or a constant of the library.
            let known = unsafe { tell(code, &mut text) } == 0 && !text.is_null();
            // SAFETY: not null, so a string that ends in 0 and is never freed.
            known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        match (of(self.cuGetErrorString), of(self.cuGetErrorName)) {
            (Some(text), Some(name)) => format!("{text} ({name})"),
            (None, Some(name)) => name,
            _ => format!("error {code} of the driver"),
        }
    }

    /// Success, or that `what` failed, in one line.
    ///
    /// # Errors
    /// When `code` is not 0.
    pub(super) fn check(&self, code: Code, what: impl FnOnce() -> String) -> Result<()> {
        if code != 0 {
            bail!("{}: {}", what(), self.text(code));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_driver_is_told_what_it_lacks() {
        assert!(check_version(12_000, None).is_ok() && check_version(13_010, None).is_ok());
        let error = check_version(11_040, Some("470.182.03")).unwrap_err().to_string();
        assert_eq!(error, "NVIDIA driver 470.182.03 supports CUDA 11.4, 12.0 is needed: update to 525 or newer");
        assert!(check_version(0, None).unwrap_err().to_string().starts_with("the NVIDIA driver supports CUDA 0.0"));
    }

    #[test]
    fn the_version_is_found_in_what_the_kernel_says() {
        let text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.182.03  Fri Feb 24\nGCC version: 12.2.0";
        assert_eq!(version_in(text).as_deref(), Some("470.182.03"));
        assert_eq!(version_in("NVRM version: none"), None);
        assert_eq!(version_in(""), None);
    }
}
