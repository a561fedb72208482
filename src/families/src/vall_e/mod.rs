//! VALL-E: a language model over the codes of an audio codec.
//!
//! | file | content |
//! |---|---|
//! | [`tokenizer`] | phonemes as the numbers of symbols |
//! | [`prompts`] | the utterances that show the network a speaker's voice |

pub mod prompts;
pub mod tokenizer;
