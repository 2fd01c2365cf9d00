//! Several tokens at once on a card, of one sequence and of several: each gets the bits that it gets alone, and texts are those of
//! the CPU.

use super::architectures::wide;
use super::support::compare::{best, same_bits};
use super::support::convert;
use super::support::kind::Kind;
use super::support::real;
use super::{alone, emulated, gpu, text};
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Batch, Entry, Executor, ExecutorParams, KvType, Mode, Sequence, Worker};
use powerinfer::gguf::TensorInfo;
use powerinfer::gpu::{Device, waiting};
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::plan::{GroupChoice, LayerChoice, Place, Planner, Room, Run};
use powerinfer::placement::workload::Workload;
use powerinfer::quant::GgmlType;
use std::cell::RefCell;
use std::time::Duration;

const N_FF: usize = 160;
/// Tokens of each text, of which the first are taken in alone: some as a prompt.
const N_TOKENS: usize = 7;
const N_ALONE: usize = 3;
const SIZES: [usize; 3] = [2, 4, 8];

fn params(mode: Mode, kv_type: KvType) -> ExecutorParams {
    ExecutorParams { n_threads: 2, n_ctx: 80, kv_type, mode, n_ubatch: 8, isa: Isa::detect() }
}

/// How a model is divided: attention, the whole mask, and hot neurons of each group of a layer.
type Division = (bool, bool, usize);

fn on_card<'m>(
    model: &'m Model,
    device: &Device,
    params: &ExecutorParams,
    (attention, mask, n_hot): Division,
    head: Place,
    room: Room,
) -> Result<Executor<'m>> {
    let run = Run { room, ..params.run(params.n_ctx) };
    let hardware = Hardware::parse(include_str!("../../hardware/rtx-4090-ddr5.toml"))?;
    let work = Workload::of(model);
    let group = |n_ff: usize| GroupChoice { mask, predictor: false, n_hot: n_hot.min(n_ff) };
    let choice = |layer: &powerinfer::model::Layer| {
        let groups = layer.groups.iter().map(|g| group(g.n_ff())).collect();
        LayerChoice { card: 0, attention, groups }
    };
    let choices: Vec<_> = model.weights.layers.iter().map(choice).collect();
    let plan = Planner { hardware: &hardware, work: &work, run: &run }.of_choices(&choices, head)?;
    let accounted = plan.account().taken();
    let executor = Executor::on_card(model, device, plan, params.clone(), &Worker::new(2, params.isa)?)?;
    assert_eq!(executor.card().map(|card| card.allocated), Some(accounted));
    Ok(executor)
}

/// Different texts, one per sequence.
fn texts(n: usize, n_vocab: u32) -> Vec<Vec<u32>> {
    (0..n as u32).map(|i| (0..N_TOKENS as u32).map(|j| (7 * i + 13 * j + i * j + 1) % n_vocab).collect()).collect()
}

/// Logits after the last token of what is taken in alone, and after each token behind it.
fn apart(executor: &mut Executor, texts: &[Vec<u32>]) -> Result<Vec<Vec<Vec<f32>>>> {
    let of_text = |(i, text): (usize, &Vec<u32>)| {
        executor.clear();
        let (before, behind) = text.split_at(N_ALONE + i % 3);
        let mut out = vec![executor.prefill(before)?.to_vec()];
        for token in behind {
            out.push(executor.decode(*token)?.to_vec());
        }
        Ok(out)
    };
    texts.iter().enumerate().map(of_text).collect()
}

/// The same with the texts side by side, one token of each that is not at its end in every batch.
fn together(executor: &mut Executor, texts: &[Vec<u32>]) -> Result<Vec<Vec<Vec<f32>>>> {
    let n_vocab = executor.model().config.n_vocab;
    let mut sequences: Vec<Sequence> = texts.iter().map(|_| executor.new_sequence()).collect::<Result<_>>()?;
    let mut out = Vec::new();
    for (i, (text, sequence)) in texts.iter().zip(&mut sequences).enumerate() {
        let before = &text[..N_ALONE + i % 3];
        // Long enough for a prompt that is computed as such, whatever its parts are.
        out.push(vec![executor.prefill_sequence(sequence, before, 100)?.to_vec()]);
    }
    let mut batch = Batch::default();
    loop {
        batch.clear();
        let mut open = Vec::new();
        for (sequence, of) in sequences.iter().enumerate() {
            let position = of.n_past();
            let Some(token) = texts[sequence].get(position) else { continue };
            batch.push(Entry { sequence, position, token: *token, wants_logits: true });
            open.push(sequence);
        }
        if open.is_empty() {
            sequences.iter().for_each(|sequence| executor.add_stats(sequence));
            return Ok(out);
        }
        let logits = executor.decode_batch(&batch, &mut sequences)?;
        open.iter().zip(logits.chunks_exact(n_vocab)).for_each(|(i, logits)| out[*i].push(logits.to_vec()));
    }
}

