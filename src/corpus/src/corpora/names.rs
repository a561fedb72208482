//! Ids, speakers and splits in the names of a corpus's files.

use super::Corpus;
use crate::samples::stem;

/// The form of a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextForm {
    /// The transcript of one utterance. Of several, the one with the lowest rank counts.
    Own {
        /// The rank.
        rank: u8,
    },
    /// A line for each utterance: the id, and after a blank or a tab its transcript.
    List,
}

/// The parts of a recording's path that describe it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name<'a> {
    pub(super) id: &'a str,
    pub(super) speaker: &'a str,
    /// The number of the microphone, in VCTK.
    pub(super) microphone: Option<u8>,
}

/// Languages in the names of folders of MLS, and their codes.
const MLS_LANGUAGES: [(&str, &str); 8] = [
    ("english", "en"),
    ("german", "de"),
    ("dutch", "nl"),
    ("french", "fr"),
    ("spanish", "es"),
    ("italian", "it"),
    ("portuguese", "pt"),
    ("polish", "pl"),
];

impl Corpus {
    /// Returns the form of a text file with this path; `None` if it holds no transcripts.
    pub(super) fn text_form(self, path: &str) -> Option<TextForm> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let list = |is_list: bool| is_list.then_some(TextForm::List);
        match self {
            Self::LibriTts if name.ends_with(".normalized.txt") => Some(TextForm::Own { rank: 0 }),
            Self::LibriTts if name.ends_with(".original.txt") => Some(TextForm::Own { rank: 1 }),
            Self::LibriSpeech => list(name.ends_with(".trans.txt")),
            Self::Vctk => {
                // A transcript lies in the folder of its speaker.
                let speaker = folder.rsplit('/').next().unwrap_or_default();
                let own = !speaker.is_empty() && name.split('_').next() == Some(speaker) && name.ends_with(".txt");
                own.then_some(TextForm::Own { rank: 0 })
            }
            Self::Aishell3 => list(name == "content.txt"),
            Self::Mls => list(name == "transcripts.txt"),
            _ => None,
        }
    }

    /// Returns what the path of a recording says; `None` if the corpus has no such names.
    pub(super) fn name(self, path: &str) -> Option<Name<'_>> {
        let name = stem(path.rsplit('/').next().unwrap_or(path));
        let mut microphone = None;
        let (id, speaker) = match self {
            Self::LibriTts if name.split('_').count() == 4 => (name, name.split('_').next()?),
            Self::LibriSpeech if name.split('-').count() == 3 => (name, name.split('-').next()?),
            Self::Mls if name.split('_').count() == 3 => (name, name.split('_').next()?),
            Self::Vctk => {
                let (speaker, rest) = name.split_once('_')?;
                let id = match rest.split_once("_mic") {
                    Some((_, number)) => {
                        microphone = Some(number.parse().ok()?);
                        name.strip_suffix(&name[speaker.len() + 1 + rest.find("_mic")?..])?
                    }
                    None => name,
                };
                (id, speaker)
            }
            Self::Aishell3 if name.is_ascii() && name.len() == 11 && name.starts_with("SSB") => (name, &name[..7]),
            _ => return None,
        };
        (!speaker.is_empty()).then_some(Name { id, speaker, microphone })
    }

    /// Returns the language of a recording; `path` includes the folder of the source.
    pub(super) fn language(self, path: &str) -> Option<&'static str> {
        match self {
            Self::LibriTts | Self::LibriSpeech | Self::Vctk => Some("en"),
            Self::Aishell3 => Some("zh"),
            Self::Mls => {
                let named = path.split('/').filter_map(|part| part.strip_prefix("mls_")).next_back()?;
                let named = named.split('_').next()?;
                MLS_LANGUAGES.iter().find(|(name, _)| *name == named).map(|(_, code)| *code)
            }
            Self::CommonVoice | Self::GigaSpeech => None,
        }
    }

    /// Returns the transcript of a line's rest, or why it is none.
    pub(super) fn text(self, rest: &str) -> Result<String, String> {
        if self == Self::Aishell3 { characters(rest) } else { Ok(rest.to_owned()) }
    }

    /// Describes the files that are expected.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::LibriTts => "SPEAKER_CHAPTER_NUMBER_NUMBER.wav with .normalized.txt",
            Self::LibriSpeech => "SPEAKER-CHAPTER-NUMBER.flac with SPEAKER-CHAPTER.trans.txt",
            Self::Vctk => "SPEAKER_NUMBER_mic1.flac with txt/SPEAKER/SPEAKER_NUMBER.txt",
            Self::Aishell3 => "SSBSPEAKERNUMBER.wav with content.txt",
            Self::Mls => "SPEAKER_BOOK_NUMBER.opus with transcripts.txt",
            Self::CommonVoice => "train.tsv, dev.tsv, test.tsv or validated.tsv with clips/",
            Self::GigaSpeech => "GigaSpeech.json with audio/",
        }
    }
}

/// Returns the characters of `广 guang3 州 zhou1`: every second word is the pronunciation of the one before.
fn characters(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let spoken = words.chunks(2).all(|pair| matches!(pair, [_, sound] if sound.is_ascii()));
    if !spoken {
        return Err("does not alternate characters and their pronunciations".into());
    }
    let mut out = String::new();
    for word in words.into_iter().step_by(2) {
        // Latin words keep the blank between them.
        if out.ends_with(|c: char| c.is_ascii_alphanumeric()) && word.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            out.push(' ');
        }
        out += word;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_give_speakers_and_microphones() {
        let name = |corpus: Corpus, path| corpus.name(path).map(|name| (name.id, name.speaker, name.microphone));
        assert_eq!(name(Corpus::Vctk, "w/p225/p225_001_mic2.flac"), Some(("p225_001", "p225", Some(2))));
        assert_eq!(name(Corpus::Vctk, "wav48/p225/p225_001.wav"), Some(("p225_001", "p225", None)));
        assert_eq!(name(Corpus::Aishell3, "train/wav/SSB0005/SSB00050001.wav"), Some(("SSB00050001", "SSB0005", None)));
        assert_eq!(name(Corpus::LibriTts, "84_1_000007_000000.wav"), Some(("84_1_000007_000000", "84", None)));
        assert_eq!(name(Corpus::LibriSpeech, "notes.flac"), None);
        assert_eq!(Corpus::Mls.language("d/mls_polish_opus/train/audio/1/2/1_2_3.opus"), Some("pl"));
    }

    #[test]
    fn pronunciations_are_left_out() {
        assert_eq!(characters("广 guang3 州 zhou1"), Ok("广州".into()));
        assert_eq!(characters("A ei1 P pi1 广 guang3"), Ok("A P广".into()));
        assert!(characters("广 guang3 州").is_err() && characters("广 州").is_err());
    }
}
