//! The health check: the tables exist, and the role has the rights that requests need. It is requested often, so its
//! result is reused for one second.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::pool::{ConnectionPool, Idempotent};
use super::statements::HEALTH;
use crate::message_store::Error;

/// Time for which the result of a health check is reused.
const HEALTH_TTL: Duration = Duration::from_secs(1);

/// Latest result of the health check.
#[derive(Default)]
pub(super) struct HealthCache {
    /// Time and result of the check.
    latest: Mutex<Option<(Instant, Result<(), Error>)>>,
}

impl HealthCache {
    /// Implements [`crate::store::Backend::health`]. While all connections are in use, the previous result is reused.
    pub(super) fn get(&self, pool: &ConnectionPool) -> Result<(), Error> {
        let mut latest = self.latest.lock();
        if let Some((checked_at, health)) = &*latest
            && (checked_at.elapsed() < HEALTH_TTL || pool.is_exhausted())
        {
            return health.clone();
        }
        let health = check(pool);
        *latest = Some((Instant::now(), health.clone()));
        health
    }
}

fn check(pool: &ConnectionPool) -> Result<(), Error> {
    let (is_read_only, may_insert) = pool.run(Idempotent::Yes, async |session| {
        let rows = session.read(&HEALTH, []).await?;
        Ok((rows[0].try_get::<_, bool>(0)?, rows[0].try_get::<_, bool>(1)?))
    })?;
    match is_read_only || !may_insert {
        true => Err(Error::ReadOnly(pool.name().to_owned())),
        false => Ok(()),
    }
}
