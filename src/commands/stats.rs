//! `stats`: what there is, counted.

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Context, Outcome};
use crate::messages::Stats;

/// Prints a figure a line.
pub fn run(context: &mut Context) -> anyhow::Result<Outcome> {
    let opened = context.open(false)?;
    let Stats { messages, bytes, disk, newest, .. } = opened.stats()?;
    let ratio = (bytes > 0).then(|| as_float(disk) / as_float(bytes));
    let newest = newest.map(|time| OffsetDateTime::from(time).format(&Rfc3339)).transpose()?;
    let health = opened.health().err().map_or("ok".to_owned(), |why| why.to_string());
    if context.output.is_json() {
        context.output.object(&json!({
            "messages": messages, "bytes": bytes, "disk": disk, "ratio": ratio, "newest": newest, "health": health,
        }))?;
        return Ok(Outcome::Done);
    }
    let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    let newest = newest.as_deref().unwrap_or("-");
    let out = context.output.raw();
    writeln!(out, "messages  {messages}\nbytes     {bytes}\ndisk      {disk}\nratio     {ratio}")?;
    writeln!(out, "newest    {newest}\nhealth    {health}")?;
    Ok(Outcome::Done)
}

#[allow(clippy::cast_precision_loss, reason = "it is printed with two decimals")]
fn as_float(bytes: u64) -> f64 {
    bytes as f64
}
