//! The table of a card's kernels: rows and their columns.

use super::columns::share_of;
use super::table::{Column, Group, Tabled};
use crate::gpu::kernel_list::{Card, Measured};
use crate::gpu::meter::Times;
use serde_json::Value;

/// What all rows of a table have in common.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct About {
    /// Version of this program.
    pub build: String,
    /// File, or the name of the embedded model.
    pub model_filename: String,
    /// `general.name`.
    pub model_type: String,
    /// The card.
    pub device: String,
    /// Whether the card is emulated: then all figures are meaningless.
    pub emulated: bool,
    /// What the card's data sheet promises, in 10^9 bytes per second, where the driver tells.
    pub sheet_gb_per_s: Option<f64>,
}

/// A kernel, or something else that a token waits for.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct KernelRow {
    /// The model and the card.
    #[cfg_attr(test, serde(flatten))]
    pub about: About,
    /// The kernel, without a type; or what else was measured.
    pub kernel: String,
    /// What it is for, and on how much.
    pub part: String,
    /// Type of the weights, or of keys and values.
    #[cfg_attr(test, serde(rename = "type"))]
    pub dtype: Option<String>,
    /// Launches in one graph.
    pub n_launches: Option<usize>,
    /// Places that these read from in turn.
    pub n_copies: Option<usize>,
    /// Microseconds of a launch in the best run.
    pub us: Option<f64>,
    /// The same in the run in the middle.
    pub median_us: Option<f64>,
    /// Bytes that a launch has to read: of the weights, or of keys and values, those that it needs; where there are none,
    /// its vectors.
    pub bytes: Option<u64>,
    /// Bytes over time of the best run, in 10^9 bytes per second.
    pub gb_per_s: Option<f64>,
    /// What was measured for the planner: for rows of this type, read in this way.
    pub probe_gb_per_s: Option<f64>,
}

impl KernelRow {
    /// What is measured once, and not in a graph of launches.
    fn other(about: &About, kernel: &str, part: String, times: Option<Times>) -> Self {
        Self {
            about: about.clone(),
            kernel: kernel.to_owned(),
            part,
            dtype: None,
            n_launches: None,
            n_copies: None,
            us: times.map(|t| 1e6 * t.best),
            median_us: times.map(|t| 1e6 * t.median),
            bytes: None,
            gb_per_s: None,
            probe_gb_per_s: None,
        }
    }

    fn kernel(about: &About, measured: &Measured, n_launches: usize) -> Self {
        let Measured { timed, planned } = measured;
        Self {
            dtype: timed.dtype.map(|dtype| dtype.name().to_owned()),
            n_launches: Some(n_launches),
            n_copies: Some(timed.n_copies),
            bytes: Some(timed.bytes),
            gb_per_s: Some(timed.bytes as f64 / timed.times.best / 1e9),
            probe_gb_per_s: planned.map(|planned| planned / 1e9),
            ..Self::other(about, timed.kernel, timed.part.clone(), Some(timed.times))
        }
    }

    /// Share of the data sheet's bandwidth, of what reads the card's memory and nothing else to speak of.
    fn of_data_sheet(&self) -> Option<String> {
        self.probe_gb_per_s?;
        let sheet = self.about.sheet_gb_per_s;
        Some(sheet.map_or("unknown".to_owned(), |sheet| share_of(self.gb_per_s.unwrap_or_default(), sheet)))
    }
}

/// The rows of all that was measured of `card`.
pub fn rows(about: &About, card: &Card) -> Vec<KernelRow> {
    let Card { kernels, n_launches, probed, launching, loading } = card;
    let once = |seconds: f64| Some(Times { best: seconds, median: seconds });
    let n = launching.n_kernels;
    let other = |kernel: &str, part: String, times| KernelRow::other(about, kernel, part, times);
    let mut rows: Vec<_> = kernels.iter().map(|m| KernelRow::kernel(about, m, *n_launches)).collect();
    rows.push(other("empty kernel", format!("in a graph of {n}"), Some(launching.running.each(n))));
    rows.push(other("graph", format!("{n} empty kernels: the call"), Some(launching.call)));
    rows.push(other("graph", format!("{n} empty kernels: until done"), Some(launching.whole)));
    if let Some(probed) = probed {
        rows.push(other("rendezvous", "there and back".to_owned(), once(probed.bus.rendezvous)));
        let bus = other("bus", "to the card".to_owned(), None);
        rows.push(KernelRow { gb_per_s: Some(probed.bus.bandwidth / 1e9), ..bus });
    }
    rows.push(other("loading", "all kernels".to_owned(), once(*loading)));
    rows
}

impl Tabled for KernelRow {
    const TABLE: &'static str = "powerinfer_kernels";

    fn groups() -> &'static [Group<Self>] {
        &GROUPS
    }
}

const fn text(name: &'static str, value: fn(&KernelRow) -> Value) -> Column<KernelRow> {
    Column::text(name, value)
}

const fn number(name: &'static str, value: fn(&KernelRow) -> Value) -> Column<KernelRow> {
    Column::real(name, value)
}

