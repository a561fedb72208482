//! VALL-E beyond the golden files: other tasks, batches, sampling, and what is refused.

use flowmill_networks::vall_e::{
    Batch, Codes, FirstLevel, Guidance, MaskedOptions, Progress, Sample, SamplingOptions, SpeakOptions, SpeakRequest,
    Speaker, Task, TranscribeRequest, VallE, VallEConfig, VallEError,
};
use flowmill_nn::low_rank::LowRankSettings;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Tape, Value};
use std::ops::ControlFlow;

const TASKS: [Task; 4] = [Task::Speech, Task::Continuation, Task::NoiseSuppression, Task::SpeechRemoval];

fn config() -> VallEConfig {
    VallEConfig {
        dim: 32,
        heads: 2,
        layers: 2,
        ffn_multiple: 2,
        levels: 4,
        audio_tokens: 20,
        phoneme_tokens: 12,
        languages: 2,
        tones: 2,
        attention_dropout: 0.0,
        ..VallEConfig::default()
    }
}

/// A model whose weights are large enough for its outputs to differ.
fn model() -> (VallE, Parameters) {
    let (model, mut parameters) = VallE::new(&config(), 3).unwrap();
    for id in parameters.ids().collect::<Vec<_>>() {
        if parameters.name(id).ends_with("proj.weight") {
            let larger = parameters.tensor(id).affine(8.0, 0.0).unwrap();
            parameters.set(id, larger).unwrap();
        }
    }
    (model, parameters)
}

fn codes(name: &str, frames: usize) -> Codes {
    let rng_key = RngKey::new(1).purpose(name);
    let values = (0..4 * frames as u64).map(|position| rng_key.below_at(position, 20)).collect();
    Codes::new(4, frames, values).unwrap()
}

fn sample() -> Sample {
    Sample {
        phonemes: vec![1, 5, 9, 3, 2],
        language: 1,
        prompt: Some(codes("prompt", 7)),
        response: codes("response", 11),
        ..Sample::default()
    }
}

/// Samples of all tasks and forms.
fn samples() -> Vec<Sample> {
    let sample = sample();
    let mask = (0..11).map(|frame| frame % 3 != 1).collect();
    let mut all = vec![
        Sample { mask: Some(mask), ..sample.clone() },
        Sample { task: Task::Length, ..sample.clone() },
        Sample { task: Task::Transcription, prompt: None, ..sample.clone() },
        Sample { prompt: None, tone: Some(1), ..sample.clone() },
    ];
    for task in TASKS {
        all.extend((0..4).map(|level| Sample { task, level, ..sample.clone() }));
    }
    all
}

fn request(task: Task, number: u64) -> SpeakRequest {
    SpeakRequest {
        task,
        phonemes: [&[1][..], &[4, 8, 3, 9][..number as usize % 5], &[2]].concat(),
        language: number as u32 % 2,
        tone: (number > 2).then_some(1),
        prompt: (number != 1).then(|| codes(&format!("prompt {number}"), 5 + number as usize)),
        frames: None,
        sample: number,
    }
}

