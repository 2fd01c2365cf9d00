//! The test of a card at its first start.

use super::{alone, emulated, gpu};
use powerinfer::gpu::entries::entries;
use powerinfer::gpu::ptx::FILES;
use powerinfer::gpu::self_test::{COMPILING, run};
use std::env;

/// All kernels that the program carries.
fn kernels() -> Vec<String> {
    let texts = FILES.iter().map(|file| file.targets[0].1.text().unwrap());
    let mut names: Vec<String> =
        texts.flat_map(|text| entries(&text).iter().map(|e| e.name.to_owned()).collect::<Vec<_>>()).collect();
    names.sort();
    names
}

#[test]
fn a_sound_card_passes_in_every_kernel() {
    let Some(device) = gpu() else { return };
    let mut stages = Vec::new();
    run(&device, &mut |name| {
        stages.push(name.to_owned());
        Ok(true)
    })
    .unwrap();
    assert_eq!(stages.remove(0), COMPILING);
    stages.sort();
    let mut expected = [kernels(), vec!["graph".to_owned(), "rendezvous".to_owned()]].concat();
    expected.sort();
    assert_eq!(stages, expected);
}

/// The kernel that `EMU_FAIL` injects a failure into.
fn injected() -> String {
    let fail = env::var("EMU_FAIL").expect("a setting of the emulator");
    fail.strip_prefix("kernel:").and_then(|rest| rest.split_once('=')).expect("a kernel").0.to_owned()
}

#[test]
#[ignore = "started by the test below, with a failure"]
fn what_one_kernel_does() {
    let (device, kernel) = (gpu().unwrap(), injected());
    let error = run(&device, &mut |name| Ok(name == COMPILING || name == kernel)).unwrap_err();
    println!("\n{error:#}");
    // What a kernel that does not end works on cannot be freed.
    std::process::exit(0);
}

/// What the test says where only `kernel` is tested, with this failure in it.
fn told(kernel: &str, failure: &str) -> Option<String> {
    let setting = format!("kernel:{kernel}={failure}");
    let output = alone("self_test::what_one_kernel_does", ("EMU_FAIL", &setting))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{setting}: {said}{}", String::from_utf8_lossy(&output.stderr));
    Some(said.lines().find(|l| l.starts_with(&format!("{kernel}: "))).expect(&setting).to_owned())
}

#[test]
fn a_wrong_result_of_any_kernel_is_found_and_named() {
    if emulated() {
        return;
    }
    for kernel in kernels() {
        let Some(said) = told(&kernel, "wrong") else { return };
        assert!(said.contains(" expected"), "{said}");
    }
}

#[test]
fn a_kernel_that_does_not_end_or_fails_is_named() {
    if emulated() {
        return;
    }
    let Some(said) = told("select_act", "hang") else { return };
    assert_eq!(said, "select_act: has not ended within 8 s");
    let said = told("down_q4_0", "700").unwrap();
    assert!(said.contains("illegal memory access"), "{said}");
}
