//! Generation of the levels above 0, one pass each.

use super::guidance::Guide;
use super::sampling::sample;
use super::{Guidance, OnProgress, Progress, SpeakOptions, SpeakRequest, Speaker, Stage};
use crate::vall_e::sequence::{Classifier, Conditions, Sequence};
use crate::vall_e::{Codes, Result};
use flowmill_nn::random::RngKey;

/// Rows that are computed at a time, which bounds the memory; a longer sequence is computed alone.
const ROWS: usize = 4096;

impl Speaker {
    /// Predicts levels until each request has as many as the options say.
    pub(super) fn predict_levels(
        &self,
        requests: &[SpeakRequest],
        mut codes: Vec<Codes>,
        options: &SpeakOptions,
        rng_key: &RngKey,
        on_progress: &mut OnProgress,
    ) -> Result<Vec<Codes>> {
        let levels = options.levels(self.config());
        for level in 1..levels {
            let wanted: Vec<usize> = (0..codes.len()).filter(|request| codes[*request].levels() == level).collect();
            let mut rest = wanted.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(self.group(requests, &codes, rest));
                self.predict_level(requests, &mut codes, now, level, options, rng_key)?;
                rest = later;
            }
            for request in wanted {
                let codes = codes[request].level(level);
                Progress { stage: Stage::Levels, done: level + 1, limit: levels, request, codes }
                    .report(on_progress)?;
            }
        }
        Ok(codes)
    }

    /// Returns how many of the requests fit into one computation; at least one.
    fn group(&self, requests: &[SpeakRequest], codes: &[Codes], candidates: &[usize]) -> usize {
        let mut rows = 0;
        let fits = |request: &&usize| {
            let prompt = requests[**request].prompt.as_ref().map_or(0, Codes::frames);
            rows += requests[**request].phonemes.len() + prompt + codes[**request].frames();
            rows <= ROWS
        };
        candidates.iter().take_while(fits).count().max(1)
    }

    /// Predicts one level of some requests.
    fn predict_level(
        &self,
        requests: &[SpeakRequest],
        codes: &mut [Codes],
        members: &[usize],
        level: usize,
        options: &SpeakOptions,
        rng_key: &RngKey,
    ) -> Result<()> {
        let classifier = Classifier::Level(level);
        let sequence = |conditions: &Conditions, codes: &Codes| {
            let mut sequence = Sequence::before_response(conditions, classifier, self.config().levels);
            sequence.push_levels_below(codes, level);
            sequence
        };
        let pairs = members.iter().map(|request| (&requests[*request], &codes[*request]));
        let conditional: Vec<Sequence> =
            pairs.clone().map(|(request, codes)| sequence(&request.conditions(), codes)).collect();
        let unconditional = options.level_guidance.map(|guidance| {
            let sequences = pairs.map(|(request, codes)| sequence(&request.without(guidance.without), codes)).collect();
            (guidance, sequences)
        });
        let frames: Vec<usize> = members.iter().map(|request| codes[*request].frames()).collect();
        let mut logits = self.guided_logits(&conditional, unconditional, &frames, classifier)?.into_iter();
        let classes = self.classes(classifier);
        for request in members {
            let key = rng_key.purpose("vall-e level").epoch(level as u64).sample(requests[*request].sample);
            let mut own = logits.next().unwrap_or_default();
            let rows = (0..).zip(own.chunks_exact_mut(classes));
            // No code of the same level is known before, so nothing is repeated.
            let chosen = rows.map(|(frame, row)| sample(row, &[], &options.level_sampling, key.uniform_at(frame)));
            codes[*request].push_level(&chosen.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Returns the logits `[frame, class]` of the last frames of whole sequences, guided if there are sequences without conditions.
    fn guided_logits(
        &self,
        conditional: &[Sequence],
        unconditional: Option<(Guidance, Vec<Sequence>)>,
        frames: &[usize],
        classifier: Classifier,
    ) -> Result<Vec<Vec<f32>>> {
        let mut logits = self.parallel_logits(conditional, frames, classifier)?;
        if let Some((guidance, sequences)) = unconditional {
            let without = self.parallel_logits(&sequences, frames, classifier)?;
            for (logits, without) in logits.iter_mut().zip(without) {
                Guide::new(guidance).apply(logits, &without);
            }
        }
        Ok(logits)
    }

    fn parallel_logits(
        &self,
        sequences: &[Sequence],
        frames: &[usize],
        classifier: Classifier,
    ) -> Result<Vec<Vec<f32>>> {
        let rows: Vec<_> = sequences.iter().map(|sequence| (sequence, 0..sequence.len())).collect();
        self.last_logits(&rows, None, frames, classifier)
    }
}
