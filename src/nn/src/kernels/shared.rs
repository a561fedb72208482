//! One buffer, written by several tasks at places that do not overlap.

use std::marker::PhantomData;

/// A mutable slice that tasks write at disjoint places.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
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
    /// No other task may touch any of these elements while the slice lives.
    ///
    /// # Panics
    /// When the range reaches beyond the buffer.
    pub unsafe fn slice(&self, offset: usize, length: usize) -> &'a mut [f32] {
        assert!(offset + length <= self.length, "shared slice out of bounds");
        // SAFETY: within bounds; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), length) }
    }

    /// A pointer to a matrix of `rows` rows of `columns` elements, `row_stride` apart, that starts at `offset`.
    ///
    /// # Panics
    /// When the matrix reaches beyond the buffer.
    pub(crate) fn matrix(&self, offset: usize, rows: usize, columns: usize, row_stride: usize) -> *mut f32 {
        if rows > 0 && columns > 0 {
            assert!(offset + (rows - 1) * row_stride + columns <= self.length, "shared matrix out of bounds");
        }
        self.start.wrapping_add(offset)
    }
}
