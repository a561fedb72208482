//! The scorer: speaks held-out texts in the voice of training recordings, and measures what is heard.

use std::collections::BTreeMap;
use std::sync::Arc;

use flowmill_audio::decode_bytes;
use flowmill_audio::features::{Features, MelConfig, MelSpectrogram};
use flowmill_audio::resample;
use flowmill_corpus::shard::speech;
use flowmill_corpus::{ColumnSpec, Row};
use flowmill_family::{Audio, BoxError, Loaded, Made, Output, Report, Scored, Scorer};
use flowmill_networks::vall_e::{Codes, Speaker};
use flowmill_nn::random::RngKey;
use rayon::prelude::*;
use serde_json::json;

use super::prompts::PromptRule;
use super::recognizer::{Cepstra, Recognizer, Trained};
use super::rows::{self, Symbols};
use super::scores::{Distances, Scores, UtteranceScores};
use super::speaker::{Centers, Similarity, Speakers, voiceprint};
use super::tokenizer::PhonemeTokenizer;
use super::voice::{Decoder, Line, speak};
use super::voices::prompt_from;
use super::warping::warped_distance;
use super::{CODEC, ExportOptions, VallE, card};
use crate::DECIBELS_PER_NEPER;

/// Training recordings that are listened to, for texts and voices; more are not needed to tell them apart.
const MOST_HEARD: usize = 2000;
/// Training recordings of each speaker that prompts are made of.
const MOST_PROMPTS: usize = 50;

/// Speaks held-out rows and scores them.
pub struct SpeechScorer {
    speaker: Speaker,
    decoder: Decoder,
    tokenizer: PhonemeTokenizer,
    languages: Vec<String>,
    rule: PromptRule,
    options: ExportOptions,
    rng_key: RngKey,
    levels: usize,
    listener: Listener,
    recordings: BTreeMap<String, Vec<Codes>>,
    heard: usize,
    scores: Vec<UtteranceScores>,
}

/// Measures of recordings.
struct Listener {
    cepstra: Cepstra,
    mel: MelSpectrogram,
    recognizer: Recognizer,
    trained: Option<Trained>,
    speakers: Speakers,
    centers: Option<Centers>,
}

/// A row with all that is spoken and compared.
struct Spoken {
    row: Arc<Row>,
    text: String,
    real_codes: Codes,
    prompt: Option<Codes>,
    codes: Codes,
}

impl SpeechScorer {
    /// Prepares scoring a model.
    ///
    /// # Errors
    /// Returns an error if the folder lacks the codec, or a weight cannot be read.
    pub fn new(loaded: Loaded<VallE>, options: ExportOptions, seed: u64) -> Result<Self, BoxError> {
        let Loaded { config, description, model, parameters, folder, device } = loaded;
        description.check(&options.speech)?;
        Ok(Self {
            speaker: Speaker::new(&model.0, &parameters)?,
            decoder: Decoder::open(&folder.join(CODEC), &device)?,
            tokenizer: description.tokenizer()?,
            rule: description.prompt_rule(),
            languages: description.languages,
            options,
            rng_key: RngKey::new(seed).purpose("scores"),
            levels: config.levels,
            listener: Listener::new()?,
            recordings: BTreeMap::new(),
            heard: 0,
            scores: Vec::new(),
        })
    }

    /// Returns the recording of a row, if it has one. The sound of its codes takes its place otherwise.
    fn recording(row: &Row) -> Result<Option<Audio>, BoxError> {
        if !row.columns.contains_key(speech::AUDIO_DATA) {
            return Ok(None);
        }
        let name = row.text(speech::WAV).unwrap_or(&row.id);
        let audio = decode_bytes(row.bytes(speech::AUDIO_DATA)?, name)?;
        let sample_rate = audio.sample_rate;
        Ok(Some(Audio { samples: audio.into_mono(), sample_rate }))
    }

    /// Returns the line of a row, and the codes of its recording; `others` are rows that may be prompts.
    fn line(&self, row: &Row, others: &[Arc<Row>], sample: u64) -> Result<(Line, Codes), BoxError> {
        let codes = rows::codes(row)?;
        let symbols = Symbols::of(row, &self.tokenizer, &self.languages)?;
        let rng_key = self.rng_key.purpose("prompt").sample(sample);
        let learned: Vec<&Codes> = self.recordings.get(&row.group).into_iter().flatten().collect();
        let prompt = match learned.is_empty() {
            false => prompt_from(&learned, self.decoder.rate(), &self.rule, rng_key)?,
            // A speaker who is not in the training data.
            true => {
                let own = others.iter().filter(|other| other.group == row.group && other.id != row.id);
                let own = own.map(|other| rows::codes(other)).collect::<Result<Vec<Codes>, _>>()?;
                prompt_from(&own.iter().collect::<Vec<_>>(), self.decoder.rate(), &self.rule, rng_key)?
            }
        };
        Ok((Line { symbols, prompt, sample }, codes))
    }

