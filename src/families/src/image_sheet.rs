//! A table of pictures, with a title per column and per row.

use embedded_graphics::text::Alignment;
use flowmill_family::{BoxError, Image, Made, Output};
use flowmill_image::Raster;
use flowmill_video::Frame;

use crate::canvas::{Canvas, INK};

/// Sizes in pixels: a cell, the columns' titles, a letter, and the margin.
const CELL: u32 = 96;
const HEADING: u32 = 30;
const LETTER: u32 = 9;
const MARGIN: u32 = 12;
/// Most letters of a row's title.
const LONGEST_TITLE: usize = 24;

/// A cell: pictures side by side, each as high as the cell divided by the number of rows that they need.
pub(crate) type Cell = Vec<Raster>;

/// A table of pictures.
pub(crate) struct Sheet {
    /// The titles of the columns.
    pub columns: Vec<String>,
    /// The rows: a title, and a cell per column.
    pub rows: Vec<(String, Vec<Cell>)>,
}

impl Sheet {
    /// Returns the sheet as an output of this name.
    ///
    /// # Errors
    /// When it has no row.
    pub(crate) fn made(&self, name: &str) -> Result<Made, BoxError> {
        let output = Output::Images(vec![self.draw()?]);
        Ok(Made { name: name.to_owned(), title: name.to_owned(), output, real: None })
    }

    fn draw(&self) -> Result<Image, BoxError> {
        if self.rows.is_empty() {
            return Err("a table of pictures without a row".into());
        }
        let title = |text: &str| -> String { text.chars().take(LONGEST_TITLE).collect() };
        let longest = self.rows.iter().map(|(text, _)| title(text).chars().count()).max().unwrap_or(0) as u32;
        let left = 2 * MARGIN + LETTER * longest;
        let width = |column: usize| {
            let text = self.columns.get(column).map_or(0, |text| LETTER * text.chars().count() as u32);
            (CELL + MARGIN).max(text + MARGIN)
        };
        let lefts: Vec<u32> =
            (0..=self.columns.len()).map(|column| left + (0..column).map(width).sum::<u32>()).collect();
        let height = HEADING + self.rows.len() as u32 * (CELL + MARGIN);
        let mut canvas = Canvas::new(lefts.last().copied().unwrap_or(left), height);
        for (text, left) in self.columns.iter().zip(&lefts) {
            canvas.text(text, *left, 8, Alignment::Left, INK);
        }
        for (row, (text, cells)) in self.rows.iter().enumerate() {
            let top = HEADING + row as u32 * (CELL + MARGIN);
            canvas.text(&title(text), left - MARGIN, top + CELL / 2 - 8, Alignment::Right, INK);
            for (cell, left) in cells.iter().zip(&lefts) {
                draw_cell(&mut canvas, cell, *left, top);
            }
        }
        Ok(Image { width: canvas.width, height: canvas.height, rgb: canvas.rgb })
    }
}

/// Draws the pictures of a cell as a square of small ones.
fn draw_cell(canvas: &mut Canvas, cell: &Cell, left: u32, top: u32) {
    let along = (1..).find(|along: &u32| (along * along) as usize >= cell.len()).unwrap_or(1);
    let size = CELL / along;
    for (at, picture) in cell.iter().enumerate() {
        let (column, row) = (at as u32 % along, at as u32 / along);
        canvas.picture(&frame(picture), left + column * size, top + row * size, size);
    }
}

/// Returns a picture as a frame of a video.
pub(crate) fn frame(picture: &Raster) -> Frame {
    Frame { width: picture.width(), height: picture.height(), rgb: picture.pixels().to_vec() }
}

/// Returns a picture as an output.
pub(crate) fn image(picture: &Raster) -> Image {
    Image { width: picture.width(), height: picture.height(), rgb: picture.pixels().to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_is_in_its_cell() {
        let picture = |value: u8| Raster::new(2, 2, vec![value; 12]).unwrap();
        let row = |value: u8| (format!("row {value}"), vec![vec![picture(value)], vec![picture(50), picture(60)]]);
        let sheet = Sheet { columns: vec!["one".to_owned(), "two".to_owned()], rows: vec![row(10), row(20)] };
        let image = sheet.draw().unwrap();
        let left = 2 * MARGIN + 6 * LETTER;
        let pixel = |x: u32, y: u32| image.rgb[3 * (y * image.width + x) as usize];
        for (row, value) in [10, 20].into_iter().enumerate() {
            let top = HEADING + row as u32 * (CELL + MARGIN);
            let second = left + CELL + MARGIN;
            assert_eq!(pixel(left + CELL / 2, top + CELL / 2), value);
            assert_eq!((pixel(second + 9, top + 9), pixel(second + CELL / 2 + 9, top + 9)), (50, 60));
        }
        assert!(Sheet { rows: vec![], ..sheet }.draw().is_err());
    }
}
