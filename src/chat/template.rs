//! Chat templates: Jinja2 as Hugging Face's `apply_chat_template` runs it.
//!
//! They come from downloaded files, so what they may do is bounded: instructions, recursion and output. Not bounded is
//! the memory that one template takes by doubling a string in a variable; minijinja offers no hook for that.

use super::Message;
use super::calendar::strftime;
use anyhow::{Result, anyhow, bail};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, ErrorKind, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Instructions of the template engine per rendering, besides those per message.
const FUEL: u64 = 500_000;
/// The templates in the tests take 20 to 40 instructions per message.
const FUEL_PER_MESSAGE: u64 = 1_000;
/// Of the engine's stack frames. A macro call takes several; the engine's own limit is 500.
const RECURSION_LIMIT: usize = 200;
/// Longer prompts exceed any context.
const MAX_OUTPUT_BYTES: usize = 16 << 20;
const MAX_ERROR_CHARS: usize = 300;
const TEMPLATE_NAME: &str = "chat_template";

/// A compiled `tokenizer.chat_template`.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
}

impl ChatTemplate {
    /// Compiles `source`; a syntax error is one line with the line number in the template.
    pub fn new(source: &str) -> Result<Self> {
        let mut env = Environment::new();
        let syntax =
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|e| template_error(&e))?;
        env.set_syntax(syntax);
        env.set_debug(false);
        env.set_recursion_limit(RECURSION_LIMIT);
        env.set_unknown_method_callback(unknown_method_callback);
        env.add_filter("length", length);
        env.add_function("raise_exception", raise_exception);
        env.add_function("strftime_now", strftime_now);
        env.add_template_owned(TEMPLATE_NAME, source.to_owned()).map_err(|e| template_error(&e))?;
        Ok(Self { env })
    }

    /// The prompt for `messages`. `bos` and `eos` are the texts of the special tokens, empty if the
    /// model has none. Templates write `bos` themselves: the tokenizer must not add it again.
    /// `add_generation_prompt` opens the assistant's turn at the end.
    ///
    /// `tools` and `documents` are undefined in the template. The prompt depends on the date if the
    /// template asks for it. Fails with the template's own words where it rejects the conversation
    /// (such as a system message), and when it exceeds its instructions, recursion or output.
    pub fn render(&self, messages: &[Message], bos: &str, eos: &str, add_generation_prompt: bool) -> Result<String> {
        // Fuel is set on the environment, which is shared; the copy is of reference counts.
        let mut env = self.env.clone();
        let fuel = FUEL.saturating_add(FUEL_PER_MESSAGE.saturating_mul(messages.len() as u64));
        env.set_fuel(Some(fuel));
        let template = env.get_template(TEMPLATE_NAME).map_err(|e| template_error(&e))?;
        let context = context! {
            messages => Value::from(Serde(messages)),
            bos_token => bos,
            eos_token => eos,
            add_generation_prompt,
        };
        let mut prompt = CappedBuffer::default();
        let rendered = template.render_captured_to(context, &mut prompt).map(drop);
        match rendered {
            _ if prompt.overflowed => {
                bail!("the model's chat template writes more than {} MiB", MAX_OUTPUT_BYTES >> 20)
            }
            Err(e) if e.kind() == ErrorKind::OutOfFuel => {
                bail!("the model's chat template takes more than {fuel} instructions: an endless loop?")
            }
            Err(e) => Err(template_error(&e)),
            Ok(()) => Ok(String::from_utf8(prompt.bytes)?),
        }
    }
}

