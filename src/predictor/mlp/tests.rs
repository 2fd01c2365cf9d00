//! What a trained predictor must be able to do, on nets whose answers are known.

use super::net::{Net, Scaling, Update};
use super::*;
use crate::progress::{Interrupted, Silent};

const N_EMBD: usize = 64;
const N_FF: usize = 96;

/// Owns the inputs and firings that a [`Training`] borrows.
struct Data {
    x: Vec<f32>,
    masses: Vec<f32>,
    fired: Firings,
}

impl Data {
    fn new(x: Vec<f32>, masses: Vec<f32>, n_ff: usize) -> Self {
        let mut fired = Firings::new(n_ff);
        masses.chunks_exact(n_ff).for_each(|m| fired.push(m).unwrap());
        Self { x, masses, fired }
    }
}

fn random(n: usize, deviation: f32, purpose: u64) -> Vec<f32> {
    Random::new(99, purpose).normals(n, deviation)
}

/// A teacher of two layers whose units look at the size of projections: no linear predictor can follow it.
fn planted(n: usize, part: u64) -> Data {
    const UNITS: usize = 16;
    let mut x = random(n * N_EMBD, 0.5, 10 + part);
    // As in models: a few inputs are large and nearly constant.
    x.chunks_exact_mut(N_EMBD).for_each(|x| x[7] += 6.0);
    let (first, second) = (random(UNITS * N_EMBD, 1.0, 1), random(N_FF * UNITS, 1.0, 2));
    let mut masses = Vec::new();
    for x in x.chunks_exact(N_EMBD) {
        let unit =
            |w: &[f32]| w.iter().zip(x).enumerate().map(|(i, (w, x))| if i == 7 { 0.0 } else { w * x }).sum::<f32>();
        let h: Vec<f32> = first.chunks_exact(N_EMBD).map(|w| unit(w).abs() - 3.2).collect();
        let z = |w: &[f32]| w.iter().zip(&h).map(|(w, h)| w * h).sum::<f32>();
        masses.extend(second.chunks_exact(UNITS).map(|w| (z(w) - 12.0).max(0.0)));
    }
    Data::new(x, masses, N_FF)
}

fn training<'a>(train: &'a Data, held: &'a Data) -> Training<'a> {
    Training {
        n_embd: N_EMBD,
        n_ff: N_FF,
        x: &train.x,
        fired: &train.fired,
        held_x: &held.x,
        held_fired: &held.fired,
        in_type: GgmlType::Q8_0,
        out_type: GgmlType::Q4_0,
        epochs: 8,
        seed: 1,
    }
}

/// Precision if just enough of the highest scores are active to find this share of the mass.
fn precision_at(recall: f64, scores: &[f32], masses: &[f32]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let total: f64 = masses.iter().map(|m| f64::from(*m)).sum();
    let (mut found, mut fired) = (0.0, 0);
    for (n, i) in order.iter().enumerate() {
        found += f64::from(masses[*i]);
        fired += usize::from(masses[*i] > 0.0);
        if found >= recall * total {
            return fired as f64 / (n + 1) as f64;
        }
    }
    0.0
}

fn log_odds(mlp: &Mlp, x: &[f32]) -> Vec<f32> {
    let mut scores = mlp.scores(x);
    scores.chunks_exact_mut(mlp.b2.len()).for_each(|s| s.iter_mut().zip(&mlp.b2).for_each(|(s, b)| *s += b));
    scores
}

/// Scores from the sign bits of the direction in which inputs differ when a neuron fires, standardised per neuron.
fn sign_scores(train: &Data, x: &[f32]) -> Vec<f32> {
    let n = train.x.len() / N_EMBD;
    let mean = Scaling::of(&training(train, train)).mean;
    let mut directions = vec![0f32; N_FF * N_EMBD];
    for sample in 0..n {
        for (neuron, mass) in train.fired.sample(sample) {
            let inputs = train.x[sample * N_EMBD..].iter().zip(&mean);
            directions[neuron * N_EMBD..][..N_EMBD].iter_mut().zip(inputs).for_each(|(d, (x, m))| *d += mass * (x - m));
        }
    }
    let (fired, _) = train.fired.totals();
    let n_samples = x.len() / N_EMBD;
    let mut scores = vec![0f32; n_samples * N_FF];
    for i in 0..n_samples {
        for j in 0..N_FF {
            let pairs = x[i * N_EMBD..].iter().zip(&mean).zip(&directions[j * N_EMBD..][..N_EMBD]);
            let score: f32 = pairs.map(|((x, m), d)| (x - m).signum() * d.signum()).sum();
            scores[i * N_FF + j] = score / (N_EMBD as f32).sqrt() + 0.3 * ((fired[j] + 1) as f32 / n as f32).ln();
        }
    }
    scores
}

