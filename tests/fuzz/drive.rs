//! Executes a target with one input after another, and notes what goes wrong.

use super::bytes;
use super::memory::Baseline;
use super::target::{Form, Target};
use super::watch::{self, say};
use crate::support::Random;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What an execution may take: this, and so much for each byte of its input.
pub const MEMORY: usize = 64 << 20;
const MEMORY_PER_BYTE: usize = 64;
/// Beside other tests, and without optimisation, the same takes longer.
const LIMIT_BESIDE_OTHERS: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(2);
/// The most inputs that are kept because they got another answer than those before.
const MOST_KEPT: usize = 256;
/// Distinct faults after which a run ends.
const MOST_FAULTS: usize = 16;
const SEED: u64 = 1;

/// What the environment says; main.rs says what of it.
struct Settings {
    seconds: Option<Duration>,
    seed: u64,
    repeat: Option<PathBuf>,
    trace: bool,
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not understood")))
}

impl Settings {
    /// `None` where the target is not meant.
    fn of(target: &str) -> Option<Self> {
        if variable::<String>("FUZZ_TARGET").is_some_and(|wanted| wanted != target) {
            return None;
        }
        let seconds = variable("FUZZ_SECONDS").map(Duration::from_secs_f64);
        let repeat: Option<PathBuf> = variable("FUZZ_REPEAT");
        // Files that were saved begin with the target's name.
        let meant = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(target));
        if repeat.as_ref().is_some_and(|path| variable::<String>("FUZZ_TARGET").is_none() && !meant(path)) {
            return None;
        }
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
        let seed = variable("FUZZ_SEED").unwrap_or_else(|| if seconds.is_some() { clock() } else { SEED });
        Some(Self { seconds, seed, repeat, trace: variable::<u8>("FUZZ_TRACE").is_some_and(|t| t > 0) })
    }
}

/// What came of one execution.
pub enum Answer {
    Accepted,
    /// What is left of the error when all that may be the input's is taken away.
    Refused(u64),
    /// Where it went wrong, to tell faults apart, and how.
    Fault(String),
}

/// The words of an error that can only be the program's.
fn skeleton(error: &anyhow::Error) -> u64 {
    let text = error.root_cause().to_string();
    // Excerpts stand on lines of their own, or behind a quote.
    let line = text.lines().last().unwrap_or_default();
    let line = line.split(['"', '`']).next().unwrap_or_default();
    let own = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase());
    let mut hash = DefaultHasher::new();
    line.split_whitespace().filter(own).take(4).for_each(|word| word.hash(&mut hash));
    hash.finish()
}

pub fn execute<T: Target>(target: &T, label: &str, input: &[u8], limit: Duration) -> Answer {
    watch::begin(label, input, limit);
    let baseline = Baseline::now();
    let result = catch_unwind(AssertUnwindSafe(|| target.run(input)));
    let (most, allowed) = (baseline.most(), MEMORY + MEMORY_PER_BYTE * input.len());
    let panicked = watch::end();
    match result {
        Err(_) => Answer::Fault(panicked.unwrap_or_else(|| "panicked without a word".to_owned())),
        Ok(_) if most > allowed => Answer::Fault(format!("takes {most} bytes for an input of {}", input.len())),
        Ok(Ok(())) => Answer::Accepted,
        Ok(Err(error)) => Answer::Refused(skeleton(&error)),
    }
}

