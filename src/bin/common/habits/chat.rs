//! Flags of prompts, conversations, and what is printed.

use super::Takes::{Maybe, Nothing, Value};
use super::values::SWITCH;
use super::{Group, already, by, note, refused, same, same_but, values};

/// What is said first.
pub const PROMPT: Group = Group {
    heading: "Prompt",
    habits: &[
        same_but(
            &["-p", "--prompt"],
            "prompt",
            "`\\n`, `\\t`, `\\\\` and the like are unescaped unless `--no-escape` is given.",
        ),
        same_but(&["-f", "--file"], "file", "Taken as it is, without unescaping; `-f -` is standard input."),
        same_but(&["-bf", "--binary-file"], "file", "It must be UTF-8."),
        same(&["-e", "--escape"], "escape"),
        same(&["--no-escape"], "no-escape"),
        same(&["-sys", "--system-prompt"], "system-prompt"),
        same(&["-sysf", "--system-prompt-file"], "system-prompt-file"),
        same(&["--prompt-cache"], "prompt-cache"),
        same(&["--prompt-cache-all"], "prompt-cache-all"),
        same(&["--prompt-cache-ro"], "prompt-cache-ro"),
        same(&["--verbose-prompt"], "verbose-prompt"),
    ],
};

/// Turns.
pub const CONVERSATION: Group = Group {
    heading: "Conversation",
    habits: &[
        same(&["-cnv", "--conversation"], "conversation"),
        same(&["-no-cnv", "--no-cnv", "--no-conversation"], "no-conversation"),
        same(&["-st", "--single-turn"], "single-turn"),
        same(&["-i", "--interactive"], "interactive"),
        same_but(&["-if", "--interactive-first"], "interactive", "With `-p`, that is said first."),
        note(&["-mli", "--multiline-input"], Nothing, "lines between two lines of \"\"\" are one message"),
        same(&["-r", "--reverse-prompt"], "reverse-prompt"),
        same_but(&["--in-prefix"], "in-prefix", "Of lines of plain text (`-i`)."),
        same_but(&["--in-suffix"], "in-suffix", "Of lines of plain text (`-i`)."),
        refused(&["--in-prefix-bos"], "no token begins a line; leave it out"),
        refused(&["-ins", "--instruct", "-cml", "--chatml"], "-cnv chats with the file's chat template"),
        already(&["--jinja"], Nothing, "Chat templates are Jinja."),
        note(&["--no-jinja"], Nothing, "chat templates are Jinja in any case"),
        same_but(&["--chat-template"], "chat-template", "A name or a file."),
        same_but(&["--chat-template-file"], "chat-template", "A name or a file."),
        same_but(&["--chat-template-kwargs"], "chat-template-kwargs", "Several add up."),
        by(
            &["--reasoning-budget"],
            Value,
            values::reasoning_budget,
            "0 and -1, where the template knows enable_thinking.",
        ),
        by(&["-rea", "--reasoning"], Maybe(SWITCH), values::reasoning, "`off` is `--reasoning-budget 0`."),
        by(&["--reasoning-format"], Value, values::reasoning_format, "Thoughts are printed as the model writes them."),
        by(
            &["--reasoning-effort"],
            Value,
            values::reasoning_effort,
            "`--chat-template-kwargs` with `reasoning_effort`; `default` leaves it to the template.",
        ),
        refused(
            &["--reasoning-budget-message"],
            "thinking can be switched off by --reasoning-budget 0, and not bounded",
        ),
        already(
            &["--skip-chat-parsing", "--no-skip-chat-parsing"],
            Nothing,
            "Answers are printed as the model writes them.",
        ),
        note(
            &["--reasoning-preserve", "--no-reasoning-preserve"],
            Nothing,
            "the chat template decides which thoughts stay",
        ),
    ],
};

/// What is printed.
pub const OUTPUT: Group = Group {
    heading: "Output",
    habits: &[
        same(&["--no-display-prompt"], "no-display-prompt"),
        super::compute::display_prompt(),
        same(&["-sp", "--special"], "special"),
        by(&["-co", "--color"], Maybe(SWITCH), values::colour, "Text has no colours."),
        note(&["--simple-io"], Nothing, "what is no terminal is read line by line, without editing, in any case"),
        already(&["--no-warmup"], Nothing, "There is no run before the first token."),
        note(&["--warmup"], Nothing, "there is no run before the first token"),
        already(&["--perf", "--show-timings"], Nothing, "Timings are printed on standard error."),
        note(&["--no-perf", "--no-show-timings"], Nothing, "timings are printed on standard error in any case"),
        same_but(&["--log-disable"], "quiet", "Errors are said all the same."),
        refused(&["-ptc", "--print-token-count"], "--stats says at the end how many tokens there were"),
        refused(&["-o", "--output", "--output-file"], "the text goes to standard output: > FILE keeps it"),
        same(&["--usage"], "help"),
        same(&["--version"], "version"),
    ],
};
