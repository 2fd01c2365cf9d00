//! What is to be measured, all of it checked before the first measurement.

use super::meter::Bench;
use super::output::{Rows, Told};
use super::speed_args::Setting;
use super::texts::{Scored, Texts};
use crate::Args;
use crate::common::terminal::Bar;
use crate::kl::Comparison;
use anyhow::{Context, Result, ensure};
use powerinfer::cpu::Pool;
use powerinfer::executor::{Mode, Worker};
use powerinfer::gpu::Chosen;
use powerinfer::measure::machine::{measure, types_of};
use powerinfer::measure::roofline::{Limit, limit};
use powerinfer::measure::speed::Test;
use powerinfer::model::Model;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::workload::Workload;
use powerinfer::progress::{self, Progress};
use std::time::{Duration, Instant};

/// One measurement of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum What {
    /// A speed test.
    Speed(Test),
    /// `--perplexity`.
    Perplexity,
    /// `--kl`.
    Kl,
}

/// A measurement, and how it is run.
pub type Case = (Setting, What);

/// Everything that is asked for.
pub struct Work<'a> {
    models: Vec<Subject<'a>>,
    cases: Vec<Case>,
}

/// A model with its texts.
struct Subject<'a> {
    model: &'a Model,
    /// Fed by speed tests.
    tokens: Vec<u32>,
    perplexity: Option<Scored>,
    kl: Option<Comparison>,
}

/// What is measured of the machine for one number of threads and one model.
struct Machine {
    worker: Worker,
    limit: Option<Limit>,
    hardware: Option<Hardware>,
}

/// The measurements that the flags ask for.
pub fn cases(args: &Args) -> Result<Vec<Case>> {
    let tests = args.speed.tests(!args.scores())?;
    ensure!(!tests.is_empty() || args.scores(), "-p 0 -n 0: nothing to measure");
    let speeds = tests.into_iter().map(What::Speed);
    let texts = [args.perplexity.as_ref().map(|_| What::Perplexity), args.kl.kl.as_ref().map(|_| What::Kl)];
    let all: Vec<What> = speeds.chain(texts.into_iter().flatten()).collect();
    let settings = args.speed.settings().into_iter().map(|s| Setting { mode: args.ablation.mode(s.mode), ..s });
    Ok(settings.flat_map(|setting| all.iter().map(move |what| (setting, *what))).collect())
}

impl<'a> Work<'a> {
    /// Reads and checks all that `cases` need of `models`.
    pub fn new(args: &Args, models: &'a [Model], cases: Vec<Case>, bar: &Bar) -> Result<Self> {
        let feeds = cases.iter().any(|(_, what)| matches!(what, What::Speed(_)));
        let texts = Texts::read(args, feeds, bar)?;
        let subject = |model: &'a Model| -> Result<Subject<'a>> {
            // Before hours of the first one.
            cases.iter().try_for_each(|(setting, _)| model.check_mode(setting.mode))?;
            let tokens = if feeds { texts.tokens(args, model)? } else { Vec::new() };
            let perplexity = texts.perplexity.as_ref().map(|text| Scored::new(args, model, text)).transpose()?;
            let kl = texts.kl.as_ref().map(|text| Comparison::new(args, model, text, bar)).transpose()?;
            Ok(Subject { model, tokens, perplexity, kl })
        };
        let models = models.iter().map(subject).collect::<Result<_>>()?;
        Ok(Self { models, cases })
    }

    /// Measures all of it.
    ///
    /// # Errors
    /// When something cannot be measured, or the user stops it; what was measured before is in `rows`.
    pub fn measure(&self, args: &Args, chosen: &Chosen, bar: &Bar, rows: &mut Rows) -> Result<()> {
        let told = Told::new(bar, &args.out);
        let (mut n, of) = (0, self.models.len() * self.cases.len());
        for subject in &self.models {
            let mut machine: Option<(Setting, Machine)> = None;
            for (setting, what) in &self.cases {
                n += 1;
                told.test(n, of, &name(*what));
                if machine.as_ref().is_none_or(|(of, _)| !is_same_machine(args, of, setting)) {
                    // Its threads go before others come.
                    drop(machine.take());
                    machine = Some((*setting, self.machine(args, subject.model, setting, bar)?));
                }
                let Some((_, machine)) = &machine else { continue };
                wait(args.speed.delay, bar)?;
                let Machine { worker, limit, hardware } = machine;
                let bench = Bench { args, chosen, model: subject.model, setting: *setting, worker, limit: *limit };
                let row = match what {
                    What::Speed(test) => bench.speed(*test, &subject.tokens, &told)?,
                    What::Perplexity => bench.perplexity(subject.perplexity.as_ref().context("no text")?, &told)?,
                    What::Kl => subject.kl.as_ref().context("no text")?.row(&bench, &told)?,
                };
                if let (Some(hardware), What::Speed(test)) = (hardware, what)
                    && test.n_prompt == 0
                    && setting.mode != Mode::Thresholded
                {
                    bench.predict(*test, hardware, &row);
                }
                rows.push(row)?;
            }
        }
        Ok(())
    }

    fn machine(&self, args: &Args, model: &Model, setting: &Setting, bar: &Bar) -> Result<Machine> {
        let (n_threads, isa) = (setting.n_threads, args.compute.isa());
        let decodes = self.cases.iter().any(|(_, what)| matches!(what, What::Speed(test) if test.n_prompt == 0));
        let limit = decodes.then(|| -> Result<Limit> { Ok(limit(model, isa, &Pool::new(n_threads)?)) }).transpose()?;
        let types = types_of(&Workload::of(model), setting.kv_type);
        let hardware = || measure(n_threads, isa, &types, None, bar);
        let hardware = (args.predict && decodes).then(hardware).transpose()?;
        Ok(Machine { worker: Worker::new(n_threads, isa)?, limit, hardware })
    }
}

/// Whether what was measured of the machine for `of` holds for `setting`.
fn is_same_machine(args: &Args, of: &Setting, setting: &Setting) -> bool {
    of.n_threads == setting.n_threads && (!args.predict || of.kv_type == setting.kv_type)
}

fn name(what: What) -> String {
    match what {
        What::Speed(test) => test.name(),
        What::Perplexity => "ppl".to_owned(),
        What::Kl => "kl".to_owned(),
    }
}

/// `--delay`; Ctrl-C ends it.
fn wait(seconds: f64, progress: &dyn Progress) -> Result<()> {
    const STEP: Duration = Duration::from_millis(50);
    let (start, wanted) = (Instant::now(), Duration::from_secs_f64(seconds));
    while let Some(left) = wanted.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        progress::check(progress)?;
        std::thread::sleep(left.min(STEP));
    }
    Ok(())
}
