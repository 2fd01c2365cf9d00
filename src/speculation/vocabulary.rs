//! Whether two models have the same vocabulary.

use crate::tokenizer::Tokenizer;
use anyhow::{Result, ensure};

/// Finds out whether the ids of `draft` mean what they mean in `model`. One may have further tokens at its end that only fill it
/// up, as converters write them: `[PAD7]` for id 7.
///
/// # Errors
/// Names the first difference.
pub fn check_vocabulary(model: &Tokenizer, draft: &Tokenizer) -> Result<()> {
    const ADVICE: &str = "a draft model needs the model's vocabulary";
    let sizes = (model.n_tokens(), draft.n_tokens());
    for id in 0..sizes.0.min(sizes.1) as u32 {
        let (wanted, found) = (model.token_text(id), draft.token_text(id));
        ensure!(
            wanted == found && model.token_bytes(id) == draft.token_bytes(id),
            "token {id} is {:?}, but {:?} in the model: {ADVICE}",
            shortened(&found),
            shortened(&wanted)
        );
    }
    let longer = if sizes.0 > sizes.1 { model } else { draft };
    let fills = |id: usize| longer.token_text(id as u32) == format!("[PAD{id}]");
    let differs = (sizes.0.min(sizes.1)..longer.n_tokens()).find(|id| !fills(*id));
    if let Some(id) = differs {
        let text = longer.token_text(id as u32);
        let text = shortened(&text);
        ensure!(sizes.0 > sizes.1, "token {id} is {text:?}, but the model has only {} tokens: {ADVICE}", sizes.0);
        anyhow::bail!(
            "there are {} tokens, but the model has {}, of which token {id} is {text:?}: {ADVICE}",
            sizes.1,
            sizes.0
        );
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Vocab;

    fn tokenizer(more: &[&str]) -> Tokenizer {
        let mut tokens: Vec<Vec<u8>> =
            ["<unk>", "<s>", "</s>", "a", "b"].iter().chain(more).map(|t| (*t).into()).collect();
        tokens.extend(more.is_empty().then(|| b"c".to_vec()));
        Tokenizer::new(Vocab { model: "llama".to_owned(), tokens, ..Vocab::default() }).unwrap()
    }

    #[test]
    fn the_first_difference_is_named() {
        let model = tokenizer(&["c"]);
        assert!(check_vocabulary(&model, &tokenizer(&[])).is_ok());
        assert!(check_vocabulary(&model, &tokenizer(&["c", "[PAD6]"])).is_ok());
        assert!(check_vocabulary(&tokenizer(&["c", "[PAD6]", "[PAD7]"]), &model).is_ok());
        for (draft, wanted) in [
            (tokenizer(&["d"]), "token 5 is \"d\", but \"c\" in the model"),
            (tokenizer(&["c", "d"]), "token 6 is \"d\", but the model has only 6 tokens"),
            (tokenizer(&["c", "[PAD7]"]), "token 6 is \"[PAD7]\""),
        ] {
            let error = check_vocabulary(&model, &draft).unwrap_err().to_string();
            assert!(error.starts_with(wanted) && error.contains("vocabulary"), "{error}");
        }
        let error = check_vocabulary(&tokenizer(&["c", "d"]), &model).unwrap_err().to_string();
        assert!(error.contains("there are 6 tokens, but the model has 7, of which token 6 is \"d\""), "{error}");
    }
}
