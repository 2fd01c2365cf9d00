//! The multiple-choice knapsack: one option of each class, least cost in all, within a capacity; solved exactly.
//!
//! A Lagrangian relaxation (every byte has a price) gives a lower bound; options whose reduced cost exceeds the gap
//! to the best solution found cannot be in a better one and are struck out; an exact dominance search over what is left
//! closes the gap. All of it in integers, so that "optimal" has no tolerance.

use std::cmp::Reverse;

/// One option of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// What it takes of the capacity.
    pub bytes: u64,
    /// What it adds to the objective (picoseconds). Below 2^60, as all sums are to be.
    pub cost: u64,
}

/// The best that was found, and the proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solution {
    /// Which option of each class.
    pub chosen: Vec<usize>,
    /// Its cost.
    pub cost: u64,
    /// No solution costs less than this. Equal to `cost` unless the search was cut off.
    pub bound: u64,
    /// Bytes taken.
    pub bytes: u64,
    /// What further bytes are worth: so much cost for so many of them.
    pub price: (u64, u64),
}

/// Partial solutions that the exact search looks at before it is cut off: about two seconds.
const MOST_STATES: usize = 1 << 30;
/// Where partial solutions must be sorted to be compared, each counts as so many.
const SORTED_COUNTS: usize = 32;
/// Units of capacity for which a table is kept.
const MOST_UNITS: u64 = 1 << 17;
/// Partial solutions kept per class while looking for a good solution to begin with: the better it is, the less the
/// next search has to look at.
const BEAMS: [usize; 3] = [16, 128, 1024];

/// Classes, made ready to be solved for any capacity.
pub struct Problem {
    /// The items of each class that no other one beats, with their places in it; classes in an order that does not
    /// depend on the one they were given in.
    fronts: Vec<(Vec<Item>, usize, Vec<usize>)>,
}

impl Problem {
    /// The problem of choosing one item from each class.
    pub fn new(classes: &[Vec<Item>]) -> Self {
        let of_class = |(class, items): (usize, &Vec<Item>)| {
            let front = front(items);
            let place = |item: &Item| items.iter().position(|i| i == item).unwrap_or(0);
            let places = front.iter().map(place).collect();
            (front, class, places)
        };
        let mut fronts: Vec<_> = classes.iter().enumerate().map(of_class).collect();
        // Where several choices are best, which one it is must not hang on the order of the classes.
        fronts.sort_by(|a, b| a.0.cmp(&b.0));
        Self { fronts }
    }

    /// The cheapest choice of one item per class that takes at most `capacity` bytes; `None` where none does. It is a
    /// function of the classes as a multiset: classes in another order are given the same items.
    pub fn solve(&self, capacity: u64) -> Option<Solution> {
        self.solve_within(capacity, MOST_STATES)
    }

    /// A solution that may be far from the best, and a lower bound of what [`Problem::solve`] can reach; `None` where
    /// nothing fits.
    pub fn relaxed(&self, capacity: u64) -> Option<Solution> {
        self.solve_within(capacity, 0)
    }

    /// By class the least cost of an item, each of whose bytes costs `per_byte`.
    pub fn least_paid(&self, per_byte: f64) -> Vec<f64> {
        let mut least = vec![0.0; self.fronts.len()];
        for (front, class, _) in &self.fronts {
            let paid = front.iter().map(|item| item.cost as f64 + per_byte * item.bytes as f64);
            least[*class] = paid.fold(f64::INFINITY, f64::min);
        }
        least
    }

    fn solve_within(&self, capacity: u64, most_states: usize) -> Option<Solution> {
        let fronts: Vec<&[Item]> = self.fronts.iter().map(|(front, ..)| front.as_slice()).collect();
        // A front begins with the fewest bytes.
        let least: Option<u64> = fronts.iter().map(|front| front.first().map(|i| i.bytes)).sum();
        if least? > capacity {
            return None;
        }
        let (picked, bound, price) = search(&fronts, capacity, most_states);
        let mut chosen = vec![0; fronts.len()];
        for ((front, class, places), item) in self.fronts.iter().zip(&picked) {
            chosen[*class] = places[front.binary_search(item).ok()?];
        }
        Some(Solution { chosen, cost: cost_of(&picked), bound, bytes: picked.iter().map(|i| i.bytes).sum(), price })
    }
}

