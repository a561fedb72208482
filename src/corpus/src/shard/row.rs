//! One row of a shard.

/// A mel spectrogram as it is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mel {
    /// Values, `[frame][bin]`.
    pub data: Vec<f32>,
    /// How many frames.
    pub frames: usize,
    /// How many bins each frame has.
    pub bins: usize,
}

/// One row of a shard. When read, only the fields of the columns asked for are filled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardRow {
    /// The utterance's id.
    pub utt: String,
    /// Where the recording came from, as the data said.
    pub wav: String,
    /// The recording's bytes, in its own format.
    pub audio_data: Vec<u8>,
    /// The transcript.
    pub text: String,
    /// The speaker's id.
    pub spk: String,
    /// The utterance's own embedding.
    pub utt_embedding: Vec<f32>,
    /// Its speaker's embedding.
    pub spk_embedding: Vec<f32>,
    /// Speech tokens.
    pub speech_token: Vec<i64>,
    /// The language, when known.
    pub lang: Option<String>,
    /// Seconds of `audio_data`.
    pub duration: f64,
    /// Sample rate of `audio_data`, in Hz.
    pub sample_rate: u32,
    /// The training mel, when stored.
    pub mel: Option<Mel>,
}

impl ShardRow {
    /// About how many bytes the row takes in memory.
    pub fn size(&self) -> usize {
        let mel = self.mel.as_ref().map_or(0, |mel| mel.data.len() * 4);
        let strings = self.utt.len() + self.wav.len() + self.text.len() + self.spk.len();
        let lists = (self.utt_embedding.len() + self.spk_embedding.len()) * 4 + self.speech_token.len() * 8;
        size_of::<Self>() + self.audio_data.len() + strings + lists + mel
    }
}
