//! Loading the kernels.

use super::{alone, emulated, gpu};
use powerinfer::gpu::{Device, Kernels};
use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};

static SLOW: AtomicUsize = AtomicUsize::new(0);

#[test]
#[ignore = "started by the test below, where another load would fail"]
fn kernels_are_loaded_once() {
    let device = gpu().unwrap();
    device.on_slow_load(|| {
        SLOW.fetch_add(1, Ordering::SeqCst);
    });
    let first = Kernels::load(&device).unwrap();
    assert!(first.has("norm"));
    drop(first.clone());
    drop(first);
    // By another who opens the card, too.
    assert!(Kernels::load(&Device::open(0).unwrap()).unwrap().has("norm"));
    let slow = env::var("EMU_FAIL").unwrap().contains("stall");
    assert_eq!(SLOW.load(Ordering::SeqCst), usize::from(slow));
    drop(device);
    // A card that was closed and is opened again has none.
    let again = Kernels::load(&Device::open(0).unwrap());
    assert!(slow || again.is_err());
}

#[test]
fn a_card_has_its_kernels_loaded_once_and_whoever_waits_long_is_told() {
    if emulated() {
        return;
    }
    for fail in ["cuModuleLoadDataEx@16=999", "cuModuleLoadDataEx@2=stall:700"] {
        let Some(output) = alone("loading::kernels_are_loaded_once", ("EMU_FAIL", fail)) else { return };
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{fail}: {}{}", said(&output.stdout), said(&output.stderr));
    }
}
