//! Measurement of the largest single allocation, and of the memory held.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// The largest request of this thread, in bytes.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    /// Bytes that this thread holds, minus those of other threads that it freed.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The largest number of bytes it held.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, which records the largest request of each thread, and the bytes that it holds.
struct Remembering;

/// Records a request of this thread.
fn request(bytes: usize) {
    LARGEST.set(LARGEST.get().max(bytes));
}

/// Records that this thread holds more bytes.
fn hold(bytes: isize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for Remembering {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        request(layout.size());
        hold(layout.size() as isize);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        request(layout.size());
        hold(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        request(size);
        hold(size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Remembering = Remembering;

/// Returns the largest number of bytes that this thread held during `work`, in addition to those before.
pub fn peak<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.get();
    PEAK.set(before);
    let done = work();
    ((PEAK.get() - before) as usize, done)
}

/// Returns the largest request of this thread so far, in bytes.
pub fn largest() -> usize {
    LARGEST.get()
}
