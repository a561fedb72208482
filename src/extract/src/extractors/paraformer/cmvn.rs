//! The mean and variance normalization of a FunASR model (`am.mvn`): what is added to every value of a stacked frame, then what it
//! is multiplied by.

use std::path::Path;

use crate::UnusableWeights;

/// A larger file is none of these: they have two numbers for each of some hundred values.
const MOST_BYTES: u64 = 1 << 20;

/// Shift and scale of every value of a stacked frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Cmvn {
    /// Added first.
    pub shift: Vec<f32>,
    /// Multiplied then.
    pub scale: Vec<f32>,
}

impl Cmvn {
    /// Reads `am.mvn`, Kaldi's text form of a network of two layers, `<AddShift>` and `<Rescale>`.
    ///
    /// # Errors
    /// When it cannot be read or is no such file.
    pub fn read(path: &Path) -> Result<Self, UnusableWeights> {
        let failed = |error: std::io::Error| UnusableWeights(error.to_string());
        let size = std::fs::metadata(path).map_err(failed)?.len();
        if size > MOST_BYTES {
            return Err(UnusableWeights(format!("{size} bytes are too many for a mean and a variance")));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(failed)?)
    }

    fn parse(text: &str) -> Result<Self, UnusableWeights> {
        let (shift, scale) = (layer(text, "<AddShift>")?, layer(text, "<Rescale>")?);
        if shift.len() == scale.len() {
            return Ok(Self { shift, scale });
        }
        Err(UnusableWeights(format!("{} numbers in <AddShift> and {} in <Rescale>", shift.len(), scale.len())))
    }

    /// Normalizes stacked frames.
    pub(super) fn apply(&self, frames: &mut [f32]) {
        for frame in frames.chunks_exact_mut(self.shift.len().max(1)) {
            let numbers = self.shift.iter().zip(&self.scale);
            frame.iter_mut().zip(numbers).for_each(|(value, (shift, scale))| *value = (*value + shift) * scale);
        }
    }
}

/// The numbers in the first brackets behind the layer's name.
fn layer(text: &str, name: &str) -> Result<Vec<f32>, UnusableWeights> {
    let brackets = text.split_once(name).and_then(|(_, rest)| rest.split_once('[')?.1.split_once(']'));
    let (numbers, _) = brackets.ok_or_else(|| UnusableWeights(format!("not an am.mvn: no numbers behind {name}")))?;
    let number = |word: &str| word.parse::<f32>().ok().filter(|number| number.is_finite());
    let numbers: Option<Vec<f32>> = numbers.split_whitespace().map(number).collect();
    let numbers = numbers.ok_or_else(|| UnusableWeights(format!("something behind {name} is not a finite number")))?;
    if numbers.is_empty() { Err(UnusableWeights(format!("no number behind {name}"))) } else { Ok(numbers) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "<Nnet>\n<Splice> 2 2\n[ 0 ]\n<AddShift> 2 2\n<LearnRateCoef> 0 [ -1.5 2 ]\n\
                        <Rescale> 2 2\n<LearnRateCoef> 0 [ 0.5 4 ]\n</Nnet>\n";

    #[test]
    fn values_are_shifted_then_scaled() {
        let mut frames = [1.5, 0.0, 2.5, -2.0];
        Cmvn::parse(TEXT).unwrap().apply(&mut frames);
        assert_eq!(frames, [0.0, 8.0, 0.5, 0.0]);
    }

    #[test]
    fn other_files_are_refused() {
        for text in [
            "",
            "<AddShift>",
            "<AddShift> [ 1 ] <Rescale> [ 1 2 ]",
            "<AddShift> [ x ] <Rescale> [ 1 ]",
            "<AddShift> [ inf ] <Rescale> [ 1 ]",
        ] {
            assert!(Cmvn::parse(text).is_err(), "{text}");
        }
    }
}
