//! Chat templates: all are compiled, and those rendered that cannot take much by design.

use super::target::Target;
use anyhow::Result;
use powerinfer::chat::{Message, Request, Value};

const TURNS: &str = "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + eos_token }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}";

const SYSTEM: &str = "{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set turns = messages[1:] %}
    {{- system }}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{%- for message in turns %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate') if false }}
    {%- endif %}
    {{- '[' ~ message.role.upper() ~ ']' ~ message.content.strip() }}
{%- endfor %}
";

const MACRO: &str = "{% macro turn(m, i=0) %}{{ i }}{{ m.content | replace('a', 'b') }}{% endmacro %}\
    {% for m in messages if m.role != 'system' %}{{ turn(m, loop.index) }}{% else %}none{% endfor %}\
    {{ tools is none or tools | length > 0 }}{{ messages | tojson }}{{ strftime_now('%d %b %Y') }}";

/// Longer ones are not rendered: what they take grows with them.
const MOST_RENDERED: usize = 1500;
/// What can take any amount by doubling, repeating or padding, or can hold itself: bounded where templates are
/// rendered for users, and not here.
const UNBOUNDED: &[&str] = &[
    "namespace",
    "*",
    "recursive",
    "range",
    "format",
    "indent",
    "center",
    "just",
    "zfill",
    "import",
    "include",
    "extends",
    "batch",
    "slice",
    "repeat",
    "lipsum",
    "expandtabs",
];
const MOST_SETS: usize = 3;
const MOST_DIGITS: usize = 3;

fn may_be_rendered(source: &str) -> bool {
    let digits = source.split(|c: char| !c.is_ascii_digit() && c != '_').map(str::len).max().unwrap_or(0);
    source.len() <= MOST_RENDERED
        && digits <= MOST_DIGITS
        && source.matches("set").count() <= MOST_SETS
        && !UNBOUNDED.iter().any(|word| source.contains(word))
}

pub struct Templates;

impl Target for Templates {
    type Form = Vec<u8>;

    fn name(&self) -> &'static str {
        "template"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        [TURNS, SYSTEM, MACRO].map(|source| source.as_bytes().to_vec()).into()
    }

    fn words(&self) -> &[&str] {
        &[
            "{%",
            "%}",
            "{{",
            "}}",
            "{#",
            "#}",
            "{%-",
            "-%}",
            "{% for x in ",
            "{% endfor %}",
            "{% if ",
            "{% elif ",
            "{% else %}",
            "{% endif %}",
            "{% set x = ",
            "{% endset %}",
            "{% macro f(a, b=1) %}",
            "{% endmacro %}",
            "{% call f() %}",
            "{% endcall %}",
            "{% filter upper %}",
            "{% endfilter %}",
            "{% raw %}",
            "{% endraw %}",
            "{% break %}",
            "{% continue %}",
            "{% with %}",
            "{% do f() %}",
            " in ",
            " is ",
            " not ",
            " and ",
            " or ",
            " if ",
            " else ",
            "loop.index0",
            "loop.last",
            "loop.previtem",
            "loop.cycle(1)",
            "loop.changed(x)",
            "messages",
            "messages[0]",
            "['content']",
            ".role",
            "[1:]",
            "[::-1]",
            "[-1]",
            "| trim",
            "| length",
            "| tojson",
            "| list",
            "| map(attribute='role')",
            "| selectattr('role', 'equalto', 'user')",
            "| join(',')",
            "| default('')",
            "| items",
            "| string",
            "| int",
            "| float",
            "| first",
            "| last",
            "| reverse",
            "| sort",
            "| unique",
            "| sum",
            "| dictsort",
            "| round",
            "| abs",
            "| min",
            "| groupby('role')",
            "| urlencode",
            "| escape",
            "| title",
            "| capitalize",
            "| split",
            "| lines",
            ".strip()",
            ".split('a')",
            ".startswith('a')",
            ".items()",
            ".get('a')",
            ".upper()",
            ".title()",
            ".find('a')",
            ".count('')",
            ".replace('', 'a')",
            ".keys()",
            ".rstrip('a')",
            "is defined",
            "is mapping",
            "is string",
            "is iterable",
            "is divisibleby 0",
            "is sameas none",
            "** 2",
            "% ",
            "'%s' % ",
            "'%5.1f|%%' % (1, ",
            "{% generation %}",
            "{% endgeneration %}",
            "{%+ ",
            "+%}",
            "\r\n",
            "{%-raw-%}",
            "| tojson(indent=2)",
            "e+1",
            "raise_exception('x')",
            "strftime_now('%d')",
            "strftime_now('%-')",
            "dict(a=1)",
            "{'a': 1}",
            "[1, 2]",
            "(1,)",
            "none",
            "true",
            "0",
            "1",
            "-1",
            "1.5",
            "// 0",
            "% 0",
            "/ 0",
            "~ ",
            "+ ",
            "- ",
            "== ",
            "'",
            "\"",
            "\\",
            "\n",
            "\u{e9}",
        ]
    }

    /// The engine panics where it divides by zero or slices nothing backwards, among others.
    fn is_known(&self, fault: &str) -> bool {
        fault.contains("/minijinja-")
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        let source = String::from_utf8_lossy(input);
        let message = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
        let messages = [message("system", " Be brief. "), message("user", "a \u{e9}"), message("assistant", "")];
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let variables = tokens.map(|(name, text)| (name.to_owned(), Value::from(text))).into();
        let (is_small, source) = (may_be_rendered(&source), source.into_owned());
        let request = Request { source, messages: messages.into(), variables, add_generation_prompt: true };
        request.check()?;
        if !is_small {
            return Ok(());
        }
        let rendered = request.render();
        if let Err(error) = &rendered {
            assert!(!error.to_string().contains(char::is_control), "an error of several lines: {error}");
        }
        rendered.map(drop)
    }
}
