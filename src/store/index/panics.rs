//! Converts a panic inside sled into an [`IndexError`], and suppresses its output.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use super::error::IndexError;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`. A panic in it becomes an [`IndexError`] and prints nothing.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, IndexError> {
    static INSTALL_HOOK: Once = Once::new();
    INSTALL_HOOK.call_once(|| {
        let default_hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !CATCHING.get() {
                default_hook(panic);
            }
        }));
    });
    CATCHING.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(false);
    result.map_err(|payload| {
        let message = payload.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
        match IndexError::from_sled(message.lines().next().unwrap_or_default()) {
            IndexError::Corrupt(cause) => IndexError::Corrupt(format!("panic in sled: {cause}")),
            error => error,
        }
    })
}
