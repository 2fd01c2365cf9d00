//! `profile --report`: one page with pictures and a plan, whatever the model is called, or a refusal before the work.

use crate::support::{Outcome, refused, tool, usage_error};
use powerinfer::profile::Profile;
use powerinfer::progress::Silent;
use std::path::Path;

const CARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hardware/rtx-4090-ddr5.toml");

/// Of the embedded model, by what it has done with a text.
fn profiled(folder: &Path, args: &[&str]) -> Outcome {
    std::fs::write(folder.join("a.txt"), "Once upon a time there was a dog. ".repeat(3)).unwrap();
    let mut command = tool("profile");
    command.arg("-f").arg(folder.join("a.txt")).arg("-o").arg(folder.join("p")).args(["-c", "16", "-t", "1"]);
    Outcome::from(command.args(args).output().unwrap())
}

#[test]
fn a_report_holds_pictures_and_the_plan_of_the_model_that_was_profiled() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("r.html");
    profiled(folder.path(), &["--report", page.to_str().unwrap(), "--hardware", CARD, "--vram-budget", "64MiB"]).ok();
    let made = std::fs::read_to_string(&page).unwrap();
    for words in [
        "<!DOCTYPE html>",
        "How often neurons fire",
        "hot in the plan",
        "Plan for RTX 4090",
        "budget    64.00 MiB",
        "</html>",
    ] {
        assert!(made.contains(words), "{words}");
    }
    assert!(!made.contains("<script"));
    // A name may hold anything; without a model there is no plan.
    let path = folder.path().join("p");
    let hostile = Profile { name: "<script>alert(1)</script>\u{1b}[2J".to_owned(), ..Profile::read(&path).unwrap() };
    hostile.write_with(&path, None, &Silent).unwrap();
    let mut show = tool("profile");
    Outcome::from(show.arg("--show").arg(&path).arg("--report").arg(&page).output().unwrap()).ok();
    let shown = std::fs::read_to_string(&page).unwrap();
    assert!(shown.contains("&lt;script&gt;") && shown.contains("--plan-model") && shown.contains("left of it: 80 %"));
    assert!(!shown.contains("<script") && !shown.contains('\u{1b}'));
}

#[test]
fn reports_that_cannot_be_written_are_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let refuse = |args: &[&str], words: &[&str]| refused(tool("profile").args(args), words);
    refuse(
        &["--show", "none.profile", "--report", "/no/such/folder/r.html"],
        &["/no/such/folder/r.html: cannot be written"],
    );
    refuse(&["--show", "none.profile", "--report", CARD, "--hardware", CARD], &["is an input"]);
    refuse(&["--show", "none.profile", "--vram-budget", "1GiB"], &["--report"]);
    let outcome = profiled(folder.path(), &["--report", folder.path().join("a.txt").to_str().unwrap()]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("is an input") && !folder.path().join("p").exists(), "{}", outcome.stderr);
    usage_error("profile", &["--show", "p", "--plan-model", "m.gguf"], "--report");
}
