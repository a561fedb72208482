//! Samples of the model next to the real recording: of the exported model, and over the course of training.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use flowmill_stage_train::ASIDE;
use flowmill_train::checkpoint;
use maud::{Markup, html};

use super::originals::{Medium, Original, Originals};
use super::page::{Page, data_uri, printable, remark};
use super::{Subject, names};
use crate::human;

/// Bytes of pictures and sound on a page at most, before they become text.
const MOST_BYTES: u64 = 48 << 20;
/// Moments of training that are shown; of more, evenly spread ones.
const MOST_MOMENTS: usize = 16;
/// Rows that are shown unfolded.
const UNFOLDED: usize = 4;

/// A folder of samples.
struct Moment {
    title: String,
    folder: PathBuf,
}

/// The files of one sample.
struct Sample<'a> {
    /// The moment that it was made at.
    title: &'a str,
    files: Vec<PathBuf>,
}

/// The samples of a row.
#[derive(Default)]
struct Samples<'a> {
    exported: Vec<&'a Sample<'a>>,
    training: Vec<&'a Sample<'a>>,
}

/// Samples during training, those asked for by command, and those of the exported model, row by row.
pub fn add(subject: &Subject, page: &mut Page) {
    let exported = [Moment { title: "exported model".to_owned(), folder: subject.experiment.join("6-export/samples") }];
    let (training, mut left_out) = moments(subject);
    let all = exported.iter().chain(&training);
    let originals = Originals::find(subject, &all.flat_map(|moment| samples_in(&moment.folder).into_keys()).collect());
    let mut room = MOST_BYTES;
    let mut rows: BTreeMap<&str, Samples> = BTreeMap::new();
    // What matters most comes first, while there is room.
    let exported: Vec<_> = exported.iter().flat_map(|m| fitting(subject, m, &mut room, &mut left_out)).collect();
    for (name, sample) in &exported {
        rows.entry(originals.name(name)).or_default().exported.push(sample);
    }
    let latest_first = training.iter().rev();
    let training: Vec<_> = latest_first.flat_map(|m| fitting(subject, m, &mut room, &mut left_out)).collect();
    for (name, sample) in training.iter().rev() {
        rows.entry(originals.name(name)).or_default().training.push(sample);
    }
    let shown: Vec<Markup> =
        rows.iter().map(|(name, samples)| row(name, samples, originals.of(name), &mut room)).collect();
    let (first, rest) = shown.split_at(shown.len().min(UNFOLDED));
    page.section(
        "Samples",
        html! {
            @for row in first { (row) }
            @if !rest.is_empty() {
                details { summary { (rest.len()) " more" } @for row in rest { (row) } }
            }
            @if left_out > 0 { (remark(&format!("{left_out} samples are left out to keep this page small."))) }
        },
    );
}

/// Moments of training by step, with those by command; and the number of samples at moments that are left out.
fn moments(subject: &Subject) -> (Vec<Moment>, usize) {
    let aside = subject.experiment.join(ASIDE).join("samples");
    let commanded = names(&aside).into_iter().filter_map(|name| Some((checkpoint::step_of(&name)?, aside.join(name))));
    let commanded = commanded.map(|(step, folder)| (step, format!("training, by command, step {step}"), folder));
    let scheduled = subject.training.samples().into_iter();
    let scheduled = scheduled.map(|(step, folder)| (step, format!("training, step {step}"), folder));
    let mut all: Vec<(u64, String, PathBuf)> = scheduled.chain(commanded).collect();
    all.sort_by_key(|(step, ..)| *step);
    let count = all.len();
    let chosen: BTreeSet<usize> = match count {
        0..=MOST_MOMENTS => (0..count).collect(),
        _ => (0..MOST_MOMENTS).map(|index| index * (count - 1) / (MOST_MOMENTS - 1)).collect(),
    };
    let left_out = |at: usize, folder: &Path| if chosen.contains(&at) { 0 } else { samples_in(folder).len() };
    let missing = all.iter().enumerate().map(|(at, (.., folder))| left_out(at, folder)).sum();
    let shown = all.into_iter().enumerate().filter(|(at, _)| chosen.contains(at));
    (shown.map(|(_, (_, title, folder))| Moment { title, folder }).collect(), missing)
}

