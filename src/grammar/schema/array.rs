//! Arrays: how many items there are, one like which must be among them, and no two alike.

use super::super::expr::Expr;
use super::super::json::Json;
use super::super::keywords::{count, items_of};
use super::super::merge::merged;
use super::{Converter, comma, in_brackets, list, space};
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;

/// Values of which all orders are told apart at most.
const MOST_DISTINCT: usize = 10;
/// Items that are counted one by one at most.
const MOST_COUNTED: usize = 1000;

/// How many items there may be.
#[derive(Clone, Copy)]
struct Count {
    least: usize,
    most: Option<usize>,
}

fn with_space(value: Expr) -> Expr {
    Expr::Sequence(vec![value, space()])
}

impl Converter<'_> {
    pub(super) fn array(&mut self, schema: &Json, path: &str) -> Result<Expr> {
        let (least, most) = (count(schema, "minItems", "items")?.unwrap_or(0), count(schema, "maxItems", "items")?);
        ensure!(most.is_none_or(|most| most >= least), "maxItems is less than minItems");
        let (first, rest) = items_of(schema)?;
        let unique = schema.get("uniqueItems").is_some_and(|unique| unique.truth() != Some(false));
        if unique && most.is_none_or(|most| most > 1) {
            ensure!(
                first.is_empty() && schema.get("contains").is_none(),
                "uniqueItems beside prefixItems or contains cannot be kept to; leave it out, and look at what comes"
            );
            return self.distinct(rest, Count { least, most }, path);
        }
        if let Some(wanted) = schema.get("contains") {
            ensure!(first.is_empty(), "contains beside prefixItems cannot be kept to; describe the items one by one");
            ensure!(schema.get("maxContains").is_none(), "maxContains cannot be kept to; leave it out");
            let n = count(schema, "minContains", "items")?.unwrap_or(1);
            return self.containing(rest, wanted, n, Count { least, most }, path);
        }
        let rest = match rest {
            Some(rest) if rest.truth() == Some(false) => None,
            Some(rest) => Some(self.named(rest, &format!("{path}/items"))?),
            None => first.is_empty().then(|| self.any_value()),
        };
        let mut items = Vec::new();
        for (number, item) in first.iter().enumerate().take(most.unwrap_or(usize::MAX)) {
            items.extend((number > 0).then(comma));
            items.push(with_space(self.value(item, &format!("{path}/prefixItems/{number}"))?));
        }
        let n = first.len();
        match rest {
            Some(rest) if n == 0 => items.push(list(&with_space(rest), least, most)),
            Some(rest) if most.is_none_or(|most| most > n) => {
                let more = Expr::Sequence(vec![comma(), with_space(rest)]);
                items.push(more.times(least.saturating_sub(n), most.map(|most| most - n)));
            }
            _ => ensure!(least <= n, "minItems is more than there are items"),
        }
        Ok(in_brackets("[", Expr::Sequence(items), "]"))
    }

    /// `uniqueItems`, where the items are few enough to know which are left.
    fn distinct(&mut self, items: Option<&Json>, count: Count, path: &str) -> Result<Expr> {
        let help = "uniqueItems can be kept to where items have an enum of few values; give one, or maxItems 1, or leave it out";
        let items = self.resolved(items.context(help)?)?;
        self.note_unknown(&items);
        let booleans = || Json::Array([true, false].map(|truth| Json::Plain(truth.into())).to_vec());
        let is_boolean = items.get("type").and_then(Json::text) == Some("boolean");
        let held = match self.values(&items)? {
            Some(values) => values,
            None if is_boolean => self.values(&items.with("enum", booleans()))?.unwrap_or_default(),
            None => bail!("{help}"),
        };
        let mut values: Vec<Json> = Vec::new();
        for value in held {
            if !values.iter().any(|known| known.is_equal(&value)) {
                values.push(value);
            }
        }
        let n = values.len();
        ensure!(n <= MOST_DISTINCT, "uniqueItems: of {n} values; those of {MOST_DISTINCT} at most can be kept apart");
        ensure!(count.least <= n, "minItems {}: there are only {n} different items", count.least);
        let mut known: HashMap<u32, Expr> = HashMap::new();
        // Of sets that have more, first.
        let mut sets: Vec<u32> = (0..1 << n).collect();
        sets.sort_by_key(|set| std::cmp::Reverse(set.count_ones()));
        for set in sets {
            let held = set.count_ones() as usize;
            let mut options = Vec::new();
            options.extend((held >= count.least).then(|| Expr::Sequence(vec![])));
            for (bit, value) in values.iter().enumerate().filter(|(bit, _)| set & (1 << bit) == 0) {
                let rest = known.get(&(set | 1 << bit)).filter(|_| count.most.is_none_or(|most| held < most));
                let Some(rest) = rest else { continue };
                let item = with_space(Expr::text(&value.written()));
                let mut all = if held > 0 { vec![comma()] } else { Vec::new() };
                all.extend([item, rest.clone()]);
                options.push(Expr::Sequence(all));
            }
            if !options.is_empty() {
                let rule = self.rules.add(format!("{path} behind {held} items"), Expr::Choice(options));
                known.insert(set, rule);
            }
        }
        let all = known.remove(&0).context("no array has as many different items")?;
        Ok(in_brackets("[", all, "]"))
    }

    /// `contains`: at least `n` of the items are also what `wanted` says.
    fn containing(&mut self, items: Option<&Json>, wanted: &Json, n: usize, count: Count, path: &str) -> Result<Expr> {
        let Count { least, most } = count;
        ensure!(most.is_none_or(|most| most >= n), "maxItems is less than minContains");
        ensure!(
            n.max(least).max(most.unwrap_or(0)) <= MOST_COUNTED,
            "contains: more than {MOST_COUNTED} items cannot be counted; lower minItems, maxItems or minContains"
        );
        let (any, both) = match items {
            Some(items) if items.truth() == Some(false) => bail!("contains: there can be no items"),
            Some(items) => {
                let both = merged(&self.resolved(items)?, &self.resolved(wanted)?)?;
                (self.named(items, &format!("{path}/items"))?, self.named(&both, &format!("{path}/contains"))?)
            }
            None => (self.any_value(), self.named(wanted, &format!("{path}/contains"))?),
        };
        let (any, both) = (with_space(any), with_space(both));
        // A place is how many items there are, and how many of them are wanted, as far as that matters.
        let (last, goes_round) = (most.unwrap_or(least.max(1)), most.is_none());
        let mut rules: HashMap<(usize, usize), usize> = HashMap::new();
        let mut places = Vec::new();
        for held in 0..=last {
            for found in 0..=n.min(held) {
                places.push((held, found));
            }
            if goes_round && held == last {
                places.extend((n.min(held) + 1..=n).map(|found| (held, found)));
            }
        }
        ensure!(places.len() <= 20 * MOST_COUNTED, "contains: too many items to count; lower minItems or minContains");
        for place in &places {
            rules.insert(*place, self.rules.list.len());
            self.rules.add(format!("{path} behind {} items", place.0), Expr::Sequence(vec![]));
        }
        for (held, found) in places {
            let mut options = Vec::new();
            options.extend((held >= least && found >= n).then(|| Expr::Sequence(vec![])));
            if held < last || goes_round {
                let next =
                    |found: usize| rules.get(&((held + 1).min(last), found.min(n))).map(|rule| Expr::Rule(*rule));
                let mut way = |item: &Expr, rest: Expr| {
                    let mut all = if held > 0 { vec![comma()] } else { Vec::new() };
                    all.extend([item.clone(), rest]);
                    options.push(Expr::Sequence(all));
                };
                if let Some(rest) = next(found) {
                    way(&any, rest);
                }
                if let Some(rest) = next(found + 1).filter(|_| found < n) {
                    way(&both, rest);
                }
            }
            if let Some(rule) = rules.get(&(held, found)) {
                self.rules.list[*rule].1 = Expr::Choice(options);
            }
        }
        let start = rules.get(&(0, 0)).context("an array of no items")?;
        Ok(in_brackets("[", Expr::Rule(*start), "]"))
    }
}
