//! Memory: on the card, on the processor for copies, and what both sides see.
#![allow(unsafe_code, reason = "allocates through the CUDA driver, and gives views of memory that the card sees, too")]

use super::device::Device;
use super::driver::OUT_OF_MEMORY;
use super::event::Event;
use crate::placement::budget::{ALIGN, allocated};
use crate::units::Bytes;
use anyhow::{Context, Result, bail, ensure};
use cudarc::driver::sys::{CU_MEMHOSTALLOC_DEVICEMAP, CU_MEMHOSTALLOC_PORTABLE};
use std::alloc::{self, Layout};
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

/// An address as kernels see it. A number: what it points to is not owned by it, and not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Ptr(pub u64);

impl Ptr {
    /// Nothing: to a kernel, "not given".
    pub const NULL: Self = Self(0);

    /// The address `bytes` after this one.
    #[must_use]
    pub fn offset(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }

    /// Whether it is [`Ptr::NULL`].
    pub fn is_null(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Ptr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Numbers that are copied to and from the card as they lie in memory.
///
/// # Safety
/// Every pattern of bits is a value, and there are no bytes between values.
pub unsafe trait Plain: Copy + Default + 'static {}

macro_rules! plain {
    ($($kind:ty)*) => {
        $(
            // SAFETY: a primitive number, or one in a transparent wrapper.
            unsafe impl Plain for $kind {}
        )*
    };
}

plain! { u8 i8 u16 i16 u32 i32 u64 i64 f32 half::f16 half::bf16 }

/// What an error says where less memory of the card is free than is wanted.
pub const SHORT_OF_MEMORY: &str = "out of device memory";

/// Memory on the card, in one allocation of the driver. Freed when dropped, after all work on the card.
pub struct DeviceBuffer {
    device: Device,
    ptr: Ptr,
    len: u64,
}

impl DeviceBuffer {
    /// At least `bytes` on `device`, rounded up by [`allocated`], so that what is accounted is what is allocated.
    /// Contents are undefined. `what` is for the error.
    ///
    /// # Errors
    /// When there is not enough left: what it was for, its size, and what is free.
    pub fn new(device: &Device, bytes: u64, what: &str) -> Result<Self> {
        Self::exact(device, allocated(bytes), what)
    }

    /// Exactly `bytes`, for tests that need reads past the end to be caught.
    ///
    /// # Errors
    /// As [`DeviceBuffer::new`].
    pub fn exact(device: &Device, bytes: u64, what: &str) -> Result<Self> {
        let mut ptr = 0;
        if bytes > 0 {
            let size = usize::try_from(bytes).with_context(|| format!("{what}: {}", Bytes(bytes)))?;
            // SAFETY: the pointer is to a local variable.
            let code = device.call_code(|api| unsafe { (api.cuMemAlloc_v2)(&mut ptr, size) })?;
            if code == OUT_OF_MEMORY {
                let (free, total) = device.memory()?;
                let name = device.name();
                bail!("{SHORT_OF_MEMORY}: {what}: {} wanted, {free} of {total} free on {name}", Bytes(bytes));
            }
            if code != 0 {
                return Err(device.failure(&format!("allocating {} for {what}", Bytes(bytes)), code));
            }
        }
        Ok(Self { device: device.clone(), ptr: Ptr(ptr), len: bytes })
    }

    /// Where it begins: a multiple of 256, or [`Ptr::NULL`] if it is empty.
    pub fn ptr(&self) -> Ptr {
        self.ptr
    }

    /// Bytes that were allocated.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The card that it is on.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated by `exact`, freed here only, when nothing runs. A card that has failed has lost its memory
            // anyway.
            self.device.give_back(|api| unsafe { (api.cuMemFree_v2)(self.ptr.0) });
        }
    }
}

/// One allocation whose parts are handed out in order, each aligned to [`ALIGN`]. Parts live as long as it does.
pub struct Arena {
    buffer: DeviceBuffer,
    what: String,
    used: u64,
}

impl Arena {
    /// At least `bytes` on `device`. `what` is for errors.
    ///
    /// # Errors
    /// As [`DeviceBuffer::new`].
    pub fn new(device: &Device, bytes: u64, what: &str) -> Result<Self> {
        Ok(Self { buffer: DeviceBuffer::new(device, bytes, what)?, what: what.to_owned(), used: 0 })
    }

    /// The next `bytes`, rounded up to a multiple of [`ALIGN`]. Contents are undefined.
    ///
    /// # Errors
    /// When less is left: the estimate the arena was made from, which the error names, was wrong.
    pub fn take(&mut self, bytes: u64, part: &str) -> Result<Ptr> {
        let size = bytes.checked_next_multiple_of(ALIGN).with_context(|| format!("{}: {part}", self.what))?;
        ensure!(
            size <= self.left(),
            "{}: {part} takes {size} bytes, and {} of the {} that were planned for are left",
            self.what,
            self.left(),
            self.buffer.len()
        );
        let ptr = self.buffer.ptr().offset(self.used);
        self.used += size;
        Ok(ptr)
    }

