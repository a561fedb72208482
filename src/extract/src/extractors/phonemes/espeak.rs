//! The program espeak-ng: its version, its languages, and the phonemes of many pieces of text in one run.
//!
//! Without words among its arguments the program reads its input line by line and writes the phonemes of each clause on a line. The number of
//! clauses in a line is the program's decision. A separator, a line of phoneme mnemonics, therefore follows every piece of text, and its output
//! marks the end of the piece's phonemes.
//!
//! If the library of espeak-ng is installed, it is used instead of the program, as by `phonemizer`. The library does not speak, so it gives no
//! stress to a clause without a stressed word: `this is` is `ðɪs ɪz`, where the program gives `ðɪs ˈɪz`. The two differed in one piece of 743
//! English sentences, and in more pieces of Chinese ones.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use flowmill_audio::program::{self, ProgramError, ProgramLimits};

use super::espeak_library::{self, Library};

/// The program's name.
pub const PROGRAM: &str = "espeak-ng";

/// The line between pieces: mnemonics of phonemes that no voice gives for words.
const SEPARATOR: &str = "[[ppppp]]";
/// The longest line in bytes. The program reads lines in pieces of 1,000 bytes and would split a longer one anywhere.
const LONGEST_LINE: usize = 900;

/// The installed library or program.
pub struct Espeak {
    form: Form,
    /// The version, such as `1.51`.
    version: String,
}

enum Form {
    Library(&'static Library),
    Program {
        /// The name or path.
        program: String,
        languages: BTreeSet<String>,
    },
}

impl Espeak {
    /// Loads the library, or asks the program for its version and its languages: the program of this name or path if it is not the default one.
    ///
    /// # Errors
    /// [`ProgramError::Missing`] if there is neither; others if the program does not answer.
    pub fn find(program: &str) -> Result<Self, ProgramError> {
        if let Some(library) = (program == PROGRAM).then(espeak_library::installed).flatten() {
            return Ok(Self { version: library.version().to_owned(), form: Form::Library(library) });
        }
        let ask = |argument: &str| {
            let mut command = Command::new(program);
            program::run(command.arg(argument).stdin(Stdio::null()), &ProgramLimits::default())
        };
        let (about, voices) = (ask("--version")?, ask("--voices")?);
        let about = String::from_utf8_lossy(&about.bytes).into_owned();
        // "eSpeak NG text-to-speech: 1.51  Data at: …"
        let version = about.split(':').nth(1).and_then(|rest| rest.split_whitespace().next());
        let version = version.unwrap_or_else(|| about.trim()).to_owned();
        // A line for each voice: priority, language, age and gender, name, …
        let voices = String::from_utf8_lossy(&voices.bytes).into_owned();
        let languages = voices.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
        let languages = languages.map(str::to_lowercase).collect();
        Ok(Self { form: Form::Program { program: program.to_owned(), languages }, version })
    }

    /// The version, such as `1.51`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns whether it is the library or the program, whose phonemes differ in places.
    pub fn form(&self) -> &'static str {
        match self.form {
            Form::Library(_) => "library",
            Form::Program { .. } => "program",
        }
    }

    /// Returns whether there is a voice of this name.
    pub fn has(&self, voice: &str) -> bool {
        match &self.form {
            Form::Library(library) => library.has(voice),
            Form::Program { languages, .. } => languages.contains(voice),
        }
    }

