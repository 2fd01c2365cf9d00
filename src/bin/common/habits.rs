//! Flags as users of llama.cpp type them: a table that says of each what it is here. None is taken for another flag.

mod bench;
mod chat;
mod compute;
mod drafts;
mod elsewhere;
mod escapes;
mod loading;
mod messages;
pub mod page;
mod profile;
pub mod reader;
mod sampling;
mod servers;
mod split;
mod values;

/// A flag of llama.cpp.
pub struct Habit {
    /// Its spellings, with their dashes.
    pub flags: &'static [&'static str],
    /// Whether a value follows it, where it is not passed on.
    pub takes: Takes,
    /// What it is here.
    pub here: Here,
    /// What a user should know, for the page; empty where there is nothing to be said.
    pub remark: &'static str,
}

/// What follows a flag.
#[derive(Clone, Copy)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// A value.
    Value,
    /// One of these, or nothing.
    Maybe(&'static [&'static str]),
}

/// What a flag is here.
#[derive(Clone, Copy)]
pub enum Here {
    /// A flag of ours without its dashes, of the same meaning.
    Same(&'static str),
    /// What it asks for is so in any case.
    Already,
    /// Accepted without effect; this line says so.
    Note(&'static str),
    /// Refused; this line says what helps.
    Refused(&'static str),
    /// It depends on the value.
    By(fn(&str) -> Reading),
    /// It takes back this flag of ours.
    Undo(&'static str),
}

/// What a value makes of a flag.
pub enum Reading {
    /// It is so in any case.
    Already,
    /// A flag of ours with a value.
    Flag(&'static str, String),
    /// Accepted without effect.
    Note(String),
    /// Refused.
    Refused(String),
}

/// Flags that belong together.
pub struct Group {
    /// Its title on the page.
    pub heading: &'static str,
    /// Its flags.
    pub habits: &'static [Habit],
}

/// A command of ours, whose users come from these programs.
pub struct Tool {
    /// The command.
    pub name: &'static str,
    /// Programs of llama.cpp.
    pub programs: &'static str,
    /// What they are called with; what stands first is found first.
    pub groups: &'static [&'static Group],
}

/// The four commands.
pub const TOOLS: [Tool; 4] = [
    Tool {
        name: "powerinfer-run",
        programs: "llama-cli, llama-completion",
        groups: &[
            &loading::MODEL,
            &compute::LENGTHS,
            &compute::PROCESSOR,
            &compute::CARD,
            &loading::MEMORY,
            &chat::PROMPT,
            &chat::CONVERSATION,
            &sampling::SAMPLING,
            &chat::OUTPUT,
            &messages::MESSAGES,
            &elsewhere::CHANGED_MODELS,
            &drafts::DRAFTS,
            &servers::FINER_DRAFTS,
            &servers::REUSE,
            &elsewhere::OTHERS,
            &servers::SERVERS,
        ],
    },
    Tool {
        name: "powerinfer-bench",
        programs: "llama-bench, llama-batched-bench, llama-perplexity",
        groups: &[
            &bench::TESTS,
            &bench::PERPLEXITY,
            &bench::SWITCHES,
            &loading::MODEL,
            &compute::PROCESSOR,
            &compute::CARD,
            &loading::MEMORY,
            &messages::MESSAGES,
            &messages::OF_ALL,
            &elsewhere::CHANGED_MODELS,
        ],
    },
    Tool {
        name: "powerinfer-profile",
        programs: "llama-imatrix",
        groups: &[
            &profile::TEXT,
            &profile::PROCESSOR,
            &loading::MODEL,
            &compute::PROCESSOR,
            &messages::MESSAGES,
            &messages::OF_ALL,
            &elsewhere::CHANGED_MODELS,
        ],
    },
    Tool {
        name: "powerinfer-split",
        programs: "llama-quantize, llama-gguf-split",
        groups: &[&split::TYPES, &split::PARTS, &loading::MODEL],
    },
];

impl Tool {
    /// The command of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TOOLS.iter().find(|tool| tool.name == name)
    }

    /// What `flag` is, dashes and all.
    pub fn habit(&self, flag: &str) -> Option<&'static Habit> {
        self.groups.iter().flat_map(|group| group.habits).find(|habit| habit.flags.contains(&flag))
    }
}

/// The same as ours.
const fn same(flags: &'static [&'static str], ours: &'static str) -> Habit {
    same_but(flags, ours, "")
}

/// The same as ours, and what is to be known of it.
const fn same_but(flags: &'static [&'static str], ours: &'static str, remark: &'static str) -> Habit {
    Habit { flags, takes: Takes::Nothing, here: Here::Same(ours), remark }
}

/// So in any case.
const fn already(flags: &'static [&'static str], takes: Takes, remark: &'static str) -> Habit {
    Habit { flags, takes, here: Here::Already, remark }
}

/// Accepted with a line.
const fn note(flags: &'static [&'static str], takes: Takes, line: &'static str) -> Habit {
    Habit { flags, takes, here: Here::Note(line), remark: line }
}

/// Refused with what helps.
const fn refused(flags: &'static [&'static str], line: &'static str) -> Habit {
    Habit { flags, takes: Takes::Nothing, here: Here::Refused(line), remark: line }
}

/// By its value.
const fn by(flags: &'static [&'static str], takes: Takes, read: fn(&str) -> Reading, remark: &'static str) -> Habit {
    Habit { flags, takes, here: Here::By(read), remark }
}

/// Takes back a flag of ours.
const fn undo(flags: &'static [&'static str], ours: &'static str, remark: &'static str) -> Habit {
    Habit { flags, takes: Takes::Nothing, here: Here::Undo(ours), remark }
}
