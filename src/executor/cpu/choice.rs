//! Which groups of a layer are computed, and for which tokens.

use crate::model::Chosen;

/// The groups that are computed for any token of a batch, each with its tokens. Of the others nothing is looked at.
#[derive(Default)]
pub(in crate::executor) struct Choice {
    groups: Vec<InGroup>,
    /// One group behind the other.
    tokens: Vec<u32>,
    weights: Vec<f32>,
    /// By row of the router: how many tokens choose it, and where the next of them goes, where its group is named.
    counts: Vec<usize>,
    next: Vec<Option<usize>>,
}

#[derive(Clone, Copy)]
struct InGroup {
    group: usize,
    start: usize,
    end: usize,
    routed: bool,
}

/// A group that is computed.
#[derive(Clone, Copy)]
pub(in crate::executor) struct ChosenGroup<'a> {
    /// Its number in the layer.
    pub group: usize,
    /// Numbers of the tokens that it is computed for, rising.
    pub tokens: &'a [u32],
    /// What it counts for each of them; `None` for 1.
    pub weights: Option<&'a [f32]>,
}

impl Choice {
    /// Takes what a router chose for `n_tokens` (`chosen` is `[n_tokens][n_chosen]`: 0 for what is not chosen), for those
    /// of a layer's groups that are named, each with when it is computed, in rising order.
    pub fn take(
        &mut self,
        groups: impl Iterator<Item = (usize, Chosen)>,
        n_tokens: usize,
        chosen: &[f32],
        n_chosen: usize,
    ) {
        let Self { groups: found, tokens, weights, counts, next } = self;
        found.clear();
        tokens.clear();
        weights.clear();
        counts.clear();
        counts.resize(n_chosen, 0);
        next.clear();
        next.resize(n_chosen, None);
        for chosen in chosen.chunks_exact(n_chosen.max(1)) {
            counts.iter_mut().zip(chosen).for_each(|(count, weight)| *count += usize::from(*weight != 0.0));
        }
        for (group, when) in groups {
            let start = tokens.len();
            match when {
                Chosen::Always => tokens.extend(0..n_tokens as u32),
                Chosen::ByRouter(row) => {
                    next[row] = Some(start);
                    tokens.resize(start + counts[row], 0);
                }
            }
            if tokens.len() > start {
                found.push(InGroup { group, start, end: tokens.len(), routed: when != Chosen::Always });
            }
        }
        weights.resize(tokens.len(), 1.0);
        for (token, chosen) in chosen.chunks_exact(n_chosen.max(1)).enumerate() {
            for (next, weight) in next.iter_mut().zip(chosen).filter(|(_, weight)| **weight != 0.0) {
                if let Some(next) = next {
                    (tokens[*next], weights[*next]) = (token as u32, *weight);
                    *next += 1;
                }
            }
        }
    }

    /// How many groups are computed.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Number `i` of them.
    pub fn get(&self, i: usize) -> ChosenGroup<'_> {
        let InGroup { group, start, end, routed } = self.groups[i];
        let weights = routed.then(|| &self.weights[start..end]);
        ChosenGroup { group, tokens: &self.tokens[start..end], weights }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = ChosenGroup<'_>> + Clone {
        (0..self.len()).map(|i| self.get(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_gets_its_tokens_in_order_and_those_without_any_are_left_out() {
        let groups = [Chosen::ByRouter(2), Chosen::Always, Chosen::ByRouter(0), Chosen::ByRouter(1)];
        let chosen = [0.25, 0.0, 0.0, 0.5, 0.0, 0.75, 0.0, 0.0, 1.0];
        let mut choice = Choice::default();
        for _ in 0..2 {
            choice.take(groups.into_iter().enumerate(), 3, &chosen, 3);
            let found: Vec<_> =
                choice.iter().map(|g| (g.group, g.tokens.to_vec(), g.weights.map(<[f32]>::to_vec))).collect();
            assert_eq!(
                found,
                [
                    (0, vec![1, 2], Some(vec![0.75, 1.0])),
                    (1, vec![0, 1, 2], None),
                    (2, vec![0, 1], Some(vec![0.25, 0.5]))
                ]
            );
        }
        choice.take([(2, groups[2])].into_iter(), 3, &chosen, 3);
        assert_eq!(choice.iter().map(|g| (g.group, g.tokens.to_vec())).collect::<Vec<_>>(), [(2, vec![0, 1])]);
        choice.take([(3, Chosen::Always)].into_iter(), 2, &[], 0);
        assert_eq!(choice.iter().map(|g| g.tokens.len()).collect::<Vec<_>>(), [2]);
    }
}
