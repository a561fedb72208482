//! The text that a language model reads about a user (the template of the public PMG code, `pmg/data/dataset.py`).

/// The part before the captions.
const BEFORE: &str = "### Human: A person rated the following images highly: \"";
/// The part after the captions. The answer would begin after the blank.
const AFTER: &str = "\". Describe their visual taste. ###Assistant: ";

/// Returns the prompt about a user who liked images with these captions, in their order.
///
/// Captions are numbered from 1 and separated by one blank. An empty one is left out, and its number with it.
pub fn history_prompt<S: AsRef<str>>(captions: &[S]) -> String {
    let numbered = captions.iter().enumerate().filter(|(_, caption)| !caption.as_ref().is_empty());
    let numbered: Vec<String> = numbered.map(|(at, caption)| format!("{}. {}", at + 1, caption.as_ref())).collect();
    format!("{BEFORE}{}{AFTER}", numbered.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_numbered_inside_of_one_pair_of_quotes() {
        let expected = "### Human: A person rated the following images highly: \"1. a cat 3. two \"dogs\"\". \
                        Describe their visual taste. ###Assistant: ";
        assert_eq!(history_prompt(&["a cat", "", "two \"dogs\""]), expected);
    }
}
