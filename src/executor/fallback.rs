//! What becomes of a run whose card fails: the CPU goes on with it.

use super::cpu::{Cpu, Worker};
use super::device::{Backend, Handed};
use super::params::ExecutorParams;
use crate::model::Model;
use crate::placement::Placement;
use crate::progress::Interrupted;
use anyhow::Error;
use std::fmt;

/// Is told why the card is not used any more.
type Tell<'m> = Box<dyn FnOnce(&Error) + 'm>;

/// The card has failed, and nothing goes on without it: the executor can compute nothing more.
#[derive(Debug)]
pub struct CardFailed(String);

impl fmt::Display for CardFailed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}; --device cpu computes without the card", self.0)
    }
}

impl std::error::Error for CardFailed {}

/// What an executor needs to go on without its card.
pub(super) struct Fallback<'m> {
    pub worker: Worker,
    /// `None` where a failure is to be an error.
    pub tell: Option<Tell<'m>>,
}

impl<'m> Fallback<'m> {
    /// Of an executor with the threads of `worker`.
    pub fn new(worker: &Worker) -> Self {
        Self { worker: worker.clone(), tell: None }
    }

    /// The CPU, with what was set on `failed`, and `why` is told; or the error that it is where nobody wants to be told, or
    /// where `why` is the user, who has stopped it.
    pub fn replaces(
        &mut self,
        failed: &mut (dyn Backend + 'm),
        model: &'m Model,
        params: &ExecutorParams,
        why: Error,
    ) -> Result<Cpu<'m>, Error> {
        if why.is::<Interrupted>() {
            return Err(why);
        }
        let Some(tell) = self.tell.take() else {
            return Err(CardFailed(format!("{why:#}")).into());
        };
        tell(&why);
        let Handed { mask, audit_every } = failed.hand_over();
        let mut cpu = Cpu::new(model, Placement::all_cold(model), params.clone(), self.worker.clone());
        cpu.set_mask(mask);
        cpu.set_audit(audit_every);
        Ok(cpu)
    }
}