/// The files of each sample in a folder, by the name of the sample: that of its files without ending.
fn samples_in(folder: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut samples: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for name in names(folder).into_iter().filter(|name| kind(name).is_some()) {
        if let Some((stem, _)) = name.rsplit_once('.') {
            samples.entry(stem.to_owned()).or_default().push(folder.join(&name));
        }
    }
    samples
}

/// The samples of a moment that there is room for.
fn fitting<'a>(
    subject: &Subject,
    moment: &'a Moment,
    room: &mut u64,
    left_out: &mut usize,
) -> Vec<(String, Sample<'a>)> {
    let mut samples = Vec::new();
    for (stem, files) in samples_in(&moment.folder) {
        let own: Vec<PathBuf> = files.into_iter().filter(|file| subject.is_sound(file)).collect();
        let size = own.iter().filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum();
        match room.checked_sub(size) {
            Some(rest) => {
                *room = rest;
                samples.push((stem, Sample { title: &moment.title, files: own }));
            }
            None => *left_out += 1,
        }
    }
    samples
}

/// A row: its transcript, its recording, and what the model made of it.
fn row(name: &str, samples: &Samples, original: Option<&Original>, room: &mut u64) -> Markup {
    let about = original.map(|Original { id, group, split, .. }| match group.is_empty() || group == id {
        true => format!("split {split}"),
        false => format!("{group}, split {split}"),
    });
    let text = original.map(|original| original.text.as_str()).filter(|text| !text.is_empty());
    html! {
        article class="sample" {
            h3 {
                (printable(original.map_or(name, |original| &original.id)))
                @if let Some(about) = about { " " span class="dim" { "(" (printable(&about)) ")" } }
            }
            @if let Some(text) = text { blockquote { (printable(text)) } }
            div class="pair" {
                div class="stack" {
                    @if let Some(original) = original { (real(original, room)) }
                    @if !samples.training.is_empty() {
                        details open[samples.exported.is_empty()] {
                            summary { "during training (" (samples.training.len()) ")" }
                            div class="stack" { @for sample in &samples.training { (figure(sample, name)) } }
                        }
                    }
                }
                @for sample in &samples.exported { (figure(sample, name)) }
            }
        }
    }
}

/// The real recording and pictures of a row, as far as there is room.
fn real(original: &Original, room: &mut u64) -> Markup {
    let mut media = Vec::new();
    for medium in &original.media {
        if let Some(rest) = room.checked_sub(medium.bytes.len() as u64) {
            *room = rest;
            media.push(medium);
        }
    }
    if media.is_empty() {
        return Markup::default();
    }
    let cut: f64 = media.iter().map(|medium| medium.cut).sum();
    html! {
        figure {
            figcaption {
                "real"
                @if cut > 0.0 { ", without the last " (human::duration(cut)) }
            }
            @for Medium { kind, bytes, .. } in media { (player(kind, bytes, &format!("real {}", original.id))) }
        }
    }
}

fn figure(sample: &Sample, name: &str) -> Markup {
    let files =
        sample.files.iter().filter_map(|file| Some((kind(&file.to_string_lossy())?, std::fs::read(file).ok()?)));
    html! {
        figure {
            figcaption { (sample.title) }
            @for (kind, bytes) in files { (player(kind, &bytes, &format!("{name}, {}", sample.title))) }
        }
    }
}

/// The type of a file that a page can show.
fn kind(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.')?.1 {
        "png" => Some("image/png"),
        "wav" => Some("audio/wav"),
        _ => None,
    }
}

/// The element that shows or plays a file.
fn player(kind: &str, bytes: &[u8], about: &str) -> Markup {
    let data = data_uri(kind, bytes);
    let about = printable(about);
    match kind.starts_with("image/") {
        true => html! { img alt=(about) loading="lazy" src=(data); },
        false => html! { audio controls preload="none" aria-label=(about) src=(data) {} },
    }
}
