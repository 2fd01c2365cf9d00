//! docs/llama-cpp.md: the table of flags for people to read.

use super::{Group, Habit, Here, TOOLS, Tool};
use std::fmt::Write;

const HEAD: &str = "\
# Coming from llama.cpp

<!-- Made from the table of flags in src/bin/common/habits; scripts/release_docs.sh --page writes it anew. -->

What you type for llama.cpp you can type here. Each of its flags means the same, has a name of its own here, is accepted with a line
on standard error that says why it has no effect, or is refused by name with what helps. None is ever taken for another flag. What is
*always so* is accepted in silence: it asks for what is done in any case.

- Values follow as `--flag value` or `--flag=value`; `--n_predict` is `--n-predict`. Of a flag that is given twice, the last counts;
  lists of `powerinfer-bench`, `-r` and `--logit-bias` add up.
- Variables such as `LLAMA_ARG_CTX_SIZE` are not read; a line says so where one is set. `HF_TOKEN` and the other variables of the
  Hugging Face hub are read (downloads.md).
- `-p` and other texts of the command line have `\\n`, `\\t`, `\\\\`, `\\\"`, `\\'`, `\\r` and `\\xHH` unescaped, unless `--no-escape` is
  given. Texts of files are taken as they are, which llama.cpp unescapes, too.
- Generated text goes to standard output, everything else to standard error.

## Programs

| llama.cpp | here |
|---|---|
| llama-cli, llama-completion | `powerinfer-run` |
| llama-bench | `powerinfer-bench` |
| llama-perplexity | `powerinfer-bench --perplexity FILE`, `powerinfer-bench --kl FILE --kl-base MODEL` |
| llama-quantize | `powerinfer-split --quantize-only` |
| llama-imatrix | `powerinfer-profile` |
| llama-tokenize | `powerinfer-run --tokenize` |
| llama-server and others | nothing |

## Exit codes

| code | of all commands |
|---|---|
| 0 | what was asked for is done; also where the reader of a pipe has left |
| 1 | it could not be done: one line on standard error that begins with `error: ` and names the file or flag and what helps |
| 2 | the command line is wrong: a flag that is not known or not to be had, a value that is none |
| 3 | `powerinfer-bench --compare` or `--against` found a slower build |
| 130 | stopped by Ctrl-C, SIGHUP or SIGTERM; what was done is written |
| 129, 143 | ended by SIGHUP or SIGTERM while nothing ran, or when what ran did not stop in time |
";

/// The page.
pub fn text() -> String {
    let mut out = HEAD.to_owned();
    TOOLS.iter().for_each(|tool| section(tool, &mut out));
    out
}

fn section(tool: &Tool, out: &mut String) {
    // A String never refuses, here and below.
    let _ = writeln!(out, "\n## {} ({})", tool.name, tool.programs);
    for Group { heading, habits } in tool.groups {
        let shown: Vec<_> = habits.iter().filter_map(|habit| row(tool, habit)).collect();
        if !shown.is_empty() {
            let _ = writeln!(out, "\n### {heading}\n\n| llama.cpp | here | |\n|---|---|---|");
            shown.iter().for_each(|row| out.push_str(row));
        }
    }
}

/// `None` where an earlier group has all of these flags.
fn row(tool: &Tool, habit: &Habit) -> Option<String> {
    let own = |flag: &&&str| tool.habit(flag).is_some_and(|found| std::ptr::eq(found, habit));
    let flags: Vec<_> = habit.flags.iter().filter(own).map(|flag| format!("`{flag}`")).collect();
    let here = match habit.here {
        Here::Same(ours) => format!("`--{ours}`"),
        Here::Undo(ours) => format!("undoes `--{ours}`"),
        Here::Already => "always so".to_owned(),
        Here::Note(_) => "no effect".to_owned(),
        Here::Refused(_) => "refused".to_owned(),
        Here::By(_) => "depends on its value".to_owned(),
    };
    let remark = sentence(habit.remark).replace('|', "\\|");
    (!flags.is_empty()).then(|| format!("| {} | {here} | {remark} |\n", flags.join(" ")))
}

/// `text`, which may be a part of a message, as a sentence; names of commands and flags stay as they are.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return String::new() };
    let end = if text.ends_with('.') { "" } else { "." };
    if text.starts_with("powerinfer-") || text.starts_with("llama-") {
        return format!("{text}{end}");
    }
    format!("{}{}{end}", first.to_uppercase(), letters.as_str())
}