/// Batches of each of `sizes` sequences, and guesses of one sequence, against tokens alone on the same card.
fn agree(
    model: &Model,
    device: &Device,
    params: &ExecutorParams,
    (division, head): (Division, Place),
    sizes: &[usize],
) -> Result<()> {
    let n = sizes.iter().copied().max().context("no sizes")?;
    let texts = texts(n, model.config.n_tokens as u32);
    let mut one = on_card(model, device, params, division, head, Room::default())?;
    assert!(!one.can_take_back() && one.new_sequence().is_ok());
    let expected = apart(&mut one, &texts)?;
    let density = one.stats().density();
    for n in sizes.iter().copied() {
        let mut several = on_card(model, device, params, division, head, Room::of_sequences(n))?;
        let got = together(&mut several, &texts[..n])?;
        for (expected, got) in expected.iter().zip(&got) {
            same_bits(expected, got).with_context(|| format!("{n} sequences"))?;
        }
        if n == texts.len() {
            assert_eq!(several.stats().density(), density, "{n} sequences");
        }
    }
    // Guesses: some stay, and what comes then is what comes without them.
    let mut guesses = on_card(model, device, params, division, head, Room::of_guesses())?;
    assert!(guesses.can_take_back() && guesses.most_tentative() == 8);
    let text = &texts[0];
    let (before, behind) = text.split_at(N_ALONE);
    let mut got = vec![guesses.prefill(before)?.to_vec()];
    guesses.decode_tentatively(&[behind[0], behind[1], 9, 4, 2])?;
    (0..2).for_each(|i| got.push(guesses.logits_of(i).to_vec()));
    guesses.settle(2)?;
    guesses.decode_tentatively(&[behind[2], 3])?;
    got.push(guesses.logits_of(0).to_vec());
    guesses.settle(1)?;
    for token in &behind[3..] {
        got.push(guesses.decode(*token)?.to_vec());
    }
    same_bits(&expected[0], &got).context("guesses")?;
    one.clear();
    one.reset_stats();
    apart(&mut one, &texts[..1])?;
    let counts = |executor: &Executor| (executor.stats().n_tokens(), executor.stats().density());
    assert_eq!(counts(&guesses), counts(&one));
    assert!(guesses.decode_tentatively(&[1; 9]).unwrap_err().to_string().contains("more than"));
    Ok(())
}

#[test]
fn a_batch_gives_the_bits_of_single_tokens_in_every_type_and_division() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let [plain, sorted, typed] = ["plain", "sorted", "typed"].map(|n| folder.path().join(format!("{n}.gguf")));
    const ALL: [GgmlType; 10] = [
        GgmlType::F32,
        GgmlType::F16,
        GgmlType::BF16,
        GgmlType::Q8_0,
        GgmlType::Q4_0,
        GgmlType::Q5_0,
        GgmlType::Q5_1,
        GgmlType::Q4_K,
        GgmlType::Q5_K,
        GgmlType::Q6_K,
    ];
    let divisions: [Division; 7] = [
        (true, true, 0),
        (true, false, N_FF / 4),
        (false, true, N_FF / 2 + 3),
        (true, true, N_FF / 2 + 3),
        (true, false, N_FF),
        (false, false, N_FF / 4),
        (true, true, N_FF - 1),
    ];
    for (gated, activation, types) in
        [(true, "relu", &ALL[..]), (false, "relu2", &[GgmlType::F16][..]), (true, "drelu", &[GgmlType::Q8_0][..])]
    {
        let kind = Kind {
            n_vocab: 64,
            n_embd: 256,
            n_ff: vec![N_FF, N_FF],
            n_head: 4,
            n_head_kv: 2,
            head_dim: 64,
            n_rot: 64,
            gated,
            activation,
            ..Kind::default()
        };
        std::fs::write(&plain, kind.file(&kind.weights(3)).bytes())?;
        kind.split(&plain, &sorted)?;
        for (i, dtype) in types.iter().copied().enumerate() {
            let typed_of = |t: &TensorInfo| if t.dims.len() > 1 { dtype } else { t.dtype };
            convert::write(&kind.load(&sorted)?, typed_of, &typed)?;
            let model = kind.load(&typed)?;
            // Each type in one division, and one type in all of them.
            let whole = dtype == GgmlType::Q4_0;
            let some = [divisions[i % divisions.len()]];
            for (j, division) in (if whole { &divisions[..] } else { &some[..] }).iter().copied().enumerate() {
                let mode = if (i + j) % 3 == 2 { Mode::Dense } else { Mode::Exact };
                let head = if j % 2 == 0 { Place::Card(0) } else { Place::Host };
                let kv_type = [KvType::F16, KvType::Q8_0, KvType::F32][(i + j) % 3];
                let sizes = if whole && j == 3 { &SIZES[..] } else { &[3][..] };
                agree(&model, &device, &params(mode, kv_type), (division, head), sizes)
                    .with_context(|| format!("{dtype}, {activation}, {division:?}, {mode:?}"))?;
            }
            drop(model);
            std::fs::remove_file(&typed)?;
        }
        std::fs::remove_file(&plain)?;
        std::fs::remove_file(&sorted)?;
    }
    Ok(())
}

