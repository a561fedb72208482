//! A contact sheet: real frames above generated ones, the opening of the mouth, and the envelope of the sound, on one axis of time.

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::text::Alignment;
use flowmill_family::{BoxError, Image, Made, Output};
use flowmill_video::Frame;

use crate::canvas::{Canvas, FAINT, INK};

/// Frames from one shown frame to the next.
const EVERY: usize = 5;
/// Most shown frames; of longer clips fewer are shown.
const MOST_SHOWN: usize = 24;
/// Sizes in pixels: a shown frame, the margins, and the heights of the parts.
const CELL: u32 = 80;
const LEFT: u32 = 110;
const RIGHT: u32 = 16;
const TITLE: u32 = 30;
const GAP: u32 = 8;
const CURVES: u32 = 90;
const ENVELOPE: u32 = 60;
const AXIS: u32 = 44;

const REAL: Rgb888 = Rgb888::new(90, 90, 90);
const GENERATED: Rgb888 = Rgb888::new(214, 84, 24);
const SOUND: Rgb888 = Rgb888::new(64, 105, 170);

/// The real and the generated frames of a clip.
#[derive(Clone, Copy)]
pub struct Faces<'a> {
    real: &'a [Frame],
    generated: &'a [Frame],
}

impl<'a> Faces<'a> {
    /// The frames, if both are there.
    pub fn of(real: Option<&'a [Frame]>, generated: Option<&'a [Frame]>) -> Option<Self> {
        real.zip(generated).map(|(real, generated)| Self { real, generated })
    }
}

/// The content of a contact sheet.
pub struct Sheet<'a> {
    /// The heading.
    pub title: &'a str,
    /// Frames per second.
    pub fps: f64,
    /// The frames; none of motion that cannot be rendered.
    pub faces: Option<Faces<'a>>,
    /// The opening of the mouth in each frame: real and generated.
    pub openings: [&'a [f64]; 2],
    /// The level of the sound in each frame; empty if the sound is not there.
    pub envelope: &'a [f64],
}

