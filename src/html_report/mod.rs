//! A profile and a plan as a page: one file with its pictures, which needs no script and nothing from elsewhere.

mod html;

use crate::placement::explain::Explained;
use crate::placement::picture as plan_picture;
use crate::plot::Picture;
use crate::profile::{Pool, Profile, experts, hex, plot, report};
use crate::units::Bytes;
use anyhow::{Context, Result};
use html::{lines, percent, table, text, tiles};

const STYLE: &str = include_str!("style.css");
/// Begins the page, and forbids it scripts and everything from elsewhere.
const HEAD: &str = include_str!("head.html");

/// What a page is about.
pub struct Report<'a> {
    /// What fires.
    pub profile: &'a Profile,
    /// A plan for the same model, or why there is none.
    pub plan: Result<&'a Explained<'a>, String>,
}

impl Report<'_> {
    /// The page, the same bytes for the same profile and plan.
    ///
    /// # Errors
    /// As [`plot::picture`].
    pub fn html(&self) -> Result<String> {
        let profile = self.profile;
        let name = if profile.name.is_empty() { "a model without a name" } else { &profile.name };
        let mut out = String::from(HEAD);
        out += &format!("<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n", text(name));
        out += &format!("<h1>{}</h1>\n", text(name));
        out += &format!(
            "<p class=\"faint\">{}, activation {}; {} tokens of {}; powerinfer {}</p>\n",
            text(&profile.arch),
            text(&profile.activation),
            profile.n_tokens(),
            profile.texts_in_words(),
            env!("CARGO_PKG_VERSION")
        );
        out += &self.summary();
        let n_hot = self.plan.as_ref().ok().map(|explained| explained.plan.n_hot());
        out += "<h2>What fires</h2>\n";
        out += &figures(&plot::picture(profile, n_hot.as_deref())?)?;
        out += &self.layers();
        let choices = experts::table(profile);
        if !choices.is_empty() {
            out += &format!("<h2>Experts</h2>\n<pre>{}</pre>\n", lines(choices.trim()));
        }
        out += &self.plan()?;
        out += &self.texts();
        Ok(out + "</body>\n</html>\n")
    }

    fn summary(&self) -> String {
        let profile = self.profile;
        let pools: Vec<_> = Pool::all(profile).iter().map(|pool| report::pool(profile, pool)).collect();
        let n_ff: usize = pools.iter().map(|pool| pool.n_ff).sum();
        let mut all = vec![
            ("of neurons rest", percent(report::sparsity(profile), 1)),
            ("neurons", n_ff.to_string()),
            ("never fired", pools.iter().map(|pool| pool.dead).sum::<usize>().to_string()),
        ];
        if let Ok(explained) = &self.plan {
            let plan = explained.plan;
            all.push(("tokens/s predicted", format!("{:.1}", plan.tokens_per_second())));
            all.push(("of neurons on the card", percent(plan.budget().map(|_| plan.hot_share()), 1)));
            all.push(("weights", Bytes(explained.planner.work.n_bytes()).to_string()));
        }
        tiles(&all)
    }

    fn layers(&self) -> String {
        let profile = self.profile;
        let row = |pool: &Pool| {
            let figures = report::pool(profile, pool);
            vec![
                pool.label.clone(),
                figures.n_ff.to_string(),
                percent(figures.sparsity, 2),
                percent(Some(figures.skew), 1),
                figures.dead.to_string(),
            ]
        };
        let titles = ["layer", "neurons", "rest", "80 % of firings in", "never fired"];
        format!("<h2>Layers</h2>\n{}", table(&titles, Pool::all(profile).iter().map(row)))
    }

    fn plan(&self) -> Result<String> {
        let explained = match &self.plan {
            Ok(explained) => explained,
            Err(why) => return Ok(format!("<h2>Plan</h2>\n<p>{}</p>\n", text(why))),
        };
        let drawn = figures(&plan_picture::picture(&explained.planner, explained.plan))?;
        Ok(format!(
            "<h2>Plan for {}</h2>\n<p class=\"faint\">What powerinfer-split would place where, and what that is expected to \
             give; nothing here was measured by running the model.</p>\n<pre>{}</pre>\n{drawn}",
            text(&explained.planner.hardware.name),
            lines(&explained.table(true)),
        ))
    }

    fn texts(&self) -> String {
        let row = |(i, text): (usize, &crate::profile::ProfiledText)| {
            vec![(i + 1).to_string(), text.n_tokens.to_string(), text.n_ctx.to_string(), hex(&text.sha256)]
        };
        let rows = self.profile.texts.iter().enumerate().map(row);
        format!("<h2>Texts</h2>\n{}", table(&["text", "tokens", "tokens per window", "SHA-256"], rows))
    }
}

/// Each panel by itself, so that pages of paper end between them.
fn figures(picture: &Picture) -> Result<String> {
    let mut out = String::new();
    for panel in &picture.panels {
        let alone = Picture { title: String::new(), panels: vec![panel.clone()] };
        out += &format!("<figure>\n{}</figure>\n", alone.svg().context("a picture of the report")?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
