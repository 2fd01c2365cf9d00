//! A grammar as a graph over bytes: what may follow what.

use super::expr::{Chars, Expr, Rules, TokenName};
use anyhow::{Result, bail, ensure};

/// Nodes at most: a grammar that needs more is a slip, such as a repetition of repetitions.
const MOST_NODES: usize = 200_000;

/// What leads on from a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// A byte of this range.
    Bytes(u8, u8, u32),
    /// Nothing.
    Free(u32),
    /// The whole of a rule, which begins at the first node, and then the second.
    Call(u32, u32),
    /// The token of that id; with true any other token.
    Token(u32, bool, u32),
    /// The rule is over.
    Return,
}

/// The nodes of all rules. From a node without edges nothing leads on.
#[derive(Debug, Default)]
pub struct Graph {
    /// By node.
    pub edges: Vec<Vec<Edge>>,
    /// First node of each rule.
    pub starts: Vec<u32>,
}

impl Graph {
    /// Builds the graph of `rules`; `token` finds the id of a token that is named by its text.
    ///
    /// # Errors
    /// When it would be too large, when a rule can begin with itself, and when a token is unknown.
    pub fn new(rules: &Rules, n_tokens: usize, token: &dyn Fn(&str) -> Result<u32>) -> Result<Self> {
        let mut builder = Builder { graph: Self::default(), n_tokens, token };
        let starts = rules.list.iter().map(|_| builder.node()).collect::<Result<Vec<_>>>()?;
        builder.graph.starts = starts;
        for (number, (_, expr)) in rules.list.iter().enumerate() {
            let (start, end) = (builder.graph.starts[number], builder.node()?);
            builder.add(expr, start, end)?;
            builder.edge(end, Edge::Return);
        }
        let graph = builder.graph;
        if let Some(number) = graph.left_recursive() {
            bail!("rule {} can begin with itself, which would never end", rules.list[number].0);
        }
        Ok(graph)
    }

    /// A rule that may begin with itself.
    fn left_recursive(&self) -> Option<usize> {
        let nullable = self.nullable();
        let rule_of = |node: u32| self.starts.iter().position(|start| *start == node);
        // Which rules each may begin with.
        let begins: Vec<Vec<usize>> =
            self.starts.iter().map(|start| self.begins_with(*start, &nullable, &rule_of)).collect();
        // 0 not seen, 1 on the way, 2 done; a way back to 1 is a circle.
        let mut seen = vec![0u8; begins.len()];
        for root in 0..begins.len() {
            let mut way = vec![(root, 0)];
            while let Some((rule, next)) = way.pop() {
                if next == 0 {
                    if seen[rule] == 2 {
                        continue;
                    }
                    seen[rule] = 1;
                }
                match begins[rule].get(next) {
                    None => seen[rule] = 2,
                    Some(called) => {
                        way.push((rule, next + 1));
                        match seen[*called] {
                            1 => return Some(*called),
                            0 => way.push((*called, 0)),
                            _ => {}
                        }
                    }
                }
            }
        }
        None
    }

    /// Nodes from which the end of the rule can be reached with no text at all.
    fn nullable(&self) -> Vec<bool> {
        let mut nullable: Vec<bool> = self.edges.iter().map(|edges| edges.contains(&Edge::Return)).collect();
        // Backwards, and again while rules are found that need no text.
        let mut sources: Vec<Vec<u32>> = vec![Vec::new(); self.edges.len()];
        for (node, edges) in (0u32..).zip(&self.edges) {
            for edge in edges {
                match *edge {
                    Edge::Free(to) => sources[to as usize].push(node),
                    Edge::Call(start, to) => {
                        sources[to as usize].push(node);
                        sources[start as usize].push(node);
                    }
                    Edge::Bytes(..) | Edge::Token(..) | Edge::Return => {}
                }
            }
        }
        let mut wait: Vec<u32> = (0u32..).zip(&nullable).filter(|(_, is)| **is).map(|(node, _)| node).collect();
        while let Some(node) = wait.pop() {
            for &source in &sources[node as usize] {
                let passes = |edge: &Edge| match *edge {
                    Edge::Free(to) => nullable[to as usize],
                    Edge::Call(start, to) => nullable[start as usize] && nullable[to as usize],
                    Edge::Bytes(..) | Edge::Token(..) | Edge::Return => false,
                };
                if !nullable[source as usize] && self.edges[source as usize].iter().any(passes) {
                    nullable[source as usize] = true;
                    wait.push(source);
                }
            }
        }
        nullable
    }

