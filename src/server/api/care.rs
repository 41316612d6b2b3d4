//! What those ask who look after a store: what there is, whether it is whole, and to put damage out of the way.

use serde::{Deserialize, Serialize};

use super::{Reply, json};
use crate::messages::{Cursor, Damage, Error, Messages, Stats};

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    stats: Stats,
    /// `ok`, or why nothing can be put any more.
    health: String,
}

#[derive(Deserialize)]
struct Verify {
    from: Option<Cursor>,
}

#[derive(Deserialize)]
struct Repair {
    damage: Vec<Damage>,
}

/// What there is, counted.
pub(super) fn stats(messages: &dyn Messages) -> Result<Reply, Error> {
    let health = messages.health().map_or_else(|error| error.to_string(), |()| "ok".to_owned());
    let report = Report { stats: messages.stats()?, health };
    Ok(Reply::json(200, json::of(&report)).with("Cache-Control", "no-store"))
}

/// One step of verifying.
pub(super) fn verify(body: &[u8], messages: &dyn Messages) -> Result<Reply, Error> {
    let Some(Verify { from }) = json::object_in(body) else {
        return Ok(Reply::error(400, "Invalid JSON request, expected from: null or where a step ended"));
    };
    match messages.verify(from.as_ref()) {
        Ok(verified) => Ok(Reply::json(200, json::of(&verified))),
        Err(Error::Unusable(_)) if from.is_some() => {
            Ok(Reply::error(400, "No step ended at this from, begin with null"))
        }
        Err(error) => Err(error),
    }
}

/// Puts damage out of the way.
pub(super) fn repair(body: &[u8], messages: &dyn Messages) -> Result<Reply, Error> {
    let Some(damage) = damage(body) else {
        return Ok(Reply::error(400, "Invalid JSON request, expected damage: what verifying found"));
    };
    messages.repair(&damage)?;
    Ok(Reply::empty(204))
}

/// The damage that a body names, if it can be understood.
pub(super) fn damage(body: &[u8]) -> Option<Vec<Damage>> {
    json::object_in::<Repair>(body).map(|repair| repair.damage)
}