#[test]
fn it_learns_a_teacher_that_sign_bits_cannot_follow() {
    let (train_data, held) = (planted(8192, 0), planted(1024, 1));
    let density = train_data.fired.n_fired() as f64 / (8192 * N_FF) as f64;
    assert!((0.03..0.25).contains(&density), "{density}");
    let mlp = train(&Training { epochs: 24, ..training(&train_data, &held) }, 64, &Silent).unwrap();
    let fresh = planted(1024, 2);
    let ours = precision_at(0.95, &log_odds(&mlp, &fresh.x), &fresh.masses);
    let signs = precision_at(0.95, &sign_scores(&train_data, &fresh.x), &fresh.masses);
    assert!(ours > 0.9 && ours > 2.0 * signs, "precision {ours} against {signs} at density {density}");
    // Uncalibrated outputs are log odds weighted by mass: most of it is found where they are not negative.
    let active = log_odds(&mlp, &fresh.x);
    let found: f32 = active.iter().zip(&fresh.masses).filter(|(z, _)| **z >= 0.0).map(|(_, m)| m).sum();
    let recall = found / fresh.masses.iter().sum::<f32>();
    assert!(recall > 0.85, "{recall}");
}

#[test]
fn the_same_task_gives_the_same_bits_for_any_number_of_threads() {
    let (train_data, held) = (planted(1000, 0), planted(100, 1));
    let training = Training { epochs: 3, ..training(&train_data, &held) };
    let bits = |threads: usize, training: &Training| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mlp = pool.install(|| train(training, 64, &Silent)).unwrap();
        [mlp.w1, mlp.b1, mlp.w2, mlp.b2].concat().into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let one = bits(1, &training);
    assert_eq!(one, bits(4, &training));
    assert_ne!(one, bits(1, &Training { seed: 2, ..training }));
}

