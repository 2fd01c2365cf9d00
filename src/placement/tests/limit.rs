//! What no token can be faster than: bytes at full speed, and the card's kernels one after the other.

use super::*;

const N_LAYER: usize = 4;

fn work() -> Workload {
    let mut work = distinct(N_LAYER, 512, 1024, 9);
    work.assume_predictors();
    work
}

/// The machine, with a card whose kernels take so many seconds and whose data sheet says this.
fn with(kernel: f64, data_sheet: Option<f64>) -> Hardware {
    let mut hardware = machine();
    let gpu = &mut hardware.device.as_mut().unwrap().gpu;
    (gpu.kernel, gpu.data_sheet) = (kernel, data_sheet);
    hardware
}

#[test]
fn kernels_count_toward_the_least_time_of_a_token() {
    let (work, run) = (work(), run(Mode::Dense));
    let (slow, free) = (with(2e-6, None), with(0.0, None));
    let planner = |hardware| Planner { hardware, work: &work, run: &run };
    let all = planner(&slow).plan(Some(Bytes(1 << 30))).unwrap();
    assert_eq!((all.hot_share(), all.head), (1.0, Place::Card(0)));
    let launches = planner(&slow).least_seconds(&all) - planner(&free).least_seconds(&all);
    // Five of attention and four of the FFN in every layer, and the head's two.
    assert!((launches - (9 * N_LAYER + 2) as f64 * 2e-6).abs() < 1e-12, "{launches}");
    // Norms are no matrices: they are read beside what is counted.
    let matrices = work.n_bytes() - work.layers.iter().map(|l| l.small_bytes).sum::<u64>();
    let reading = planner(&free).least_seconds(&all);
    assert!((reading * 850e9 / matrices as f64 - 1.0).abs() < 1e-9, "{reading}");
}

#[test]
fn no_plan_is_faster_than_its_limit() {
    let (hardware, work) = (machine(), work());
    for mode in [Mode::Dense, Mode::Exact, Mode::Predicted] {
        let run = run(mode);
        let planner = Planner { hardware: &hardware, work: &work, run: &run };
        for budget in (0..20).map(|i| Bytes((10 + 2 * i) << 20)).filter(|b| *b >= planner.least()) {
            let plan = planner.within(budget);
            let least = planner.least_seconds(&plan);
            assert!(least > 0.0 && least <= plan.seconds(), "{mode:?} {budget}: {least} of {}", plan.seconds());
        }
    }
}

#[test]
fn the_data_sheet_is_a_limit_of_the_cards_bytes_alone() {
    let (work, run) = (work(), run(Mode::Dense));
    let (known, unknown) = (with(2e-6, Some(1000e9)), with(2e-6, None));
    let planner = |hardware| Planner { hardware, work: &work, run: &run };
    let all = planner(&known).plan(Some(Bytes(1 << 30))).unwrap();
    let matrices = work.n_bytes() - work.layers.iter().map(|l| l.small_bytes).sum::<u64>();
    let seconds = planner(&known).data_sheet_seconds(&all).unwrap();
    assert!((seconds * 1000e9 / matrices as f64 - 1.0).abs() < 1e-9, "{seconds}");
    assert!(seconds < planner(&known).least_seconds(&all));
    assert_eq!(planner(&unknown).data_sheet_seconds(&all), None);
    assert_eq!(planner(&known).data_sheet_seconds(&planner(&known).cpu_only(None)), None);
}
