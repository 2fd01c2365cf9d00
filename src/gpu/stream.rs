//! Work enqueued on the card in order: copies, events, and graphs that are launched as a whole.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use super::device::Device;
use super::driver::{Api, Code, GraphExec, NOT_READY, RawGraph, RawStream};
use super::event::Event;
use super::memory::{DeviceBuffer, Pinned, Plain, Ptr};
use super::waiting::{Queue, wait_until};
use anyhow::{Result, bail, ensure};
use cudarc::driver::sys;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A queue of work on the card. Only events order it with other queues.
pub struct Stream {
    device: Device,
    raw: RawStream,
    queue: Arc<Queue>,
}

// SAFETY: the driver's functions may be called from any thread; what is enqueued belongs to the card.
unsafe impl Send for Stream {}

impl Stream {
    /// A new queue.
    ///
    /// # Errors
    /// When the card has failed.
    pub fn new(device: &Device) -> Result<Self> {
        let mut raw = null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the pointer is to a local variable.
        device.call("making a stream", |api| unsafe { (api.cuStreamCreate)(&mut raw, flags) })?;
        let queue = Arc::new(Queue::new(raw));
        device.add_queue(&queue);
        Ok(Self { device: device.clone(), raw, queue })
    }

    /// The card it belongs to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn raw(&self) -> RawStream {
        self.raw
    }

    /// Waits until all that is enqueued is done.
    ///
    /// # Errors
    /// What went wrong in it; when it takes longer than [`limit`](super::waiting::limit).
    pub fn synchronize(&self) -> Result<()> {
        wait_until(self.device.name(), "work on the card", || self.query())
    }

    /// Waits, before something is enqueued, where so much is that the driver itself might wait.
    pub(super) fn make_room(&self) -> Result<()> {
        if self.queue.is_full() { self.synchronize() } else { Ok(()) }
    }

    /// Enqueues something by `f`; a failure names the card and `what` was attempted.
    fn enqueue(&self, what: &str, f: impl FnOnce(&'static Api) -> Code) -> Result<()> {
        self.make_room()?;
        self.device.call(what, f)
    }

    /// Whether all that is enqueued is done.
    ///
    /// # Errors
    /// What went wrong in it.
    pub fn query(&self) -> Result<bool> {
        // SAFETY: the stream is ours.
        let code = self.device.call_code(|api| unsafe { (api.cuStreamQuery)(self.raw) })?;
        match code {
            0 => {
                self.queue.has_emptied();
                Ok(true)
            }
            NOT_READY => Ok(false),
            _ => Err(self.device.failure("work on the card", code)),
        }
    }

    /// Copies `values` to the card and waits for it.
    ///
    /// # Errors
    /// When the copy, or what was enqueued before it, fails; inside [`Stream::capture`].
    pub fn write<T: Plain>(&self, to: Ptr, values: &[T]) -> Result<()> {
        self.not_capturing("a copy that is waited for")?;
        if values.is_empty() {
            return Ok(());
        }
        // From pageable memory the driver's call would wait for what is enqueued.
        self.synchronize()?;
        let (from, bytes) = (values.as_ptr().cast(), size_of_val(values));
        self.enqueue("copying to it", |api| {
            // SAFETY: the source has these bytes and is borrowed until the copy is done, below.
            unsafe { (api.cuMemcpyHtoDAsync_v2)(to.0, from, bytes, self.raw) }
        })?;
        self.synchronize()
    }

    /// Copies from the card, after everything enqueued before, and waits for it.
    ///
    /// # Errors
    /// As [`Stream::write`].
    pub fn read<T: Plain>(&self, from: Ptr, values: &mut [T]) -> Result<()> {
        self.not_capturing("a copy that is waited for")?;
        if values.is_empty() {
            return Ok(());
        }
        // To pageable memory the driver's call waits for what is enqueued.
        self.synchronize()?;
        let (to, bytes) = (values.as_mut_ptr().cast(), size_of_val(values));
        self.enqueue("copying from it", |api| {
            // SAFETY: the target has these bytes, takes any of them, and is borrowed until the copy is done, below.
            unsafe { (api.cuMemcpyDtoHAsync_v2)(to, from.0, bytes, self.raw) }
        })?;
        self.synchronize()
    }

    /// [`Stream::read`] into a new vector of `n` values.
    ///
    /// # Errors
    /// As [`Stream::write`].
    pub fn read_vec<T: Plain>(&self, from: Ptr, n: usize) -> Result<Vec<T>> {
        let mut values = vec![T::default(); n];
        self.read(from, &mut values)?;
        Ok(values)
    }

    /// Enqueues a copy of the bytes `range` of `from` to the card. The next view of `from` waits for its end.
    ///
    /// # Errors
    /// When the range is not inside; when the card has failed; inside [`Stream::capture`].
    pub fn copy_in(&self, to: Ptr, from: &mut Pinned, range: Range<usize>) -> Result<()> {
        self.not_capturing("a copy from staging memory")?;
        let host = from.lend(range.start, range.len())?;
        if range.is_empty() {
            return Ok(());
        }
        self.enqueue("copying to it", |api| {
            // SAFETY: inside the buffer, which hands out no view and is not freed before the copy has ended.
            unsafe { (api.cuMemcpyHtoDAsync_v2)(to.0, host.cast(), range.len(), self.raw) }
        })?;
        self.lent(from)
    }

    /// Enqueues a copy from the card to the bytes `range` of `to`. The next view of `to` waits for its end.
    ///
    /// # Errors
    /// As [`Stream::copy_in`].
    pub fn copy_out(&self, to: &mut Pinned, range: Range<usize>, from: Ptr) -> Result<()> {
        self.not_capturing("a copy to staging memory")?;
        let host = to.lend(range.start, range.len())?;
        if range.is_empty() {
            return Ok(());
        }
        self.enqueue("copying from it", |api| {
            // SAFETY: as in `copy_in`.
            unsafe { (api.cuMemcpyDtoHAsync_v2)(host.cast(), from.0, range.len(), self.raw) }
        })?;
        self.lent(to)
    }

    /// Marks `pinned` as in use up to here; if that fails, waits instead.
    fn lent(&self, pinned: &mut Pinned) -> Result<()> {
        pinned.set_busy(|event| self.record(event)).inspect_err(|_| drop(self.synchronize()))
    }

    /// Enqueues a copy on the card, or between it and [`super::Mapped`] memory.
    ///
    /// # Errors
    /// When the card has failed.
    pub fn copy(&self, to: Ptr, from: Ptr, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.enqueue("copying on it", |api| {
            // SAFETY: addresses on the card, which the driver checks.
            unsafe { (api.cuMemcpyDtoDAsync_v2)(to.0, from.0, bytes as usize, self.raw) }
        })
    }

    /// Enqueues setting `bytes` bytes to `value`.
    ///
    /// # Errors
    /// When the card has failed.
    pub fn fill(&self, to: Ptr, value: u8, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.enqueue("filling its memory", |api| {
            // SAFETY: an address on the card, which the driver checks.
            unsafe { (api.cuMemsetD8Async)(to.0, value, bytes as usize, self.raw) }
        })
    }

    /// Records in `event` when everything enqueued so far is done.
    ///
    /// # Errors
    /// When the card has failed.
    pub fn record(&self, event: &Event) -> Result<()> {
        // SAFETY: both are ours.
        self.enqueue("recording an event", |api| unsafe { (api.cuEventRecord)(event.raw, self.raw) })
    }

    /// Makes everything enqueued from now on wait for `event`.
    ///
    /// # Errors
    /// When the card has failed.
    pub fn wait_for(&self, event: &Event) -> Result<()> {
        // SAFETY: both are ours.
        self.enqueue("waiting for an event", |api| unsafe { (api.cuStreamWaitEvent)(self.raw, event.raw, 0) })
    }

    /// The work that `enqueue` enqueues here, to be launched again and again; it is not done now. Pointers and numbers
    /// keep their present values.
    ///
    /// # Errors
    /// Those of `enqueue`; when something cannot be captured.
    pub fn capture(&self, enqueue: impl FnOnce() -> Result<()>) -> Result<Graph> {
        self.not_capturing("another capture")?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL as u32;
        self.device.call("capturing a graph", |api| {
            // SAFETY: the stream is ours.
            unsafe { (api.cuStreamBeginCapture_v2)(self.raw, mode) }
        })?;
        // Ends the capture even if `enqueue` panics.
        let capture = Capture::of(self);
        let enqueued = enqueue();
        let graph = capture.end();
        enqueued?;
        graph?.instantiate(&self.device)
    }

    fn not_capturing(&self, what: &str) -> Result<()> {
        ensure!(!self.queue.capturing.load(Relaxed), "{what} inside of a capture");
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: ours, dropped once, when nothing runs.
        self.device.give_back(|api| unsafe {
            self.device.remove_queue(&self.queue);
            (api.cuStreamDestroy_v2)(self.raw)
        });
    }
}

