//! What users write on the command line, and text that comes in pieces.

use super::target::Target;
use anyhow::{Result, ensure};
use powerinfer::cpu::Isa;
use powerinfer::executor::{KvType, Mode};
use powerinfer::gpu::DeviceChoice;
use powerinfer::hub::Reference;
use powerinfer::measure::export::Format;
use powerinfer::model::Activation;
use powerinfer::predictor::{Kind, PredictorChoice};
use powerinfer::printable::{printable, printable_lines, without_controls};
use powerinfer::profile::collect::CorpusPart;
use powerinfer::quant::GgmlType;
use powerinfer::synthetic::{Layout, Spec};
use powerinfer::tokenizer::TextStream;
use powerinfer::units::Bytes;
use powerinfer::variant::{DownType, Recipe};

pub struct Arguments;

/// Whether `text` is one of them.
fn parsed(text: &str) -> bool {
    if let Ok(spec) = text.parse::<Spec>() {
        let _ = (spec.name(), spec.file_name(Layout::Plain), spec.file_name(Layout::Variant));
        return true;
    }
    if let Ok(bytes) = text.parse::<Bytes>() {
        assert!((1..=1 << 60).contains(&bytes.0), "{text}: {bytes}");
        let _ = bytes.to_string();
        return true;
    }
    if let Ok(part) = text.parse::<CorpusPart>() {
        let _ = part.to_string();
        return true;
    }
    if let Ok(Some(model)) = text.parse::<Reference>().map(Some).or_else(|_| Reference::of_argument(text)) {
        let path = format!("{}/{}", model.repo, model.file.unwrap_or_default());
        assert!(!path.split('/').any(|part| part == ".." || part == "."), "{text}: leads out of its folder");
        assert_eq!(model.repo.to_string().matches('/').count(), 1, "{text}");
        return true;
    }
    text.parse::<Activation>().is_ok()
        || text.parse::<Mode>().is_ok()
        || text.parse::<Isa>().is_ok()
        || text.parse::<KvType>().is_ok()
        || text.parse::<DeviceChoice>().is_ok()
        || text.parse::<DownType>().is_ok()
        || text.parse::<Recipe>().is_ok()
        || text.parse::<PredictorChoice>().is_ok()
        || text.parse::<Kind>().is_ok()
        || text.parse::<Format>().is_ok()
        || GgmlType::from_name(text).is_some()
}

/// Pieces of any length give the text that the whole gives.
fn stream(input: &[u8]) {
    let mut stream = TextStream::new();
    let (mut text, mut rest) = (String::new(), input);
    while let Some(first) = rest.first() {
        let (piece, more) = rest.split_at(rest.len().min(1 + usize::from(first % 5)));
        text += &stream.push(piece);
        rest = more;
    }
    text += &stream.finish();
    assert_eq!(text, String::from_utf8_lossy(input));
}

/// What is shown on a terminal is no command to it, and the same where there is none.
fn show(text: &str) {
    let shown = printable(text);
    assert!(!shown.contains(char::is_control), "{shown:?}");
    assert_eq!(printable(&shown), shown);
    assert!(!printable_lines(text).contains(|c: char| c.is_control() && c != '\n'));
    assert!(!without_controls(text).contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')));
}

impl Target for Arguments {
    type Form = Vec<u8>;

    fn name(&self) -> &'static str {
        "text"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        [
            "24GiB",
            "1.5 GB",
            "3/8",
            "7b-16:q8_0:0.125",
            "cuda:1",
            "relu2",
            "q4_k_m",
            "lossless",
            "exact",
            "owner/model:Q4_K_M",
            "hf:owner/model/a/b.gguf",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into()
    }

    fn words(&self) -> &[&str] {
        &[
            "0",
            "9",
            "18446744073709551615",
            ".",
            "e",
            "-",
            "/",
            ":",
            "nan",
            "inf",
            "KiB",
            "tb",
            "7b",
            "q4_0",
            "\u{e9}",
            "\u{130}",
        ]
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        stream(input);
        let text = String::from_utf8_lossy(input);
        show(&text);
        ensure!(parsed(&text), "is no argument");
        Ok(())
    }
}