fn go_on(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The most probable class of each of the rows that predict `count` outputs, by the tape.
fn predicted((model, parameters): (&VallE, &Parameters), sample: &Sample, count: usize, shift: usize) -> Vec<u32> {
    let batch = Batch::collate(std::slice::from_ref(sample), &config()).unwrap();
    let logits = model.logits(&Context::inference(parameters), &batch).unwrap().remove(0);
    let first = logits.rows() - count - shift;
    logits.largest().unwrap()[first..first + count].to_vec()
}

fn sample_of(request: &SpeakRequest, response: Codes, level: usize) -> Sample {
    let SpeakRequest { task, phonemes, language, tone, prompt, .. } = request.clone();
    Sample { task, phonemes, language, tone, prompt, response, level, mask: None }
}

#[test]
fn the_most_probable_codes_are_those_that_training_would_predict() {
    let (model, parameters) = model();
    let speaker = Speaker::new(&model, &parameters).unwrap();
    let requests: Vec<SpeakRequest> = (0..4).map(|number| request(TASKS[number as usize], number)).collect();
    let first_level = FirstLevel::Autoregressive { sampling: SamplingOptions::greedy(), guidance: None };
    let options = SpeakOptions { first_level, max_frames: 30, ..SpeakOptions::default() };
    let spoken = speaker.speak(&requests, &options, &RngKey::new(0), &mut go_on).unwrap();
    assert!(spoken.iter().any(|codes| codes.frames() > 1), "{spoken:?}");
    for (request, codes) in requests.iter().zip(&spoken).filter(|(_, codes)| codes.frames() > 0) {
        let frames = codes.frames();
        let found = predicted((&model, &parameters), &sample_of(request, codes.clone(), 0), frames, 2);
        assert_eq!(found, codes.level(0), "{}", request.task);
        for level in 1..4 {
            let found = predicted((&model, &parameters), &sample_of(request, codes.clone(), level), frames, 0);
            assert_eq!(found, codes.level(level), "{} {level}", request.task);
        }
    }
}

#[test]
fn transcripts_and_lengths_are_those_that_training_would_predict() {
    let (model, parameters) = model();
    let speaker = Speaker::new(&model, &parameters).unwrap();
    let requests: Vec<TranscribeRequest> = (0..3)
        .map(|number| TranscribeRequest { speech: codes(&format!("{number}"), 6), language: 1, sample: number })
        .collect();
    let found = speaker.transcribe(&requests, &SamplingOptions::greedy(), 9, &RngKey::new(0)).unwrap();
    for (request, found) in requests.iter().zip(&found) {
        let sample = Sample {
            task: Task::Transcription,
            phonemes: [&[1], &found[..], &[2]].concat(),
            language: 1,
            response: request.speech.clone(),
            ..Sample::default()
        };
        assert_eq!(predicted((&model, &parameters), &sample, found.len(), 2), *found);
    }
    // Whatever the digits of a random model are, they are at most ten.
    let requests = [request(Task::Speech, 0), request(Task::Speech, 3)];
    let lengths = speaker.predict_lengths(&requests).unwrap();
    assert!(lengths.iter().all(|length| *length < 10u64.pow(10)));
    let alone = speaker.predict_lengths(&requests[1..]).unwrap();
    assert_eq!(alone, lengths[1..]);
}

#[test]
fn a_request_does_not_depend_on_the_others() {
    let (model, parameters) = model();
    let speaker = Speaker::new(&model, &parameters).unwrap();
    let requests: Vec<SpeakRequest> = (0..4).map(|number| request(Task::Speech, number)).collect();
    let sampling = SamplingOptions {
        temperature: 1.5,
        top_k: 15,
        top_p: 0.95,
        repetition_penalty: 1.1,
        ..SamplingOptions::default()
    };
    let guidance = Some(Guidance::default());
    let masked = MaskedOptions { steps: 6, sampling, ..MaskedOptions::default() };
    for first_level in [FirstLevel::Autoregressive { sampling, guidance }, FirstLevel::Masked(masked)] {
        let options = SpeakOptions {
            first_level,
            max_frames: 25,
            levels: 3,
            level_sampling: SamplingOptions { temperature: 0.7, ..SamplingOptions::default() },
            level_guidance: guidance,
        };
        let speak =
            |requests: &[SpeakRequest], key| speaker.speak(requests, &options, &RngKey::new(key), &mut go_on).unwrap();
        let all = speak(&requests, 5);
        assert!(all.iter().all(|codes| codes.levels() == 3));
        for (request, codes) in requests.iter().zip(&all) {
            assert_eq!(speak(std::slice::from_ref(request), 5)[0], *codes);
        }
        assert_ne!(speak(&requests, 6), all, "another key draws other codes");
    }
}

#[test]
fn the_loss_of_a_batch_is_the_mean_of_its_samples() {
    let (model, parameters) = model();
    let samples = samples();
    let loss = |samples: &[Sample]| {
        let batch = Batch::collate(samples, &config()).unwrap();
        model.loss(&Context::inference(&parameters), &batch).unwrap()
    };
    let whole = loss(&samples);
    let single: Vec<f64> =
        samples.iter().map(|sample| f64::from(loss(std::slice::from_ref(sample)).total.scalar().unwrap())).collect();
    let mean = single.iter().sum::<f64>() / samples.len() as f64;
    assert!((f64::from(whole.total.scalar().unwrap()) - mean).abs() < 1e-5 * mean);
    // A part is the mean over the samples of its label.
    let labels: Vec<String> = samples.iter().map(Sample::label).collect();
    for (label, part) in &whole.parts {
        let own: Vec<f64> =
            labels.iter().zip(&single).filter(|(own, _)| *own == label).map(|(_, loss)| *loss).collect();
        assert!((own.iter().sum::<f64>() / own.len() as f64 - part).abs() < 1e-5 * part, "{label}");
    }
    assert_eq!(whole.accuracies.len(), whole.parts.len());
    let accuracy = |label: &str| whole.accuracies.iter().find(|(own, _)| own == label).unwrap().1;
    assert_eq!(accuracy("tts.0").outputs, 2 * 12, "the end is an output");
    assert_eq!(accuracy("len").outputs, 4, "0, 1, 1 and the end");
    assert_eq!(accuracy("stt").outputs, 5);
    assert_eq!(accuracy("tts.nar-len").outputs, 7);
    assert!(whole.accuracies.iter().all(|(_, accuracy)| accuracy.top1 <= accuracy.top10 && accuracy.top10 <= 1.0));
}

#[test]
fn every_trainable_parameter_has_a_gradient_when_all_tasks_occur() {
    let (model, parameters) = model();
    let tape = Tape::new();
    let batch = Batch::collate(&samples(), &config()).unwrap();
    let loss = model.loss(&Context::training(&parameters, &tape, RngKey::new(0)), &batch).unwrap();
    let gradients = tape.backward(&loss.total).unwrap();
    let without: Vec<&str> =
        parameters.trainable_ids().filter(|id| gradients.get(*id).is_none()).map(|id| parameters.name(id)).collect();
    assert!(without.is_empty(), "{without:?}");
    // One sample reads few tables; the rest is optional.
    let batch = Batch::collate(&samples()[..1], &config()).unwrap();
    let loss = model.loss(&Context::training(&parameters, &tape, RngKey::new(0)), &batch).unwrap();
    let gradients = tape.backward(&loss.total).unwrap();
    let mut without = parameters.trainable_ids().filter(|id| gradients.get(*id).is_none());
    assert!(without.all(|id| model.is_optional(parameters.name(id))));
}

#[test]
fn checkpoints_give_the_same_gradients() {
    let (model, parameters) = model();
    let batch = Batch::collate(&samples(), &config()).unwrap();
    let gradients = |checkpoints| {
        let tape = Tape::new();
        let context = Context::training(&parameters, &tape, RngKey::new(0)).with_checkpoints(checkpoints);
        let loss = model.loss(&context, &batch).unwrap();
        let gradients = tape.backward(&loss.total).unwrap();
        let elements = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        gradients.iter().map(|(_, tensor)| elements(tensor)).collect::<Vec<_>>()
    };
    assert_eq!(gradients(true), gradients(false));
}

#[test]
fn adapters_take_part_in_generation() {
    let (model, mut parameters) = model();
    let speak = |parameters: &Parameters| {
        let options = SpeakOptions { max_frames: 12, ..SpeakOptions::default() };
        let speaker = Speaker::new(&model, parameters).unwrap();
        speaker.speak(&[request(Task::Speech, 0)], &options, &RngKey::new(2), &mut go_on).unwrap()
    };
    let before = speak(&parameters);
    let settings = LowRankSettings { rank: 2, scale: 2.0, dropout: 0.0 };
    let adapted: Vec<_> = parameters
        .ids()
        .filter(|id| parameters.is_linear(*id) && parameters.name(*id).starts_with("model."))
        .filter(|id| !parameters.name(*id).contains("k_proj"))
        .collect();
    assert_eq!(adapted.len(), 2 * 6, "all layers of attention and feed-forward but the keys");
    for id in adapted {
        let adapter = parameters.add_low_rank(id, settings, RngKey::new(4)).unwrap();
        assert_eq!(speak(&parameters), before, "an adapter starts as the identity");
        let up = Value::from_vec(
            RngKey::new(9).normals(parameters.tensor(adapter.up).elem_count()),
            parameters.tensor(adapter.up).dims(),
        );
        parameters.set(adapter.up, up.unwrap().tensor().clone()).unwrap();
        let after = speak(&parameters);
        parameters.set(adapter.up, parameters.tensor(adapter.up).zeros_like().unwrap()).unwrap();
        assert_ne!(after, before, "{}", parameters.name(id));
    }
}

#[test]
fn a_caller_sees_the_progress_and_can_stop() {
    let (model, parameters) = model();
    let speaker = Speaker::new(&model, &parameters).unwrap();
    let options = SpeakOptions {
        first_level: FirstLevel::Masked(MaskedOptions { steps: 3, ..MaskedOptions::default() }),
        ..SpeakOptions::default()
    };
    let requests = [SpeakRequest { frames: Some(8), ..request(Task::Speech, 0) }];
    let mut seen = Vec::new();
    let mut record = |progress: &Progress| {
        seen.push((progress.done, progress.codes.len()));
        ControlFlow::Continue(())
    };
    speaker.speak(&requests, &options, &RngKey::new(0), &mut record).unwrap();
    assert_eq!(seen, [(0, 8), (1, 8), (2, 8), (3, 8), (2, 8), (3, 8), (4, 8)]);
    let stopped = speaker.speak(&requests, &options, &RngKey::new(0), &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(VallEError::Stopped)));
}

