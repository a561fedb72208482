//! Panics of parts: caught and reported with their place instead of being printed into the progress bar.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::sync::Once;

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(false) };
    static RECORDED: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Runs `body` and returns its result together with the message and place of a panic of this thread. Calls may be
/// nested: a thread that waits for others in `body` may run another part meanwhile.
pub(crate) fn recording<T>(body: impl FnOnce() -> T) -> (T, Option<String>) {
    HOOK.call_once(install);
    let outer = (RECORDING.replace(true), RECORDED.take());
    let result = body();
    RECORDING.set(outer.0);
    (result, RECORDED.replace(outer.1))
}

/// Returns the message of a panic.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

/// Installs the hook. Other threads keep the previous hook.
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