impl Sheet<'_> {
    /// Returns the sheet as an output of this name.
    ///
    /// # Errors
    /// Returns an error without a frame.
    pub fn made(&self, name: &str) -> Result<Made, BoxError> {
        let output = Output::Images(vec![self.draw()?]);
        Ok(Made { name: name.to_owned(), title: self.title.to_owned(), output, real: None })
    }

    fn frames(&self) -> usize {
        let openings = self.openings.iter().map(|opening| opening.len()).max().unwrap_or(0);
        let faces = self.faces.map_or(0, |faces| faces.real.len().max(faces.generated.len()));
        openings.max(faces)
    }

    fn draw(&self) -> Result<Image, BoxError> {
        let frames = self.frames();
        if frames == 0 {
            return Err("a contact sheet without a frame".into());
        }
        let every = EVERY.max(frames.div_ceil(MOST_SHOWN));
        let shown = frames.div_ceil(every) as u32;
        let rows = if self.faces.is_some() { 2 * (CELL + GAP) } else { 0 };
        let sound = if self.envelope.is_empty() { 0 } else { ENVELOPE + GAP };
        let (width, curves) = (shown * CELL, TITLE + rows);
        let bottom = curves + CURVES + GAP + sound;
        let mut canvas = Canvas::new(LEFT + width + RIGHT, bottom + AXIS);
        canvas.text(self.title, LEFT, 8, Alignment::Left, INK);
        if let Some(Faces { real, generated }) = self.faces {
            for (row, (name, faces)) in [("real", real), ("generated", generated)].into_iter().enumerate() {
                let top = TITLE + row as u32 * (CELL + GAP);
                canvas.text(name, LEFT - 10, top + CELL / 2 - 8, Alignment::Right, INK);
                for (column, face) in faces.iter().step_by(every).enumerate() {
                    canvas.picture(face, LEFT + column as u32 * CELL, top, CELL);
                }
            }
        }
        let pixels_per_frame = f64::from(CELL) / every as f64;
        let x = |frame: usize| LEFT as i32 + ((frame as f64 + 0.5) * pixels_per_frame) as i32;
        canvas.text("mouth", LEFT - 10, curves + CURVES / 2 - 16, Alignment::Right, INK);
        canvas.text("real", LEFT - 10, curves + CURVES / 2, Alignment::Right, REAL);
        canvas.text("generated", LEFT - 10, curves + CURVES / 2 + 16, Alignment::Right, GENERATED);
        canvas.frame(LEFT, curves, width, CURVES, FAINT);
        let all = || self.openings.iter().flat_map(|opening| opening.iter().copied()).filter(|value| value.is_finite());
        let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(f64::MIN, f64::max));
        for (opening, color) in self.openings.into_iter().zip([REAL, GENERATED]) {
            let span = (high - low).max(1e-9);
            let y =
                |value: f64| (f64::from(curves + CURVES - 5) - (value - low) / span * f64::from(CURVES - 10)) as i32;
            let points = opening.iter().enumerate().filter(|(_, value)| value.is_finite());
            let points: Vec<Point> = points.map(|(frame, value)| Point::new(x(frame), y(*value))).collect();
            points.windows(2).for_each(|pair| canvas.line(pair[0], pair[1], color, 2));
        }
        if !self.envelope.is_empty() {
            let top = bottom - sound;
            canvas.text("sound", LEFT - 10, top + ENVELOPE / 2 - 8, Alignment::Right, SOUND);
            canvas.frame(LEFT, top, width, ENVELOPE, FAINT);
            let loudest = self.envelope.iter().copied().fold(1e-9, f64::max);
            let middle = (top + ENVELOPE / 2) as i32;
            for (frame, level) in self.envelope.iter().take(frames).enumerate() {
                let half = (level / loudest * f64::from(ENVELOPE / 2 - 2)) as i32;
                canvas.bar(x(frame), middle - half, (pixels_per_frame as u32).max(1), 2 * half as u32 + 1, SOUND);
            }
        }
        self.axis(&mut canvas, bottom, frames, pixels_per_frame);
        Ok(Image { width: canvas.width, height: canvas.height, rgb: canvas.rgb })
    }

    fn axis(&self, canvas: &mut Canvas, top: u32, frames: usize, pixels_per_frame: f64) {
        let seconds = frames as f64 / self.fps;
        let step = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];
        let step = step.into_iter().find(|step| seconds / step <= 12.0).unwrap_or(3600.0);
        let mut tick = 0;
        while f64::from(tick) * step <= seconds + 1e-9 {
            let at = f64::from(tick) * step;
            let x = LEFT + (at * self.fps * pixels_per_frame) as u32;
            canvas.line(Point::new(x as i32, top as i32), Point::new(x as i32, top as i32 + 5), INK, 1);
            let label = if step < 1.0 { format!("{at:.1}") } else { format!("{at:.0}") };
            canvas.text(&label, x, top + 8, Alignment::Center, INK);
            tick += 1;
        }
        canvas.text(
            "time (s)",
            LEFT + (frames as f64 * pixels_per_frame / 2.0) as u32,
            top + 25,
            Alignment::Center,
            INK,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_shows_every_fifth_frame_of_both() {
        let faces = |value: u8| vec![Frame { width: 16, height: 16, rgb: vec![value; 768] }; 23];
        let (real, generated) = (faces(100), faces(200));
        let opening: Vec<f64> = (0..23).map(|frame| f64::from(frame % 4)).collect();
        let sheet = Sheet {
            title: "clip",
            fps: 25.0,
            faces: Faces::of(Some(&real), Some(&generated)),
            openings: [&opening, &opening],
            envelope: &opening,
        };
        let image = sheet.draw().unwrap();
        assert_eq!(image.width, LEFT + 5 * CELL + RIGHT);
        let pixel = |x: u32, y: u32| image.rgb[3 * (y * image.width + x) as usize];
        for column in 0..5 {
            let x = LEFT + column * CELL + CELL / 2;
            assert_eq!((pixel(x, TITLE + CELL / 2), pixel(x, TITLE + CELL + GAP + CELL / 2)), (100, 200));
        }
        let bare = Sheet { faces: None, openings: [&opening, &[]], envelope: &[], ..sheet };
        assert!(bare.draw().unwrap().height < image.height);
        assert!(Sheet { openings: [&[], &[]], ..bare }.draw().is_err());
    }
}