const fn count(name: &'static str, value: fn(&KernelRow) -> Value) -> Column<KernelRow> {
    Column::integer(name, value)
}

/// All columns, in order.
static GROUPS: [Group<KernelRow>; 2] = [
    Group {
        name: "all",
        needed: None,
        columns: &[
            text("build", |r| r.about.build.as_str().into()),
            text("model_filename", |r| r.about.model_filename.as_str().into()),
            text("model_type", |r| r.about.model_type.as_str().into()),
            text("device", |r| r.about.device.as_str().into()),
            Column::boolean("emulated", |r| r.about.emulated.into()),
            text("kernel", |r| r.kernel.as_str().into()).shown("kernel", |r| Some(r.kernel.clone())),
            text("part", |r| r.part.as_str().into()).shown("on", |r| Some(r.part.clone())),
            text("type", |r| r.dtype.clone().into()).shown("type", |r| r.dtype.clone()),
            count("n_launches", |r| r.n_launches.into()),
            count("n_copies", |r| r.n_copies.into()),
            number("us", |r| r.us.into()).shown("us", |r| Some(format!("{:.2}", r.us?))),
            number("median_us", |r| r.median_us.into()).shown("median us", |r| Some(format!("{:.2}", r.median_us?))),
            count("bytes", |r| r.bytes.into()).shown("bytes", |r| Some(r.bytes?.to_string())),
            number("gb_per_s", |r| r.gb_per_s.into()).shown("GB/s", |r| Some(format!("{:.1}", r.gb_per_s?))),
            number("probe_gb_per_s", |r| r.probe_gb_per_s.into())
                .shown("of measured", |r| Some(share_of(r.gb_per_s?, r.probe_gb_per_s?))),
            number("sheet_gb_per_s", |r| r.about.sheet_gb_per_s.into())
                .shown("of data sheet", KernelRow::of_data_sheet),
        ],
    },
    Group {
        name: "emulated",
        needed: Some(|row| row.about.emulated),
        columns: &[Column::again("figures", |_| Some("meaningless".to_owned()))],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::meter::Launching;
    use crate::gpu::vectors::Timed;
    use crate::measure::export::{Format, render};
    use crate::measure::table::{fields, groups_of};
    use crate::placement::hardware::Hardware;
    use crate::quant::GgmlType;

    const MACHINE: &str = include_str!("../../hardware/rtx-4090-ddr5.toml");

    fn all(emulated: bool, sheet: Option<f64>) -> Vec<KernelRow> {
        let about = About {
            build: "0.1.0".to_owned(),
            model_filename: "a.gguf".to_owned(),
            model_type: "tiny".to_owned(),
            device: "a card".to_owned(),
            emulated,
            sheet_gb_per_s: sheet,
        };
        let times = Times { best: 10e-6, median: 12e-6 };
        let timed = Timed {
            kernel: "matvec",
            part: "mask: 10 x 20".to_owned(),
            dtype: Some(GgmlType::Q4_0),
            bytes: 5_000_000,
            times,
            n_copies: 40,
        };
        let norm = Timed { kernel: "norm", dtype: None, ..timed.clone() };
        let kernels = vec![Measured { timed, planned: Some(800e9) }, Measured { timed: norm, planned: None }];
        let probed = Hardware::parse(MACHINE).unwrap().device;
        let launching = Launching { n_kernels: 720, call: times, whole: times, running: times };
        rows(&about, &Card { kernels, n_launches: 64, probed, launching, loading: 1.5 })
    }

    #[test]
    fn every_field_of_a_row_has_a_column_of_its_name_and_value() {
        for row in all(true, Some(1008.0)) {
            let columns = fields(groups_of(std::slice::from_ref(&row)));
            let columns: serde_json::Map<_, _> = columns.iter().map(|f| (f.name.to_owned(), (f.value)(&row))).collect();
            assert_eq!(serde_json::to_value(&row).unwrap(), Value::Object(columns));
        }
    }

    #[test]
    fn shares_are_of_what_the_planner_takes_and_of_the_data_sheet() {
        let md = render(&all(false, Some(1000.0)), Format::Md).unwrap();
        let line = |kernel: &str| md.lines().find(|l| l.starts_with(&format!("| {kernel} "))).unwrap().to_owned();
        for cell in [" 10.00 |", " 12.00 |", " 500.0 |", " 62 % |", " 50 % |", " Q4_0 |"] {
            assert!(line("matvec").contains(cell), "{cell}: {md}");
        }
        // A vector in a cache says nothing of the memory.
        assert!(line("norm").trim_end().ends_with("- |") && !md.contains("meaningless"), "{md}");
        let unknown = render(&all(true, None), Format::Md).unwrap();
        assert!(unknown.contains(" unknown | meaningless |"), "{unknown}");
        assert!(unknown.lines().skip(2).all(|l| l.ends_with("| meaningless |")), "{unknown}");
    }

    #[test]
    fn kernels_have_a_table_of_their_own() {
        let sql = render(&all(false, None), Format::Sql).unwrap();
        assert!(sql.contains("INSERT INTO powerinfer_kernels (build,") && !sql.contains("powerinfer_bench"), "{sql}");
    }
}