/// The items that no other one beats in both respects: rising bytes, falling cost.
fn front(class: &[Item]) -> Vec<Item> {
    let mut items = class.to_vec();
    items.sort_unstable();
    let mut front: Vec<Item> = Vec::new();
    for item in items {
        if front.last().is_none_or(|last| item.cost < last.cost) {
            front.push(item);
        }
    }
    front
}

/// A price of bytes, as a fraction: what `bytes` of them are worth is `per * bytes / of`.
#[derive(Debug, Clone, Copy)]
struct Price {
    per: i128,
    of: i128,
}

impl Price {
    /// Cost with the bytes paid for, times `of`.
    fn pay(self, item: Item) -> i128 {
        self.of * i128::from(item.cost) + self.per * i128::from(item.bytes)
    }

    /// Lower bound of any solution, times `of`.
    fn bound(self, fronts: &[impl AsRef<[Item]>], capacity: u64) -> i128 {
        let least = |front: &[Item]| front.iter().map(|i| self.pay(*i)).min().unwrap_or(0);
        fronts.iter().map(|f| least(f.as_ref())).sum::<i128>() - self.per * i128::from(capacity)
    }
}

/// A step along the lower convex hull of a class.
struct Step {
    class: usize,
    bytes: u64,
    saving: u64,
    to: Item,
}

/// Steps of the hull of `front`, each less worth its bytes than the one before.
fn hull_steps(class: usize, front: &[Item]) -> Vec<Step> {
    let mut hull: Vec<Item> = Vec::new();
    let slope = |a: Item, b: Item| (u128::from(a.cost - b.cost), u128::from(b.bytes - a.bytes));
    for item in front {
        while let [.., a, b] = hull[..] {
            let ((s1, b1), (s2, b2)) = (slope(a, b), slope(b, *item));
            if s1 * b2 > s2 * b1 {
                break;
            }
            hull.pop();
        }
        hull.push(*item);
    }
    let step = |w: &[Item]| Step { class, bytes: w[1].bytes - w[0].bytes, saving: w[0].cost - w[1].cost, to: w[1] };
    hull.windows(2).map(step).collect()
}

/// Items of the best solution found, the lower bound, and what bytes are worth.
fn search(fronts: &[&[Item]], capacity: u64, most_states: usize) -> (Vec<Item>, u64, (u64, u64)) {
    let mut picked: Vec<Item> = fronts.iter().map(|f| f[0]).collect();
    let mut used: u64 = picked.iter().map(|i| i.bytes).sum();
    let mut steps: Vec<Step> = fronts.iter().enumerate().flat_map(|(i, f)| hull_steps(i, f)).collect();
    let by_worth = |a: &Step, b: &Step| {
        (u128::from(b.saving) * u128::from(a.bytes)).cmp(&(u128::from(a.saving) * u128::from(b.bytes)))
    };
    steps.sort_by(|a, b| by_worth(a, b).then(a.class.cmp(&b.class)));
    let fits = |used: u64, step: &Step| used.checked_add(step.bytes).is_some_and(|n| n <= capacity);
    let Some(broken) = steps.iter().position(|step| {
        let taken = fits(used, step);
        if taken {
            (used, picked[step.class]) = (used + step.bytes, step.to);
        }
        !taken
    }) else {
        // Everybody has the best there is.
        let cost = picked.iter().map(|i| i.cost).sum();
        return (picked, cost, (0, 1));
    };
    let worth = (steps[broken].saving, steps[broken].bytes);
    let price = Price { per: i128::from(steps[broken].saving), of: i128::from(steps[broken].bytes) };
    fill_up(fronts, &mut picked, capacity - used);
    let bound = price.bound(fronts, capacity);
    let mut search = Search { price, capacity, bound, best: cost_of(&picked), picked, cut_off: false };
    for width in BEAMS.into_iter().filter(|_| most_states > 0) {
        search.cut_off = false;
        search.run(fronts, width, usize::MAX);
        if !search.cut_off {
            // Nothing was left out, so there is nothing better.
            return (search.picked, search.best, worth);
        }
    }
    search.cut_off = false;
    search.run(fronts, usize::MAX, most_states);
    let bound = if search.cut_off { u64::try_from(div_ceil(bound, price.of)).unwrap_or(0) } else { search.best };
    (search.picked, bound.min(search.best), worth)
}

