//! Requests for operators of a store: statistics, verification and repair.

use serde::{Deserialize, Serialize};

use super::{Response, json};
use crate::message_store::{Cursor, Damage, Error, MessageStore, Stats};

#[derive(Serialize)]
struct StatsResponse {
    #[serde(flatten)]
    stats: Stats,
    /// `ok`, or the reason why no messages can be stored.
    health: String,
}

#[derive(Deserialize)]
struct VerifyRequest {
    from: Option<Cursor>,
}

#[derive(Deserialize)]
struct RepairRequest {
    damage: Vec<Damage>,
    /// Accepts the losses in `damage` instead of repairing.
    #[serde(default)]
    accept_loss: bool,
}

/// Returns counts, sizes and the health of the store.
pub(super) fn stats(store: &dyn MessageStore) -> Result<Response, Error> {
    let health = store.health().map_or_else(|error| error.to_string(), |()| "ok".to_owned());
    let report = StatsResponse { stats: store.stats()?, health };
    Ok(Response::json(200, json::to_vec(&report)).with_header("Cache-Control", "no-store"))
}

/// Performs one step of a verification.
pub(super) fn verify(body: &[u8], store: &dyn MessageStore) -> Result<Response, Error> {
    let Some(VerifyRequest { from }) = json::parse_object(body) else {
        return Ok(Response::error(400, "Invalid JSON request, expected from: null or the next of a step"));
    };
    match store.verify(from.as_ref()) {
        Ok(step) => Ok(Response::json(200, json::to_vec(&step))),
        Err(Error::Unusable(_)) if from.is_some() => Ok(Response::error(400, "Invalid from, begin again with null")),
        Err(error) => Err(error),
    }
}

/// Repairs the damage that the body lists, or accepts the losses in it.
pub(super) fn repair(body: &[u8], store: &dyn MessageStore) -> Result<Response, Error> {
    let Some(RepairRequest { damage, accept_loss }) = json::parse_object(body) else {
        return Ok(Response::error(400, "Invalid JSON request, expected damage: a list from /verify"));
    };
    match accept_loss {
        true => store.accept_loss(&damage)?,
        false => store.repair(&damage)?,
    }
    Ok(Response::empty(204))
}

/// Parses the body of a repair request. Returns `None` if it is invalid.
pub(super) fn parse_damage(body: &[u8]) -> Option<Vec<Damage>> {
    json::parse_object::<RepairRequest>(body).map(|request| request.damage)
}
