//! Rows in every format.

use super::*;
use crate::measure::divergence::Divergence;
use crate::measure::row::{Kl, OnCard, Predicted, Row};
use crate::measure::table::{fields, groups_of};

fn row() -> Row {
    Row {
        build: "0.1.0".to_owned(),
        model_filename: "it's \"a\" file.gguf".to_owned(),
        model_type: "tiny".to_owned(),
        model_size: 1024,
        synthetic: false,
        backend: "CPU".to_owned(),
        n_threads: 2,
        mode: "exact".to_owned(),
        hot: "none".to_owned(),
        text: "real".to_owned(),
        test: "tg128".to_owned(),
        n_prompt: 0,
        n_gen: 128,
        n_ctx: None,
        avg_ts: 10.5,
        stddev_ts: 0.25,
        samples_ts: vec![10.25, 10.75],
        isa: "plain".to_owned(),
        bytes_per_token: Some(1048576.0),
        ffn_bytes_per_token: Some(524288.0),
        gb_per_s: Some(12.0),
        limit_gb_per_s: Some(16.0),
        ffn_density: Some(0.125),
        ffn_up_density: None,
        perplexity: None,
        stderr: None,
        predicted: None,
        card: None,
        kl: None,
    }
}

fn predicted_row() -> Row {
    let predicted = Predicted {
        ffn_named: 0.15625,
        predictor_bytes_per_token: 2097152.0,
        predictor_time: 0.0625,
        predictor_recall: Some(0.998),
    };
    Row { mode: "predicted".to_owned(), predicted: Some(predicted), ..row() }
}

fn kl_row() -> Row {
    let divergence = Divergence {
        kl_tokens: 255,
        kl_mean: 0.0125,
        kl_stderr: 0.0005,
        kl_median: 0.0,
        kl_90: 0.01,
        kl_95: 0.02,
        kl_99: 0.03,
        kl_99_9: 0.04,
        kl_max: 1e-9,
        same_top: 0.975,
        same_top_stderr: 0.0025,
        base_perplexity: 6.25,
        base_stderr: 0.5,
        perplexity_ratio: 1.125,
        perplexity_ratio_stderr: 0.0625,
        dp_mean: -0.03125,
        dp_mean_stderr: 0.001,
        dp_rms: 0.0625,
        dp_rms_stderr: 0.002,
    };
    let kl = Some(Kl { kl_base: "a|b.gguf".to_owned(), divergence });
    Row { test: "kl".to_owned(), perplexity: Some(7.03125), stderr: Some(0.25), kl, ..row() }
}

#[test]
fn json_is_a_list_with_the_names_that_scripts_rely_on() {
    let json: serde_json::Value = serde_json::from_str(&render(&[row()], Format::Json).unwrap()).unwrap();
    let first = &json[0];
    for name in ["test", "n_prompt", "n_gen", "mode", "n_threads", "avg_ts", "stddev_ts", "bytes_per_token"] {
        assert!(!first[name].is_null(), "{name}");
    }
    assert_eq!(first["ffn_density"].as_f64(), Some(0.125));
    assert!(first["perplexity"].is_null());
}

fn card_row() -> Row {
    let card = OnCard {
        device: "a|card".to_owned(),
        vram_budget: 3 << 20,
        vram_accounted: 2 << 20,
        vram_allocated: 2 << 20,
        vram_used: 2 << 20,
        hot_share: 0.25,
        cpu_busy: 0.5,
        card_waits: 0.25,
        tasks_per_token: 31.5,
        planned_ts: 12.0,
        limit_ts: 14.0,
        sheet_ts: Some(21.0),
    };
    Row { backend: "CUDA".to_owned(), card: Some(card), ..row() }
}

#[test]
fn columns_of_a_card_are_there_when_a_row_needs_them() {
    let md = render(&[row(), card_row()], Format::Md).unwrap();
    for cell in ["| a/card |", " 2.00 MiB |", "25.0 %", " 75 % |", "| of both limits |", "|          50 % |"] {
        assert!(md.contains(cell), "{cell}: {md}");
    }
    assert!(render(&[card_row()], Format::Csv).unwrap().contains(",tasks_per_token"));
    assert!(!render(&[row()], Format::Csv).unwrap().contains("vram"));
}

