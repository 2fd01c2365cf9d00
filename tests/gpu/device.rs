//! The code around the kernels: opening a card, its memory, streams, graphs, launches, and the mailbox in mapped memory.

use super::support::emulator;
use super::{alone, emulated, gpu, say, text};
use powerinfer::gpu::mailbox::{Arrival, Layout, Sizes, Wait};
use powerinfer::gpu::ops::token::{self, Answer, Copied};
use powerinfer::gpu::{Arena, Args, Device, DeviceBuffer, Event, Graph, Kernels, Mailbox, Mapped, Pinned, Ptr, Stream};
use powerinfer::placement::budget::{ALIGN, GRANULE};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_card_says_what_it_is() {
    let Some(device) = gpu() else { return };
    assert!(!device.name().is_empty() && device.n_sm() > 0 && device.compute_capability() >= (7, 5));
    let (free, total) = device.memory().unwrap();
    assert!(free <= total && total.0 > 0);
    device.synchronize().unwrap();
    let error = Device::open(9999).unwrap_err().to_string();
    assert!(error.starts_with("no device 9999; "), "{error}");
}

#[test]
fn memory_that_is_not_there_is_refused_by_name_and_nothing_is_lost() {
    let Some(device) = gpu() else { return };
    let (_, total) = device.memory().unwrap();
    let error = DeviceBuffer::new(&device, total.0 + 1, "KV cache of layer 3").err().unwrap().to_string();
    for part in ["out of device memory: KV cache of layer 3: ", " wanted, ", " free on ", &total.to_string()] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let buffer = DeviceBuffer::new(&device, 1, "one byte").unwrap();
    assert_eq!((buffer.len(), buffer.ptr().0 % ALIGN), (GRANULE, 0));
    assert!(DeviceBuffer::new(&device, 0, "nothing").unwrap().ptr().is_null());
}

#[test]
#[ignore = "run by the test below: others must not allocate meanwhile"]
fn accounted_memory() {
    let device = gpu().unwrap();
    let free = || device.memory().unwrap().0.0;
    let before = free();
    let buffers: Vec<_> = [1, GRANULE, GRANULE + 1, 5 * GRANULE - 1]
        .map(|n| DeviceBuffer::new(&device, n, "a test").unwrap())
        .into_iter()
        .collect();
    let accounted: u64 = buffers.iter().map(DeviceBuffer::len).sum();
    assert_eq!((accounted, before - free()), (9 * GRANULE, 9 * GRANULE));
    drop(buffers);
    assert_eq!(free(), before);
}

#[test]
fn accounted_is_allocated_and_comes_back() {
    succeeds("device::accounted_memory", ("EMU_VRAM", "256M"));
}

/// Runs an ignored test of this file alone, under the emulator.
#[track_caller]
fn succeeds(name: &str, setting: (&str, &str)) {
    if emulated() {
        return;
    }
    if let Some(output) = alone(name, setting) {
        let said = text(&output);
        assert!(output.status.success() && said.contains("1 passed"), "{setting:?}: {said}");
    }
}

#[test]
fn parts_of_an_arena_follow_each_other_until_it_is_full() {
    let Some(device) = gpu() else { return };
    let mut arena = Arena::new(&device, 1, "scratch memory").unwrap();
    let base = arena.buffer().ptr();
    assert_eq!(arena.take(1, "a").unwrap(), base);
    assert_eq!(arena.take_of::<f32>(100, "b").unwrap(), base.offset(256));
    assert_eq!(arena.take(0, "c").unwrap(), base.offset(768));
    assert_eq!((arena.used(), arena.left()), (768, GRANULE - 768));
    let error = arena.take(GRANULE - 767, "d").unwrap_err().to_string();
    assert!(error.starts_with("scratch memory: d takes 2096640 bytes, and 2096384 of the 2097152"), "{error}");
    assert!(arena.take(u64::MAX, "e").is_err());
    arena.take(GRANULE - 768, "f").unwrap();
    assert_eq!(arena.left(), 0);
}

#[test]
fn what_is_copied_to_the_card_comes_back() {
    let Some(device) = gpu() else { return };
    let stream = Stream::new(&device).unwrap();
    let values: Vec<f32> = (0..1000).map(|i| i as f32 - 0.5).collect();
    let a = DeviceBuffer::with(&stream, &values, "a").unwrap();
    let b = DeviceBuffer::exact(&device, a.len(), "b").unwrap();
    stream.copy(b.ptr(), a.ptr(), 2000).unwrap();
    stream.fill(b.ptr().offset(2000), 0, 2000).unwrap();
    let back = stream.read_vec::<f32>(b.ptr(), 1000).unwrap();
    assert_eq!((&back[..500], &back[500..]), (&values[..500], &[0.0; 500][..]));
    stream.write::<u32>(b.ptr(), &[]).unwrap();
    stream.write(b.ptr().offset(8), &[7u32, 8]).unwrap();
    assert_eq!(stream.read_vec::<u32>(b.ptr().offset(4), 3).unwrap(), [values[1].to_bits(), 7, 8]);
}