#[test]
fn weights_are_those_that_the_stored_types_hold() {
    let (train_data, held) = (planted(500, 0), planted(100, 1));
    let training = Training { epochs: 2, ..training(&train_data, &held) };
    let mlp = train(&training, 32, &Silent).unwrap();
    for (weights, dtype, row) in [(&mlp.w1, training.in_type, N_EMBD), (&mlp.w2, training.out_type, 32)] {
        let mut again = vec![0.0; weights.len()];
        Rounding::new(dtype, row).unwrap().round(weights, &mut again);
        assert!(*weights == again, "{dtype}");
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let (data, hidden) = (planted(24, 3), 32);
    let training = training(&data, &data);
    let trainer = Trainer::new(&training).unwrap();
    let mut start = trainer.first(hidden).unwrap();
    // Larger output weights: otherwise hidden gradients drown in rounding.
    start.w2.iter_mut().for_each(|w| *w *= 10.0);
    let samples: Vec<u32> = (0..24).collect();
    let mut net = Net::new(&training, &trainer.scaling, trainer.mean_mass, &start);
    net.step(&samples, None, &Update { step: 0, rates: [0.0; 3], decay: 0.0 });
    let gradients = net.first_gradients();
    assert!(net.master() == start, "a rate of 0 moves nothing");

    let loss = |mlp: &Mlp| {
        let mut loss = 0f64;
        for (sample, x) in data.x.chunks_exact(N_EMBD).enumerate() {
            let x: Vec<f64> =
                x.iter().zip(&trainer.scaling.mean).map(|(v, m)| f64::from((v - m) * trainer.scaling.scale)).collect();
            let dot = |w: &[f32], x: &[f64]| w.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
            let unit = |(w, b): (&[f32], &f32)| (dot(w, &x) + f64::from(*b)).max(0.0);
            let h: Vec<f64> = mlp.w1.chunks_exact(N_EMBD).zip(&mlp.b1).map(unit).collect();
            let mut masses = vec![0f32; N_FF];
            data.fired.sample(sample).for_each(|(i, m)| masses[i] = m);
            for ((w, b), mass) in mlp.w2.chunks_exact(hidden).zip(&mlp.b2).zip(masses) {
                let z = dot(w, &h) + f64::from(*b);
                loss += match mass > 0.0 {
                    true => f64::from(net::weight(mass, trainer.mean_mass)) * (-z).exp().ln_1p(),
                    false => z.exp().ln_1p(),
                };
            }
        }
        loss / 24.0
    };
    for (part, gradient) in gradients.iter().enumerate() {
        fn weights(mlp: &mut Mlp, part: usize) -> &mut Vec<f32> {
            [&mut mlp.w1, &mut mlp.b1, &mut mlp.w2, &mut mlp.b2].into_iter().nth(part).unwrap()
        }
        let n = gradient.len();
        let scale = gradient.iter().fold(0f32, |a, g| a.max(g.abs()));
        assert!(scale > 1e-3, "part {part}: {scale}");
        for at in (0..n).step_by((n / 40).max(1)) {
            let moved = |by: f32| {
                let mut mlp = start.clone();
                weights(&mut mlp, part)[at] += by;
                (loss(&mlp), f64::from(weights(&mut mlp, part)[at]))
            };
            let ((high, high_at), (low, low_at)) = (moved(1e-3), moved(-1e-3));
            let want = ((high - low) / (high_at - low_at)) as f32;
            let got = gradient[at];
            assert!((got - want).abs() < 0.01 * scale, "part {part}, {at}: {got} for {want} (of {scale})");
        }
    }
}

#[test]
fn sizes_grow_until_the_target_is_met_and_no_further() {
    let (train_data, held) = (planted(300, 0), planted(64, 1));
    let training = Training { epochs: 1, ..training(&train_data, &held) };
    let mut tried = Vec::new();
    let mut fit = |target: f64, max_bytes: usize, evaluate: &dyn Fn(usize) -> Evaluation| {
        tried.clear();
        let mut evaluate = |mlp: &Mlp| {
            tried.push(mlp.hidden);
            evaluate(mlp.hidden)
        };
        let mlp = fit_size(&training, target, max_bytes, &mut evaluate, &Silent).unwrap();
        assert_eq!((mlp.w1.len(), mlp.b1.len(), mlp.w2.len()), (mlp.hidden * N_EMBD, mlp.hidden, mlp.hidden * N_FF));
        (mlp.hidden, tried.clone())
    };
    let by_size = |hidden: usize| Evaluation { recall: hidden as f64 / 100.0, cost: hidden as f64 };
    // 32 units to start with; 64 miss the target; 96 is the most that n_ff allows.
    assert_eq!(fit(0.9, usize::MAX, &by_size), (96, vec![32, 64, 96]));
    assert_eq!(fit(0.6, usize::MAX, &by_size), (64, vec![32, 64]));
    // Met at once; nothing smaller exists, and larger is dearer.
    assert_eq!(fit(0.1, usize::MAX, &by_size), (32, vec![32, 64]));
    // Bytes for 64 units: 64 rows of 68, 96 rows of 36, 160 biases.
    let bytes = 64 * 68 + 96 * 36 + 160 * 4;
    assert_eq!(fit(0.9, bytes, &by_size), (64, vec![32, 64]));
    assert_eq!(fit(0.9, bytes - 1, &by_size), (32, vec![32]));
    // Calibrated to the target, larger is cheaper up to a point.
    let calibrated = |hidden: usize| Evaluation { recall: 0.99, cost: (hidden as f64 - 70.0).abs() };
    assert_eq!(fit(0.9, usize::MAX, &calibrated), (64, vec![32, 64, 96]));
}

#[test]
fn sizes_shrink_while_the_target_is_met() {
    let wide = |n: usize, part: u64| {
        let data = planted(n, part);
        let masses = data.masses.chunks_exact(N_FF).flat_map(|m| m.iter().cycle().take(512).copied()).collect();
        let x = data.x.chunks_exact(N_EMBD).flat_map(|x| x.iter().cycle().take(1024).copied()).collect();
        Data::new(x, masses, 512)
    };
    let (train_data, held) = (wide(200, 0), wide(40, 1));
    let training = Training { n_embd: 1024, n_ff: 512, epochs: 1, ..training(&train_data, &held) };
    let mut tried = Vec::new();
    let mut evaluate = |mlp: &Mlp| {
        tried.push(mlp.hidden);
        Evaluation { recall: mlp.hidden as f64, cost: mlp.hidden as f64 }
    };
    let mlp = fit_size(&training, 32.0, usize::MAX, &mut evaluate, &Silent).unwrap();
    assert_eq!((mlp.hidden, tried), (32, vec![64, 32]));
}

#[test]
fn another_size_begins_as_good_as_the_one_before() {
    let (train_data, held) = (planted(4096, 0), planted(512, 1));
    let training = Training { epochs: 8, ..training(&train_data, &held) };
    let trainer = Trainer::new(&training).unwrap();
    let loss = |master: &Mlp| trainer.held_loss(&trainer.store(master, &trainer.roundings(master.hidden).unwrap()));
    let untrained = loss(&trainer.first(64).unwrap());
    let trained = trainer.train(trainer.first(64).unwrap(), 8, &Silent).unwrap();
    let (reached, grown) = (loss(&trained.master), loss(&trainer.resized(&trained.master, 96)));
    let shrunk = loss(&trainer.resized(&trained.master, 32));
    assert!(reached < 0.8 * untrained, "{reached} from {untrained}");
    assert!((grown / reached - 1.0).abs() < 0.1, "{grown} from {reached}");
    assert!(shrunk < untrained, "{shrunk} from {untrained}");
}

#[test]
fn initial_sizes_follow_density_and_skew() {
    assert_eq!(initial_hidden(4096, 11008, 0.1, 0.8), 512);
    assert!(initial_hidden(4096, 11008, 0.4, 0.8) > 512);
    assert!(initial_hidden(4096, 11008, 0.1, 0.2) < 512);
    assert_eq!(initial_hidden(64, 256, 0.0, 0.0), HIDDEN_STEP);
}

#[test]
fn a_layer_in_which_nothing_fires_gets_a_predictor_that_says_so() {
    let x = random(40 * N_EMBD, 1.0, 5);
    let silent = Data::new(x, vec![0.0; 40 * N_FF], N_FF);
    let training = training(&silent, &silent);
    let mut never = |_: &Mlp| unreachable!("nothing to evaluate");
    for mlp in [train(&training, 32, &Silent), fit_size(&training, 0.9, usize::MAX, &mut never, &Silent)] {
        assert!(log_odds(&mlp.unwrap(), &silent.x).iter().all(|z| *z < 0.0));
    }
}

#[test]
fn inputs_that_are_all_alike_still_give_a_predictor() {
    let masses: Vec<f32> = (0..200 * N_FF).map(|i| if i % N_FF == 3 { 1.0 } else { 0.0 }).collect();
    let alike = Data::new(vec![0.25; 200 * N_EMBD], masses, N_FF);
    let mlp = train(&training(&alike, &alike), 32, &Silent).unwrap();
    let active = log_odds(&mlp, &alike.x[..N_EMBD]);
    assert!(active.iter().enumerate().all(|(i, z)| (*z >= 0.0) == (i == 3)), "{active:?}");
}

#[test]
fn bad_tasks_are_refused_by_name() {
    let data = planted(40, 0);
    let said = |training: &Training, hidden| train(training, hidden, &Silent).unwrap_err().to_string();
    let mut broken = planted(40, 0);
    broken.x[3 * N_EMBD + 2] = f32::NAN;
    assert_eq!(said(&training(&broken, &data), 32), "training sample 3: input 2 is NaN, not a finite number");
    assert_eq!(said(&training(&data, &broken), 32), "held-out sample 3: input 2 is NaN, not a finite number");
    let good = training(&data, &data);
    assert!(said(&good, 40).contains("multiple of 32"));
    assert!(
        said(&Training { x: &data.x[1..], ..training(&data, &data) }, 32).starts_with("training samples: 2559 inputs")
    );
    assert!(
        said(&Training { out_type: GgmlType::Q4_K, ..training(&data, &data) }, 32).contains("whole blocks of Q4_K")
    );
    let none = Data::new(Vec::new(), Vec::new(), N_FF);
    assert!(said(&training(&none, &data), 32).starts_with("no training samples"));
    let mut never = |_: &Mlp| unreachable!("nothing to evaluate");
    let small = fit_size(&good, 0.9, 4000, &mut never, &Silent).unwrap_err().to_string();
    assert_eq!(small, "a predictor of 32 units takes 4416 bytes, but the limit is 4000; allow more");
}

#[test]
fn training_ends_when_the_user_wants_it_to() {
    struct Stop;
    impl Progress for Stop {
        fn cancelled(&self) -> bool {
            true
        }
    }
    let data = planted(64, 0);
    assert!(train(&training(&data, &data), 32, &Stop).unwrap_err().is::<Interrupted>());
}