    /// Compares what was spoken with the real recording. Returns the sounds too, the generated one first.
    fn compare(&self, spoken: &Spoken) -> Result<(UtteranceScores, Vec<Made>), BoxError> {
        let Spoken { row, text, real_codes, prompt, codes } = spoken;
        let recording = Self::recording(row)?;
        let after_codec = self.decoder.sound(real_codes)?;
        let real = recording.as_ref().unwrap_or(&after_codec);
        let sound = |codes: &Codes| self.decoder.sound(codes);
        let generated = (codes.frames() > 0).then(|| sound(codes)).transpose()?;
        let prompt = prompt.as_ref().map(sound).transpose()?;
        let heard = |audio: Option<&Audio>| audio.map(|audio| self.listener.hear(&row.group, audio)).transpose();
        let (of_real, of_codec) = (heard(Some(real))?.flatten(), heard(Some(&after_codec))?.flatten());
        let of_generated = heard(generated.as_ref())?.flatten();
        let (text_of, voice_of) = (
            |heard: &Option<Heard>| heard.as_ref()?.text.clone(),
            |heard: &Option<Heard>| {
                let Similarity { own, others, is_nearest } = self.listener.similarity(&row.group, heard.as_ref()?)?;
                Some((own, others, is_nearest))
            },
        );
        let to_real = self.listener.log_mel(real)?;
        let distance = |audio: &Audio| -> Result<Option<f64>, BoxError> {
            Ok(self.listener.distance(&to_real, &self.listener.log_mel(audio)?))
        };
        let (near, limit) = (generated.as_ref().map(distance).transpose()?.flatten(), distance(&after_codec)?);
        let trivial = prompt.as_ref().map(distance).transpose()?.flatten();
        let scores = UtteranceScores {
            utt: row.id.clone(),
            text: text.clone(),
            heard: text_of(&of_generated),
            heard_real: text_of(&of_real),
            heard_codec: text_of(&of_codec),
            frames: codes.frames(),
            real_frames: real_codes.frames(),
            voice: voice_of(&of_generated),
            real_voice: voice_of(&of_real),
            distance_db: near.zip(limit).zip(trivial).map(|((generated, codec), prompt)| Distances {
                generated,
                codec,
                prompt,
            }),
        };
        let made = |name: String, audio| {
            let title = format!("{name}: {text} ({})", row.group);
            Made { name, title, output: Output::Audio(audio), real: None }
        };
        let sounds = [(row.id.clone(), generated), (format!("{}.prompt", row.id), prompt)];
        Ok((scores, sounds.into_iter().filter_map(|(name, audio)| Some(made(name, audio?))).collect()))
    }
}

impl Scorer for SpeechScorer {
    fn columns(&self) -> Vec<ColumnSpec> {
        let recording = speech::recording().into_iter().chain([speech::speed()]);
        let wanted = [speech::WAV, speech::AUDIO_DATA, speech::TEXT, speech::SPEED];
        let recording = recording.filter(|column| wanted.contains(&column.name.as_str())).map(ColumnSpec::optional);
        rows::columns(self.levels).into_iter().chain(recording).collect()
    }

    fn learn(&mut self, row: &Row) -> Result<(), BoxError> {
        // Rows of another speed are other voices than those that are spoken in and listened for.
        if row.columns.contains_key(speech::SPEED) {
            return Ok(());
        }
        let of_speaker = self.recordings.entry(row.group.clone()).or_default();
        if of_speaker.len() < MOST_PROMPTS {
            of_speaker.push(rows::codes(row)?);
        }
        if self.heard < MOST_HEARD {
            self.heard += 1;
            let (recording, text) = (Self::recording(row)?, row.text(speech::TEXT).ok());
            let after_codec = self.decoder.sound(&rows::codes(row)?)?;
            self.listener.learn(&row.group, text, recording.as_ref().unwrap_or(&after_codec))?;
            // The codec changes a sound, but neither its text nor its voice.
            self.listener.learn(&row.group, text, &after_codec)?;
        }
        Ok(())
    }

