//! An allocator that asks for huge pages.

use std::alloc::{GlobalAlloc, Layout, System};

/// Smallest allocation, in bytes, for which huge pages (2 MiB on x86-64) are asked.
const LARGE: usize = 4 << 20;

/// Smallest allocation, in bytes, that glibc takes from the system and gives back by itself, in place of its heap: the most that glibc
/// accepts.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED: libc::c_int = 32 << 20;

/// The system's allocator, which on Linux puts large allocations on huge pages where the kernel has them (transparent huge pages,
/// `always` or `madvise`). With pages of 4 KiB, kernels wait for the translation of addresses, above all in virtual machines: a training
/// step of VALL-E's quarter size took more than twice as long.
///
/// With glibc, freed memory stays with the program for the next tensors: the system would have to clear it again, which was a quarter of a
/// training step of FLOAT.
///
/// Programs use it by `#[global_allocator]`. It changes no result.
pub struct HugePages;

// SAFETY: every call is passed on to the system's allocator unchanged; advice changes neither content nor validity of memory.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        advised(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        advised(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        advised(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Asks for huge pages in an allocation, if it is large, and returns it.
#[cfg(target_os = "linux")]
fn advised(pointer: *mut u8, size: usize) -> *mut u8 {
    const PAGE: usize = 4096;
    if size >= LARGE && !pointer.is_null() {
        keep_freed_memory();
        let before_page = pointer.align_offset(PAGE);
        // Whole pages of the allocation only. A kernel without huge pages refuses, and nothing is lost.
        if let Some(length) = size.checked_sub(before_page) {
            // SAFETY: the range lies in an allocation that the caller owns. This advice does not change what is stored there.
            unsafe {
                libc::madvise(pointer.wrapping_add(before_page).cast(), length / PAGE * PAGE, libc::MADV_HUGEPAGE)
            };
        }
    }
    pointer
}

/// Tells glibc, once, to keep freed memory.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_freed_memory() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        // SAFETY: the calls change settings of the allocator, under its own lock.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
            libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        }
    }
}

#[cfg(all(target_os = "linux", not(target_env = "gnu")))]
fn keep_freed_memory() {}

/// Returns an allocation as it is: only Linux takes advice on pages.
#[cfg(not(target_os = "linux"))]
fn advised(pointer: *mut u8, _size: usize) -> *mut u8 {
    pointer
}