/// A capture that has begun.
struct Capture<'a>(Option<&'a Stream>);

impl<'a> Capture<'a> {
    fn of(stream: &'a Stream) -> Self {
        stream.queue.capturing.store(true, Relaxed);
        Self(Some(stream))
    }

    fn end(mut self) -> Result<Captured> {
        let Some(stream) = self.0.take() else { bail!("the capture has ended") };
        Self::stop(stream)
    }

    fn stop(stream: &Stream) -> Result<Captured> {
        stream.queue.capturing.store(false, Relaxed);
        let mut raw = null_mut();
        stream.device.call("capturing a graph", |api| {
            // SAFETY: the stream is ours, and capturing.
            unsafe { (api.cuStreamEndCapture)(stream.raw, &mut raw) }
        })?;
        ensure!(!raw.is_null(), "nothing was captured");
        Ok(Captured { device: stream.device.clone(), raw })
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            drop(Self::stop(stream));
        }
    }
}

/// A captured graph.
struct Captured {
    device: Device,
    raw: RawGraph,
}

impl Captured {
    fn instantiate(&self, device: &Device) -> Result<Graph> {
        let mut exec = null_mut();
        device.call("making a graph", |api| {
            // SAFETY: the graph is ours; the pointer is to a local variable.
            unsafe { (api.cuGraphInstantiateWithFlags)(&mut exec, self.raw, 0) }
        })?;
        Ok(Graph { device: device.clone(), exec })
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        // SAFETY: ours, and dropped once.
        drop(self.device.call_code(|api| unsafe { (api.cuGraphDestroy)(self.raw) }));
    }
}

