//! Two builds against each other: what both have measured, and how sure a difference is.

pub mod compared;
pub mod earlier;
pub mod statistics;
#[cfg(test)]
mod tests;

pub use compared::Compared;
pub use earlier::{Measured, Same};
pub use statistics::Limit;

/// Measurements of both sides that are of the same thing, and those that only one side has.
#[derive(Debug)]
pub struct Paired<'a> {
    /// Old and new: at least one run of each.
    pub pairs: Vec<(Vec<&'a Measured>, Vec<&'a Measured>)>,
    /// Of the old side only.
    pub only_old: Vec<&'a Measured>,
    /// Of the new side only.
    pub only_new: Vec<&'a Measured>,
}

/// Pairs what both sides have measured, by what was measured. Several rows of one thing are several runs of it. A field that
/// only one side has (that of another program, or of another version of this one) tells nothing apart; where a thing of one
/// side could therefore be several of the other, it has no partner.
pub fn pair<'a>(old: &'a [Measured], new: &'a [Measured]) -> Paired<'a> {
    let (old, new) = (runs(old), runs(new));
    let mut paired = Paired { pairs: Vec::new(), only_old: Vec::new(), only_new: Vec::new() };
    let mut taken = vec![false; new.len()];
    for (i, runs) in old.iter().enumerate() {
        match only_partner(runs, &new).filter(|j| only_partner(&new[*j], &old) == Some(i)) {
            Some(j) => {
                taken[j] = true;
                paired.pairs.push((runs.clone(), new[j].clone()));
            }
            None => paired.only_old.push(runs[0]),
        }
    }
    let left = new.iter().zip(&taken).filter(|(_, taken)| !**taken);
    paired.only_new.extend(left.map(|(runs, _)| runs[0]));
    paired
}

/// Which of `others` may be the same as `runs`, if it is one.
fn only_partner(runs: &[&Measured], others: &[Vec<&Measured>]) -> Option<usize> {
    let mut agreeing = others.iter().enumerate().filter(|(_, other)| other[0].case.agrees(&runs[0].case));
    let (at, _) = agreeing.next()?;
    agreeing.next().is_none().then_some(at)
}

/// The rows of each thing that was measured, in the order of their first ones.
fn runs(rows: &[Measured]) -> Vec<Vec<&Measured>> {
    let mut all: Vec<Vec<&Measured>> = Vec::new();
    for row in rows {
        match all.iter_mut().find(|runs| runs[0].case == row.case) {
            Some(runs) => runs.push(row),
            None => all.push(vec![row]),
        }
    }
    all
}
