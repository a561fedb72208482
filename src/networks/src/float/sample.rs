//! Sampling of whole clips: window by window, with incremental guidance.

use super::model::{Conditions, elements};
use super::{Float, FloatConfig, FloatError, Kept, Result};
use flowmill_nn::random::RngKey;
use flowmill_nn::solvers::{TimeSchedule, euler};
use flowmill_nn::{Context, NnError, Value, host};

/// Settings of sampling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuidanceOptions {
    /// Euler's steps per window, that is, evaluations of the guided velocity (`nfe`).
    pub steps: usize,
    /// Strength of the speech (`a_cfg_scale`); 1 for the plain conditional velocity.
    pub audio: f32,
    /// Strength of the emotion (`e_cfg_scale`); 1 for the plain conditional velocity.
    pub emotion: f32,
}

impl Default for GuidanceOptions {
    fn default() -> Self {
        Self { steps: 10, audio: 2.0, emotion: 1.0 }
    }
}

impl GuidanceOptions {
    /// Returns the weights of the velocities without speech and emotion, with speech, and with both:
    /// `v0 + audio (va - v0) + emotion (vae - va)`.
    fn weights(&self) -> [f32; 3] {
        [1.0 - self.audio, self.audio - self.emotion, self.emotion]
    }
}

/// The clip to sample.
#[derive(Debug, Clone, PartialEq)]
pub struct MotionRequest {
    /// Speech features `[frame, feature]`; they give the number of frames.
    pub audio: Vec<f32>,
    /// Motion of the reference picture `[channel]`.
    pub reference: Vec<f32>,
    /// Probability of each emotion `[emotion]`.
    pub emotion: Vec<f32>,
}

/// A window of every request at one moment of its path. Vectors are row-major, one request after the other.
struct State<'a> {
    requests: &'a [&'a MotionRequest],
    /// Motion of the previous frames, `[item, frame, channel]`.
    previous: &'a [f32],
    /// Projected speech `[row, channel]` of previous and current frames.
    speech: &'a Value,
}

impl Float {
    /// Samples the motion `[frame, channel]` of clips. The noise of a window depends on `rng_key`, the place of the request and the
    /// number of the window only. The first window has no previous frames. Speech is continued by its last frame to fill
    /// the last window.
    ///
    /// # Errors
    /// [`FloatError::Item`] names the request that does not match the model.
    pub fn sample(
        &self,
        context: &Context,
        requests: &[MotionRequest],
        options: &GuidanceOptions,
        rng_key: &RngKey,
    ) -> Result<Vec<Vec<f32>>> {
        let FloatConfig { dim_w, num_frames, .. } = *self.config();
        self.check_requests(requests)?;
        let noise = |item: usize, window: usize| {
            rng_key.purpose("float sample").sample(item as u64).step(window as u64).normals(num_frames * dim_w)
        };
        self.sample_from(context, requests, options, noise)
    }

