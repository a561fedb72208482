//! Panics of parts: caught, and told with their place instead of printed into the progress bar.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::sync::Once;

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(false) };
    static RECORDED: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Runs `body`; what a panic of this thread said meanwhile, with its place, comes back beside its result. A thread that waits
/// for others in `body` may run another part's meanwhile, so this may be called inside of itself.
pub(crate) fn recording<T>(body: impl FnOnce() -> T) -> (T, Option<String>) {
    HOOK.call_once(install);
    let outer = (RECORDING.replace(true), RECORDED.take());
    let result = body();
    RECORDING.set(outer.0);
    (result, RECORDED.replace(outer.1))
}

/// What a panic said.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

/// All other threads keep the hook that was there.
fn install() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !RECORDING.get() {
            return others(info);
        }
        let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
        RECORDED.set(Some(format!("{}{place}", message(info.payload()))));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn a_panic_keeps_its_place_while_another_part_is_run_in_between() {
        let ((outer, inner), said) = recording(|| {
            let outer = catch_unwind(|| panic!("the outer part broke"));
            (outer, recording(|| catch_unwind(|| panic!("the inner part broke"))))
        });
        assert!(outer.is_err() && inner.0.is_err());
        assert!(inner.1.unwrap().starts_with("the inner part broke at "));
        assert!(said.unwrap().starts_with("the outer part broke at "));
        assert_eq!(recording(|| ()).1, None);
    }
}
