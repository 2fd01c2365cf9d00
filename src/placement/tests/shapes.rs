//! Known shapes: their sizes, and that plans of the largest are made at once.

use super::*;

fn work(name: &str) -> Workload {
    Workload::of_shape(&name.parse().unwrap()).unwrap()
}

#[test]
fn shapes_have_the_sizes_of_their_models() {
    // Parameters in 10^9, without the input embedding.
    for (name, parameters) in [
        ("llama-2-7b", 6.6),
        ("mistral-7b", 7.1),
        ("falcon-40b", 41.3),
        ("llama-70b", 68.7),
        ("opt-30b", 30.0),
        ("opt-175b", 174.6),
        ("mixtral", 46.6),
        ("qwen3-30b", 30.2),
        ("smallthinker-4b", 4.04),
        ("smallthinker-21b", 21.1),
        ("nemotron-3-nano", 31.2),
        ("nemotron-3-super", 120.1),
    ] {
        let found = work(&format!("{name}:f16")).n_bytes() as f64 / 2e9;
        assert!((found / parameters - 1.0).abs() < 0.02, "{name}: {found}");
    }
}

#[test]
fn a_layer_is_what_its_letter_says() {
    let work = work("nemotron-3-nano:q8_0");
    let (mamba, experts, attention) = (&work.layers[0], &work.layers[1], &work.layers[5]);
    assert_eq!((mamba.groups.len(), mamba.n_q, mamba.n_used), (0, 0, 0));
    // Three tokens of 6144 channels, and 128 values for each of 4096 elements, as floats.
    assert_eq!(mamba.recurrence.unwrap().state_bytes, 4 * (3 * 6144 + 4096 * 128));
    assert_eq!((experts.groups.len(), experts.n_used, experts.n_at_once()), (129, 6, 6 * 1856 + 3712));
    assert!(experts.recurrence.is_none() && experts.n_q == 0);
    assert_eq!((attention.n_q, attention.n_kv, attention.groups.len()), (4096, 256, 0));
    let latent = &self::work("nemotron-3-super").layers[1];
    assert_eq!((latent.n_latent, latent.groups[0].neuron_bytes()), (1024, 2 * 1024 / 32 * 18));
    assert_eq!(latent.groups[512].neuron_bytes(), 2 * 4096 / 32 * 18);
}

#[test]
fn the_state_of_a_recurrent_layer_is_where_its_mixer_is() {
    let (hardware, work, run) = (machine(), work("nemotron-3-nano-2:q8_0"), run(Mode::Exact));
    let planner = Planner { hardware: &hardware, work: &work, run: &run };
    let all = planner.plan(None).unwrap();
    assert_eq!(all.layers[0].account.kv_cache, 4 * (3 * 6144 + 4096 * 128));
    assert_eq!((all.home, all.layers[0].time.rendezvous, all.layers[0].time.cpu), (Place::Card(0), 0.0, 0.0));
    let none = planner.cpu_only(None);
    assert_eq!(none.account().kv_cache, 0);
    // It is read and written, in floats, beside the matrices.
    let matrices: u64 = work.layers[0].blocks.iter().map(|(_, block)| block.bytes).sum();
    let least = (matrices + 2 * 4 * (3 * 6144 + 4096 * 128)) as f64 / 70e9;
    assert!((1.0..1.2).contains(&(none.layers[0].time.attention / least)), "{}", none.layers[0].time.attention);
}

#[test]
fn the_largest_shapes_are_planned_within_their_budget() {
    let (hardware, run) = (machine(), run(Mode::Exact));
    for name in ["nemotron-3-nano", "nemotron-3-super"] {
        let work = work(name);
        let planner = Planner { hardware: &hardware, work: &work, run: &run };
        let plan = planner.plan(Some(Bytes(8 << 30))).unwrap();
        assert!(plan.account().taken() <= Bytes(8 << 30) && plan.gap() < 0.05, "{name}: {}", plan.gap());
        let (n_cpu, offload) = planner.expert_offload(Some(Bytes(8 << 30))).unwrap();
        assert!(n_cpu > 0 && offload.objective > plan.objective, "{name}: {n_cpu}");
    }
}