    /// Samples like [`sample`](Self::sample), with `noise(item, window)` giving the noise `[frame, channel]` of a whole window.
    ///
    /// # Errors
    /// Like [`sample`](Self::sample).
    pub fn sample_from(
        &self,
        context: &Context,
        requests: &[MotionRequest],
        options: &GuidanceOptions,
        noise: impl Fn(usize, usize) -> Vec<f32>,
    ) -> Result<Vec<Vec<f32>>> {
        let FloatConfig { dim_w, dim_a, num_prev_frames: previous, num_frames, .. } = *self.config();
        options.check()?;
        self.check_requests(requests)?;
        let width = self.config().audio_width();
        let frames: Vec<usize> = requests.iter().map(|request| request.audio.len() / width).collect();
        let mut motions: Vec<Vec<f32>> = vec![Vec::new(); requests.len()];
        let mut before: Vec<[Vec<f32>; 2]> =
            vec![[vec![0.0; previous * dim_w], vec![0.0; previous * dim_a]]; requests.len()];
        let windows = frames.iter().map(|frames| frames.div_ceil(num_frames)).max().unwrap_or(0);
        for window in 0..windows {
            let first = window * num_frames;
            let items: Vec<usize> = (0..requests.len()).filter(|item| frames[*item] > first).collect();
            let active: Vec<&MotionRequest> = items.iter().map(|item| &requests[*item]).collect();
            let mut features = Vec::with_capacity(items.len() * num_frames * width);
            for item in &items {
                let frame = |frame: usize| frame.min(frames[*item] - 1) * width;
                let rows = (first..first + num_frames).map(frame);
                features.extend(rows.flat_map(|start| &requests[*item].audio[start..start + width]));
            }
            let features = host::tensor(features, &[items.len() * num_frames, width])?;
            let current = elements(self.project_audio(context, &features)?.tensor())?;
            let (mut speech, mut motion, mut start) = (Vec::new(), Vec::new(), Vec::new());
            for (item, current) in items.iter().zip(current.chunks_exact(num_frames * dim_a)) {
                speech.extend(before[*item][1].iter().chain(current));
                motion.extend_from_slice(&before[*item][0]);
                let noise = noise(*item, window);
                if noise.len() != num_frames * dim_w {
                    let message = format!("{} numbers of noise for {num_frames} frames of {dim_w}", noise.len());
                    return Err(FloatError::Item { item: *item, message });
                }
                start.extend(noise);
            }
            let speech = Value::from_vec(speech, &[items.len() * self.config().window(), dim_a])?;
            let state = State { requests: &active, previous: &motion, speech: &speech };
            let times = TimeSchedule::Uniform.times(options.steps);
            let velocity = |position: &[f32], time: f32| self.guided(context, &state, position, time, options);
            let solution = euler(start, &times, velocity)?.state;
            let parts = solution.chunks_exact(num_frames * dim_w).zip(current.chunks_exact(num_frames * dim_a));
            for (item, (motion, speech)) in items.iter().zip(parts) {
                let kept = (frames[*item] - first).min(num_frames) * dim_w;
                motions[*item].extend_from_slice(&motion[..kept]);
                before[*item] = [
                    motion[(num_frames - previous) * dim_w..].to_vec(),
                    speech[(num_frames - previous) * dim_a..].to_vec(),
                ];
            }
        }
        Ok(motions)
    }

    /// Returns the guided velocity of the current frames, `[item, frame, channel]`, for a state of the same shape.
    fn guided(
        &self,
        context: &Context,
        state: &State,
        position: &[f32],
        time: f32,
        options: &GuidanceOptions,
    ) -> Result<Vec<f32>> {
        let output = self.guided_output(context, state, position, time, options)?;
        let FloatConfig { dim_w, num_prev_frames: previous, .. } = *self.config();
        let windows = output.chunks_exact(self.config().window() * dim_w);
        Ok(windows.flat_map(|window| &window[previous * dim_w..]).copied().collect())
    }