    /// The next part, for `n` values of `T`.
    ///
    /// # Errors
    /// As [`Arena::take`].
    pub fn take_of<T: Plain>(&mut self, n: usize, part: &str) -> Result<Ptr> {
        self.take((n * size_of::<T>()) as u64, part)
    }

    /// Bytes handed out.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Bytes left.
    pub fn left(&self) -> u64 {
        self.buffer.len() - self.used
    }

    /// The whole allocation.
    pub fn buffer(&self) -> &DeviceBuffer {
        &self.buffer
    }
}

/// Memory of the processor that both sides read and write. If a thread of this program stands in for the card, it is
/// ordinary memory, and [`Ptr`]s into it are addresses of the processor.
///
/// What one side writes belongs to it until it has said otherwise through a word: writes, then a store that releases; a
/// load that acquires, then reads. Views of what the other side writes may exist only in between.
pub struct Mapped {
    host: NonNull<u8>,
    len: usize,
    ptr: Ptr,
    device: Option<Device>,
}

// SAFETY: owns its memory. Words in it are atomic; the protocol above says who may touch the rest, and when.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

/// The alignment of a page, so that no other data shares its lines.
const PAGE: usize = 4096;

/// Layout of ordinary memory of `len` bytes.
#[cfg(test)]
fn pages(len: usize) -> Result<Layout> {
    Layout::from_size_align(len.max(1), PAGE).ok().with_context(|| format!("{len} bytes cannot be allocated"))
}

impl Mapped {
    /// `len` zeros that `device` sees. `what` is for the error.
    ///
    /// # Errors
    /// When the system lends no such memory (pinned memory is limited).
    pub fn new(device: &Device, len: usize, what: &str) -> Result<Self> {
        let host = host_alloc(device, len, what)?;
        let mut mapped = Self { host, len, ptr: Ptr::NULL, device: Some(device.clone()) };
        let mut address = 0;
        device.call("mapping memory of the processor", |api| {
            // SAFETY: the memory was allocated with DEVICEMAP.
            unsafe { (api.cuMemHostGetDevicePointer_v2)(&mut address, host.as_ptr().cast(), 0) }
        })?;
        mapped.ptr = Ptr(address);
        Ok(mapped)
    }

    /// `len` zeros in ordinary memory, for a stand-in of the card.
    ///
    /// # Errors
    /// When there is not enough.
    #[cfg(test)]
    pub fn plain(len: usize) -> Result<Self> {
        let layout = pages(len)?;
        // SAFETY: the size is not 0.
        let host = NonNull::new(unsafe { alloc::alloc_zeroed(layout) });
        let host = host.with_context(|| format!("out of memory: {} wanted", Bytes(len as u64)))?;
        Ok(Self { host, len, ptr: Ptr(host.as_ptr() as u64), device: None })
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it begins, as kernels see it.
    pub fn ptr(&self) -> Ptr {
        self.ptr
    }

    /// The place of `n` values at byte `offset`.
    fn place<T: Plain>(&self, offset: usize, n: usize) -> *mut T {
        let bytes = n.checked_mul(size_of::<T>()).and_then(|n| n.checked_add(offset));
        assert!(bytes.is_some_and(|end| end <= self.len) && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: inside the allocation, as just checked; aligned, for the allocation is, too.
        unsafe { self.host.as_ptr().add(offset) }.cast()
    }

    /// The word at byte `offset`, a multiple of 4.
    ///
    /// # Panics
    /// When it is not inside.
    pub fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: inside and aligned; words are accessed only as atomics on this side, and by aligned loads and stores
        // of 4 bytes on the other.
        unsafe { AtomicU32::from_ptr(self.place::<u32>(offset, 1)) }
    }

    /// `n` values at byte `offset`, for reading.
    ///
    /// # Safety
    /// The other side does not write there while the view exists.
    ///
    /// # Panics
    /// When they are not inside.
    pub unsafe fn values<T: Plain>(&self, offset: usize, n: usize) -> &[T] {
        // SAFETY: inside, aligned and initialised (zeros at first); that nobody writes, the caller answers for.
        unsafe { std::slice::from_raw_parts(self.place::<T>(offset, n), n) }
    }

    /// Stores `values` at byte `offset`.
    ///
    /// # Safety
    /// Nothing else reads or writes there meanwhile.
    ///
    /// # Panics
    /// When they are not inside.
    pub unsafe fn store<T: Plain>(&self, offset: usize, values: &[T]) {
        let place = self.place::<T>(offset, values.len());
        // SAFETY: inside and aligned; does not overlap `values`, as no slice of this memory exists while it is written.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), place, values.len()) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        match &self.device {
            Some(device) => host_free(device, self.host),
            // SAFETY: allocated by `plain` with the same layout, which was possible then.
            None => unsafe {
                alloc::dealloc(self.host.as_ptr(), Layout::from_size_align_unchecked(self.len.max(1), PAGE))
            },
        }
    }
}

