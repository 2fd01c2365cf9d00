//! How long the kernels take that read no weights: attention over the cache, what comes between the products, and the
//! crossings of a token.

mod recurrent;

use super::mailbox::{Arrival, Layout, Mailbox, Sizes, Wait};
use super::memory::{Arena, Mapped, Ptr};
use super::meter::{Copies, Meter, POSITIVE, Times};
use super::ops::attention::{Attend, attention, attention_scratch};
use super::ops::norm::{self, Acts, Merge, Norm, merge_norm, x8_bytes};
use super::ops::predict::{hidden, sign_scores};
use super::ops::rope::{KvLayer, Prepare, Rope, RopeStore, rope_store};
use super::ops::route::{Counted, PostChosen, Routes, Scored, post_chosen, route};
use super::ops::select::{HotAndCold, HotList, Posting, select_act, select_hot};
use super::ops::token::{self, Answer, Copied, Job};
use crate::model::{Config, Router};
use crate::placement::budget::aligned;
use crate::placement::probe::one_in_ten;
use crate::progress::{self, Progress};
use crate::quant::GgmlType;
use anyhow::{Result, ensure};
use std::time::Duration;

const FLOAT: u64 = size_of::<f32>() as u64;
/// How long either side waits for the other.
const LIMIT: Duration = Duration::from_secs(10);

/// A model's sizes, as far as these kernels depend on them.
#[derive(Debug, Clone, Copy)]
pub struct Token<'a> {
    /// The model's.
    pub config: &'a Config,
    /// Neurons of the largest group.
    pub n_ff: usize,
    /// The first layer's router that has one, and the groups among which it chooses.
    pub router: Option<(Router, usize)>,
    /// Rows of signs of a predictor, where there is such.
    pub n_signs: Option<usize>,
    /// Hidden values of a predictor, where there are such.
    pub n_hidden: Option<usize>,
    /// Type of keys and values.
    pub kv_type: GgmlType,
    /// Tokens that attention looks back on, itself among them.
    pub n_past: usize,
}

impl Token<'_> {
    fn cache(&self, ptr: Ptr) -> KvLayer {
        let Config { n_head_kv, head_dim, .. } = *self.config;
        KvLayer { ptr, dtype: self.kv_type, n_ctx: self.n_past, n_head_kv, head_dim }
    }
}

/// What was measured of a kernel.
#[derive(Debug, Clone)]
pub struct Timed {
    /// Its name, without a type.
    pub kernel: &'static str,
    /// On how much, in words.
    pub part: String,
    /// Type of what it reads, where it depends on it.
    pub dtype: Option<GgmlType>,
    /// Bytes that it has to read.
    pub bytes: u64,
    /// Seconds of a launch.
    pub times: Times,
    /// Places that launches read from in turn.
    pub n_copies: usize,
}

/// Where a token's vectors are.
struct Places {
    state: Ptr,
    x: Ptr,
    y: Ptr,
    x8: Ptr,
    /// Queries, keys, values, what attention made of them, and its scratch memory.
    q: Ptr,
    k: Ptr,
    v: Ptr,
    attn: Ptr,
    scratch: Ptr,
    frequencies: Ptr,
    act: Ptr,
    list: HotList,
    counts: Ptr,
    logits: Ptr,
    hidden: Ptr,
    hidden8: Ptr,
    /// Owns all of it.
    _memory: Arena,
}

