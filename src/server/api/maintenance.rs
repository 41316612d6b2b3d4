//! What those ask who look after a store: what there is, whether it is whole, and to put damage out of the way.

use serde::{Deserialize, Serialize};

use super::{Response, json};
use crate::message_store::{Cursor, Damage, Error, MessageStore, Stats};

#[derive(Serialize)]
struct StatsResponse {
    #[serde(flatten)]
    stats: Stats,
    /// `ok`, or why nothing can be put any more.
    health: String,
}

#[derive(Deserialize)]
struct VerifyRequest {
    from: Option<Cursor>,
}

#[derive(Deserialize)]
struct RepairRequest {
    damage: Vec<Damage>,
}

/// What there is, counted.
pub(super) fn stats(messages: &dyn MessageStore) -> Result<Response, Error> {
    let health = messages.health().map_or_else(|error| error.to_string(), |()| "ok".to_owned());
    let report = StatsResponse { stats: messages.stats()?, health };
    Ok(Response::json(200, json::to_vec(&report)).with_header("Cache-Control", "no-store"))
}

/// One step of verifying.
pub(super) fn verify(body: &[u8], messages: &dyn MessageStore) -> Result<Response, Error> {
    let Some(VerifyRequest { from }) = json::parse_object(body) else {
        return Ok(Response::error(400, "Invalid JSON request, expected from: null or where a step ended"));
    };
    match messages.verify(from.as_ref()) {
        Ok(verified) => Ok(Response::json(200, json::to_vec(&verified))),
        Err(Error::Unusable(_)) if from.is_some() => {
            Ok(Response::error(400, "No step ended at this from, begin with null"))
        }
        Err(error) => Err(error),
    }
}

/// Puts damage out of the way.
pub(super) fn repair(body: &[u8], messages: &dyn MessageStore) -> Result<Response, Error> {
    let Some(damage) = parse_damage(body) else {
        return Ok(Response::error(400, "Invalid JSON request, expected damage: what verifying found"));
    };
    messages.repair(&damage)?;
    Ok(Response::empty(204))
}

/// The damage that a body names, if it can be understood.
pub(super) fn parse_damage(body: &[u8]) -> Option<Vec<Damage>> {
    json::parse_object::<RepairRequest>(body).map(|repair| repair.damage)
}
