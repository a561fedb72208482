//! Generation token by token.

use super::guidance::Guide;
use super::sampling::sample;
use super::{Guidance, OnProgress, Progress, SamplingOptions, Speaker, Stage};
use crate::vall_e::Result;
use crate::vall_e::sequence::Sequence;
use flowmill_nn::inference::KeyValueCache;
use flowmill_nn::random::RngKey;
use std::ops::Range;

/// A sequence that is continued, and its tokens so far.
pub(super) struct Stream {
    conditional: Sequence,
    /// The sequence without conditions, for guidance.
    unconditional: Option<Sequence>,
    sample: u64,
    /// The generated tokens, without the one that ended them.
    pub(super) tokens: Vec<u32>,
}

impl Stream {
    pub(super) fn new(conditional: Sequence, unconditional: Option<Sequence>, sample: u64) -> Self {
        Self { conditional, unconditional, sample, tokens: Vec::new() }
    }

    fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        std::iter::once(&self.conditional).chain(&self.unconditional)
    }
}

/// The settings that all streams share.
pub(super) struct Job {
    /// Adds a token to a sequence.
    pub(super) push: fn(&mut Sequence, u32),
    /// The token that ends a stream.
    pub(super) stop: u32,
    /// Largest number of tokens.
    pub(super) limit: usize,
    pub(super) sampling: SamplingOptions,
    pub(super) guidance: Option<Guidance>,
    pub(super) stage: Stage,
}

/// A stream that has not ended.
struct Active {
    index: usize,
    /// One cache per sequence of the stream.
    caches: Vec<KeyValueCache>,
    guide: Option<Guide>,
    /// The rows that are computed next, per sequence.
    rows: Vec<Range<usize>>,
}

impl Speaker {
    /// Continues streams until each has ended. All streams advance together, so that weights are read once for all.
    pub(super) fn autoregress(
        &self,
        streams: &mut [Stream],
        job: &Job,
        rng_key: &RngKey,
        on_progress: &mut OnProgress,
    ) -> Result<()> {
        let start = |(index, stream): (usize, &Stream)| Active {
            index,
            caches: stream.sequences().map(|_| self.transformer.cache()).collect(),
            guide: job.guidance.map(Guide::new),
            rows: stream.sequences().map(|sequence| 0..sequence.len()).collect(),
        };
        let mut active: Vec<Active> = streams.iter().enumerate().map(start).collect();
        for step in 0..job.limit {
            let Some(first) = active.first() else { break };
            let classifier = streams[first.index].conditional.classifier;
            let (mut rows, mut caches) = (Vec::new(), Vec::new());
            for Active { index, caches: own, rows: next, .. } in &mut active {
                rows.extend(streams[*index].sequences().zip(next.iter().cloned()));
                caches.extend(own.iter_mut());
            }
            let counts = vec![1; rows.len()];
            let mut logits = self.last_logits(&rows, Some(&mut caches), &counts, classifier)?.into_iter();
            let mut ended = Vec::new();
            for Active { index, guide, rows, .. } in &mut active {
                let stream = &mut streams[*index];
                let mut own = logits.next().unwrap_or_default();
                if stream.unconditional.is_some() {
                    let without = logits.next().unwrap_or_default();
                    guide.iter_mut().for_each(|guide| guide.apply(&mut own, &without));
                }
                let key = rng_key.purpose("vall-e token").sample(stream.sample);
                let token = sample(&mut own, &stream.tokens, &job.sampling, key.uniform_at(step as u64));
                if token == job.stop {
                    ended.push(*index);
                    continue;
                }
                stream.tokens.push(token);
                (job.push)(&mut stream.conditional, token);
                stream.unconditional.iter_mut().for_each(|sequence| (job.push)(sequence, token));
                rows.iter_mut().zip(stream.sequences()).for_each(|(rows, sequence)| *rows = rows.end..sequence.len());
            }
            active.retain(|active| !ended.contains(&active.index));
            for (request, stream) in streams.iter().enumerate() {
                if stream.tokens.len() == step + 1 || ended.contains(&request) {
                    let (done, codes) = (stream.tokens.len(), stream.tokens.as_slice());
                    Progress { stage: job.stage, done, limit: job.limit, request, codes }.report(on_progress)?;
                }
            }
        }
        Ok(())
    }
}
