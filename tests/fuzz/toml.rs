//! TOML that users write: descriptions of machines, and lists of known models.

use super::target::Target;
use anyhow::Result;
use powerinfer::model::registry;
use powerinfer::placement::hardware::Hardware;
use std::fs;
use std::path::Path;

fn file(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("a file of the repository")
}

/// Without comments: changes of these are no news.
fn code(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| format!("{line}\n")).collect::<String>().into_bytes()
}

pub struct Machines;

impl Target for Machines {
    type Form = Vec<u8>;

    fn name(&self) -> &'static str {
        "hardware"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let whole = code(&file("hardware/rtx-4090-ddr5.toml"));
        let text = String::from_utf8_lossy(&whole).into_owned();
        let without_card = text.split("[gpu]").next().unwrap_or_default().as_bytes().to_vec();
        let types = "[cpu.types.q4_0]\nstream_gb_s = 60\ngather_gb_s = 4e1\nadd_gather_gb_s = 30.5\n";
        let with_types = [without_card.clone(), types.as_bytes().to_vec()].concat();
        vec![whole, without_card, with_types]
    }

    fn words(&self) -> &[&str] {
        &[
            "= ",
            "[cpu.types.q8_0]\n",
            "[gpu.types.f16]\n",
            "stream_gb_s = 1\n",
            "gather_gb_s = 0.001\n",
            "add_stream_gb_s = ",
            "\"24GiB\"",
            "\"1.5 TB\"",
            "nan",
            "-inf",
            "1e308",
            "9223372036854775807",
            "'''",
            "\"\"\"",
            "\\u001b",
            "[[",
            "{",
            "[",
            "\u{7f}",
            "\u{200b}",
            "1979-05-27T07:32:00Z",
        ]
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        let hardware = Hardware::parse(std::str::from_utf8(input)?)?;
        let written = hardware.to_toml();
        let again =
            Hardware::parse(&written).unwrap_or_else(|error| panic!("{error:#} in what was written:\n{written}"));
        assert_eq!(again.to_toml(), written, "what is read back is another machine");
        Ok(())
    }
}

pub struct Registry;

impl Target for Registry {
    type Form = Vec<u8>;

    fn name(&self) -> &'static str {
        "registry"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let whole = code(&file("models.toml"));
        let text = String::from_utf8_lossy(&whole).into_owned();
        text.split("[[model]]").skip(1).map(|entry| format!("[[model]]{entry}").into_bytes()).collect()
    }

    fn words(&self) -> &[&str] {
        &[
            "[[model]]\n",
            "files = [\n",
            "{ name = \"a\", sha256 = \"\" },",
            "verified = false\n",
            "[",
            "{ a = ",
            "'''",
            ".",
        ]
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        registry::parse(std::str::from_utf8(input)?).map(drop)
    }
}