    /// Returns the guided output of all frames, `[item, previous and current frame, channel]`.
    fn guided_output(
        &self,
        context: &Context,
        state: &State,
        position: &[f32],
        time: f32,
        options: &GuidanceOptions,
    ) -> Result<Vec<f32>> {
        let FloatConfig { dim_w, num_prev_frames: previous, num_frames, .. } = *self.config();
        let items = state.requests.len();
        let mut motion = Vec::with_capacity(items * self.config().window() * dim_w);
        let current = position.chunks_exact(num_frames * dim_w);
        for (item, current) in current.enumerate() {
            motion.extend_from_slice(&state.previous[item * previous * dim_w..(item + 1) * previous * dim_w]);
            motion.extend_from_slice(current);
        }
        let bare = Kept { audio: false, emotion: false, ..Kept::ALL };
        let variants = [bare, Kept { emotion: false, ..Kept::ALL }, Kept::ALL];
        let used: Vec<(f32, Kept)> =
            options.weights().into_iter().zip(variants).filter(|(weight, _)| *weight != 0.0).collect();
        let kept: Vec<Kept> = used.iter().flat_map(|(_, kept)| vec![*kept; items]).collect();
        let speech = host::slice("speech", state.speech.tensor())?.repeat(used.len());
        let rows = used.len() * state.speech.rows();
        let speech = Value::from_vec(speech, &[rows, self.config().dim_a])?;
        let joined = |part: fn(&MotionRequest) -> &Vec<f32>| -> Vec<f32> {
            let once: Vec<f32> = state.requests.iter().flat_map(|request| part(request)).copied().collect();
            once.repeat(used.len())
        };
        let (reference, emotion) = (joined(|request| &request.reference), joined(|request| &request.emotion));
        // The speech before the first window is zero already.
        let missing = vec![0; kept.len()];
        let conditions =
            Conditions { speech: &speech, reference: &reference, emotion: &emotion, kept: &kept, missing: &missing };
        let times = vec![time; used.len() * items];
        let lengths = vec![num_frames; used.len() * items];
        let output = self.velocity(context, &motion.repeat(used.len()), &conditions, &times, &lengths)?;
        let output = elements(output.tensor())?;
        let mut sum = vec![0.0; motion.len()];
        for ((weight, _), output) in used.iter().zip(output.chunks_exact(motion.len())) {
            sum.iter_mut().zip(output).for_each(|(sum, output)| *sum += weight * output);
        }
        Ok(sum)
    }

    /// Returns the guided output of one whole window, `[previous and current frame, channel]`, for given previous frames: the function
    /// that sampling integrates, with the frames that it cuts off.
    ///
    /// # Errors
    /// [`FloatError::Item`] if the sizes do not match the model.
    pub fn guided_window(
        &self,
        context: &Context,
        window: &super::Window,
        time: f32,
        options: &GuidanceOptions,
    ) -> Result<Vec<f32>> {
        let FloatConfig { dim_w, num_prev_frames: previous, num_frames, .. } = *self.config();
        let batch = super::Batch::collate(std::slice::from_ref(window), self.config())?;
        if batch.lengths != [num_frames] {
            let message = format!("{} frames instead of a whole window of {num_frames}", batch.lengths[0]);
            return Err(FloatError::Item { item: 0, message });
        }
        let speech = self.project_audio(context, &batch.audio)?;
        let (audio, reference, emotion) = (Vec::new(), window.reference.clone(), window.emotion.clone());
        let request = MotionRequest { audio, reference, emotion };
        let (before, position) = window.motion.split_at(previous * dim_w);
        let speech = Value::plain(host::fetch(speech.tensor())?)?;
        let state = State { requests: &[&request], previous: before, speech: &speech };
        self.guided_output(context, &state, position, time, options)
    }

    fn check_requests(&self, requests: &[MotionRequest]) -> Result<()> {
        let (config, width) = (self.config(), self.config().audio_width());
        for (item, request) in requests.iter().enumerate() {
            let fits = !request.audio.is_empty()
                && request.audio.len().is_multiple_of(width)
                && request.reference.len() == config.dim_w
                && request.emotion.len() == config.dim_e;
            if !fits {
                let message = format!(
                    "{} speech values, {} reference values and {} emotions do not fit {width} speech features, {} channels \
                     and {} emotions",
                    request.audio.len(),
                    request.reference.len(),
                    request.emotion.len(),
                    config.dim_w,
                    config.dim_e
                );
                return Err(FloatError::Item { item, message });
            }
        }
        Ok(())
    }
}

impl GuidanceOptions {
    /// Returns an error unless the settings can be used.
    ///
    /// # Errors
    /// [`NnError::Invalid`] if there is no step, or a strength is not a number.
    pub fn check(&self) -> Result<()> {
        if self.steps == 0 || !self.audio.is_finite() || !self.emotion.is_finite() {
            return Err(NnError::invalid("sampling", format!("{self:?}")).into());
        }
        Ok(())
    }
}