#[derive(Default)]
struct CappedBuffer {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl Write for CappedBuffer {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if more.len() > MAX_OUTPUT_BYTES - self.bytes.len() {
            self.overflowed = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One line without control characters: parts of the message are the template's own.
fn template_error(error: &Error) -> anyhow::Error {
    let line = error.to_string();
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_ERROR_CHARS).collect();
    anyhow!("the model's chat template: {line}")
}

/// As in Jinja2, where undefined has length 0; minijinja's own filter fails.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() { Ok(0) } else { minijinja::filters::length(value) }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// The present time in UTC, as the local time zone is not known without a dependency.
fn strftime_now(format: &str) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = strftime(now.as_secs(), format);
    text.ok_or_else(|| {
        let message = format!("strftime_now: unknown directive in {format:?}");
        Error::new(ErrorKind::InvalidOperation, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    const CHATML: &str = "{% for message in messages %}\
        {{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}\
        {% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    const LLAMA_2: &str = "\
{% if messages[0]['role'] == 'system' %}
    {% set system_message = '<<SYS>>\\n' + messages[0]['content'].strip() + '\\n<</SYS>>\\n\\n' %}
    {% set turns = messages[1:] %}
{% else %}
    {% set system_message = '' %}
    {% set turns = messages %}
{% endif %}
{% for message in turns %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Conversation roles must alternate user/assistant') }}
    {% endif %}
    {% set content = system_message + message['content'] if loop.first else message['content'] %}
    {% if message['role'] == 'user' %}
{{- bos_token + '[INST] ' + content.strip() + ' [/INST]' -}}
    {% elif message['role'] == 'assistant' %}
{{- ' ' + content.strip() + ' ' + eos_token -}}
    {% endif %}
{% endfor %}";

    const LLAMA_3: &str = "\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now('%d %b %Y') %}
{%- endif %}
{%- if tools is not none and tools is defined and tools|length > 0 %}
    {{- raise_exception('no tools were given') }}
{%- endif %}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
";

    const ZEPHYR: &str = "\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}";

    const GEMMA: &str = "{{ bos_token }}\
        {% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
        {% for message in messages %}\
        {% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}\
        {{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}\
        {% endfor %}\
        {% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}";

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into() }
    }

    fn conversation() -> [Message; 4] {
        [
            message("system", "Be brief."),
            message("user", "Hi <b>&'\"? "),
            message("assistant", "Hello."),
            message("user", "Bye"),
        ]
    }

    fn render(source: &str, messages: &[Message]) -> Result<String> {
        ChatTemplate::new(source)?.render(messages, "<s>", "</s>", true)
    }

    fn error_of(source: &str) -> String {
        let begin = Instant::now();
        let error = render(source, &conversation()).unwrap_err().to_string();
        let taken = begin.elapsed();
        assert!(taken < Duration::from_secs(2), "{taken:?}: {error}");
        assert!(!error.contains('\n'), "{error}");
        error
    }

    #[test]
    fn chatml_renders_and_escapes_nothing() {
        assert_eq!(
            render(CHATML, &conversation()).unwrap(),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <b>&'\"? <|im_end|>\n\
             <|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn the_assistants_turn_is_opened_only_on_request() {
        let template = ChatTemplate::new(CHATML).unwrap();
        let prompt = template.render(&[message("user", "a")], "", "", false).unwrap();
        assert_eq!(prompt, "<|im_start|>user\na<|im_end|>\n");
    }

    #[test]
    fn llama_2_puts_the_system_message_into_the_first_turn() {
        assert_eq!(
            render(LLAMA_2, &conversation()).unwrap(),
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi <b>&'\"? [/INST] Hello. </s><s>[INST] Bye [/INST]"
        );
        let error = render(LLAMA_2, &conversation()[2..]).unwrap_err().to_string();
        assert!(error.contains("Conversation roles must alternate"), "{error}");
    }

    #[test]
    fn llama_3_sees_no_tools() {
        assert_eq!(
            render(LLAMA_3, &conversation()[..2]).unwrap(),
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\nHi <b>&'\"?<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n"
        );
    }

    #[test]
    fn zephyr_keeps_the_newlines_that_are_not_after_a_block() {
        assert_eq!(
            render(ZEPHYR, &conversation()[..2]).unwrap(),
            "<|system|>\nBe brief.</s>\n<|user|>\nHi <b>&'\"? </s>\n<|assistant|>\n"
        );
    }

    #[test]
    fn gemma_refuses_a_system_message_in_its_own_words() {
        assert_eq!(
            render(GEMMA, &conversation()[1..3]).unwrap(),
            "<s><start_of_turn>user\nHi <b>&'\"?<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n\
             <start_of_turn>model\n"
        );
        assert_eq!(
            error_of(GEMMA),
            "the model's chat template: invalid operation: System role not supported (in chat_template:1)"
        );
    }

    #[test]
    fn undefined_has_length_zero() {
        assert_eq!(render("{{ tools|length }} {{ messages|length }}", &conversation()).unwrap(), "0 4");
        assert!(error_of("{{ 5|length }}").contains("cannot calculate length"));
    }

    #[test]
    fn a_syntax_error_is_one_line_with_its_place() {
        let error = ChatTemplate::new("a\n{% for x in %}\n").unwrap_err().to_string();
        assert!(error.starts_with("the model's chat template: syntax error: "), "{error}");
        assert!(error.ends_with("(in chat_template:2)"), "{error}");
    }

    #[test]
    fn an_error_cannot_write_control_characters() {
        let error = error_of("{{ raise_exception('a\\n\\x1b[31mb' ~ 'c' * 10000) }}");
        assert!(!error.contains('\x1b'), "{error}");
        assert!(error.chars().count() < 400, "{error}");
    }

    #[test]
    fn huge_loops_run_out_of_instructions() {
        let two_loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}";
        assert_eq!(
            error_of(two_loops),
            "the model's chat template takes more than 504000 instructions: an endless loop?"
        );
        assert!(error_of("{% for i in range(100000000) %}x{% endfor %}").contains("too many elements"));
    }

    #[test]
    fn endless_recursion_is_an_error() {
        let recursion = "the model's chat template: ";
        assert!(error_of("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").starts_with(recursion));
        assert!(error_of("{% include 'chat_template' %}").starts_with(recursion));
        let nested = "(".repeat(100_000);
        assert!(error_of(&format!("{{{{ {nested}1 }}}}")).starts_with(recursion));
        let loops = "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}";
        assert!(error_of(loops).starts_with(recursion));
    }

    #[test]
    fn a_huge_output_is_an_error() {
        let line = "x".repeat(1000);
        let source = format!("{{% for i in range(99999) %}}{line}{{% endfor %}}");
        assert_eq!(error_of(&source), "the model's chat template writes more than 16 MiB");
    }

    #[test]
    fn long_conversations_have_fuel() {
        let messages = vec![message("user", "word"); 20_000];
        assert!(render(LLAMA_3, &messages).is_ok());
    }

    #[test]
    fn a_template_may_ask_for_the_date() {
        let today = render("{{ strftime_now('%d %b %Y') }}", &[]).unwrap();
        assert_eq!(today.len(), "26 Jul 2024".len(), "{today}");
        assert!(error_of("{{ strftime_now('%Q') }}").contains("unknown directive in \"%Q\""));
    }
}