fn cost_of(items: &[Item]) -> u64 {
    items.iter().map(|i| i.cost).sum()
}

fn div_ceil(a: i128, b: i128) -> i128 {
    a.div_euclid(b) + i128::from(a.rem_euclid(b) != 0)
}

/// Gives what is left to the class that saves most by it, until none can use it.
fn fill_up(fronts: &[&[Item]], picked: &mut [Item], mut left: u64) {
    loop {
        let better = fronts.iter().enumerate().filter_map(|(class, front)| {
            let room = picked[class].bytes.saturating_add(left);
            let item = front[..front.partition_point(|i| i.bytes <= room)].last()?;
            (item.cost < picked[class].cost).then(|| (picked[class].cost - item.cost, Reverse(class), *item))
        });
        let Some((_, Reverse(class), item)) = better.max_by_key(|(saving, class, _)| (*saving, *class)) else { return };
        left -= item.bytes - picked[class].bytes;
        picked[class] = item;
    }
}

/// A choice for the first classes.
#[derive(Clone, Copy)]
struct State {
    bytes: u64,
    cost: u64,
    /// The choice for all but the last of them, and the item of the last one, by their places.
    before: u32,
    item: u32,
}

/// The largest number that all bytes are multiples of.
fn unit(classes: &[Vec<Priced>]) -> Option<u64> {
    let gcd = |mut a: u64, mut b: u64| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    Some(classes.iter().flatten().map(|(_, item)| item.bytes).fold(0, gcd)).filter(|unit| *unit > 0)
}

/// An item of a class, and what it costs over the best of them with the bytes paid for.
type Priced = (i128, Item);

/// All ways to add one of `items`, which come by what they cost over the best, by rising bytes. `slack` says how much of
/// that a state can bear. Then the number of ways that were looked at.
fn expand(states: &[State], items: &[Priced], room: u64, slack: impl Fn(&State) -> i128) -> (Vec<State>, usize) {
    let slacks: Vec<i128> = states.iter().map(slack).collect();
    let mut next = Vec::new();
    for (item_at, (over, item)) in items.iter().enumerate() {
        let grown = states.iter().enumerate().filter(|(before, _)| *over <= slacks[*before]);
        let grown = grown.map(|(before, state)| State {
            bytes: state.bytes + item.bytes,
            cost: state.cost + item.cost,
            before: before as u32,
            item: item_at as u32,
        });
        next.extend(grown.filter(|s| s.bytes <= room));
    }
    // One rising run per item, which a stable sort finds and merges; it also says which of equals stays.
    next.sort_by_key(|s| (s.bytes, s.cost));
    (next, states.len() * items.len() * SORTED_COUNTS)
}

/// The same where all bytes are multiples of `unit`: only the cheapest for each number of them.
fn expand_in_table(
    states: &[State],
    items: &[Priced],
    room: u64,
    unit: u64,
    slack: impl Fn(&State) -> i128,
) -> (Vec<State>, usize) {
    const NONE: State = State { bytes: 0, cost: u64::MAX, before: 0, item: 0 };
    let bytes = || items.iter().map(|(_, item)| item.bytes);
    let (Some(first), Some(last), Some(least), Some(most)) =
        (states.first(), states.last(), bytes().min(), bytes().max())
    else {
        return (Vec::new(), 0);
    };
    let (start, end) = (first.bytes + least, room.min(last.bytes + most));
    let Some(width) = end.checked_sub(start) else { return (Vec::new(), 0) };
    let mut table = vec![NONE; (width / unit) as usize + 1];
    let items: Vec<(i128, usize, u64)> =
        items.iter().map(|(over, item)| (*over, ((item.bytes - least) / unit) as usize, item.cost)).collect();
    let mut looked_at = 0;
    for (before, state) in states.iter().enumerate() {
        let slack = slack(state);
        // Items that cost too much are left out here, not struck out of the table afterwards: they are most of them.
        let borne = items.partition_point(|(over, ..)| *over <= slack);
        looked_at += borne + 1;
        let place = ((state.bytes - first.bytes) / unit) as usize;
        for (item_at, (_, offset, cost)) in items[..borne].iter().enumerate() {
            let cost = state.cost + cost;
            let Some(best) = table.get_mut(place + offset) else { continue };
            if cost < best.cost {
                let bytes = start + (place + offset) as u64 * unit;
                *best = State { bytes, cost, before: before as u32, item: item_at as u32 };
            }
        }
    }
    table.retain(|s| s.cost < u64::MAX);
    (table, looked_at)
}

