//! Readers are given inputs that nobody has written: files and texts, changed at random. None may panic, go on for
//! ever, or take more memory than its input can justify.
//!
//! `cargo test --test fuzz` executes each target a few hundred or thousand times, always with the same inputs. For longer,
//! best with optimisation (scripts/fuzz.sh does that, and measures what is reached):
//!
//! ```text
//! FUZZ_SECONDS=60 FUZZ_TARGET=gguf cargo test --release --test fuzz
//! FUZZ_SEED=7          another order; without it each run has its own, which is printed
//! FUZZ_REPEAT=FILE     one input, such as those that a failure leaves in target/tmp/fuzz
//! FUZZ_TRACE=1         keeps each input in target/tmp/fuzz/NAME-traced first: for faults that end the process
//! ```

mod bytes;
mod conversation;
mod drive;
mod faults;
mod gguf;
mod grammar;
mod memory;
mod mixtures;
mod models;
mod parts;
mod predictor;
mod profile;
mod pwri;
mod sections;
mod session;
#[path = "../support/mod.rs"]
mod support;
mod target;
mod template;
mod text;
mod tokenizer;
mod toml;
mod variant;
mod vocabulary;
mod watch;

use drive::fuzz;

#[test]
fn the_target_that_is_asked_for_is_one() {
    let known = [
        "gguf",
        "variant",
        "mixtures",
        "pwri",
        "predictor",
        "profile",
        "session",
        "hardware",
        "registry",
        "template",
        "conversation",
        "grammar",
        "schema",
        "tokenizer",
        "text",
    ];
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_else(|_| known[0].to_owned());
    assert!(known.contains(&wanted.as_str()), "FUZZ_TARGET={wanted}: {} are possible", known.join(", "));
}

#[test]
fn gguf_files_are_read_or_refused() {
    fuzz(&gguf::Files::new(), 3000);
}

#[test]
fn variants_are_read_or_refused() {
    fuzz(&variant::Variants::new(), 3000);
}

#[test]
fn models_of_several_kinds_of_layers_are_read_or_refused() {
    fuzz(&mixtures::Mixtures::new(), 1500);
}

#[test]
fn powerinfers_own_files_are_read_or_refused() {
    fuzz(&pwri::PwriFiles::new(), 3000);
}

#[test]
fn predictors_are_read_or_refused() {
    fuzz(&predictor::PredictorFiles::new(), 3000);
}

#[test]
fn profiles_are_read_or_refused() {
    fuzz(&profile::Profiles::new(), 3000);
}

#[test]
fn session_files_are_read_or_refused() {
    fuzz(&session::Sessions::new(), 600);
}

#[test]
fn descriptions_of_machines_are_read_or_refused() {
    fuzz(&toml::Machines, 3000);
}

#[test]
fn lists_of_known_models_are_read_or_refused() {
    fuzz(&toml::Registry, 1000);
}

#[test]
fn templates_are_compiled_and_rendered_or_refused() {
    fuzz(&template::Templates, 1000);
}

#[test]
fn conversations_are_read_or_refused() {
    fuzz(&conversation::Conversations, 3000);
}

#[test]
fn grammars_are_followed_or_refused() {
    fuzz(&grammar::Grammars::new(), 300);
}

#[test]
fn schemas_are_followed_or_refused() {
    fuzz(&grammar::Schemas::new(), 300);
}

#[test]
fn vocabularies_spell_texts_or_are_refused() {
    fuzz(&tokenizer::Vocabularies::default(), 2000);
}

#[test]
fn arguments_are_understood_or_refused() {
    fuzz(&text::Arguments, 10_000);
}
