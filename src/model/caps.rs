//! Soft caps: what scores and logits stay below.

use super::config::Caps;
use super::keys::Keys;
use anyhow::{Result, ensure};

impl Keys<'_> {
    /// The soft caps of an architecture that has them: those of `usual` where no key says otherwise, none where it says 0.
    ///
    /// # Errors
    /// When a key is no finite number, or negative.
    pub fn caps(&self, usual: Caps) -> Result<Caps> {
        let cap = |suffix: &str, usual: Option<f32>| -> Result<Option<f32>> {
            let Some(cap) = self.f32(suffix)? else { return Ok(usual) };
            ensure!(cap >= 0.0, "{}: {cap} is negative", self.name(suffix));
            Ok(Some(cap).filter(|cap| *cap != 0.0))
        };
        // No key of scores is read where the architecture has none: that refuses it.
        let scores = usual.scores.map_or(Ok(None), |usual| cap("attn_logit_softcapping", Some(usual)))?;
        Ok(Caps { scores, logits: cap("final_logit_softcapping", usual.logits)? })
    }
}
