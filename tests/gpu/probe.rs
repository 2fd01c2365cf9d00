//! Measuring a card.

use super::{emulated, gpu};
use powerinfer::gpu::meter::Effort;
use powerinfer::gpu::probe::measure;
use powerinfer::progress::{Interrupted, Progress, Silent};
use powerinfer::quant::GgmlType;

/// Little on a card; next to nothing where each thread of it is emulated.
fn effort() -> Effort {
    let small = Effort { bytes: 1 << 26, n_runs: 2, ..Effort::default() };
    if emulated() { Effort::least() } else { small }
}

#[test]
fn a_card_has_bandwidths_and_a_way_there() {
    let Some(device) = gpu() else { return };
    let types = [GgmlType::Q4_0, GgmlType::F16, GgmlType::I8, GgmlType::Q6_K];
    let measured = measure(&device, &types, &effort(), &Silent).unwrap();
    let (gpu, bus) = (&measured.gpu, &measured.bus);
    assert_eq!(gpu.bandwidth.by_type.keys().copied().collect::<Vec<_>>(), ["F16", "Q4_0", "Q6_K"]);
    for b in gpu.bandwidth.by_type.values().chain([&gpu.bandwidth.other]) {
        let believable = |rate: f64| (1e3..1e14).contains(&rate);
        assert!([b.stream, b.gather, b.add_stream, b.add_gather].into_iter().all(believable), "{b:?}");
    }
    assert!(gpu.context < gpu.vram && gpu.vram == device.memory().unwrap().1, "{gpu:?}");
    assert!(gpu.kernel > 0.0 && bus.bandwidth > 1e3 && bus.rendezvous > 0.0, "{measured:?}");
}

struct Cancelled;

impl Progress for Cancelled {
    fn cancelled(&self) -> bool {
        true
    }
}

#[test]
fn measuring_ends_when_the_user_wants() {
    let Some(device) = gpu() else { return };
    let error = measure(&device, &[GgmlType::F16], &effort(), &Cancelled).unwrap_err();
    assert!(error.is::<Interrupted>(), "{error:#}");
}
