//! One buffer that several tasks write at places that do not overlap.

use std::marker::PhantomData;

/// A mutable slice that tasks write at disjoint places. Sharing it is safe; only its unsafe methods reach the elements.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    start: *mut f32,
    length: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: every access goes through unsafe methods whose callers promise that no two tasks touch the same element.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Shares a slice among tasks.
    pub fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), lifetime: PhantomData }
    }

    /// The elements `offset..offset + length`.
    ///
    /// # Safety
    /// Nothing else may touch any of these elements while the slice lives.
    ///
    /// # Panics
    /// When the range reaches beyond the buffer.
    pub unsafe fn slice(&self, offset: usize, length: usize) -> &'a mut [f32] {
        let end = offset.checked_add(length);
        assert!(end.is_some_and(|end| end <= self.length), "shared slice out of bounds");
        // SAFETY: within bounds; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), length) }
    }

    /// A pointer to a matrix of `rows` rows of `columns` elements, `row_stride` apart, that starts at `offset`. The conditions of
    /// [`slice`](Self::slice) apply to writing through it.
    ///
    /// # Panics
    /// When the matrix reaches beyond the buffer.
    pub(super) fn matrix(&self, offset: usize, rows: usize, columns: usize, row_stride: usize) -> *mut f32 {
        if rows > 0 && columns > 0 {
            let end =
                (rows - 1).checked_mul(row_stride).and_then(|last| last.checked_add(columns)?.checked_add(offset));
            assert!(end.is_some_and(|end| end <= self.length), "shared matrix out of bounds");
        }
        self.start.wrapping_add(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_beyond_the_buffer_are_refused_even_where_their_sum_overflows() {
        let reaches = |offset: usize, length: usize| {
            let mut buffer = [0.0; 4];
            let shared = Shared::new(&mut buffer);
            // SAFETY: there is one slice at a time.
            std::panic::catch_unwind(|| unsafe { shared.slice(offset, length).len() })
        };
        assert_eq!(reaches(1, 3).unwrap(), 3);
        assert!(reaches(2, 3).is_err() && reaches(usize::MAX, 2).is_err() && reaches(2, usize::MAX - 1).is_err());
        let matrix = |rows: usize, stride: usize| {
            let mut buffer = [0.0; 4];
            let shared = Shared::new(&mut buffer);
            std::panic::catch_unwind(|| shared.matrix(0, rows, 2, stride)).is_ok()
        };
        assert!(matrix(2, 2) && !matrix(3, 2) && !matrix(3, usize::MAX / 2 + 1));
    }
}
