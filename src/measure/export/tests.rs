//! Rows in every format.

use super::*;
use crate::measure::divergence::Divergence;
use crate::measure::row::{Kl, OnCard, Predicted, Row};
use crate::measure::table::{fields, groups_of};
use crate::measure::timing::Timing;

fn row() -> Row {
    Row {
        build: "0.1.0".to_owned(),
        build_commit: "0123abcd".to_owned(),
        build_number: 7,
        cpu_info: "a processor".to_owned(),
        gpu_info: String::new(),
        model_filename: "it's \"a\" file.gguf".to_owned(),
        model_type: "llama 7B Q4_0".to_owned(),
        model_name: "tiny".to_owned(),
        model_size: 1024,
        model_n_params: 1_500_000,
        synthetic: false,
        backend: "CPU".to_owned(),
        n_batch: 2048,
        n_ubatch: 512,
        n_threads: 2,
        type_k: "f16".to_owned(),
        type_v: "f16".to_owned(),
        n_gpu_layers: 0,
        devices: "none".to_owned(),
        use_mmap: true,
        load_mode: "mmap".to_owned(),
        mode: "exact".to_owned(),
        hot: "none".to_owned(),
        text: "real".to_owned(),
        test: "tg128".to_owned(),
        n_prompt: 0,
        n_gen: 128,
        n_depth: 0,
        n_ctx: None,
        test_time: "2026-01-02T03:04:05Z".to_owned(),
        timing: Timing {
            avg_ns: 12_190_476_190,
            stddev_ns: 290_000_000,
            avg_ts: 10.5,
            stddev_ts: 0.25,
            samples_ns: vec![12_487_804_878, 11_906_976_744],
            samples_ts: vec![10.25, 10.75],
        },
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
        parallel: None,
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
        ordinal: 1,
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
    row().on(Some(card))
}

#[test]
fn columns_of_a_card_are_there_when_a_row_needs_them() {
    let md = render(&[row(), card_row()], Format::Md).unwrap();
    for cell in ["| a/card |", " 2.00 MiB |", "25.0 %", " 75 % |", "| of both limits |", "|          50 % |"] {
        assert!(md.contains(cell), "{cell}: {md}");
    }
    assert!(render(&[card_row()], Format::Jsonl).unwrap().contains(",\"tasks_per_token\""));
    assert!(!render(&[row()], Format::Jsonl).unwrap().contains("vram"));
}

/// What no measurement here differs in, with llama-bench's values.
const USUAL: [(&str, &str); 13] = [
    ("cpu_mask", "\"0x0\""),
    ("cpu_strict", "false"),
    ("poll", "50"),
    ("n_cpu_moe", "0"),
    ("split_mode", "\"layer\""),
    ("main_gpu", "0"),
    ("no_kv_offload", "false"),
    ("flash_attn", "-1"),
    ("tensor_split", "\"0.00\""),
    ("tensor_buft_overrides", "\"none\""),
    ("embeddings", "false"),
    ("no_op_offload", "0"),
    ("no_host", "false"),
];

#[test]
fn every_field_of_a_row_has_a_column_of_its_name_and_value() {
    for row in [row(), kl_row(), predicted_row(), card_row()] {
        let columns = fields(groups_of(std::slice::from_ref(&row)));
        let mut columns: serde_json::Map<_, _> = columns.iter().map(|f| (f.name.to_owned(), (f.value)(&row))).collect();
        for (name, value) in USUAL {
            assert_eq!(columns.remove(name).unwrap().to_string(), value, "{name}");
        }
        for name in ["fit_target", "fit_min_ctx"] {
            assert_eq!(columns.remove(name).unwrap(), 0, "{name}");
        }
        assert_eq!(columns.remove("backends").unwrap(), columns["backend"]);
        assert_eq!(serde_json::to_value(&row).unwrap(), Value::Object(columns));
    }
}

#[test]
fn columns_of_kl_are_there_when_a_row_needs_them() {
    let (without, with) = ([row()], [row(), kl_row()]);
    for format in [Format::Md, Format::Json, Format::Jsonl] {
        let out = render(&without, format).unwrap();
        assert!(!out.contains("kl_") && !out.contains("KL"), "{out}");
    }
    let json: serde_json::Value = serde_json::from_str(&render(&with, Format::Json).unwrap()).unwrap();
    assert!(json[0].get("kl_mean").is_none());
    assert_eq!([&json[1]["kl_mean"], &json[1]["perplexity"]].map(|v| v.as_f64()), [Some(0.0125), Some(7.03125)]);
}

#[test]
fn sql_has_one_table_for_rows_of_every_kind() {
    let create = |rows: &[Row]| render(rows, Format::Sql).unwrap().split_once(';').unwrap().0.to_owned();
    assert_eq!(create(&[row()]), create(&[kl_row()]));
    assert!(create(&[row()]).contains("kl_base TEXT,\n  kl_tokens INTEGER,\n  kl_mean REAL"));
}

#[test]
fn csv_has_one_head_for_rows_of_every_kind() {
    let csv = |rows: &[Row]| render(rows, Format::Csv).unwrap();
    let head = |rows: &[Row]| csv(rows).lines().next().unwrap().to_owned();
    let rows = [row(), kl_row(), predicted_row(), card_row()];
    rows.iter().for_each(|row| assert_eq!(head(std::slice::from_ref(row)), head(&rows)));
    // No value of these has a comma.
    let n = head(&rows).split(',').count();
    assert!(csv(&rows).lines().all(|line| line.split(',').count() == n), "{}", csv(&rows));
    assert!(csv(&[kl_row()]).contains("\"0.0125\"") && head(&rows).contains(",kl_99_9,"));
}

#[test]
fn rows_that_are_written_as_they_come_are_the_table_that_is_written_at_once() {
    let rows = [row(), kl_row(), row()];
    for format in [Format::Csv, Format::Json, Format::Jsonl, Format::Sql, Format::Md] {
        let mut stream = Stream::new(format, vec!["kl"]);
        let parts: Vec<_> = rows.iter().map(|row| stream.row(row).unwrap()).collect();
        let (streamed, whole) = (parts.concat() + stream.end(), render(&rows, format).unwrap());
        match format {
            Format::Json => {
                let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
                assert_eq!(read(&streamed), read(&whole));
            }
            Format::Md => {
                let cells =
                    |text: &str| text.split(['|', '\n', ' ', '-', ':']).filter(|c| !c.is_empty()).collect::<String>();
                assert_eq!(cells(&streamed), cells(&whole));
            }
            _ => assert_eq!(streamed, whole),
        }
        // Only a JSON list lacks its end where the program was killed.
        assert!(format == Format::Json || parts.iter().all(|part| part.ends_with('\n')), "{parts:?}");
        assert_eq!(Stream::<Row>::new(format, Vec::new()).end(), "");
    }
}

#[test]
fn a_markdown_table_begins_anew_where_a_row_needs_more_columns() {
    let mut stream = Stream::new(Format::Md, Vec::new());
    let parts = [row(), row(), card_row(), row()].map(|row| stream.row(&row).unwrap());
    assert_eq!(parts.each_ref().map(|part| part.lines().count()), [3, 1, 4, 1], "{parts:?}");
    assert!(parts[2].starts_with("\n| model") && parts[2].contains("of both limits"), "{parts:?}");
    let n_cells = |part: &str| part.trim().lines().map(|line| line.matches('|').count()).collect::<Vec<_>>();
    assert_eq!(n_cells(&parts[2])[0], n_cells(&parts[3])[0], "a row keeps the columns of the table that it is in");
}

#[test]
fn settings_that_are_not_the_usual_ones_are_shown() {
    let md = |row: Row| render(&[row], Format::Md).unwrap();
    let titles = |row: Row| ["n_batch", "n_ubatch", "type_k", "type_v"].map(|title| md(row.clone()).contains(title));
    assert_eq!(titles(row()), [false; 4]);
    assert_eq!(titles(Row { n_batch: 128, ..row() }), [true, false, false, false]);
    assert_eq!(titles(Row { n_ubatch: 128, ..row() }), [false, true, false, false]);
    assert_eq!(titles(Row { type_v: "q8_0".to_owned(), ..row() }), [false, false, true, true]);
}

#[test]
fn a_markdown_table_says_what_exactly_nothing_is() {
    let md = render(&[row(), kl_row()], Format::Md).unwrap();
    let lines: Vec<_> = md.lines().collect();
    let n_cells = |line: &str| line.matches('|').count();
    assert!(lines.iter().all(|l| n_cells(l) == 28), "{md}");
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
    assert!(render(&[predicted_row()], Format::Jsonl).unwrap().contains(",\"predictor_recall\""));
    assert!(!render(&[row()], Format::Jsonl).unwrap().contains("predictor"));
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