#[test]
fn every_field_of_a_row_has_a_column_of_its_name_and_value() {
    for row in [row(), kl_row(), predicted_row(), card_row()] {
        let columns = fields(groups_of(std::slice::from_ref(&row)));
        let columns: serde_json::Map<_, _> = columns.iter().map(|f| (f.name.to_owned(), (f.value)(&row))).collect();
        assert_eq!(serde_json::to_value(&row).unwrap(), Value::Object(columns));
    }
}

#[test]
fn columns_of_kl_are_there_when_a_row_needs_them() {
    let (without, with) = ([row()], [row(), kl_row()]);
    for format in [Format::Md, Format::Csv, Format::Json, Format::Jsonl] {
        let out = render(&without, format).unwrap();
        assert!(!out.contains("kl_") && !out.contains("KL"), "{out}");
    }
    let csv = render(&with, Format::Csv).unwrap();
    let n_columns: Vec<_> = csv.lines().map(|l| l.split(',').count()).collect();
    assert_eq!(n_columns, [45; 3], "{csv}");
    assert!(csv.contains(",kl_99_9,") && csv.contains("\"0.0125\""), "{csv}");
    let json: serde_json::Value = serde_json::from_str(&render(&with, Format::Json).unwrap()).unwrap();
    assert!(json[0].get("kl_mean").is_none());
    assert_eq!([&json[1]["kl_mean"], &json[1]["perplexity"]].map(|v| v.as_f64()), [Some(0.0125), Some(7.03125)]);
}

#[test]
fn sql_has_one_table_for_rows_of_every_kind() {
    let create = |rows: &[Row]| render(rows, Format::Sql).unwrap().split_once(';').unwrap().0.to_owned();
    assert_eq!(create(&[row()]), create(&[kl_row()]));
    assert!(create(&[row()]).contains("kl_base TEXT,\n  kl_tokens REAL"));
}

#[test]
fn a_markdown_table_says_what_exactly_nothing_is() {
    let md = render(&[row(), kl_row()], Format::Md).unwrap();
    let lines: Vec<_> = md.lines().collect();
    let n_cells = |line: &str| line.matches('|').count();
    assert!(lines.iter().all(|l| n_cells(l) == 26), "{md}");
    let cells =
        [" a/b.gguf |", "| 0.012500 ± 0.000500 |", "|      0 |", "| 0.000000 |", "97.500 ± 0.250 %", "10.50 ± 0.25"];
    let more = ["7.0312 ± 0.2500", "6.2500 ± 0.5000", "1.125000 ± 0.062500", "-3.125 ± 0.100 %", "6.250 ± 0.200 %"];
    for cell in cells.iter().chain(&more) {
        assert!(lines[3].contains(cell), "{cell}: {md}");
    }
}

#[test]
fn columns_of_predictors_are_there_when_a_row_needs_them() {
    let md = render(&[row(), predicted_row()], Format::Md).unwrap();
    for cell in ["15.62 %", "2.00 MiB |", "| 99.800 % |", "| its time |"] {
        assert!(md.contains(cell), "{cell}: {md}");
    }
    assert!(render(&[row(), predicted_row()], Format::Csv).unwrap().contains(",predictor_recall"));
    assert!(!render(&[row()], Format::Csv).unwrap().contains("predictor"));
}

#[test]
fn quotes_are_doubled_in_csv_and_sql() {
    let csv = render(&[row()], Format::Csv).unwrap();
    assert!(csv.contains("\"it's \"\"a\"\" file.gguf\""), "{csv}");
    let sql = render(&[row()], Format::Sql).unwrap();
    assert!(sql.contains("'it''s \"a\" file.gguf'") && sql.contains("NULL"), "{sql}");
}

#[test]
fn a_markdown_table_has_a_line_per_row() {
    let md = render(&[row(), row()], Format::Md).unwrap();
    assert_eq!(md.lines().count(), 4);
    assert!(!md.contains("synthetic"), "{md}");
    let synthetic = render(&[Row { synthetic: true, ..row() }], Format::Md).unwrap();
    assert!(synthetic.contains("| tiny (synthetic) |"), "{synthetic}");
    for cell in ["12.50 %", "75 %", "10.50 ± 0.25", "1.00"] {
        assert!(md.contains(cell), "{cell}: {md}");
    }
}