/// Memory of the processor for copies to and from the card, which then run at the speed of the bus and alongside other
/// work. Taking a view waits for the copy under way.
pub struct Pinned {
    device: Device,
    host: NonNull<u8>,
    len: usize,
    /// The end of the last copy, unless already waited for.
    busy: Option<Event>,
}

// SAFETY: owns its memory.
unsafe impl Send for Pinned {}

impl Pinned {
    /// `len` zeros. `what` is for the error.
    ///
    /// # Errors
    /// When the system lends no such memory.
    pub fn new(device: &Device, len: usize, what: &str) -> Result<Self> {
        Ok(Self { device: device.clone(), host: host_alloc(device, len, what)?, len, busy: None })
    }

    /// Bytes of it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All values, after the last copy.
    ///
    /// # Errors
    /// What went wrong on the card until then.
    pub fn values<T: Plain>(&mut self) -> Result<&[T]> {
        Ok(self.values_mut::<T>()?)
    }

    /// All values, for filling, after the last copy.
    ///
    /// # Errors
    /// What went wrong on the card until then.
    pub fn values_mut<T: Plain>(&mut self) -> Result<&mut [T]> {
        self.wait()?;
        // SAFETY: pages are aligned for every number; initialised; `&mut self`, and no copy is under way.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.host.as_ptr().cast(), self.len / size_of::<T>()) })
    }

    /// Waits until the last copy is done.
    fn wait(&mut self) -> Result<()> {
        self.busy.take().map_or(Ok(()), |event| event.wait())
    }

    /// Where `len` bytes at `offset` lie, for a copy that ends when `busy` does.
    pub(super) fn lend(&mut self, offset: usize, len: usize) -> Result<*mut u8> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        ensure!(inside, "a copy of {len} bytes at {offset}, and the buffer has {}", self.len);
        // SAFETY: inside, as just checked.
        Ok(unsafe { self.host.as_ptr().add(offset) })
    }

    /// Remembers when the copy that was just enqueued ends; `record` enqueues the event behind it.
    pub(super) fn set_busy(&mut self, record: impl FnOnce(&Event) -> Result<()>) -> Result<()> {
        let event = match self.busy.take() {
            Some(event) => event,
            None => Event::untimed(&self.device)?,
        };
        record(&event)?;
        self.busy = Some(event);
        Ok(())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        drop(self.wait());
        host_free(&self.device, self.host);
    }
}

/// `len` zeros, pinned by the driver.
fn host_alloc(device: &Device, len: usize, what: &str) -> Result<NonNull<u8>> {
    let flags = CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_PORTABLE;
    let mut host = std::ptr::null_mut();
    // SAFETY: the pointer is to a local variable.
    let code = device.call_code(|api| unsafe { (api.cuMemHostAlloc)(&mut host, len.max(1), flags) })?;
    if code != 0 {
        return Err(device.failure(&format!("pinning {} of memory for {what}", Bytes(len as u64)), code));
    }
    let host = NonNull::new(host.cast::<u8>()).with_context(|| format!("no pinned memory for {what}"))?;
    // SAFETY: freshly allocated, of this size.
    unsafe { host.as_ptr().write_bytes(0, len) };
    Ok(host)
}

/// Frees memory from [`host_alloc`], after all work on the card: one that has failed does nothing with it any more, and one
/// that hangs keeps it.
fn host_free(device: &Device, host: NonNull<u8>) {
    // SAFETY: allocated by `host_alloc`, freed once, by the drop of its owner.
    device.give_back(|api| unsafe { (api.cuMemFreeHost)(host.as_ptr().cast()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn plain_memory_holds_values_and_words() {
        let mapped = Mapped::plain(1000).unwrap();
        assert_eq!(mapped.ptr().0 % ALIGN, 0);
        // SAFETY: nobody else knows this memory.
        unsafe {
            mapped.store(256, &[1.0f32, -2.0]);
            assert_eq!(mapped.values::<f32>(252, 4), [0.0, 1.0, -2.0, 0.0]);
        }
        mapped.word(996).store(7, Ordering::Relaxed);
        assert_eq!(mapped.word(996).load(Ordering::Relaxed), 7);
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn nothing_is_reached_behind_the_end() {
        Mapped::plain(1000).unwrap().word(1000);
    }

    #[test]
    fn addresses_move_by_bytes() {
        assert_eq!(Ptr(256).offset(4), Ptr(260));
        assert!(Ptr::NULL.is_null() && !Ptr(1).is_null());
    }
}