    /// Returns the phonemes of pieces of text in the order of the pieces: IPA with stress, words separated by blanks, without the marks of words
    /// in other languages. The pieces have no punctuation and no control characters.
    ///
    /// # Errors
    /// When the program fails, or writes something else than phonemes for every piece.
    pub fn phonemes(&self, voice: &str, pieces: &[&str]) -> Result<Vec<String>, ProgramError> {
        let program = match &self.form {
            Form::Library(library) => {
                let found =
                    library.phonemes(voice, pieces).map_err(|error| ProgramError::Io(std::io::Error::other(error)))?;
                return Ok(found.iter().map(|phonemes| without_switches(phonemes)).collect());
            }
            Form::Program { program, .. } => program,
        };
        let mut input = format!("{SEPARATOR}\n");
        for piece in pieces {
            lines(piece).for_each(|line| {
                input.push_str(line);
                input.push('\n');
            });
            input.push_str(SEPARATOR);
            input.push('\n');
        }
        let output = run(program, voice, input)?;
        let mut lines = output.lines().map(str::trim);
        let separator = lines.next().unwrap_or_default();
        let mut found = Vec::with_capacity(pieces.len());
        let mut piece = String::new();
        for line in lines {
            if line == separator {
                found.push(without_switches(&std::mem::take(&mut piece)));
            } else if !line.is_empty() {
                if !piece.is_empty() {
                    piece.push(' ');
                }
                piece.push_str(line);
            }
        }
        if separator.is_empty() || found.len() != pieces.len() || !piece.is_empty() {
            let problem = format!("wrote phonemes of {} texts instead of {}", found.len(), pieces.len());
            return Err(ProgramError::Io(std::io::Error::other(problem)));
        }
        Ok(found)
    }
}

/// Runs the program on its input.
fn run(program: &str, voice: &str, input: String) -> Result<String, ProgramError> {
    let (reader, mut writer) = std::io::pipe().map_err(ProgramError::Io)?;
    let mut command = Command::new(program);
    command.args(["-q", "--ipa", "-b", "1", "-v", voice]).stdin(reader);
    let output = std::thread::scope(|scope| {
        // A program that ends early breaks the pipe; its exit status says why.
        scope.spawn(move || drop(writer.write_all(input.as_bytes())));
        let output = program::run(&mut command, &ProgramLimits::default());
        // The command holds the reading end: a writer that still waits would wait forever.
        drop(command);
        output
    })?;
    Ok(String::from_utf8_lossy(&output.bytes).into_owned())
}

/// Returns a piece as lines that the program reads as a whole, split at a blank where there is one.
fn lines(piece: &str) -> impl Iterator<Item = &str> {
    let mut rest = piece;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let limit = (0..=LONGEST_LINE.min(rest.len())).rev().find(|at| rest.is_char_boundary(*at))?;
        let at = match limit == rest.len() {
            true => limit,
            false => rest[..limit].rfind(' ').filter(|at| *at > 0).unwrap_or(limit),
        };
        let (line, later) = rest.split_at(at);
        rest = later.trim_start();
        Some(line)
    })
}

/// Removes the marks of words in another language: `(en)ˈʌpdeɪt(de)`.
fn without_switches(phonemes: &str) -> String {
    let mut kept = String::with_capacity(phonemes.len());
    let mut rest = phonemes;
    while let Some((before, after)) = rest.split_once('(') {
        kept.push_str(before);
        match after.split_once(')') {
            Some((name, later)) if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') => rest = later,
            _ => {
                kept.push('(');
                rest = after;
            }
        }
    }
    kept.push_str(rest);
    // A mark between two blanks leaves both.
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_other_languages_are_removed() {
        assert_eq!(without_switches("zˈɔnənkˌystə (en)ˈʌpdeɪt(de)"), "zˈɔnənkˌystə ˈʌpdeɪt");
        assert_eq!(without_switches("(en)ˈɛ5ksə5lə5nt(cmn) a"), "ˈɛ5ksə5lə5nt a");
        assert_eq!(without_switches("a (1) b("), "a (1) b(");
    }

    #[test]
    fn long_pieces_are_split_at_blanks() {
        let long = "word ".repeat(400);
        let parts: Vec<&str> = lines(long.trim_end()).collect();
        assert!(parts.len() > 2 && parts.iter().all(|part| part.len() <= LONGEST_LINE));
        assert_eq!(parts.join(" "), long.trim_end());
        let unbroken = "語".repeat(700);
        assert_eq!(lines(&unbroken).collect::<String>(), unbroken);
        assert_eq!(lines("").count(), 0);
    }
}
