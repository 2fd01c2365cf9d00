//! Models by their names: the program's list, and the user's.

use crate::support::server::{FakeHub, sha256};
use crate::support::{ModelFile, Outcome, refused, tool};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A home folder with a list of models in it, and a hub that has one of them.
struct Setup {
    home: tempfile::TempDir,
    hub: FakeHub,
    list: PathBuf,
}

fn entry(id: &str, more: &str) -> String {
    format!(
        "[[model]]\nname = \"{id}\"\nid = \"{id}\"\nmatches = []\narchitecture = \"llama\"\nactivation = \"relu\"\n\
         template = \"none\"\nlicence = \"MIT\"\nverified = false\nsource = \"a test\"\n{more}\n"
    )
}

impl Setup {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let model = fs::read(ModelFile::tiny().written(home.path(), "tiny.gguf")).unwrap();
        let hub = FakeHub::with(&[("x/m-Q8_0.gguf", model.clone()), ("n-Q4_K_M.gguf", model.clone())]);
        let list = home.path().join("list.toml");
        let digest = sha256(&model);
        let repo = "repo = \"owner/model\"";
        let text = [
            entry("usual", repo),
            entry("by-quant", &format!("{repo}\nquant = \"q8_0\"")),
            entry(
                "checked",
                &format!(
                    "{repo}\nfile = \"n-Q4_K_M.gguf\"\nfiles = [{{ name = \"n-Q4_K_M.gguf\", sha256 = \"{digest}\" }}]"
                ),
            ),
            entry(
                "other",
                &format!(
                    "{repo}\nfile = \"x/m-Q8_0.gguf\"\nfiles = [{{ name = \"m-Q8_0.gguf\", sha256 = \"{}\" }}]",
                    "0".repeat(64)
                ),
            ),
            entry("weights", "weights = \"owner/raw\"").replace("\"MIT\"", "\"mine\""),
            entry("later", repo).replace("\"llama\"", "\"no_such\""),
            entry("later-too", repo).replace("\"relu\"", "\"elu\""),
            entry("wrong", "repo = \"../x\""),
            entry("tiny-stories", repo),
        ];
        fs::write(&list, text.concat()).unwrap();
        Self { home, hub, list }
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = tool(name);
        for name in [
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
        ] {
            command.env_remove(name);
        }
        command
            .env("HF_ENDPOINT", &self.hub.hub.url)
            .env("HF_HOME", self.home.path().join("hf"))
            .env("HOME", self.home.path());
        for name in ["XDG_CONFIG_HOME", "APPDATA"] {
            command.env(name, self.home.path().join("config"));
        }
        command.args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Command {
        let mut command = self.command("run", args);
        command.args(["-p", "once", "--tokenize", "--models"]).arg(&self.list);
        command
    }
}

fn done(mut command: Command) -> Outcome {
    Outcome::from(command.output().unwrap()).ok()
}

#[test]
fn a_model_is_fetched_by_its_name() {
    let setup = Setup::new();
    for (name, file) in [("usual", "n-Q4_K_M.gguf"), ("by-quant", "x/m-Q8_0.gguf"), ("CHECKED", "n-Q4_K_M.gguf")] {
        let _ = fs::remove_dir_all(setup.home.path().join("hf"));
        let outcome = done(setup.run(&["-m", name]));
        let shown = file.rsplit('/').next().unwrap();
        assert!(outcome.stderr.contains(&format!("{shown}: fetching")), "{name}: {}", outcome.stderr);
        done(setup.run(&["-m", name, "--offline"]));
    }
    refused(&mut setup.run(&["-m", "other"]), &["other", "another file than models.toml names"]);
    refused(&mut setup.run(&["-m", "weights"]), &["weights", "convert_hf_to_gguf.py", "owner/raw"]);
    refused(&mut setup.run(&["-m", "later"]), &["later", "no_such", "not computed"]);
    refused(&mut setup.run(&["-m", "later-too"]), &["later-too", "\"elu\"", "not computed"]);
    refused(&mut setup.run(&["-m", "wrong"]), &["wrong", "../x", "owner/model"]);
    refused(&mut setup.run(&["-m", "nobody"]), &["nobody", "no such file", "--list-models"]);
    refused(&mut setup.run(&["-m", "./nobody"]), &["./nobody: ", crate::support::NO_SUCH_FILE]);
    refused(&mut setup.run(&["-m", "nobody.gguf"]), &["nobody.gguf: ", crate::support::NO_SUCH_FILE]);
}

