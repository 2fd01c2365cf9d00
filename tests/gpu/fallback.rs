//! Executors whose card fails: the CPU goes on with the same sequence.

use super::support::compare::max_difference as apart;
use super::support::real;
use super::{alone, emulated, text};
use anyhow::Result;
use powerinfer::executor::{Batch, Entry, Executor, ExecutorParams, KvType, Mode, Observer, Worker};
use powerinfer::gpu::waiting;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::plan::Planner;
use powerinfer::placement::workload::Workload;
use std::cell::RefCell;
use std::time::Duration;

/// Decode and prefill round differently, and so do card and CPU.
const TOLERANCE: f32 = 0.2;
const N_TOKENS: usize = 12;

fn params() -> ExecutorParams {
    ExecutorParams { kv_type: KvType::F16, n_ubatch: 4, n_ctx: 64, ..real::params(Mode::Exact, 2) }
}

/// Counts logits by position.
struct Positions(Vec<usize>);

impl Observer for Positions {
    fn wants_logits(&self) -> bool {
        true
    }

    fn logits(&mut self, position: usize, _: &[f32]) {
        self.0.push(position);
    }
}

#[test]
#[ignore = "run by the test below, with errors injected"]
fn a_card_fails_and_the_cpu_goes_on() -> Result<()> {
    waiting::set_limit(Duration::from_secs(10));
    let device = powerinfer::gpu::Device::open(0)?;
    let model = Model::new(powerinfer::gguf::Gguf::from_source(powerinfer::embedded::source())?, None)?;
    let hardware = Hardware::parse(include_str!("../../hardware/rtx-4090-ddr5.toml"))?;
    let (work, run) = (Workload::of(&model), params().run(64));
    let plan = Planner { hardware: &hardware, work: &work, run: &run }.plan(Some("14MiB".parse()?))?;
    let worker = Worker::new(2, params().isa)?;
    let told = RefCell::new(Vec::new());
    let mut executor = Executor::on_card(&model, &device, plan, params(), &worker)?;
    executor.go_on_without_card(|why| told.borrow_mut().push(format!("{why:#}")));
    assert!(executor.card().is_some());
    let mut cpu = Executor::new(&model, Placement::all_cold(&model), params())?;

    let tokens = real::story(N_TOKENS)?;
    let mut seen = Positions(Vec::new());
    executor.prefill_observed(&tokens[..6], &mut seen)?;
    cpu.prefill(&tokens[..6])?;
    for token in &tokens[6..9] {
        let most = apart(executor.decode(*token)?, cpu.decode(*token)?);
        assert!(most < TOLERANCE, "{most}");
    }
    executor.truncate(7)?;
    cpu.truncate(7)?;
    for token in &tokens[9..] {
        let most = apart(executor.decode(*token)?, cpu.decode(*token)?);
        assert!(most < TOLERANCE, "{most}");
    }
    assert_eq!(executor.n_past(), cpu.n_past());
    executor.prefill_observed(&tokens[..5], &mut seen)?;
    assert_eq!(seen.0, [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14], "each once");
    cpu.prefill(&tokens[..5])?;
    let most = apart(executor.decode_several(&tokens[..2])?, cpu.decode_several(&tokens[..2])?);
    assert!(most < TOLERANCE, "{most}");
    assert_eq!(executor.stats().density().is_some(), cpu.stats().density().is_some());

    assert_eq!((told.borrow().len(), executor.card().is_none()), (1, true), "{:?}", told.borrow());
    // From here on it is the CPU's alone: the same bits, and as many sequences as one likes.
    executor.clear();
    cpu.clear();
    assert_eq!(executor.prefill(&tokens)?, cpu.prefill(&tokens)?);
    assert_eq!(executor.decode(tokens[0])?, cpu.decode(tokens[0])?);
    let mut sequences = [executor.new_sequence()?];
    let mut batch = Batch::default();
    batch.push(Entry { sequence: 0, position: 0, token: tokens[0], wants_logits: true });
    executor.decode_batch(&batch, &mut sequences)?;
    println!("told: {}", told.borrow()[0]);
    Ok(())
}

#[test]
fn the_cpu_goes_on_wherever_the_card_has_failed() {
    if emulated() {
        return;
    }
    for (fail, says) in [
        // In a prompt, in the first token, behind the truncation, and in several tokens at once.
        ("kernel:gemm_q8_0=700", "ILLEGAL_ADDRESS"),
        ("cuMemcpyDtoHAsync_v2=999", "UNKNOWN"),
        ("cuGraphLaunch=719", "LAUNCH_FAILED"),
        ("kernel:finish@6=700", "ILLEGAL_ADDRESS"),
        ("cuGraphLaunch@8=719", "LAUNCH_FAILED"),
        ("kernel:begin_token@4=hang", "within"),
    ] {
        let Some(output) = alone("fallback::a_card_fails_and_the_cpu_goes_on", ("EMU_FAIL", fail)) else { return };
        let said = text(&output);
        let told = said.lines().find(|line| line.contains("told: ")).unwrap_or_default();
        assert!(output.status.success() && told.contains(says), "{fail}: {said}");
    }
}

#[test]
#[ignore = "run by the test below, with a kernel that never ends"]
fn a_stream_hangs() {
    waiting::set_limit(Duration::from_secs(1));
    let device = powerinfer::gpu::Device::open(0).unwrap();
    let stream = powerinfer::gpu::Stream::new(&device).unwrap();
    let (other, event) =
        (powerinfer::gpu::Stream::new(&device).unwrap(), powerinfer::gpu::Event::new(&device).unwrap());
    let kernels = powerinfer::gpu::Kernels::load(&device).unwrap();
    let buffer = powerinfer::gpu::DeviceBuffer::new(&device, 4096, "a buffer").unwrap();
    let mut pinned = powerinfer::gpu::Pinned::new(&device, 4096, "staging").unwrap();
    let ptr = buffer.ptr();
    stream.fill(ptr, 0, 4096).unwrap();
    powerinfer::gpu::ops::norm::quantize(&kernels, &stream, ptr, 32, 1, ptr.offset(1024)).unwrap();
    stream.copy_in(ptr, &mut pinned, 0..64).unwrap();
    stream.record(&event).unwrap();
    other.wait_for(&event).unwrap();
    let begin = std::time::Instant::now();
    let why = other.synchronize().unwrap_err().to_string();
    assert!(why.contains("work on the card has not ended within 1s"), "{why}");
    assert!(waiting::hangs());
    // All of these at once.
    assert!(stream.synchronize().is_err() && event.wait().is_err() && device.synchronize().is_err());
    assert!(stream.write(ptr, &[1u8]).is_err() && stream.read_vec::<u8>(ptr, 1).is_err());
    assert!(pinned.values::<u8>().is_err() && device.memory().is_err());
    drop((buffer, pinned, event, kernels, stream, other, device));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn what_hangs_is_neither_waited_for_nor_given_back() {
    if emulated() {
        return;
    }
    let Some(output) = alone("fallback::a_stream_hangs", ("EMU_FAIL", "kernel:quantize=hang")) else { return };
    assert!(output.status.success(), "{}", text(&output));
}