impl Places {
    fn new(meter: &Meter, token: &Token) -> Result<Self> {
        let (config, n_ff) = (token.config, token.n_ff as u64);
        let scratch = attention_scratch(config.n_head, &token.cache(Ptr::NULL))?;
        let (n_embd, n_q, n_kv) = (config.n_embd as u64, config.n_q() as u64, config.n_kv() as u64);
        let n_hidden = token.n_hidden.unwrap_or(0);
        let (n_used, n_groups) = token.router.map_or((0, 0), |(router, n)| (router.n_used, n));
        let n_ff = n_ff.max(n_used as u64);
        let sizes = [
            token::TOKEN_BYTES,
            FLOAT * n_embd,
            FLOAT * n_embd,
            x8_bytes(config.n_embd),
            FLOAT * n_q,
            FLOAT * n_kv,
            FLOAT * n_kv,
            FLOAT * n_q,
            scratch,
            FLOAT * config.head_dim as u64,
            FLOAT * n_ff,
            FLOAT * n_ff,
            FLOAT,
            2 * FLOAT,
            FLOAT * config.n_vocab.max(n_groups) as u64,
            FLOAT * n_hidden as u64,
            x8_bytes(n_hidden),
        ];
        let mut memory = Arena::new(meter.device(), sizes.iter().map(|n| aligned(*n)).sum(), "measuring")?;
        let stream = &meter.stream;
        stream.fill(memory.buffer().ptr(), POSITIVE, memory.buffer().len())?;
        let mut at = [Ptr::NULL; 17];
        for (at, bytes) in at.iter_mut().zip(sizes) {
            *at = memory.take(bytes, "vectors")?;
        }
        let [state, x, y, x8, q, k, v, attn, partial, frequencies, act, slots, n, counts, logits, hidden, hidden8] = at;
        // States and counters begin at 0; one neuron in ten fires.
        stream.fill(state, 0, token::TOKEN_BYTES)?;
        stream.fill(partial, 0, scratch)?;
        let mut fires = vec![0.0f32; token.n_ff];
        one_in_ten(token.n_ff).iter().for_each(|slot| fires[*slot as usize] = 1.0);
        stream.write(act, &fires)?;
        let list = HotList { list: slots, n };
        let scratch = partial;
        Ok(Self {
            state,
            x,
            y,
            x8,
            q,
            k,
            v,
            attn,
            scratch,
            frequencies,
            act,
            list,
            counts,
            logits,
            hidden,
            hidden8,
            _memory: memory,
        })
    }
}

/// Measures the kernels of one token.
struct Vectors<'a> {
    meter: &'a Meter,
    token: &'a Token<'a>,
    at: Places,
    measured: Vec<Timed>,
}

impl Meter {
    /// Measures the kernels that read no weights, each on vectors of the model's sizes.
    ///
    /// # Errors
    /// When the sizes are not possible on the card; when the card fails, or the user stops it.
    pub fn vectors(&self, token: &Token, progress: &dyn Progress) -> Result<Vec<Timed>> {
        let n_embd = token.config.n_embd;
        let n_used = token.router.map_or(0, |(router, _)| router.n_used);
        let (n_ff, n_vocab) = (token.n_ff.max(n_used), token.config.n_vocab);
        let sizes = Sizes { n_embd, n_ff, n_vocab, n_groups: 1, n_tokens: 1 };
        let layout = Layout::new(sizes);
        let mut mailbox = Mailbox::new(Mapped::new(self.device(), layout.bytes, "measuring")?, layout)?;
        let at = Places::new(self, token)?;
        let mut vectors = Vectors { meter: self, token, at, measured: Vec::new() };
        let done = vectors.token(&mut mailbox, progress);
        if done.is_err() {
            // The card must not wait for answers that never come.
            mailbox.stop();
        }
        let ended = self.stream.synchronize();
        done?;
        ended?;
        Ok(vectors.measured)
    }
}

