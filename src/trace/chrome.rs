//! Traces as files of Chrome's trace events, which Perfetto and chrome://tracing show ("Trace Event Format", Google 2016).

use super::{Event, NOWHERE, Recorder, What};
use crate::files::AtomicFile;
use crate::progress::Progress;
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;

impl Recorder {
    /// Writes what has been recorded so far, one event a line, thread by thread. Times are microseconds since the recorder was
    /// made. Of a FIFO a reader is waited for until `progress` says to stop.
    ///
    /// # Errors
    /// When the file cannot be written; [`crate::progress::Interrupted`].
    pub fn write(&self, path: &Path, progress: &dyn Progress) -> Result<()> {
        let mut file = AtomicFile::create(path, progress)?;
        let lost = self.n_lost();
        file.append(
            format!("{{\"displayTimeUnit\":\"ms\",\"otherData\":{{\"lost\":{lost}}},\"traceEvents\":[\n").as_bytes(),
        )?;
        let name =
            |thread: usize| if thread == 0 { "thread 0, which leads".to_owned() } else { format!("thread {thread}") };
        for thread in 0..self.lanes.len() {
            let called =
                json!({"name": "thread_name", "ph": "M", "pid": 1, "tid": thread, "args": {"name": name(thread)}});
            file.append(format!("{called},\n").as_bytes())?;
            let Some(lane) = self.lane(thread) else { continue };
            for event in &*lane {
                file.append(format!("{},\n", of(event, thread)).as_bytes())?;
            }
        }
        let called = json!({"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "powerinfer"}});
        file.append(format!("{called}\n]}}\n").as_bytes())?;
        file.commit()
    }
}

fn of(event: &Event, thread: usize) -> Value {
    let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    let mut args = json!({});
    if event.layer != NOWHERE {
        args["layer"] = event.layer.into();
    }
    if event.n > 0 {
        args["tokens"] = event.n.into();
    }
    let kind = if matches!(event.what, What::Waiting | What::Card) { "waiting" } else { "work" };
    json!({
        "name": event.what.name(),
        "cat": kind,
        "ph": "X",
        "ts": microseconds(event.begin),
        "dur": microseconds(event.end.saturating_sub(event.begin)),
        "pid": 1,
        "tid": thread,
        "args": args,
    })
}