#[test]
fn texts_side_by_side_on_a_card_are_those_of_the_cpu() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    const N_NEW: usize = 4;
    let model = real::open(&real::repository("models/tiny-stories-q8_0-variant.gguf"))?;
    let story = real::story(60)?;
    let prompt = |i: usize| [&story[..1], &story[1 + 5 * i..][..4 + i % 3]].concat();
    let params = ExecutorParams { n_ctx: 32, ..params(Mode::Exact, KvType::F16) };
    let mut cpu = Executor::new(&model, Placement::all_cold(&model), params.clone())?;
    let mut expected = Vec::new();
    for i in 0..8 {
        cpu.clear();
        let mut token = best(cpu.prefill(&prompt(i))?).0;
        let mut tokens = vec![token];
        for _ in 1..N_NEW {
            token = best(cpu.decode(token)?).0;
            tokens.push(token);
        }
        expected.push(tokens);
    }
    for n in SIZES {
        let division = (true, true, 300);
        let mut card = on_card(&model, &device, &params, division, Place::Card(0), Room::of_sequences(n))?;
        let mut sequences: Vec<Sequence> = (0..n).map(|_| card.new_sequence()).collect::<Result<_>>()?;
        assert!(card.new_sequence().is_err_and(|why| why.to_string().contains(&format!("room for {n} sequences"))));
        let mut got: Vec<Vec<u32>> = Vec::new();
        for (i, sequence) in sequences.iter_mut().enumerate() {
            let prompt = prompt(i);
            got.push(vec![best(card.prefill_sequence(sequence, &prompt, prompt.len())?).0]);
        }
        let mut batch = Batch::default();
        for _ in 1..N_NEW {
            batch.clear();
            for (sequence, of) in sequences.iter().enumerate() {
                let token = got[sequence][got[sequence].len() - 1];
                batch.push(Entry { sequence, position: of.n_past(), token, wants_logits: true });
            }
            let logits = card.decode_batch(&batch, &mut sequences)?;
            for (tokens, logits) in got.iter_mut().zip(logits.chunks_exact(model.config.n_vocab)) {
                tokens.push(best(logits).0);
            }
        }
        assert_eq!(got, expected[..n], "{n} texts");
        let times = card.card().context("a card")?.times;
        assert_eq!(times.n_tokens, (n * (N_NEW - 1)) as u64);
        // One exchange of a layer serves all tokens of a pass.
        assert!(times.n_tasks <= ((N_NEW - 1) * model.config.n_layer) as u64, "{} tasks", times.n_tasks);
    }
    Ok(())
}

