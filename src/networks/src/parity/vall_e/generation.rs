//! Generation, token for token.

use super::{codes, config, frames_first, tokens};
use crate::parity::{GoldenFile, Report, Result};
use crate::vall_e::{
    Batch, Codes, FirstLevel, Guidance, MaskedOptions, Progress, Sample, SamplingOptions, SpeakOptions, SpeakRequest,
    Speaker, Stage, VallE,
};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters};
use std::ops::ControlFlow;

/// A model, and the requests of a file.
struct Setup<'a> {
    file: &'a GoldenFile,
    model: VallE,
    parameters: Parameters,
    speaker: Speaker,
    requests: Vec<SpeakRequest>,
    max_frames: usize,
}

/// Compares everything that the file expects.
pub(in crate::parity) fn check(file: &GoldenFile) -> Result<Report> {
    let config = config(file)?;
    let (model, mut parameters) = VallE::new(&config, 0)?;
    file.load(&mut parameters)?;
    let speaker = Speaker::new(&model, &parameters)?;
    let languages = tokens(file, "in.lang")?;
    let request = |(item, language): (usize, u32)| {
        Ok(SpeakRequest {
            phonemes: tokens(file, &format!("in.phonemes.{item}"))?,
            language,
            prompt: Some(codes(file, &format!("in.prompt_codes.{item}"), config.levels)?),
            ..SpeakRequest::default()
        })
    };
    let requests = languages.into_iter().enumerate().map(request).collect::<Result<Vec<_>>>()?;
    let max_frames = file.size(&["max_steps"])?;
    let setup = Setup { file, model, parameters, speaker, requests, max_frames };
    let mut report = Report::default();
    setup.check_autoregressive(&mut report)?;
    setup.check_guided(&mut report)?;
    setup.check_masked(&mut report)?;
    setup.check_lengths(&mut report)?;
    Ok(report)
}

impl Setup<'_> {
    fn options(&self, guidance: Option<Guidance>) -> SpeakOptions {
        let first_level = FirstLevel::Autoregressive { sampling: SamplingOptions::greedy(), guidance };
        SpeakOptions { first_level, max_frames: self.max_frames, ..SpeakOptions::default() }
    }

    fn speak(&self, requests: &[SpeakRequest], options: &SpeakOptions) -> Result<Vec<Codes>> {
        Ok(self.speaker.speak(requests, options, &RngKey::new(0), &mut |_| ControlFlow::Continue(()))?)
    }

    fn exact(&self, report: &mut Report, name: &str, found: &[i64]) -> Result<()> {
        if self.file.find(name).is_some() {
            report.exact(name, found, &self.file.integers(name)?);
        }
        Ok(())
    }

    /// Compares the codes of all requests as one batch, and the logits by which those of level 0 were chosen.
    fn check_autoregressive(&self, report: &mut Report) -> Result<()> {
        for (item, codes) in self.speak(&self.requests, &self.options(None))?.iter().enumerate() {
            self.exact(report, &format!("out.ar.{item}"), &first_level(codes))?;
            self.exact(report, &format!("out.codes.{item}"), &frames_first(codes))?;
            let name = format!("out.ar_logits.{item}");
            if let Some(expected) = self.file.find(&name) {
                let SpeakRequest { phonemes, language, prompt, .. } = self.requests[item].clone();
                let sample = Sample { phonemes, language, prompt, response: codes.clone(), ..Sample::default() };
                let batch = Batch::collate(&[sample], self.model.config())?;
                let logits = self.model.logits(&Context::inference(&self.parameters), &batch)?;
                // The row before the response, then its codes, of which the last (the end) chose nothing.
                let logits = logits[0].tensor();
                let first = logits.dim(0)? - codes.frames() - 2;
                let rows = expected.dim(0)?.min(codes.frames() + 1);
                report.output(&name, &logits.narrow(0, first, rows)?, expected)?;
            }
        }
        Ok(())
    }

    fn check_guided(&self, report: &mut Report) -> Result<()> {
        if self.file.value(&["guidance"]).is_none() {
            return Ok(());
        }
        let number = |key| self.file.number(&["guidance", key]).map(|number| number as f32);
        let guidance =
            Some(Guidance { strength: number("strength")?, rescale: number("rescale")?, ..Guidance::default() });
        let first = &self.requests[..1];
        let codes = self.speak(first, &SpeakOptions { levels: 1, ..self.options(guidance) })?;
        self.exact(report, "out.ar_guided.0", &first_level(&codes[0]))?;
        let level = Codes::from_levels(&[tokens(self.file, "out.ar.0")?])?;
        let options = SpeakOptions { level_guidance: guidance, ..self.options(None) };
        let go_on = &mut |_: &Progress| ControlFlow::Continue(());
        let codes = self.speaker.add_levels(first, vec![level], &options, &RngKey::new(0), go_on)?;
        self.exact(report, "out.codes_guided.0", &frames_first(&codes[0]))
    }

    fn check_masked(&self, report: &mut Report) -> Result<()> {
        let frames: Vec<usize> = super::flow::optional(self.file, &["narlen", "frames"], Vec::new())?;
        if frames.is_empty() {
            return Ok(());
        }
        let number = |key| self.file.number(&["narlen", key]).map(|number| number as f32);
        let guidance = Some(Guidance {
            strength: number("cfg_strength")?,
            rescale: number("cfg_rescale")?,
            ..Guidance::default()
        });
        let masked =
            MaskedOptions { steps: self.file.size(&["narlen", "steps"])?, guidance, ..MaskedOptions::default() };
        let with_frames =
            |(request, frames): (&SpeakRequest, &usize)| SpeakRequest { frames: Some(*frames), ..request.clone() };
        let requests: Vec<SpeakRequest> = self.requests.iter().zip(&frames).map(with_frames).collect();
        let options = SpeakOptions { first_level: FirstLevel::Masked(masked), ..self.options(None) };
        let mut inputs = vec![Vec::new(); requests.len()];
        let mut record = |progress: &Progress| {
            if progress.stage == Stage::FirstLevel && progress.done < progress.limit {
                inputs[progress.request].extend(progress.codes.iter().map(|code| i64::from(*code)));
            }
            ControlFlow::Continue(())
        };
        let codes = self.speaker.speak(&requests, &options, &RngKey::new(0), &mut record)?;
        for (item, (codes, inputs)) in codes.iter().zip(inputs).enumerate() {
            self.exact(report, &format!("out.narlen_inputs.{item}"), &inputs)?;
            self.exact(report, &format!("out.narlen_codes.{item}"), &frames_first(codes))?;
        }
        Ok(())
    }

    fn check_lengths(&self, report: &mut Report) -> Result<()> {
        for (item, length) in self.speaker.predict_lengths(&self.requests)?.into_iter().enumerate() {
            let length = i64::try_from(length).unwrap_or(i64::MAX);
            self.exact(report, &format!("out.len.{item}"), &[length])?;
        }
        Ok(())
    }
}

fn first_level(codes: &Codes) -> Vec<i64> {
    codes.level(0).iter().map(|code| i64::from(*code)).collect()
}
