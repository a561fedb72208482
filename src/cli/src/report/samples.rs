//! What the model generated over time, to be heard and seen.

use std::path::{Path, PathBuf};

use super::base64::encode;
use super::html::{Page, escape, remark};
use super::{Subject, names};
use flowmill_stage_train::ASIDE;
use flowmill_train::checkpoint;

/// Bytes of pictures and sound that a page carries at most, before they become text.
const MOST_BYTES: u64 = 48 << 20;
/// Moments shown of one origin; of more, evenly spread ones.
const MOST_MOMENTS: usize = 16;

/// A folder of samples.
struct Moment {
    title: String,
    folder: PathBuf,
}

/// Samples during training, those asked for by command, and those of the exported model.
pub fn add(subject: &Subject, page: &mut Page) {
    let title = |origin: &str, step: u64| format!("{origin}, step {step}");
    let scheduled = subject.training.samples();
    let scheduled =
        scheduled.into_iter().map(|(step, folder)| Moment { title: title("training", step), folder }).collect();
    let aside = subject.experiment.join(ASIDE).join("samples");
    let commanded = names(&aside).into_iter().filter_map(|name| Some((checkpoint::step_of(&name)?, aside.join(name))));
    let commanded =
        commanded.map(|(step, folder)| Moment { title: title("training, by command", step), folder }).collect();
    let exported = subject.experiment.join("6-export/samples");
    let exported = vec![Moment { title: "exported model".to_owned(), folder: exported }];

    let mut body = String::new();
    let mut room = MOST_BYTES;
    let mut left_out = 0;
    for moments in [scheduled, commanded, exported] {
        let (shown, thinned) = spread(moments);
        left_out += thinned;
        for moment in shown {
            match moment.show(subject, &mut room) {
                Some(html) => body += &html,
                None => left_out += 1,
            }
        }
    }
    if left_out > 0 {
        body += &remark(&format!("{left_out} folders of samples are left out to keep this page small."));
    }
    page.section("Samples", body);
}

/// The first, the last and evenly spread ones between; and how many were left out.
fn spread(moments: Vec<Moment>) -> (Vec<Moment>, usize) {
    let count = moments.len();
    if count <= MOST_MOMENTS {
        return (moments, 0);
    }
    let chosen: Vec<usize> = (0..MOST_MOMENTS).map(|index| index * (count - 1) / (MOST_MOMENTS - 1)).collect();
    let moments = moments.into_iter().enumerate().filter(|(index, _)| chosen.contains(index)).map(|(_, moment)| moment);
    (moments.collect(), count - MOST_MOMENTS)
}

impl Moment {
    /// The samples of one folder; `None` where they would not fit into what `room` is left. Empty for an empty folder.
    fn show(&self, subject: &Subject, room: &mut u64) -> Option<String> {
        let shown = |name: &String| kind(name).is_some() && subject.is_sound(&self.folder.join(name));
        let files: Vec<String> = names(&self.folder).into_iter().filter(shown).collect();
        let size = |name: &String| std::fs::metadata(self.folder.join(name)).map_or(0, |about| about.len());
        *room = room.checked_sub(files.iter().map(size).sum())?;
        let mut stems: Vec<&str> =
            files.iter().filter_map(|name| name.rsplit_once('.')).map(|(stem, _)| stem).collect();
        stems.dedup();
        let figures: String = stems.iter().map(|stem| self.sample(stem, &files)).collect();
        if figures.is_empty() {
            return Some(figures);
        }
        Some(format!("<h3>{}</h3>\n<div class=\"samples\">\n{figures}</div>\n", escape(&self.title)))
    }

    fn sample(&self, stem: &str, files: &[String]) -> String {
        let own = files.iter().filter(|name| name.rsplit_once('.').is_some_and(|(own, _)| own == stem));
        let media: String = own.filter_map(|name| medium(&self.folder.join(name), stem)).collect();
        format!("<figure>{media}<figcaption>{}</figcaption></figure>\n", escape(stem))
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

fn medium(path: &Path, stem: &str) -> Option<String> {
    let kind = kind(&path.to_string_lossy())?;
    let data = encode(&std::fs::read(path).ok()?);
    let stem = escape(stem);
    Some(match kind {
        "image/png" => {
            format!("<img alt=\"spectrogram of {stem}\" loading=\"lazy\" src=\"data:{kind};base64,{data}\">")
        }
        _ => format!("<audio controls preload=\"none\" src=\"data:{kind};base64,{data}\"></audio>"),
    })
}