#[test]
fn what_does_not_match_the_model_is_refused() {
    let refused = |change: &dyn Fn(&mut Sample)| {
        let mut wrong = sample();
        change(&mut wrong);
        let found = Batch::collate(&[sample(), wrong], &config());
        assert!(matches!(found, Err(VallEError::Sample { item: 1, .. })), "{found:?}");
    };
    refused(&|sample| sample.phonemes.clear());
    refused(&|sample| sample.phonemes[1] = 12);
    refused(&|sample| sample.language = 2);
    refused(&|sample| sample.tone = Some(2));
    refused(&|sample| sample.level = 4);
    refused(&|sample| sample.response = Codes::default());
    refused(&|sample| sample.response = Codes::new(1, 1, vec![20]).unwrap());
    refused(&|sample| sample.prompt = Some(Codes::new(4, 0, vec![]).unwrap()));
    refused(&|sample| sample.mask = Some(vec![true; 3]));
    refused(&|sample| sample.mask = Some(vec![false; 11]));
    refused(&|sample| (sample.level, sample.mask) = (1, Some(vec![true; 11])));
    refused(&|sample| (sample.task, sample.level) = (Task::Length, 1));
    assert!(Batch::collate(&[], &config()).is_err());
    let wrong = [
        VallEConfig { heads: 3, ..config() },
        VallEConfig { dim: 0, ..config() },
        VallEConfig { layers: usize::MAX, ..config() },
        VallEConfig { phoneme_tokens: 2, ..config() },
        VallEConfig { attention_dropout: 1.0, ..config() },
    ];
    assert!(wrong.iter().all(|config| matches!(VallE::new(config, 0), Err(VallEError::Config { .. }))));
    let (model, parameters) = model();
    let speaker = Speaker::new(&model, &parameters).unwrap();
    let speak = |request: SpeakRequest, options: &SpeakOptions| {
        speaker.speak(&[request], options, &RngKey::new(0), &mut go_on).map(|_| ())
    };
    let request = request(Task::Speech, 0);
    let length = SpeakRequest { task: Task::Length, ..request.clone() };
    assert!(matches!(speak(length, &SpeakOptions::default()), Err(VallEError::Sample { .. })));
    let shallow = SpeakRequest { prompt: Some(Codes::new(1, 2, vec![0, 1]).unwrap()), ..request.clone() };
    assert!(matches!(speak(shallow, &SpeakOptions::default()), Err(VallEError::Sample { .. })));
    let level_sampling = SamplingOptions { top_p: f32::NAN, ..SamplingOptions::default() };
    let options = SpeakOptions { level_sampling, ..SpeakOptions::default() };
    assert!(matches!(speak(request.clone(), &options), Err(VallEError::Config { .. })));
    let options = SpeakOptions { max_frames: 0, ..SpeakOptions::default() };
    assert!(matches!(speak(request, &options), Err(VallEError::Config { .. })));
}