/// Captured work. The memory it works on must outlive its runs, and its kernels must stay loaded.
pub struct Graph {
    device: Device,
    exec: GraphExec,
}

// SAFETY: the driver's functions may be called from any thread, for a graph by one at a time: it is not `Sync`.
unsafe impl Send for Graph {}

impl Graph {
    /// Enqueues the work. A launch waits for the one before it on any stream.
    ///
    /// # Errors
    /// When the card has failed.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        stream.not_capturing("the launch of a graph")?;
        // SAFETY: both are ours.
        stream.enqueue("launching a graph", |api| unsafe { (api.cuGraphLaunch)(self.exec, stream.raw) })
    }

    /// Prepares the first launch, so that it takes no longer than later ones.
    ///
    /// # Errors
    /// When the card has failed.
    pub fn upload(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both are ours.
        self.device.call("preparing a graph", |api| unsafe { (api.cuGraphUpload)(self.exec, stream.raw) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: ours, dropped once, when nothing runs.
        self.device.give_back(|api| unsafe { (api.cuGraphExecDestroy)(self.exec) });
    }
}

impl DeviceBuffer {
    /// A copy of `values`, in an allocation of exactly their size.
    ///
    /// # Errors
    /// As [`DeviceBuffer::new`], and when copying fails.
    pub fn with<T: Plain>(stream: &Stream, values: &[T], what: &str) -> Result<Self> {
        let buffer = Self::exact(stream.device(), size_of_val(values) as u64, what)?;
        stream.write(buffer.ptr(), values)?;
        Ok(buffer)
    }
}