#[test]
fn a_sequence_on_a_card_takes_tokens_over_from_another_and_goes_back() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    // Layers with attention alone, those that recur beside them, and experts: the latter are decoded one token after the other.
    for (name, kv_type) in [
        ("tiny-stories", KvType::Q8_0),
        ("llama", KvType::F32),
        ("nemotron_h-biases", KvType::F32),
        ("qwen3moe", KvType::F16),
    ] {
        let model = match name {
            "tiny-stories" => real::open(&real::repository("models/tiny-stories-q8_0-variant.gguf"))?,
            golden => wide(golden, None, folder.path()).with_context(|| name.to_owned())?,
        };
        let params = ExecutorParams { n_ctx: 16, n_ubatch: 4, ..params(Mode::Exact, kv_type) };
        let new = |room: Room| on_card(&model, &device, &params, (true, true, 16), Place::Card(0), room);
        let tokens = [3, 17, 5, 5, 0, 22, 8];
        let mut one = new(Room::default())?;
        let whole = real::decode(&mut one, &tokens)?;
        let mut several = new(Room::of_sequences(2))?;
        let (mut first, mut second) = (several.new_sequence()?, several.new_sequence()?);
        let mut batch = Batch::default();
        let mut decode = |executor: &mut Executor, sequence: &mut Sequence, token: u32| -> Result<Vec<f32>> {
            batch.clear();
            batch.push(Entry { sequence: 0, position: sequence.n_past(), token, wants_logits: true });
            Ok(executor.decode_batch(&batch, std::slice::from_mut(sequence))?.to_vec())
        };
        for token in &tokens[..4] {
            decode(&mut several, &mut first, *token)?;
        }
        several.remember_sequence(&mut first);
        // The second one has held something else before.
        decode(&mut several, &mut second, 9)?;
        assert!(several.copy_sequence(&mut first, &mut second, 4), "{name}");
        decode(&mut several, &mut first, 11)?;
        several.truncate_sequence(&mut first, 4)?;
        for (i, token) in tokens.iter().enumerate().skip(4) {
            let logits = [&mut first, &mut second].map(|sequence| decode(&mut several, sequence, *token));
            for logits in logits {
                same_bits(std::slice::from_ref(&whole[i]), &[logits?]).with_context(|| format!("{name}, token {i}"))?;
            }
        }
    }
    Ok(())
}

#[test]
#[ignore = "run by the test below, with errors injected"]
fn a_card_fails_among_several_sequences() -> Result<()> {
    waiting::set_limit(Duration::from_secs(10));
    let device = Device::open(0)?;
    let model = Model::new(powerinfer::gguf::Gguf::from_source(powerinfer::embedded::source())?, None)?;
    let params = ExecutorParams { n_ctx: 32, ..params(Mode::Exact, KvType::F16) };
    let told = RefCell::new(Vec::new());
    let room = Room { n_sequences: 3, n_at_once: 4 };
    let mut executor = on_card(&model, &device, &params, (true, true, 300), Place::Card(0), room)?;
    executor.go_on_without_card(|why| told.borrow_mut().push(format!("{why:#}")));
    let mut cpu = Executor::new(&model, Placement::all_cold(&model), params)?;
    let story = real::story(40)?;
    let text = |i: usize| &story[5 * i..][..9];
    let mut sequences: Vec<Sequence> = (0..3).map(|_| executor.new_sequence()).collect::<Result<_>>()?;
    let mut batch = Batch::default();
    for (i, sequence) in sequences.iter_mut().enumerate() {
        executor.prefill_sequence(sequence, &text(i)[..7], 7)?;
    }
    let mut got = Vec::new();
    for position in 7..9 {
        batch.clear();
        for sequence in 0..3 {
            let token = text(sequence)[position];
            batch.push(Entry { sequence, position, token, wants_logits: true });
        }
        got = executor.decode_batch(&batch, &mut sequences)?.to_vec();
    }
    assert!(told.borrow().len() == 1 && executor.card().is_none(), "{:?}", told.borrow());
    for (i, logits) in got.chunks_exact(model.config.n_vocab).enumerate() {
        cpu.clear();
        cpu.prefill(&text(i)[..7])?;
        cpu.decode(text(i)[7])?;
        let apart = super::support::compare::max_difference(logits, cpu.decode(text(i)[8])?);
        // Decode and prefill round differently, and so do card and CPU.
        assert!(apart < 0.2, "text {i}: {apart}");
    }
    println!("told: {}", told.borrow()[0]);
    Ok(())
}

#[test]
fn the_cpu_goes_on_with_all_sequences_wherever_the_card_has_failed() {
    if emulated() {
        return;
    }
    // In the second prompt, in the first batch, in the second.
    for (fail, says) in [
        ("kernel:attention_prefill_f16_64@8=700", "ILLEGAL_ADDRESS"),
        ("cuGraphLaunch=719", "LAUNCH_FAILED"),
        ("kernel:finish@2=700", "ILLEGAL_ADDRESS"),
    ] {
        let Some(output) = alone("batches::a_card_fails_among_several_sequences", ("EMU_FAIL", fail)) else { return };
        let said = text(&output);
        let told = said.lines().find(|line| line.contains("told: ")).unwrap_or_default();
        assert!(output.status.success() && told.contains(says), "{fail}: {said}");
    }
}
