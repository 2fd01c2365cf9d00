//! A card is used once it has passed the library's self-test, in a process of its own: a card that hangs, or a driver that
//! crashes, then takes nothing else with it. What came of it is remembered for this driver and this program.

mod child;
mod verdicts;

use super::terminal::tell;
use anyhow::{Result, bail};
use powerinfer::gpu::identity::{is_installed, version};
use powerinfer::gpu::{Chosen, DeviceChoice, Identity};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;
use verdicts::{Program, Verdicts};

pub use child::{asked, serve};

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Verdict {
    Passed,
    /// Why the card is not to be used.
    Failed(String),
    /// Why there was no test: another time there may be one.
    Unavailable(String),
}

/// A test, and which card it was of, where it got so far.
#[derive(Debug, Clone)]
struct Outcome {
    card: Option<String>,
    verdict: Verdict,
}

/// Loading kernels takes longer only where the driver compiles them.
const SLOW: Duration = Duration::from_millis(500);

/// What helps in any case.
const WITHOUT: &str = "--device cpu computes without a card";

/// Says so once: the process that tests compiles them for this one, too.
fn tell_of_compiling() {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| tell!("compiling kernels for the card, once (about 5 s)"));
}

/// Opens what `choice` asks for, once it has passed the self-test. For `auto` what has failed before is left alone.
///
/// # Errors
/// When a card was asked for by name and cannot be used; when the user stops the test.
pub fn choose(choice: DeviceChoice) -> Result<Chosen> {
    choose_after(choice, choice != DeviceChoice::Auto)
}

/// The same for a plan: what has failed before is tested again in any case, for not all that plan take `--device`.
///
/// # Errors
/// As [`choose`].
pub fn choose_to_plan(choice: DeviceChoice) -> Result<Chosen> {
    choose_after(choice, true)
}

/// [`choose`]. `again`: what has failed before is tested again.
fn choose_after(choice: DeviceChoice, again: bool) -> Result<Chosen> {
    let ordinal = match choice {
        DeviceChoice::Cuda(ordinal) => ordinal,
        DeviceChoice::Auto => 0,
        DeviceChoice::Cpu => return powerinfer::gpu::choose(choice),
    };
    if !is_installed() {
        return powerinfer::gpu::choose(choice);
    }
    let is_named = choice != DeviceChoice::Auto;
    let Outcome { card, verdict } = tested(ordinal, again)?;
    let why = match verdict {
        Verdict::Passed => {
            let chosen = powerinfer::gpu::choose(choice)?;
            if let Chosen::Cuda(device) = &chosen {
                device.on_slow_load(tell_of_compiling);
            }
            return Ok(chosen);
        }
        Verdict::Unavailable(why) if is_named => bail!("{why}; {WITHOUT}"),
        Verdict::Unavailable(why) => why,
        Verdict::Failed(why) => {
            let card = card.unwrap_or_else(|| DeviceChoice::Cuda(ordinal).to_string());
            if is_named {
                bail!("{card}: self-test: {why}; {WITHOUT}");
            }
            let next = if again { "" } else { " (--device cuda tries again)" };
            format!("{card}: self-test: {why}{next}")
        }
    };
    Ok(Chosen::Cpu { why: Some(why) })
}

/// What this process has found out, which holds also where no file can be written: number of the card, and outcome.
static FOUND: Mutex<Vec<(u32, Outcome)>> = Mutex::new(Vec::new());

/// What is known of the card, or else what a test says. `again`: a test that failed before this process began is made again.
fn tested(ordinal: u32, again: bool) -> Result<Outcome> {
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, outcome)) = found.iter().find(|(of, _)| *of == ordinal) {
        return Ok(outcome.clone());
    }
    let (outcome, is_new) = known_or_tested(ordinal, again)?;
    if is_new || outcome.verdict == Verdict::Passed {
        found.push((ordinal, outcome.clone()));
    }
    Ok(outcome)
}

/// The same where this process has not found it out yet, and whether that was a test.
fn known_or_tested(ordinal: u32, again: bool) -> Result<(Outcome, bool)> {
    let Ok(driver) = version() else {
        // It is told when the card is opened.
        return Ok((Outcome { card: None, verdict: Verdict::Passed }, false));
    };
    let program = Program::this();
    let mut verdicts = Verdicts::read();
    let known = program.as_ref().map(|program| verdicts.of(program, ordinal, &driver)).unwrap_or_default();
    // Before a test has come past opening here, the driver is asked for nothing else: it may not survive that.
    let asked = known.iter().all(|known| known.card.is_some()) && !known.is_empty();
    let name = match asked.then(|| Identity::of(ordinal)).transpose() {
        Ok(card) => card.map(|card| card.name),
        Err(why) => return Ok((Outcome { card: None, verdict: Verdict::Unavailable(format!("{why:#}")) }, false)),
    };
    let known = known.into_iter().find(|known| known.card == name).map(|known| known.verdict);
    if let Some(verdict) = known.filter(|verdict| *verdict == Verdict::Passed || !again) {
        return Ok((Outcome { card: name, verdict }, false));
    }
    let outcome = child::test(ordinal)?;
    if let Some(program) = program
        && !matches!(outcome.verdict, Verdict::Unavailable(_))
    {
        verdicts.remember(program, ordinal, driver, &outcome);
    }
    Ok((outcome, true))
}
