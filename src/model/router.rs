//! Routers: which groups of neurons a token needs, and what each of them counts.

/// How scores become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gating {
    /// Softmax over all groups.
    Softmax,
    /// The logistic function of each.
    Sigmoid,
    /// Softmax over the groups that are chosen, by their scores.
    SoftmaxOfChosen,
}

/// How a layer's router chooses. Its scores are the product of [`Role::Router`](super::Role::Router) with what it
/// looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Router {
    /// How scores become weights.
    pub gating: Gating,
    /// Groups that are chosen for a token: those of the greatest weights.
    pub n_used: usize,
    /// Whether the weights of the chosen groups are divided by their sum.
    pub normalised: bool,
    /// The weights are multiplied with this at last.
    pub scale: f32,
}

/// Weights are not divided by a sum below this (2^-14, as in llama.cpp).
const LEAST_SUM: f32 = 6.103_515_6e-5;

impl Router {
    /// Turns `scores` into weights, in place: 0 for groups that are not chosen. Of equals the first is chosen, and what is not a
    /// number before all others, so that it shows in what comes of it. `bias`, one value per group, is added to the weights that
    /// groups are chosen by.
    pub fn choose(&self, scores: &mut [f32], bias: Option<&[f32]>, order: &mut Vec<usize>) {
        order.clear();
        order.extend(0..scores.len());
        // Weights are in the order of the scores, but for those that are rounded to the same number, such as 1.
        if bias.is_none() {
            self.put_chosen_first(order, |group| scores[group]);
        }
        match self.gating {
            Gating::Softmax => softmax(scores),
            Gating::Sigmoid => scores.iter_mut().for_each(|s| *s = 1.0 / (1.0 + (-*s).exp())),
            Gating::SoftmaxOfChosen => {}
        }
        if let Some(bias) = bias {
            self.put_chosen_first(order, |group| scores[group] + bias[group]);
        }
        let rest = match self.gating {
            Gating::SoftmaxOfChosen => f32::NEG_INFINITY,
            Gating::Softmax | Gating::Sigmoid => 0.0,
        };
        for group in &order[self.n_used.min(order.len())..] {
            scores[*group] = rest;
        }
        if self.gating == Gating::SoftmaxOfChosen {
            softmax(scores);
        }
        let sum: f32 = scores.iter().sum();
        let divisor = if self.normalised { sum.max(LEAST_SUM) } else { 1.0 };
        scores.iter_mut().for_each(|s| *s = *s / divisor * self.scale);
    }

    fn put_chosen_first(&self, order: &mut [usize], by: impl Fn(usize) -> f32) {
        // Processors differ in the sign of those that they make.
        let by = |group: usize| Some(by(group)).filter(|value| !value.is_nan()).unwrap_or(f32::NAN);
        if self.n_used < order.len() {
            order.select_nth_unstable_by(self.n_used, |a, b| by(*b).total_cmp(&by(*a)).then(a.cmp(b)));
        }
    }
}

fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|s| *s = (*s - max).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|s| *s /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_chosen_and_their_weights_add_up() {
        let mut router = Router { gating: Gating::Softmax, n_used: 2, normalised: true, scale: 1.0 };
        let (mut scores, mut order) = (vec![1.0, 3.0, 2.0, -1.0], Vec::new());
        router.choose(&mut scores, None, &mut order);
        assert_eq!((scores[0], scores[3]), (0.0, 0.0));
        assert!((scores[1] + scores[2] - 1.0).abs() < 1e-6);
        assert!((scores[1] / scores[2] - 1f32.exp()).abs() < 1e-5, "{scores:?}");
        router = Router { gating: Gating::Sigmoid, n_used: 1, normalised: false, scale: 2.0 };
        let mut scores = vec![0.0, 0.0];
        router.choose(&mut scores, None, &mut order);
        assert_eq!(scores, [1.0, 0.0]);
        let mut scores = vec![0.0, 0.0];
        router.choose(&mut scores, Some(&[0.0, 0.1]), &mut order);
        assert_eq!(scores, [0.0, 1.0], "a bias chooses, and does not count");
        let mut scores = vec![18.0, 20.0, 19.0];
        router.choose(&mut scores, None, &mut order);
        assert_eq!(scores, [0.0, 2.0, 0.0], "all three are 1 by the logistic function, and one is the best");
        router = Router { gating: Gating::SoftmaxOfChosen, n_used: 2, normalised: false, scale: 1.0 };
        let mut scores = vec![2.0, -1.0, 1.0];
        router.choose(&mut scores, None, &mut order);
        assert!(scores[1] == 0.0 && (scores[0] / scores[2] - 1f32.exp()).abs() < 1e-5, "{scores:?}");
    }

    #[test]
    fn what_is_not_a_number_is_chosen() {
        for gating in [Gating::Sigmoid, Gating::Softmax, Gating::SoftmaxOfChosen] {
            for nan in [f32::NAN, -f32::NAN] {
                let router = Router { gating, n_used: 1, normalised: true, scale: 1.0 };
                let (mut scores, mut order) = (vec![3.0, nan, 2.0, 1.0], Vec::new());
                router.choose(&mut scores, None, &mut order);
                assert!(scores.iter().any(|score| score.is_nan()), "{gating:?}: {scores:?}");
            }
        }
        let router = Router { gating: Gating::Sigmoid, n_used: 1, normalised: false, scale: 1.0 };
        let mut scores = vec![3.0, 0.0];
        router.choose(&mut scores, Some(&[0.0, -f32::NAN]), &mut Vec::new());
        assert_eq!(scores, [0.0, 0.5]);
    }
}
