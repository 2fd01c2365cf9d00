//! Lists of numbers as llama-bench takes them: `128,512`, `1-4`, `512-2048+256`, `512-4096*2`.

use anyhow::{Context, Result, bail, ensure};
use std::str::FromStr;

/// Numbers that one list may stand for.
const MOST: usize = 10_000;

/// A list of numbers, in the order in which it names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers(pub Vec<usize>);

impl FromStr for Numbers {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut numbers = Vec::new();
        for part in text.split(',') {
            add(part, &mut numbers)?;
        }
        Ok(Self(numbers))
    }
}

/// Adds what `part` stands for: a number, or `first-last`, with `+step` or `*factor` behind it.
fn add(part: &str, numbers: &mut Vec<usize>) -> Result<()> {
    const FORMS: &str = "give numbers or ranges, as in 128,512 or 1-4 or 512-2048+256 or 512-4096*2";
    let number = |text: &str| -> Result<usize> {
        ensure!(!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()), "\"{text}\" is no number; {FORMS}");
        text.parse().with_context(|| format!("{text} is too large"))
    };
    let Some((first, rest)) = part.split_once('-') else {
        numbers.push(number(part)?);
        return check(numbers);
    };
    let (first, split) = (number(first)?, |sign: char| rest.split_once(sign));
    let (last, next): (_, &dyn Fn(usize) -> Option<usize>) = match (split('+'), split('*')) {
        (None, None) => (number(rest)?, &|n| n.checked_add(1)),
        (Some((last, step)), None) => {
            let step = number(step)?;
            ensure!(step > 0, "{part}: a step of 0 leads nowhere");
            (number(last)?, &move |n: usize| n.checked_add(step))
        }
        (None, Some((last, factor))) => {
            let factor = number(factor)?;
            ensure!(factor > 1 && first > 0, "{part}: a factor below 2, or a first number of 0, leads nowhere");
            (number(last)?, &move |n: usize| n.checked_mul(factor))
        }
        (Some(_), Some(_)) => bail!("{part}: has a step and a factor; {FORMS}"),
    };
    ensure!(first <= last, "{part}: ends before it begins");
    let mut at = Some(first);
    while let Some(n) = at.filter(|n| *n <= last) {
        numbers.push(n);
        check(numbers)?;
        at = next(n);
    }
    Ok(())
}

fn check(numbers: &[usize]) -> Result<()> {
    ensure!(numbers.len() <= MOST, "more than {MOST} numbers");
    Ok(())
}

/// Two lengths: `512,128` prefills 512 tokens and decodes 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair(pub usize, pub usize);

impl FromStr for Pair {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        const FORM: &str = "give two numbers, as in 512,128";
        let (prompt, generated) = text.split_once(',').context(FORM)?;
        let number = |text: &str| text.parse().with_context(|| format!("\"{text}\" is no number; {FORM}"));
        let pair = Self(number(prompt)?, number(generated)?);
        ensure!(pair != Self(0, 0), "0,0: nothing to measure; {FORM}");
        Ok(pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<usize> {
        text.parse::<Numbers>().unwrap().0
    }

    #[test]
    fn lists_and_ranges_are_those_of_llama_bench() {
        assert_eq!(read("512"), [512]);
        assert_eq!(read("0"), [0]);
        assert_eq!(read("512,128,512"), [512, 128, 512]);
        assert_eq!(read("1-4"), [1, 2, 3, 4]);
        assert_eq!(read("512-1300+256"), [512, 768, 1024, 1280]);
        assert_eq!(read("1-16*2"), [1, 2, 4, 8, 16]);
        assert_eq!(read("3-3"), [3]);
        assert_eq!(read("8,16-64*4,1-2"), [8, 16, 64, 1, 2]);
        assert_eq!(read("18446744073709551615-18446744073709551615"), [usize::MAX]);
        assert_eq!(read("9223372036854775808-18446744073709551615*2"), [1 << 63]);
    }

    #[test]
    fn what_is_no_list_is_refused_with_what_is_wrong() {
        let cases = [
            ("", "no number"),
            ("8,", "no number"),
            ("a", "\"a\" is no number"),
            ("1.5", "no number"),
            ("+8", "no number"),
            ("-8", "no number"),
            ("8-", "no number"),
            ("8-4", "ends before it begins"),
            ("4-8+0", "leads nowhere"),
            ("4-8*1", "leads nowhere"),
            ("0-8*2", "leads nowhere"),
            ("4-8+2*2", "a step and a factor"),
            ("4-8+", "no number"),
            ("4-8-2", "no number"),
            ("1-1000000000000", "more than 10000"),
            ("18446744073709551616", "too large"),
        ];
        for (text, wanted) in cases {
            let error = format!("{:#}", text.parse::<Numbers>().unwrap_err());
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn pairs_are_two_numbers() {
        assert_eq!("512,128".parse::<Pair>().unwrap(), Pair(512, 128));
        for text in ["512", "512,", ",1", "1,2,3", "a,b", "-1,2", "0,0"] {
            let error = format!("{:#}", text.parse::<Pair>().unwrap_err());
            assert!(error.contains("512,128"), "{text}: {error}");
        }
    }
}