    fn score(&mut self, rows: &[Arc<Row>], interrupted: &dyn Fn() -> bool) -> Result<Vec<Scored>, BoxError> {
        self.listener.prepare();
        let first = self.scores.len() as u64;
        let lines: Vec<Result<(Line, Codes), String>> = (first..)
            .zip(rows)
            .map(|(sample, row)| self.line(row, rows, sample).map_err(|error| error.to_string()))
            .collect();
        let good: Vec<Line> = lines.iter().flatten().map(|(line, _)| line.clone()).collect();
        if interrupted() {
            return Ok(Vec::new());
        }
        let mut spoken = speak(&self.speaker, good, &self.options.speech, &self.rng_key)?.into_iter();
        let spoken = rows.iter().zip(lines).map(|(row, line)| {
            let (Line { prompt, .. }, real_codes) = line?;
            let text = row.text(speech::TEXT).unwrap_or_default().to_owned();
            Ok(Spoken { row: row.clone(), text, real_codes, prompt, codes: spoken.next().unwrap_or_default() })
        });
        let spoken: Vec<Result<Spoken, String>> = spoken.collect();
        let compared: Vec<_> = spoken
            .par_iter()
            .map(|spoken| match spoken {
                Ok(spoken) => self.compare(spoken).map_err(|error| error.to_string()),
                Err(reason) => Err(reason.clone()),
            })
            .collect();
        let add = |compared: Result<(UtteranceScores, Vec<Made>), String>| {
            let (scores, made) = compared?;
            self.scores.push(scores);
            Ok(made)
        };
        Ok(compared.into_iter().map(add).collect())
    }

    fn finish(self: Box<Self>, split: &str) -> Report {
        let texts = self.listener.recognizer.texts();
        // Texts that the recognizer has not heard cannot be found.
        let texts = texts.filter(|_| self.scores.iter().all(|scores| self.listener.recognizer.knows(&scores.text)));
        let scores = Scores::of(split, texts, self.scores);
        let mut facts = Vec::new();
        if let Some(recognition) = &scores.recognition {
            facts.extend([("recognized", recognition.generated), ("recognized_real", recognition.real)]);
        }
        if let Some(voice) = &scores.voice {
            facts.extend([("similarity", voice.own), ("similarity_to_others", voice.others)]);
        }
        if let Some(distance) = &scores.distance_db {
            facts.extend([("distance_db", distance.generated), ("codec_distance_db", distance.codec)]);
        }
        Report { scores: json!(scores), lines: card::lines(&scores), facts, rows: scores.utterances as u64 }
    }
}

/// The measures of one recording.
struct Heard {
    cepstra: Features,
    text: Option<String>,
}

impl Listener {
    fn new() -> Result<Self, BoxError> {
        let mel = MelConfig {
            sample_rate: 16_000,
            n_fft: 1024,
            win_length: 1024,
            hop_length: 256,
            ..MelConfig::cosyvoice2()
        };
        Ok(Self {
            cepstra: Cepstra::new()?,
            mel: MelSpectrogram::new(mel)?,
            recognizer: Recognizer::default(),
            trained: None,
            speakers: Speakers::default(),
            centers: None,
        })
    }

    /// Learns the text and the voice of a training recording.
    fn learn(&mut self, speaker: &str, text: Option<&str>, audio: &Audio) -> Result<(), BoxError> {
        let Some(cepstra) = self.cepstra.of(audio)? else { return Ok(()) };
        self.speakers.add(speaker, voiceprint(&cepstra));
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.recognizer.add(text, speaker, cepstra);
        }
        Ok(())
    }

    /// Computes what all comparisons need.
    fn prepare(&mut self) {
        if self.centers.is_none() && self.trained.is_none() {
            self.centers = self.speakers.centers();
            self.trained = self.recognizer.train();
        }
    }

    /// Returns the measures of a recording in the voice of a speaker; none of one that is too short.
    fn hear(&self, speaker: &str, audio: &Audio) -> Result<Option<Heard>, BoxError> {
        let Some(cepstra) = self.cepstra.of(audio)? else { return Ok(None) };
        let text = self.trained.as_ref().and_then(|trained| trained.recognize(speaker, &cepstra));
        let text = text.map(str::to_owned);
        Ok(Some(Heard { cepstra, text }))
    }

    fn similarity(&self, speaker: &str, heard: &Heard) -> Option<Similarity> {
        self.centers.as_ref()?.similarity(speaker, &voiceprint(&heard.cepstra))
    }

    fn log_mel(&self, audio: &Audio) -> Result<Features, BoxError> {
        let config = self.mel.config();
        let mut samples = resample(&audio.samples, audio.sample_rate, config.sample_rate)?;
        samples.resize(samples.len().max(config.n_fft), 0.0);
        Ok(self.mel.compute(&samples)?)
    }

    /// Returns the distance of two log-mels along their best alignment, in dB.
    fn distance(&self, one: &Features, other: &Features) -> Option<f64> {
        let bins = one.bins.max(1) as f64;
        warped_distance(one, other).map(|distance| distance / bins.sqrt() * DECIBELS_PER_NEPER)
    }
}
