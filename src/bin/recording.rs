//! `--trace`: where the time of tokens goes.

use crate::common::models::{keep_apart, keep_inputs};
use crate::common::terminal::{Bar, tell};
use anyhow::Result;
use clap::Args;
use powerinfer::executor::Worker;
use powerinfer::files::check_writable;
use powerinfer::trace::Recorder;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is recorded, and where it is written.
#[derive(Args)]
#[command(next_help_heading = "Traces")]
pub struct TraceArgs {
    /// Record what each thread does in each layer (attention, mask, cold, waiting) and write it as trace events, which
    /// ui.perfetto.dev and chrome://tracing show
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dry_run", "tokenize", "list_models"])]
    trace: Option<PathBuf>,
    /// With --trace: record the prompt and this many generated tokens
    #[arg(long, value_name = "N", default_value_t = 64, requires = "trace")]
    trace_tokens: usize,
}

impl TraceArgs {
    /// Finds out before a model is loaded whether the file can be written, and that it is none of `inputs` and not the
    /// session file.
    pub fn check<'a>(&self, inputs: impl IntoIterator<Item = &'a Path>, session: Option<&Path>) -> Result<()> {
        let Some(path) = &self.trace else { return Ok(()) };
        keep_inputs(path, inputs)?;
        keep_apart([("--trace", Some(path)), ("--prompt-cache", session)])?;
        check_writable(path)
    }

    /// Begins to record what `worker` does, where that was asked for.
    pub fn begin(&self, worker: &Worker) -> Option<Arc<Recorder>> {
        self.trace.as_ref()?;
        let recorder = Recorder::new(worker.n_threads(), self.trace_tokens);
        worker.set_trace(&recorder);
        Some(recorder)
    }

    /// Writes what was recorded, also of what has failed or was interrupted.
    pub fn end(&self, recorder: Option<&Recorder>) -> Result<()> {
        let Some((path, recorder)) = self.trace.as_ref().zip(recorder) else { return Ok(()) };
        // What was read since it was checked, such as a chat template.
        keep_inputs(path, [])?;
        recorder.write(path, &Bar::new())?;
        let lost = recorder.n_lost();
        if lost > 0 {
            tell!(
                "note: {}: {lost} events found no room; --trace-tokens below {} takes less",
                path.display(),
                self.trace_tokens
            );
        }
        Ok(())
    }
}