struct Search {
    price: Price,
    capacity: u64,
    /// Of any solution, times `price.of`.
    bound: i128,
    /// Cost of `picked`.
    best: u64,
    picked: Vec<Item>,
    cut_off: bool,
}

impl Search {
    /// Looks for something cheaper than `best`: exactly, unless more than `width` partial solutions must be kept for
    /// a class or more than `most` looked at.
    fn run(&mut self, fronts: &[&[Item]], width: usize, most: usize) {
        // What must be beaten strictly: a cost of at most `best - 1`.
        let limit = |search: &Self| search.price.of * (i128::from(search.best) - 1);
        let kept: Vec<Vec<Priced>> = fronts.iter().map(|front| self.strike_out(front, limit(self))).collect();
        if kept.iter().any(Vec::is_empty) {
            return;
        }
        // Classes with many options last: their states need not be expanded again.
        let mut order: Vec<usize> = (0..kept.len()).collect();
        order.sort_by_key(|i| (kept[*i].len(), *i));
        let least = |of: &dyn Fn(&Item) -> i128| -> Vec<i128> {
            let each = order.iter().rev().map(|i| kept[*i].iter().map(|(_, item)| of(item)).min().unwrap_or(0));
            let mut sums: Vec<i128> = std::iter::once(0)
                .chain(each.scan(0, |sum, x| {
                    *sum += x;
                    Some(*sum)
                }))
                .collect();
            sums.reverse();
            sums
        };
        let (rest_paid, rest_bytes) = (least(&|i| self.price.pay(*i)), least(&|i| i128::from(i.bytes)));
        let unit = unit(&kept).filter(|unit| self.capacity / unit <= MOST_UNITS);
        let mut stages = vec![vec![State { bytes: 0, cost: 0, before: 0, item: 0 }]];
        let mut looked_at = 0usize;
        for (done, class) in order.iter().enumerate() {
            let states = &stages[done];
            if looked_at > most {
                self.cut_off = true;
                return;
            }
            // Room that the classes to come must find.
            let room = i128::from(self.capacity) - rest_bytes[done + 1];
            let room = u64::try_from(room).unwrap_or(0);
            // What a state may cost more than the best there can be, all bytes paid for.
            let bearable = limit(self) + self.price.per * i128::from(self.capacity) - rest_paid[done];
            let slack = |s: &State| bearable - self.price.pay(Item { bytes: s.bytes, cost: s.cost });
            let (mut next, ways) = match unit {
                Some(unit) => expand_in_table(states, &kept[*class], room, unit, slack),
                None => expand(states, &kept[*class], room, slack),
            };
            looked_at = looked_at.saturating_add(ways);
            let mut cheapest = u64::MAX;
            next.retain(|s| {
                let better = s.cost < cheapest;
                cheapest = cheapest.min(s.cost);
                better
            });
            if next.len() > width {
                self.cut_off = true;
                let paid = |s: &State| (self.price.pay(Item { bytes: s.bytes, cost: s.cost }), s.bytes);
                next.select_nth_unstable_by_key(width, paid);
                next.truncate(width);
                next.sort_unstable_by_key(|s| s.bytes);
            }
            stages.push(next);
        }
        let last = stages.last().map_or(&[][..], Vec::as_slice);
        let Some(best) = last.iter().min_by_key(|s| (s.cost, s.bytes)).filter(|s| s.cost < self.best) else { return };
        self.best = best.cost;
        let mut state = *best;
        for (done, class) in order.iter().enumerate().rev() {
            self.picked[*class] = kept[*class][state.item as usize].1;
            state = stages[done][state.before as usize];
        }
    }