#[test]
fn staging_memory_waits_for_its_copies() {
    let Some(device) = gpu() else { return };
    let stream = Stream::new(&device).unwrap();
    const N: usize = 1 << 16;
    let buffer = DeviceBuffer::exact(&device, 4 * N as u64, "a buffer").unwrap();
    let mut staging = Pinned::new(&device, 4 * N, "staging").unwrap();
    let mut back = Pinned::new(&device, 4 * N, "staging").unwrap();
    for round in 0..5u32 {
        // Without the wait, the copy of the round before would see these.
        staging.values_mut::<u32>().unwrap().fill(round);
        stream.copy_in(buffer.ptr(), &mut staging, 0..4 * N).unwrap();
        stream.copy_out(&mut back, 0..4 * N, buffer.ptr()).unwrap();
        assert!(back.values::<u32>().unwrap().iter().all(|v| *v == round));
    }
    assert!(stream.copy_in(buffer.ptr(), &mut staging, 1..4 * N + 1).is_err());
    // Freed while a copy is under way: the drop waits.
    stream.copy_in(buffer.ptr(), &mut staging, 0..4 * N).unwrap();
    drop(staging);
    assert!(stream.read_vec::<u32>(buffer.ptr(), N).unwrap().iter().all(|v| *v == 4));
}

#[test]
fn events_order_streams_and_tell_the_time() {
    let Some(device) = gpu() else { return };
    let (first, second) = (Stream::new(&device).unwrap(), Stream::new(&device).unwrap());
    let (begin, end) = (Event::new(&device).unwrap(), Event::new(&device).unwrap());
    let buffer = DeviceBuffer::exact(&device, 1 << 20, "a buffer").unwrap();
    for round in 0..10 {
        first.record(&begin).unwrap();
        first.fill(buffer.ptr(), round, buffer.len()).unwrap();
        first.record(&end).unwrap();
        second.wait_for(&end).unwrap();
        assert_eq!(second.read_vec::<u8>(buffer.ptr(), 1 << 20).unwrap()[(1 << 20) - 1], round);
    }
    end.wait().unwrap();
    first.synchronize().unwrap();
    assert!(end.has_come().unwrap() && first.query().unwrap());
    assert!(begin.elapsed_ms(&end).unwrap() >= 0.0);
}

#[test]
fn a_graph_does_its_work_at_each_launch_and_not_when_it_is_captured() {
    let Some(device) = gpu() else { return };
    let stream = Stream::new(&device).unwrap();
    let (a, b) =
        (DeviceBuffer::exact(&device, 64, "a").unwrap(), DeviceBuffer::with(&stream, &[9u32; 16], "b").unwrap());
    let graph = stream
        .capture(|| {
            stream.copy(b.ptr(), a.ptr(), 64)?;
            stream.fill(a.ptr(), 0xee, 4)
        })
        .unwrap();
    assert_eq!(stream.read_vec::<u32>(b.ptr(), 16).unwrap(), [9; 16]);
    graph.upload(&stream).unwrap();
    for round in 0..3u32 {
        stream.write(a.ptr(), &[round; 16]).unwrap();
        graph.launch(&stream).unwrap();
        assert_eq!(stream.read_vec::<u32>(b.ptr(), 16).unwrap(), [round; 16]);
        assert_eq!(stream.read_vec::<u32>(a.ptr(), 2).unwrap(), [0xeeee_eeee, round]);
    }
}

#[test]
fn a_capture_that_fails_leaves_the_stream_usable() {
    let Some(device) = gpu() else { return };
    let stream = Stream::new(&device).unwrap();
    let buffer = DeviceBuffer::exact(&device, 64, "a buffer").unwrap();
    let mut staging = Pinned::new(&device, 64, "staging").unwrap();
    let inside = |what: &mut dyn FnMut() -> anyhow::Result<()>| {
        let error = stream.capture(&mut *what).err().unwrap();
        stream.write(buffer.ptr(), &[1u8; 64]).unwrap();
        error.to_string()
    };
    assert_eq!(inside(&mut || anyhow::bail!("not today")), "not today");
    for copy in [
        &mut || stream.write(buffer.ptr(), &[1u8]),
        &mut || stream.read(buffer.ptr(), &mut [0u8]),
        &mut || stream.copy_in(buffer.ptr(), &mut staging, 0..64),
        &mut || stream.capture(|| Ok(())).map(drop),
    ] as [&mut dyn FnMut() -> anyhow::Result<()>; 4]
    {
        let error = inside(copy);
        assert!(error.contains("inside of a capture"), "{error}");
    }
}

