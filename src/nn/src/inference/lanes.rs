//! Vectors of the widest registers of a machine, behind one trait.

/// A vector of `f32`. The methods are unsafe because the implementations need their instructions to exist.
pub(super) trait Lanes: Copy {
    /// Numbers per vector.
    const WIDTH: usize;

    /// Reads `WIDTH` numbers.
    ///
    /// # Safety
    /// The numbers must be readable, and the machine must have the instructions.
    unsafe fn load(from: *const f32) -> Self;

    /// Fetches the cache line of an address, which need not be readable.
    fn prefetch(from: *const f32);

    /// Writes `WIDTH` numbers.
    ///
    /// # Safety
    /// The numbers must be writable, and the machine must have the instructions.
    unsafe fn store(self, to: *mut f32);

    /// A vector with the same number in every lane.
    ///
    /// # Safety
    /// The machine must have the instructions.
    unsafe fn splat(value: f32) -> Self;

    /// `self * factor + addend`.
    ///
    /// # Safety
    /// The machine must have the instructions.
    unsafe fn multiply_add(self, factor: Self, addend: Self) -> Self;

    /// The sum.
    ///
    /// # Safety
    /// The machine must have the instructions.
    unsafe fn add(self, other: Self) -> Self;

    /// The larger of each pair.
    ///
    /// # Safety
    /// The machine must have the instructions.
    unsafe fn max(self, other: Self) -> Self;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    macro_rules! lanes {
        ($vector:ty, $width:literal, $load:ident, $store:ident, $splat:ident, $fma:ident, $add:ident, $max:ident) => {
            impl Lanes for $vector {
                const WIDTH: usize = $width;

                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    // SAFETY: the caller's promise; the load may be unaligned.
                    unsafe { $load(from) }
                }

                #[inline(always)]
                fn prefetch(from: *const f32) {
                    // SAFETY: a prefetch never faults.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    // SAFETY: the caller's promise; the store may be unaligned.
                    unsafe { $store(to, self) }
                }

                #[inline(always)]
                unsafe fn splat(value: f32) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $splat(value) }
                }

                #[inline(always)]
                unsafe fn multiply_add(self, factor: Self, addend: Self) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $fma(self, factor, addend) }
                }

                #[inline(always)]
                unsafe fn add(self, other: Self) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $add(self, other) }
                }

                #[inline(always)]
                unsafe fn max(self, other: Self) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $max(self, other) }
                }
            }
        };
    }

    lanes!(
        __m512,
        16,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        _mm512_max_ps
    );
    lanes!(__m256, 8, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps, _mm256_max_ps);
}

/// Four numbers, as any machine has them.
pub(super) type Plain = [f32; 4];

impl Lanes for Plain {
    const WIDTH: usize = 4;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    fn prefetch(_: *const f32) {}

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; 4]
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, addend: Self) -> Self {
        std::array::from_fn(|lane| self[lane] * factor[lane] + addend[lane])
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] + other[lane])
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        std::array::from_fn(|lane| if self[lane] > other[lane] { self[lane] } else { other[lane] })
    }
}
