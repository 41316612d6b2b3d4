//! State that every command needs: the common options, the output and the progress display.

use std::ffi::OsStr;
use std::sync::Arc;

use super::output::Output;
use super::progress::Progress;
use crate::cli::Global;
use crate::location;
use crate::message_store::{self, MessageStore};

/// State that every command needs.
pub(super) struct Context {
    pub(super) global: Global,
    pub(super) output: Output,
    pub(super) progress: Arc<Progress>,
}

impl Context {
    /// Opens the selected store or server. If `create`, a missing store is created.
    pub(super) fn open(&self, create: bool) -> Result<Arc<dyn MessageStore>, message_store::Error> {
        location::open(&self.global, create, &self.progress.event_sink())
    }

    /// Opens the store or server at `location`.
    pub(super) fn open_location(
        &self,
        location: &OsStr,
        create: bool,
    ) -> Result<Arc<dyn MessageStore>, message_store::Error> {
        location::open_location(&self.global, location, create, &self.progress.event_sink())
    }

    /// Opens the store at the first call, because the writer of a pipe may need the store before it writes.
    pub(super) fn get_or_open(
        &self,
        opened: &mut Option<Arc<dyn MessageStore>>,
    ) -> Result<Arc<dyn MessageStore>, message_store::Error> {
        match opened {
            Some(messages) => Ok(messages.clone()),
            None => Ok(opened.insert(self.open(false)?).clone()),
        }
    }
}
