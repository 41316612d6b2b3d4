//! A listing, page by page: what is asked for, the page, and where the next one is.

use serde::Serialize;

use super::{Response, json};
use crate::digest::ParseError;
use crate::message_store::{Entry, Error, ListQuery, MessageStore};

/// How many are listed unless the client says otherwise.
const DEFAULT_LIMIT: usize = 1000;
/// How many are listed at the most.
const MAX_LIMIT: usize = 10_000;

/// A page that is asked for, and the prefix as the client wrote it.
#[derive(Debug)]
pub(super) struct ListParameters {
    page: ListQuery,
    prefix: Option<String>,
}

#[derive(Serialize)]
struct ListResponse {
    messages: Vec<Entry>,
}

/// What `query` asks for; else a 400 that names what is wrong.
pub(super) fn parse_query(query: Option<&str>) -> Result<ListParameters, Response> {
    let (mut after, mut limit, mut prefix) = (None, None, None);
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_first = match name {
            "after" => after.replace(value).is_none(),
            "limit" => limit.replace(value).is_none(),
            "prefix" => prefix.replace(value).is_none(),
            _ => return Err(invalid_parameter(name, "there are only after, limit and prefix")),
        };
        if !is_first {
            return Err(invalid_parameter(name, "it is there twice"));
        }
    }
    let limit = match limit {
        None => DEFAULT_LIMIT,
        Some(text) => {
            parse_positive(text).ok_or_else(|| invalid_parameter("limit", "it is no number from 1 on"))?.min(MAX_LIMIT)
        }
    };
    let named = |name: &'static str| move |error: ParseError| invalid_parameter(name, &error.to_string());
    let after = after.map(str::parse).transpose().map_err(named("after"))?;
    let range = prefix.unwrap_or("").parse().map_err(named("prefix"))?;
    let page = ListQuery { prefix: range, after, limit };
    Ok(ListParameters { page, prefix: prefix.map(str::to_owned) })
}

/// The page, with a link to the next one if it is full.
pub(super) fn list(wanted: &ListParameters, messages: &dyn MessageStore) -> Result<Response, Error> {
    let listed = ListResponse { messages: messages.list(&wanted.page)? };
    let reply = Response::json(200, json::to_vec(&listed)).with_header("Cache-Control", "no-store");
    let limit = wanted.page.limit;
    let Some(last) = listed.messages.last().filter(|_| listed.messages.len() == limit) else { return Ok(reply) };
    let prefix = wanted.prefix.as_ref().map_or_else(String::new, |prefix| format!("&prefix={prefix}"));
    Ok(reply.with_header("Link", &format!("</messages?after={}&limit={limit}{prefix}>; rel=\"next\"", last.digest)))
}

/// Digits that are not nothing; a number beyond all numbers is as large as any.
fn parse_positive(digits: &str) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(usize::MAX)).filter(|count| *count > 0)
}

fn invalid_parameter(name: &str, why: &str) -> Response {
    Response::error(400, &format!("Invalid parameter {name}: {why}"))
}