impl Vectors<'_> {
    /// Measures `launch`, of which each reads `bytes`.
    fn time(&mut self, kernel: &'static str, part: String, bytes: u64, launch: impl Fn() -> Result<()>) -> Result<()> {
        let times = self.meter.per_launch(|_| launch())?;
        self.measured.push(Timed { kernel, part, dtype: None, bytes, times, n_copies: 1 });
        Ok(())
    }

    /// All kernels, inside of one token with one job.
    fn token(&mut self, mailbox: &mut Mailbox, progress: &dyn Progress) -> Result<()> {
        let meter = self.meter;
        let (kernels, stream, mail) = (&meter.kernels, &meter.stream, mailbox.addresses());
        let (n, n_vocab) = (self.token.config.n_embd, self.token.config.n_vocab);
        let (state, x, logits, counts) = (self.at.state, self.at.x, self.at.logits, self.at.counts);
        let job = |number| Job { mailbox: mail.base, token: state, number };
        let vector = FLOAT * n as u64;
        let wait = Wait {
            limit: LIMIT,
            alive: &|| {
                progress::check(progress)?;
                stream.query().map(drop)
            },
        };
        mailbox.begin_token(1, self.token.n_past - 1, &vec![1.0; n])?;
        self.time("begin_token", format!("{n} over the bus"), vector, || {
            token::begin_token(kernels, stream, mail.base, state, mail.in_x, x, n)
        })?;
        self.attention()?;
        self.recurrent()?;
        self.between()?;
        let posting = Posting {
            x,
            n_embd: n,
            post_x: mail.post_x,
            post_list: mail.post_list,
            post_act: mail.post_act,
            job: job(0),
        };
        let (n_ff, act) = (self.token.n_ff, self.at.act);
        let slots = HotAndCold { n_hot: 0, n_ff, counts };
        self.time("select_act", format!("10 % of {n_ff} posted"), FLOAT * n_ff as u64 + vector, || {
            select_act(kernels, stream, act, false, slots, &posting)
        })?;
        if let Some((router, n_groups)) = self.token.router {
            // What is chosen and what it counts go where lists and activations are, scores where logits are.
            let n_used = router.n_used;
            let routes = Routes { chosen: self.at.list.list, weights: act, n_used };
            let scored = Scored { scores: logits, bias: Ptr::NULL, n_groups };
            let counted = Counted { index: Ptr::NULL, counts: Ptr::NULL };
            self.time("route", format!("{n_used} of {n_groups}"), FLOAT * n_groups as u64, || {
                route(kernels, stream, &router, &scored, &counted, &routes)
            })?;
            let Posting { x, post_x, post_list, post_act, job, .. } = posting;
            let to = PostChosen { x, n, post_x, post_list, post_weights: post_act, job };
            self.time("post_chosen", format!("{n} over the bus"), vector, || {
                post_chosen(kernels, stream, &routes, &to)
            })?;
        }
        // The scores of a predictor go where activations were.
        self.predictors()?;
        self.time("post_x", format!("{n} over the bus"), vector, || {
            token::post_x(kernels, stream, x, mail.post_x, n, &job(0))
        })?;
        ensure!(mailbox.wait_job(0, wait)? == Arrival::Posted, "measuring: nothing was posted");
        mailbox.reply(0, &vec![1.0; n])?;
        // The answer is there: what remains is to see it, and to fetch it.
        let answer = Answer { reply: mail.reply, job: job(0), limit_ms: LIMIT.as_millis() as u32 };
        self.time("take_reply", format!("{n} over the bus"), vector, || {
            token::take_reply(kernels, stream, x, n, &answer)
        })?;
        let sent = Copied { from: logits, to: mail.logits, n: n_vocab };
        let counted = Copied { from: counts, to: mail.counts, n: 2 };
        self.time("finish", format!("{n_vocab} over the bus"), FLOAT * n_vocab as u64, || {
            token::finish(kernels, stream, &sent, &counted, &job(1))
        })?;
        mailbox.wait_done(wait)
    }

    /// Storing keys and values, and attention, each launch with a cache of its own.
    fn attention(&mut self) -> Result<()> {
        let Self { meter, token, at, .. } = self;
        let (kernels, stream, config) = (&meter.kernels, &meter.stream, token.config);
        let caches = Copies::new(meter, token.cache(Ptr::NULL).n_bytes()?)?;
        let Config { n_head, ref rope, .. } = *config;
        let rope = Rope { kind: rope.kind, n_dims: rope.n_dims, frequencies: at.frequencies, magnitude: 1.0 };
        let prepare = Prepare::NOTHING;
        let stored = RopeStore { q: at.q, k: at.k, v: at.v, n_head, n_tokens: 1, token: at.state, first: 0, prepare };
        let times = meter.per_launch(|i| rope_store(kernels, stream, &stored, &rope, &token.cache(caches.at(i))))?;
        let (n_q, n_kv, dtype) = (config.n_q(), config.n_kv(), Some(token.kv_type));
        let bytes = FLOAT * (n_q + 2 * n_kv) as u64;
        let part = format!("{n_q}+{n_kv}+{n_kv}");
        let stored = Timed { kernel: "rope_store", part, dtype, bytes, times, n_copies: caches.n };

        let out = Acts { f32: at.attn, x8: Ptr::NULL };
        let work = Attend { q: at.q, n_head, n_tokens: 1, token: at.state, window: None, scratch: at.scratch, out };
        let times = meter.per_launch(|i| attention(kernels, stream, &work, &token.cache(caches.at(i))))?;
        // Keys and values of all positions.
        let bytes = token.cache(Ptr::NULL).n_bytes()?;
        let part = format!("{} positions", token.n_past);
        let attended = Timed { kernel: "attention", part, dtype, bytes, times, n_copies: caches.n };
        self.measured.extend([stored, attended]);
        Ok(())
    }

    /// What comes between products.
    fn between(&mut self) -> Result<()> {
        let meter = self.meter;
        let (kernels, stream, config) = (&meter.kernels, &meter.stream, self.token.config);
        let (n, n_ff) = (config.n_embd, self.token.n_ff);
        let Places { x, y, x8, act, list, counts, .. } = self.at;
        let out = Acts { f32: y, x8 };
        let norm = Norm { kind: config.norm, eps: config.norm_eps, weight: y, bias: Ptr::NULL };
        let vector = FLOAT * n as u64;
        self.time("norm", n.to_string(), 2 * vector, || norm::norm(kernels, stream, x, n, 1, &norm, out))?;
        let merge = Merge { a: y, b: y, ..Merge::nothing(x, n) };
        self.time("merge_norm", n.to_string(), 4 * vector, || merge_norm(kernels, stream, &merge, Some(&norm), out))?;
        self.time("quantize", n.to_string(), vector, || norm::quantize(kernels, stream, x, n, 1, x8))?;
        let slots = HotAndCold { n_hot: n_ff, n_ff, counts };
        self.time("select_hot", format!("10 % of {n_ff}"), FLOAT * n_ff as u64, || {
            select_hot(kernels, stream, act, false, slots, &list)
        })
    }

    /// What only predictors need.
    fn predictors(&mut self) -> Result<()> {
        let Self { meter, token, .. } = *self;
        let (kernels, stream, n_embd) = (&meter.kernels, &meter.stream, token.config.n_embd);
        let Places { x, act, hidden: values, hidden8, .. } = self.at;
        if let Some(n_rows) = token.n_signs {
            let bytes = (n_rows * n_embd / 8) as u64;
            let signs = Copies::new(meter, bytes)?;
            let times = meter.per_launch(|i| sign_scores(kernels, stream, signs.at(i), x, n_embd, n_rows, act))?;
            let part = format!("{n_rows} x {n_embd}");
            self.measured.push(Timed { kernel: "sign_scores", part, dtype: None, bytes, times, n_copies: signs.n });
        }
        if let Some(n) = token.n_hidden {
            let x8 = if n.is_multiple_of(32) { hidden8 } else { Ptr::NULL };
            self.time("hidden", n.to_string(), FLOAT * n as u64, || hidden(kernels, stream, values, Ptr::NULL, n, x8))?;
        }
        Ok(())
    }
}
