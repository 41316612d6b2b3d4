//! `stats`: number and size of the messages, disk usage, and health of the store.

use std::time::SystemTime;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::context::Context;
use super::exit_status::ExitStatus;
use crate::message_store::Stats;

/// Prints one figure per line.
pub fn run(context: &mut Context) -> anyhow::Result<ExitStatus> {
    let opened = context.open(false)?;
    let Stats { messages, bytes, disk, dead, newest, verified, damaged, lost } = opened.stats()?;
    let ratio = (bytes > 0).then(|| as_float(disk) / as_float(bytes));
    let format = |time: Option<SystemTime>| time.map(|time| OffsetDateTime::from(time).format(&Rfc3339)).transpose();
    let (newest, verified) = (format(newest)?, format(verified)?);
    let health = opened.health().err().map_or("ok".to_owned(), |error| error.to_string());
    if context.output.is_json() {
        context.output.print_json(&json!({
            "messages": messages, "bytes": bytes, "disk": disk, "ratio": ratio, "dead": dead, "newest": newest,
            "verified": verified, "damaged": damaged, "lost": lost, "health": health,
        }))?;
        return Ok(ExitStatus::Success);
    }
    let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    let [newest, verified] = [&newest, &verified].map(|time| time.as_deref().unwrap_or("-"));
    let out = context.output.raw();
    writeln!(out, "messages  {messages}\nbytes     {bytes}\ndisk      {disk}\nratio     {ratio}\ndead      {dead}")?;
    writeln!(
        out,
        "newest    {newest}\nverified  {verified}\ndamaged   {damaged}\nlost      {lost}\nhealth    {health}"
    )?;
    Ok(ExitStatus::Success)
}

#[allow(clippy::cast_precision_loss, reason = "the ratio is printed with two decimals")]
fn as_float(bytes: u64) -> f64 {
    bytes as f64
}