#[test]
fn a_launch_that_does_not_fit_its_kernel_is_refused_by_name() {
    let Some(device) = gpu() else { return };
    let (stream, kernels) = (Stream::new(&device).unwrap(), Kernels::load(&device).unwrap());
    let refused = |name: &str, threads: u32, args: Args| {
        kernels.launch(&stream, name, [1; 3], [threads, 1, 1], args).unwrap_err().to_string()
    };
    assert!(refused("no_such_kernel", 32, Args::new()).contains("kernel no_such_kernel is not in any PTX file"));
    assert!(refused("begin_token", 512, Args::new().n(1)).contains("kernel begin_token takes (pointer, "));
    let args = || Args::new().ptr(Ptr::NULL).ptr(Ptr::NULL).ptr(Ptr::NULL).ptr(Ptr::NULL).n(0);
    assert!(refused("begin_token", 1024, args()).contains("blocks of 1024 threads"));
    assert!(refused("begin_token", 512, args().n(1 << 40)).contains("is too large"));
    assert!(kernels.has("begin_token") && !kernels.has("begin"));
    let error = Kernels::of(&device, &[("odd", "this is no PTX")]).err().unwrap();
    assert!(format!("{error:#}").starts_with("kernels of odd.cu: "), "{error:#}");
}

const SIZES: Sizes = Sizes { n_embd: 96, n_ff: 200, n_vocab: 100, n_groups: 2, n_tokens: 1 };

/// A token of one job that is posted: the processor gets the embedding, and its answer is what the token ends with.
struct Token {
    // Dropped first to last: what the card works on outlives its work.
    graph: Graph,
    stream: Stream,
    _kernels: Kernels,
    _memory: Arena,
    mailbox: Mailbox,
}

impl Token {
    fn new(device: &Device, limit_ms: u32) -> Self {
        let (stream, kernels) = (Stream::new(device).unwrap(), Kernels::load(device).unwrap());
        let layout = Layout::new(SIZES);
        let mapped = Mapped::new(device, layout.bytes, "the mailbox").unwrap();
        let mailbox = Mailbox::new(mapped, layout).unwrap();
        let at = mailbox.addresses();
        let mut memory = Arena::new(device, 4096, "a token").unwrap();
        let state = memory.take(token::TOKEN_BYTES, "state").unwrap();
        let (x, y) = (memory.take_of::<f32>(96, "x").unwrap(), memory.take_of::<f32>(96, "y").unwrap());
        let counts = memory.take_of::<u32>(4, "counts").unwrap();
        stream.fill(state, 0, token::TOKEN_BYTES).unwrap();
        stream.write(counts, &[1u32, 2, 3, 4]).unwrap();
        let job = token::Job { mailbox: at.base, token: state, number: 0 };
        let graph = stream.capture(|| {
            token::begin_token(&kernels, &stream, at.base, state, at.in_x, x, 96)?;
            token::post_x(&kernels, &stream, x, at.post_x, 96, &job)?;
            token::take_reply(&kernels, &stream, y, 96, &Answer { reply: at.reply, job, limit_ms })?;
            let (logits, counted) =
                (Copied { from: y, to: at.logits, n: 96 }, Copied { from: counts, to: at.counts, n: 4 });
            token::finish(&kernels, &stream, &logits, &counted, &token::Job { number: 1, ..job })
        });
        Self { graph: graph.unwrap(), stream, _kernels: kernels, _memory: memory, mailbox }
    }

    fn begin(&mut self, position: usize) {
        self.mailbox.begin_token(1, position, &[position as f32; 96]).unwrap();
        self.graph.launch(&self.stream).unwrap();
    }

    fn wait_job(&mut self) -> anyhow::Result<Arrival> {
        let stream = &self.stream;
        self.mailbox.wait_job(0, Wait { limit: LONG, alive: &|| stream.query().map(drop) })
    }