#[test]
fn a_path_comes_before_a_name_and_the_users_list_before_the_programs() {
    let setup = Setup::new();
    fs::copy(setup.home.path().join("tiny.gguf"), setup.home.path().join("usual")).unwrap();
    let mut here = setup.run(&["-m", "usual"]);
    here.current_dir(setup.home.path());
    done(here);
    assert!(setup.hub.hub.asked().is_empty());
    done(setup.command("run", &["-m", "tiny-stories", "-p", "once", "--tokenize"]));
    assert!(setup.hub.hub.asked().is_empty(), "the embedded model has a name, too");
    done(setup.run(&["-m", "tiny-stories"]));
    assert!(!setup.hub.hub.asked().is_empty());
    // The list in the config folder, and over it the one that is given.
    let folder = setup.home.path().join("config/powerinfer");
    fs::create_dir_all(&folder).unwrap();
    fs::write(
        folder.join("models.toml"),
        entry("mine", "repo = \"owner/model\"") + &entry("usual", "weights = \"a/b\""),
    )
    .unwrap();
    done(setup.command("run", &["-m", "mine", "-p", "once", "--tokenize"]));
    refused(&mut setup.command("run", &["-m", "usual", "-p", "once", "--tokenize"]), &["a/b"]);
    done(setup.run(&["-m", "usual"]));
}

#[test]
fn the_list_says_what_is_here() {
    let setup = Setup::new();
    done(setup.run(&["-m", "by-quant"]));
    let mut command = setup.command("run", &["--list-models", "--models"]);
    command.arg(&setup.list);
    let n_asked = setup.hub.hub.asked().len();
    let list = done(command).stdout;
    assert_eq!(setup.hub.hub.asked().len(), n_asked, "nobody is asked");
    let row = |id: &str| -> Vec<&str> {
        let line = list.lines().find(|line| line.split(' ').next() == Some(id));
        line.unwrap_or_else(|| panic!("{id} is missing in\n{list}"))
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect()
    };
    assert_eq!(row("by-quant"), ["by-quant", "llama", "relu", "yes", "MIT"]);
    assert_eq!(row("weights"), ["weights", "llama", "relu", "convert", "mine"]);
    assert_eq!(row("checked")[3], "no");
    assert_eq!(row("later")[3], "not computed");
    assert_eq!(
        row("relullama-7b"),
        ["relullama-7b", "7B", "llama", "relu", "67 % cited", "convert", "Llama 2 Community License"]
    );
    let own = done(setup.command("run", &["--list-models"])).stdout;
    assert!(own.contains("91 % measured  embedded"), "{own}");
}

#[test]
fn lists_that_are_none_are_refused_by_their_path() {
    let setup = Setup::new();
    let write = |name: &str, text: &str| -> PathBuf {
        let path = setup.home.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let unknown = write("unknown.toml", &entry("x", "colour = \"red\""));
    let torn = write("torn.toml", "[[model]]\nname = ");
    for path in [&*unknown, &torn, Path::new("/no/such.toml"), setup.home.path()] {
        let mut command = setup.command("run", &["--list-models", "--models"]);
        refused(command.arg(path), &[path.to_str().unwrap()]);
    }
}

#[test]
fn a_file_that_is_run_with_another_activation_than_its_entry_has_is_warned_of() {
    let setup = Setup::new();
    let text = entry("tiny", "repo = \"owner/model\"").replace("\"relu\"", "\"relu2\"");
    fs::write(&setup.list, text).unwrap();
    for (activation, warned) in [("relu", true), ("relu2", false)] {
        let args = ["-m", "tiny", "-p", "x", "-n", "1", "--ignore-eos", "--activation", activation, "--models"];
        let mut command = setup.command("run", &args);
        let outcome = Outcome::from(command.arg(&setup.list).output().unwrap()).ok();
        assert_eq!(
            outcome.stderr.contains("warning: tiny is listed with activation relu2"),
            warned,
            "{}",
            outcome.stderr
        );
    }
}
