//! Generation of level 0 from masked frames (NAR-len; the schedule of MaskGIT, arXiv 2202.04200).

use super::guidance::Guide;
use super::sampling::{keep_within_deviations, largest_probability, sample};
use super::{Guidance, MaskedOptions, OnProgress, Progress, SamplingOptions, SpeakRequest, Speaker, Stage};
use crate::vall_e::Result;
use crate::vall_e::sequence::{Classifier, Conditions, Sequence};
use flowmill_nn::inference::KeyValueCache;
use flowmill_nn::random::RngKey;

/// The frames of one request.
struct Frames {
    /// Codes, masked ones included.
    codes: Vec<u32>,
    /// Probability of each frame's code; the lowest are masked next.
    scores: Vec<f32>,
    /// The conditions, and for guidance those that are not left out; each is computed once.
    prefixes: Vec<(Sequence, KeyValueCache)>,
}

impl Speaker {
    /// Generates the codes of level 0 of each request, with the given numbers of frames.
    pub(super) fn unmask(
        &self,
        requests: &[SpeakRequest],
        frames: &[usize],
        options: &MaskedOptions,
        rng_key: &RngKey,
        on_progress: &mut OnProgress,
    ) -> Result<Vec<Vec<u32>>> {
        let mut all = self.masked(requests, frames, options)?;
        for step in 0..options.steps {
            let time = time_of(step, options.steps);
            for frames in &mut all {
                let count = masked_count(time, frames.codes.len(), step);
                frames.mask(count, self.config().stop_token());
            }
            report(&all, step, options.steps, on_progress)?;
            let logits = self.masked_logits(&mut all, options.guidance)?;
            for (request, (frames, logits)) in all.iter_mut().zip(logits).enumerate() {
                let key = rng_key.purpose("vall-e unmask").step(step as u64).sample(requests[request].sample);
                let temperature = options.sampling.temperature * (1.0 - time);
                let sampling = SamplingOptions { temperature, ..options.sampling };
                self.choose(frames, logits, options, &sampling, &key);
            }
        }
        report(&all, options.steps, options.steps, on_progress)?;
        Ok(all.into_iter().map(|frames| frames.codes).collect())
    }

    /// Computes the conditions of each request once.
    fn masked(&self, requests: &[SpeakRequest], frames: &[usize], options: &MaskedOptions) -> Result<Vec<Frames>> {
        let levels = self.config().levels;
        let prefix = |conditions: &Conditions| {
            (Sequence::before_response(conditions, Classifier::Masked, levels), self.transformer.cache())
        };
        let start = |(request, frames): (&SpeakRequest, &usize)| {
            let mut prefixes = vec![prefix(&request.conditions())];
            prefixes.extend(options.guidance.map(|guidance| prefix(&request.without(guidance.without))));
            Frames { codes: vec![self.config().stop_token(); *frames], scores: vec![1.0; *frames], prefixes }
        };
        let mut all: Vec<Frames> = requests.iter().zip(frames).map(start).collect();
        let (mut rows, mut caches) = (Vec::new(), Vec::new());
        for (sequence, cache) in all.iter_mut().flat_map(|frames| &mut frames.prefixes) {
            rows.push((&*sequence, 0..sequence.len()));
            caches.push(cache);
        }
        if !rows.is_empty() {
            self.states(&rows, Some(&mut caches))?;
        }
        Ok(all)
    }

    /// Returns the logits `[frame, class]` of each request, guided if the options say so.
    fn masked_logits(&self, all: &mut [Frames], guidance: Option<Guidance>) -> Result<Vec<Vec<f32>>> {
        let (mut sequences, mut caches, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for Frames { codes, prefixes, .. } in all {
            for (prefix, cache) in prefixes {
                let mut sequence = prefix.clone();
                sequence.push_masked(codes.iter().copied());
                cache.truncate(prefix.len());
                sequences.push((sequence, prefix.len()));
                caches.push(cache);
                counts.push(codes.len());
            }
        }
        let rows: Vec<_> = sequences.iter().map(|(sequence, prefix)| (sequence, *prefix..sequence.len())).collect();
        let mut logits = self.last_logits(&rows, Some(&mut caches), &counts, Classifier::Masked)?.into_iter();
        let mut guided = Vec::new();
        while let Some(mut own) = logits.next() {
            if let (Some(guidance), Some(without)) = (guidance, guidance.and_then(|_| logits.next())) {
                Guide::new(guidance).apply(&mut own, &without);
            }
            guided.push(own);
        }
        Ok(guided)
    }

    /// Chooses the codes of masked frames, and gives every frame the score of its most probable code.
    fn choose(
        &self,
        frames: &mut Frames,
        mut logits: Vec<f32>,
        options: &MaskedOptions,
        sampling: &SamplingOptions,
        rng_key: &RngKey,
    ) {
        let mask = self.config().stop_token();
        let rows = logits.chunks_exact_mut(self.classes(Classifier::Masked));
        for (frame, row) in rows.enumerate() {
            let mut scored = row.to_vec();
            keep_within_deviations(&mut scored, options.score_sigma);
            frames.scores[frame] = largest_probability(&scored);
            if frames.codes[frame] == mask {
                frames.codes[frame] = sample(row, &[], sampling, rng_key.uniform_at(frame as u64));
            }
        }
    }
}

/// Reports the frames of each request; masked ones have the stop token.
fn report(all: &[Frames], done: usize, limit: usize, on_progress: &mut OnProgress) -> Result<()> {
    for (request, frames) in all.iter().enumerate() {
        let progress = Progress { stage: Stage::FirstLevel, done, limit, request, codes: &frames.codes };
        progress.report(on_progress)?;
    }
    Ok(())
}

impl Frames {
    /// Masks the frames with the lowest scores, among equal ones the first.
    fn mask(&mut self, count: usize, mask: u32) {
        let mut order: Vec<usize> = (0..self.codes.len()).collect();
        order.sort_by(|a, b| self.scores[*a].total_cmp(&self.scores[*b]));
        order.iter().take(count).for_each(|frame| self.codes[*frame] = mask);
    }
}

/// Returns the time of a step: from 0 to 1 in equal distances.
fn time_of(step: usize, steps: usize) -> f32 {
    step as f32 / (steps.max(2) - 1) as f32
}

/// Returns the number of frames that are masked at a time: the cosine of its angle, but at least one, and so that one more frame is known
/// after every step.
fn masked_count(time: f32, frames: usize, step: usize) -> usize {
    let share = f64::from(time * std::f32::consts::FRAC_PI_2).cos();
    let count = (share * frames as f64) as usize;
    count.min(frames.saturating_sub(step)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_frames_are_masked_at_every_step() {
        let counts = |frames, steps| -> Vec<usize> {
            (0..steps).map(|step| masked_count(time_of(step, steps), frames, step)).collect()
        };
        assert_eq!(counts(100, 5), [100, 92, 70, 38, 1]);
        assert_eq!(counts(3, 6), [3, 2, 1, 1, 1, 1]);
        assert_eq!(counts(1, 1), [1]);
    }

    #[test]
    fn the_least_certain_frames_are_masked() {
        let mut frames = Frames { codes: vec![1, 2, 3, 4], scores: vec![0.5, 0.2, 0.9, 0.2], prefixes: Vec::new() };
        frames.mask(2, 9);
        assert_eq!(frames.codes, [1, 9, 3, 9]);
    }
}
