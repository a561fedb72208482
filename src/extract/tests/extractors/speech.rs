//! The LibriSpeech excerpt in `data/libri6` as rows for extractors.

use std::path::{Path, PathBuf};

use flowmill_extract::extractors::registry;
use flowmill_extract::{Chosen, ExtractError, Media, RowEvents};
use flowmill_runner::{Recipe, RecipeError};

/// One recording.
pub struct Recording {
    /// The utterance's id.
    pub utt: String,
    /// The speaker's id.
    pub spk: String,
    /// The file.
    pub wav: PathBuf,
}

impl Recording {
    /// Returns the media that an extractor reads.
    pub fn media(&self) -> Media {
        let wav = self.wav.clone();
        Media::audio(move || flowmill_audio::decode_file(&wav))
    }

    /// The id, as the driver wants it.
    pub fn id(&self) -> &str {
        &self.utt
    }
}

/// The utterances of a split, in the order of its list.
pub fn split(name: &str) -> Vec<Recording> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/libri6");
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let table = |file: &str| -> Vec<(String, String)> {
        read(file).lines().filter_map(|line| line.split_once(' ')).map(|(id, rest)| (id.into(), rest.into())).collect()
    };
    let (wavs, speakers) = (table("wav.scp"), table("utt2spk"));
    let find = |rows: &[(String, String)], utt: &str| rows.iter().find(|row| row.0 == utt).unwrap().1.clone();
    let recording =
        |utt: &str| Recording { spk: find(&speakers, utt), wav: root.join(find(&wavs, utt)), utt: utt.to_owned() };
    read(&format!("splits/{name}.list")).lines().map(recording).collect()
}

/// Fails the test on a rejected row.
pub struct NoRejection;

impl RowEvents for NoRejection {
    fn reject(&self, id: &str, reason: &ExtractError) {
        panic!("{id}: {reason}");
    }

    fn advance(&self, _rows: u64) {}

    fn interrupted(&self) -> bool {
        false
    }

    fn threads(&self) -> usize {
        rayon::current_num_threads()
    }
}

/// The extractor that a recipe describes.
pub fn chosen(settings: &serde_json::Value) -> Result<Chosen, RecipeError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("recipe.yaml"), "name: test\n").unwrap();
    let recipe = Recipe::load(folder.path(), &[format!("tokens.extractor={settings}")], &["tokens"])?;
    Ok(registry().read(&recipe, "tokens.extractor")?.unwrap())
}