    fn begins_with(&self, start: u32, nullable: &[bool], rule_of: &dyn Fn(u32) -> Option<usize>) -> Vec<usize> {
        let (mut found, mut seen, mut wait) = (Vec::new(), std::collections::HashSet::new(), vec![start]);
        while let Some(node) = wait.pop() {
            if !seen.insert(node) {
                continue;
            }
            for edge in &self.edges[node as usize] {
                match *edge {
                    Edge::Free(to) => wait.push(to),
                    Edge::Call(start, to) => {
                        match rule_of(start) {
                            Some(rule) => found.push(rule),
                            // What is repeated.
                            None => wait.push(start),
                        }
                        if nullable[start as usize] {
                            wait.push(to);
                        }
                    }
                    Edge::Bytes(..) | Edge::Token(..) | Edge::Return => {}
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

struct Builder<'a> {
    graph: Graph,
    n_tokens: usize,
    token: &'a dyn Fn(&str) -> Result<u32>,
}

impl Builder<'_> {
    fn node(&mut self) -> Result<u32> {
        ensure!(self.graph.edges.len() < MOST_NODES, "the grammar is too large: shorten it, or let it repeat less");
        self.graph.edges.push(Vec::new());
        Ok(self.graph.edges.len() as u32 - 1)
    }

    fn edge(&mut self, from: u32, edge: Edge) {
        self.graph.edges[from as usize].push(edge);
    }

    /// Leads from one node to another by `expr`.
    fn add(&mut self, expr: &Expr, from: u32, to: u32) -> Result<()> {
        match expr {
            Expr::Chars(chars) => self.chars(chars, from, to)?,
            Expr::Sequence(parts) => {
                let mut at = from;
                for part in parts {
                    let next = self.node()?;
                    self.add(part, at, next)?;
                    at = next;
                }
                self.edge(at, Edge::Free(to));
            }
            Expr::Choice(options) => {
                for option in options {
                    let begin = self.node()?;
                    self.edge(from, Edge::Free(begin));
                    self.add(option, begin, to)?;
                }
            }
            Expr::Repeat(inner, least, most) => self.repeat(inner, *least, *most, from, to)?,
            Expr::Rule(number) => {
                let start = self.graph.starts[*number];
                self.edge(from, Edge::Call(start, to));
            }
            Expr::Token(name, other) => {
                let id = match name {
                    TokenName::Id(id) => *id,
                    TokenName::Text(text) => (self.token)(text)?,
                };
                ensure!((id as usize) < self.n_tokens, "<[{id}]>: the model has only {} tokens", self.n_tokens);
                self.edge(from, Edge::Token(id, *other, to));
            }
        }
        Ok(())
    }

    fn repeat(&mut self, inner: &Expr, least: usize, most: Option<usize>, from: u32, to: u32) -> Result<()> {
        let several = least > 1 || most.is_some_and(|most| most > 1);
        let is_small = match inner {
            Expr::Rule(_) => true,
            Expr::Chars(chars) => chars.0.len() <= 2 && chars.0.iter().all(|(_, to)| *to < 0x80),
            _ => false,
        };
        let called = if several && !is_small {
            // Once, however often it is repeated: repetitions of repetitions would multiply.
            let (start, end) = (self.node()?, self.node()?);
            self.add(inner, start, end)?;
            self.edge(end, Edge::Return);
            Some(start)
        } else {
            None
        };
        let once = |builder: &mut Self, from: u32, to: u32| match called {
            Some(start) => {
                builder.edge(from, Edge::Call(start, to));
                Ok(())
            }
            None => builder.add(inner, from, to),
        };
        let mut at = from;
        for _ in 0..least {
            let next = self.node()?;
            once(self, at, next)?;
            at = next;
        }
        let Some(most) = most else {
            // A node of its own: other edges may leave `at`.
            let (again, end) = (self.node()?, self.node()?);
            self.edge(at, Edge::Free(again));
            once(self, again, end)?;
            self.edge(end, Edge::Free(again));
            self.edge(again, Edge::Free(to));
            return Ok(());
        };
        for _ in least..most {
            self.edge(at, Edge::Free(to));
            let (begin, next) = (self.node()?, self.node()?);
            self.edge(at, Edge::Free(begin));
            once(self, begin, next)?;
            at = next;
        }
        self.edge(at, Edge::Free(to));
        Ok(())
    }

    /// The bytes of UTF-8 that the characters are written in.
    fn chars(&mut self, chars: &Chars, from: u32, to: u32) -> Result<()> {
        for (first, last) in chars.normal().0 {
            // Ranges of equally many bytes.
            for (least, most) in [(0, 0x7f), (0x80, 0x7ff), (0x800, 0xffff), (0x1_0000, 0x10_ffff)] {
                let (first, last) = (first.max(least), last.min(most));
                if let (true, Some(a), Some(b)) = (first <= last, char::from_u32(first), char::from_u32(last)) {
                    let (mut low, mut high) = ([0; 4], [0; 4]);
                    let (low, high) = (a.encode_utf8(&mut low).as_bytes(), b.encode_utf8(&mut high).as_bytes());
                    self.utf8(low, high, from, to)?;
                }
            }
        }
        Ok(())
    }

    /// All strings of bytes from `low` to `high`, which are equally long, whose bytes after the first are 0x80 to 0xbf.
    fn utf8(&mut self, low: &[u8], high: &[u8], from: u32, to: u32) -> Result<()> {
        let (Some((&l, low)), Some((&h, high))) = (low.split_first(), high.split_first()) else { return Ok(()) };
        if low.is_empty() {
            self.edge(from, Edge::Bytes(l, h, to));
            return Ok(());
        }
        let (least, most) = ([0x80; 3], [0xbf; 3]);
        let (least, most) = (&least[..low.len()], &most[..low.len()]);
        if l == h {
            return self.step(l, l, low, high, from, to);
        }
        // The first and the last byte may not have all continuations; those between have.
        let (begin, end) = (if low == least { l } else { l + 1 }, if high == most { h } else { h - 1 });
        if begin > l {
            self.step(l, l, low, most, from, to)?;
        }
        if begin <= end {
            self.step(begin, end, least, most, from, to)?;
        }
        if end < h {
            self.step(h, h, least, high, from, to)?;
        }
        Ok(())
    }

    fn step(&mut self, first: u8, last: u8, low: &[u8], high: &[u8], from: u32, to: u32) -> Result<()> {
        let next = self.node()?;
        self.edge(from, Edge::Bytes(first, last, next));
        self.utf8(low, high, next, to)
    }
}