/// Until it is dropped, nobody else executes anything: memory is counted for all threads.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Executes a target `n` times, or for as long as the environment says.
///
/// # Panics
/// When an execution does, takes more memory than its input can justify, or a seed is refused. One that does not end
/// ends the process.
pub fn fuzz<T: Target>(target: &T, n: u64) {
    let _alone = alone();
    let name = target.name();
    let Some(settings) = Settings::of(name) else { return };
    let limit = if settings.seconds.is_some() { LIMIT } else { LIMIT_BESIDE_OTHERS };
    if let Some(path) = &settings.repeat {
        let input = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let said = target.run(&input);
        say(&format!("{name}: {}", said.map_or_else(|e| format!("refused: {e:#}"), |()| "accepted".to_owned())));
        return;
    }
    let mut run = Run {
        target,
        settings,
        limit,
        n: 0,
        accepted: 0,
        answers: HashSet::new(),
        faults: BTreeMap::new(),
        known: BTreeSet::new(),
    };
    let begun = Instant::now();
    run.all(n);
    let (taken, Run { n, accepted, answers, faults, known, settings, .. }) = (begun.elapsed().as_secs_f64(), run);
    let (rate, answers) = (n as f64 / taken, answers.len());
    if settings.seconds.is_some() {
        say(&format!(
            "{name:10} seed {:10} {n:10} executions in {taken:5.1} s, {rate:8.0}/s, {accepted:9} accepted, {answers:3} answers",
            settings.seed
        ));
    }
    if settings.seconds.is_some() {
        known.iter().for_each(|place| say(&format!("{name:10} known: {place}")));
    }
    let list: Vec<String> = faults.into_values().collect();
    assert!(list.is_empty(), "{} faults:\n{}", list.len(), list.join("\n"));
    assert!(accepted > 0 && accepted < n, "{name}: {accepted} of {n} accepted: changes are too wild, or too tame");
}

struct Run<'a, T: Target> {
    target: &'a T,
    settings: Settings,
    limit: Duration,
    n: u64,
    accepted: u64,
    /// Skeletons of errors.
    answers: HashSet<u64>,
    faults: BTreeMap<String, String>,
    /// Places of faults that are known.
    known: BTreeSet<String>,
}

impl<T: Target> Run<'_, T> {
    fn all(&mut self, n: u64) {
        let seeds = self.target.seeds();
        for (i, seed) in seeds.iter().enumerate() {
            let input = seed.bytes();
            let said = self.target.run(&input);
            said.unwrap_or_else(|error| panic!("{}: seed {i} is refused: {error:#}", self.target.name()));
        }
        let (mut random, mut kept) = (Random::new(self.settings.seed), seeds.clone());
        let begun = Instant::now();
        let seconds = self.settings.seconds;
        let more = |n_done: u64| match seconds {
            Some(seconds) => begun.elapsed() < seconds,
            None => n_done < n,
        };
        while more(self.n) && self.faults.len() < MOST_FAULTS {
            let from = if random.below(2) == 0 { &seeds } else { &kept };
            let mut form = from[random.below(from.len())].clone();
            let other = &kept[random.below(kept.len())];
            form.change(other, self.target.words(), &mut random);
            while random.below(3) == 0 {
                form.change(other, self.target.words(), &mut random);
            }
            let mut input = form.bytes();
            while random.below(8) == 0 {
                bytes::change(&mut input, &[], self.target.words(), &mut random);
            }
            if !self.execute(&input) {
                continue;
            }
            match kept.len() - seeds.len() {
                MOST_KEPT.. => kept[seeds.len() + random.below(MOST_KEPT)] = form,
                _ => kept.push(form),
            }
        }
    }

    /// Whether the answer is one that there has not been.
    fn execute(&mut self, input: &[u8]) -> bool {
        let name = self.target.name();
        self.n += 1;
        let label = format!("{name} seed {} execution {}", self.settings.seed, self.n);
        if self.settings.trace {
            // What overflows the stack leaves nothing but this.
            fs::create_dir_all(watch::folder()).expect("a folder");
            fs::write(watch::folder().join(format!("{name}-traced")), input).expect("room on the disk");
        }
        match execute(self.target, &label, input, self.limit) {
            Answer::Accepted => {
                self.accepted += 1;
                false
            }
            Answer::Refused(skeleton) => self.answers.insert(skeleton),
            Answer::Fault(what) => {
                // Where it panicked; what it said there may be of the input.
                let words: Vec<_> = what.split(' ').take(3).filter(|word| word.parse::<u64>().is_err()).collect();
                let place = words.join(" ");
                if self.target.is_known(&what) {
                    self.known.insert(place);
                    return false;
                }
                self.faults.entry(place).or_insert_with(|| {
                    let path = watch::save(&label, input);
                    let line = format!("{label}: {what}; its input is in {}", path.display());
                    say(&line);
                    line
                });
                false
            }
        }
    }
}