    fn answer(&mut self, position: usize) {
        assert_eq!(self.wait_job().unwrap(), Arrival::Posted);
        assert_eq!(self.mailbox.post_x(), [position as f32; 96]);
        self.mailbox.reply(0, &[position as f32 + 0.25; 96]).unwrap();
        let stream = &self.stream;
        self.mailbox.wait_done(Wait { limit: LONG, alive: &|| stream.query().map(drop) }).unwrap();
        assert_eq!(self.mailbox.logits()[..96], [position as f32 + 0.25; 96]);
        assert_eq!(self.mailbox.counts(), [1, 2, 3, 4]);
    }
}

#[test]
fn a_captured_token_meets_the_processor_in_the_mailbox() {
    let Some(device) = gpu() else { return };
    let mut token = Token::new(&device, 60_000);
    for position in 0..20 {
        token.begin(position);
        token.answer(position);
    }
    token.stream.synchronize().unwrap();
}

#[test]
fn a_card_that_gets_no_answer_gives_up_and_can_go_on_after_a_restart() {
    let Some(device) = gpu() else { return };
    let mut token = Token::new(&device, 50);
    token.begin(3);
    assert_eq!(token.wait_job().unwrap(), Arrival::Posted);
    token.stream.synchronize().unwrap();
    token.mailbox.reply(0, &[0.0; 96]).unwrap();
    let error = token.mailbox.wait_done(Wait { limit: LONG, alive: &|| Ok(()) }).unwrap_err().to_string();
    assert_eq!(error, "the card gave up waiting for the answer to job 0");
    token.mailbox.restart();
    token.begin(4);
    token.answer(4);
}

#[test]
fn a_stop_ends_the_token_on_the_card() {
    let Some(device) = gpu() else { return };
    let mut token = Token::new(&device, 600_000);
    token.begin(3);
    assert_eq!(token.wait_job().unwrap(), Arrival::Posted);
    let begin = Instant::now();
    token.mailbox.stop();
    token.stream.synchronize().unwrap();
    assert!(begin.elapsed() < LONG);
}

#[test]
#[ignore = "run by the test below, with an error in the second token"]
fn mid_run() {
    let device = gpu().unwrap();
    let mut token = Token::new(&device, 60_000);
    token.begin(0);
    token.answer(0);
    token.begin(1);
    let begin = Instant::now();
    let error = token.wait_job().unwrap_err().to_string();
    assert!(error.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{error}");
    assert!(begin.elapsed() < LONG && !error.contains('\n'));
    // Nothing works any more, and says so; dropping everything must not hang or crash.
    assert!(DeviceBuffer::new(&device, 1, "more").err().unwrap().to_string().contains("ILLEGAL_ADDRESS"));
    assert!(token.graph.launch(&token.stream).is_err() && token.stream.synchronize().is_err());
}

#[test]
fn a_card_that_fails_in_mid_run_is_an_error_and_no_hang() {
    succeeds("device::mid_run", ("EMU_FAIL", "kernel:post_x@2=700"));
}

#[test]
fn the_commands_say_what_is_wrong_with_a_card() {
    if emulated() {
        return;
    }
    for (name, value, wanted) in [
        ("EMU_DRIVER", "11040", "supports CUDA 11.4, 12.0 is needed: update to 525 or newer"),
        ("EMU_CC", "61", "has compute capability 6.1, 7.5 is needed"),
        ("EMU_FAIL", "cuInit=100", "the NVIDIA driver finds no card"),
        ("EMU_FAIL", "cuInit=34", "libcuda.so.1 is the CUDA toolkit's stub"),
        ("EMU_FAIL", "cuDevicePrimaryCtxRetain=2", "opening it: out of memory (CUDA_ERROR_OUT_OF_MEMORY)"),
    ] {
        let run = |device: &str| {
            let command = emulator::command(env!("CARGO_BIN_EXE_powerinfer-run"));
            let args = ["--device", device, "-p", "x", "-n", "1", "-t", "1"];
            command.map(|mut c| c.args(args).env(name, value).output().unwrap())
        };
        let cuda = match run("cuda") {
            Ok(output) => output,
            Err(why) => return say(&format!("skipped: {why}\n")),
        };
        let said = text(&cuda);
        assert_eq!(cuda.status.code(), Some(1), "{name}={value}: {said}");
        let line = said.lines().find(|l| l.starts_with("error: ")).unwrap_or_default();
        assert!(line.contains(wanted), "{name}={value}: {said}");
        let auto = run("auto").unwrap();
        let said = text(&auto);
        assert!(auto.status.success(), "{name}={value}: {said}");
        let line = said.lines().find(|l| l.starts_with("note: computing on the CPU: ")).unwrap_or_default();
        assert!(line.contains(wanted), "{name}={value}: {said}");
    }
}
