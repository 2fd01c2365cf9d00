//! Plans for a card of models that it cannot compute yet.

use crate::support::real::repository;
use crate::support::{Outcome, tool};

const NOTE: &str = "note: a card cannot compute this model";

#[test]
fn a_plan_that_no_card_can_run_says_so_and_what_is_lacking() {
    let hardware = repository("hardware/rtx-3060-ddr4.toml");
    let planned = |command: &str, model: &str, more: &[&str]| {
        let mut command = tool(command);
        command.arg("-m").arg(repository(model));
        command.args(["--dry-run", "-c", "64"]).args(more).arg("--hardware").arg(&hardware);
        let outcome = Outcome::from(command.output().unwrap()).ok();
        assert!(outcome.stdout.contains("tokens/s predicted"), "{}", outcome.stdout);
        outcome.stderr
    };
    for (command, more) in [("run", &[][..]), ("split", &["--keep-order"])] {
        let told = planned(command, "tests/golden/arch/gemma2.gguf", more);
        assert!(told.contains(NOTE) && told.contains("attn_logit_softcapping"), "{command}: {told}");
        assert!(!planned(command, "models/tiny-stories-f16.gguf", more).contains(NOTE), "{command}");
    }
}
