//! Functions compiled several times, for the vector instructions of newer machines.

/// Defines a function whose body is compiled for AVX-512, for AVX2 and for the baseline instructions; each call takes the widest version
/// that this machine supports. Functions that the body calls must be `#[inline(always)]`; otherwise they are compiled for the baseline
/// only. Type parameters are written in square brackets after the name.
macro_rules! vectorized {
    (
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident $([$($generics:tt)*])? ($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)?
        $body:block
    ) => {
        $(#[$attribute])*
        // All copies have the arguments of the one function that is written down.
        #[allow(clippy::too_many_arguments)]
        $visibility fn $name $(<$($generics)*>)? ($($argument: $type),*) $(-> $output)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn plain $(<$($generics)*>)? ($($argument: $type),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 $(<$($generics)*>)? ($($argument: $type),*) $(-> $output)? {
                    plain($($argument),*)
                }

                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 $(<$($generics)*>)? ($($argument: $type),*) $(-> $output)? {
                    plain($($argument),*)
                }

                match $crate::kernels::vectorized::level() {
                    // SAFETY: `level` found these instructions on this machine.
                    $crate::kernels::vectorized::Level::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    $crate::kernels::vectorized::Level::Avx2 => return unsafe { avx2($($argument),*) },
                    $crate::kernels::vectorized::Level::Plain => {}
                }
            }
            plain($($argument),*)
        }
    };
}

pub(crate) use vectorized;

/// Sets of vector instructions.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Avx512,
    Avx2,
    Plain,
}

/// The widest set that this machine has; looked up once by the standard library.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn level() -> Level {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        _ => Level::Plain,
    }
}