    /// The options that a solution of at most `limit / price.of` may hold, the best first.
    fn strike_out(&self, front: &[Item], limit: i128) -> Vec<Priced> {
        let least = front.iter().map(|i| self.price.pay(*i)).min().unwrap_or(0);
        let priced = front.iter().map(|i| (self.price.pay(*i) - least, *i));
        let mut kept: Vec<Priced> = priced.filter(|(over, _)| self.bound + over <= limit).collect();
        kept.sort_unstable();
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use good_lp::{Expression, Solution as _, SolverModel, constraint, default_solver, variable, variables};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    fn solve(classes: &[Vec<Item>], capacity: u64) -> Option<Solution> {
        Problem::new(classes).solve(capacity)
    }

    fn below(rng: &mut ChaCha8Rng, n: u64) -> u64 {
        rng.next_u64() % n
    }

    fn instance(rng: &mut ChaCha8Rng) -> (Vec<Vec<Item>>, u64) {
        let n_classes = 2 + below(rng, 4);
        let class = |rng: &mut ChaCha8Rng| {
            let n = 1 + below(rng, 6);
            (0..n).map(|_| Item { bytes: below(rng, 50), cost: below(rng, 100) }).collect()
        };
        let classes: Vec<Vec<Item>> = (0..n_classes).map(|_| class(rng)).collect();
        let most: u64 = classes.iter().map(|c: &Vec<Item>| c.iter().map(|i| i.bytes).max().unwrap()).sum();
        (classes, below(rng, most + 2))
    }

    /// The optimum by an independent solver of integer programs.
    fn reference(classes: &[Vec<Item>], capacity: u64) -> Option<u64> {
        let mut vars = variables!();
        let (mut cost, mut bytes) = (Expression::from(0.0), Expression::from(0.0));
        let mut ones = Vec::new();
        for class in classes {
            let mut sum = Expression::from(0.0);
            for item in class {
                let x = vars.add(variable().binary());
                cost += item.cost as f64 * x;
                bytes += item.bytes as f64 * x;
                sum += x;
            }
            ones.push(sum);
        }
        let mut model = vars.minimise(cost.clone()).using(default_solver);
        model = model.with(constraint!(bytes <= capacity as f64));
        for sum in ones {
            model = model.with(constraint!(sum == 1.0));
        }
        model.solve().ok().map(|solution| solution.eval(&cost).round() as u64)
    }

    #[test]
    fn a_thousand_random_instances_agree_with_an_exact_solver() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut solved = 0;
        for n in 0..1000 {
            let (classes, capacity) = instance(&mut rng);
            let (ours, theirs) = (solve(&classes, capacity), reference(&classes, capacity));
            assert_eq!(ours.as_ref().map(|s| s.cost), theirs, "instance {n}: {classes:?} {capacity}");
            let Some(ours) = ours else { continue };
            solved += 1;
            assert_eq!(ours.bound, ours.cost, "instance {n}: a gap is left");
            let picked: Vec<Item> = ours.chosen.iter().zip(&classes).map(|(i, c)| c[*i]).collect();
            let sum = |of: fn(&Item) -> u64| picked.iter().map(of).sum::<u64>();
            assert_eq!((sum(|i| i.cost), sum(|i| i.bytes)), (ours.cost, ours.bytes));
            assert!(ours.bytes <= capacity);
        }
        assert!(solved > 500, "{solved} had a solution");
    }

    #[test]
    fn more_capacity_never_costs_more_and_the_order_of_classes_does_not_matter() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for _ in 0..200 {
            let (mut classes, _) = instance(&mut rng);
            let costs: Vec<_> = (0..250).filter_map(|c| Some(solve(&classes, c)?.cost)).collect();
            assert!(costs.is_sorted_by(|a, b| a >= b), "{costs:?}");
            let pick = |classes: &[Vec<Item>]| {
                let chosen = solve(classes, 120)?.chosen;
                let mut items: Vec<_> = chosen.iter().zip(classes).map(|(i, c)| (c.clone(), c[*i])).collect();
                items.sort();
                Some(items)
            };
            let before = pick(&classes);
            classes.reverse();
            assert_eq!(pick(&classes), before);
        }
    }

    #[test]
    fn a_search_that_is_cut_off_says_so_by_its_bound() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let item = |rng: &mut ChaCha8Rng| Item { bytes: below(rng, 1 << 30), cost: below(rng, 1 << 40) };
        let classes: Vec<Vec<Item>> = (0..30).map(|_| (0..20).map(|_| item(&mut rng)).collect()).collect();
        let capacity = 8 << 30;
        let exact = solve(&classes, capacity).unwrap();
        let cut = Problem::new(&classes).solve_within(capacity, 0).unwrap();
        assert_eq!(exact.bound, exact.cost);
        assert!(cut.bound < cut.cost && cut.bound <= exact.cost && exact.cost <= cut.cost, "{cut:?} {exact:?}");
    }
}
