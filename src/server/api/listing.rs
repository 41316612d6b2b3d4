//! Listing of the stored messages, page by page. A full page links to the next one.

use serde::Serialize;

use super::{Response, json};
use crate::digest::ParseError;
use crate::message_store::{Entry, Error, ListQuery, MessageStore};

/// Number of entries per page if the request has no `limit`.
const DEFAULT_LIMIT: usize = 1000;
/// Maximum number of entries per page.
const MAX_LIMIT: usize = 10_000;

/// Parsed query parameters. `prefix` is kept as the client wrote it, for the link to the next page.
#[derive(Debug)]
pub(super) struct ListParameters {
    query: ListQuery,
    prefix: Option<String>,
}

#[derive(Serialize)]
struct ListResponse {
    messages: Vec<Entry>,
}

/// Parses the query string. An invalid parameter is an error 400 that names the parameter.
pub(super) fn parse_query(query: Option<&str>) -> Result<ListParameters, Response> {
    let (mut after, mut limit, mut prefix) = (None, None, None);
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_first = match name {
            "after" => after.replace(value).is_none(),
            "limit" => limit.replace(value).is_none(),
            "prefix" => prefix.replace(value).is_none(),
            _ => return Err(invalid_parameter(name, "expected after, limit or prefix")),
        };
        if !is_first {
            return Err(invalid_parameter(name, "given more than once"));
        }
    }
    let limit = match limit {
        None => DEFAULT_LIMIT,
        Some(text) => parse_positive(text)
            .ok_or_else(|| invalid_parameter("limit", "expected a positive integer"))?
            .min(MAX_LIMIT),
    };
    let invalid = |name: &'static str| move |error: ParseError| invalid_parameter(name, &error.to_string());
    let after = after.map(str::parse).transpose().map_err(invalid("after"))?;
    let parsed_prefix = prefix.unwrap_or("").parse().map_err(invalid("prefix"))?;
    let query = ListQuery { prefix: parsed_prefix, after, limit };
    Ok(ListParameters { query, prefix: prefix.map(str::to_owned) })
}

/// Returns a page of the listing, with a `Link` to the next page if this page is full.
pub(super) fn list(parameters: &ListParameters, store: &dyn MessageStore) -> Result<Response, Error> {
    let page = ListResponse { messages: store.list(&parameters.query)? };
    let response = Response::json(200, json::to_vec(&page)).with_header("Cache-Control", "no-store");
    let limit = parameters.query.limit;
    let Some(last) = page.messages.last().filter(|_| page.messages.len() == limit) else { return Ok(response) };
    let prefix = parameters.prefix.as_ref().map_or_else(String::new, |prefix| format!("&prefix={prefix}"));
    Ok(response.with_header("Link", &format!("</messages?after={}&limit={limit}{prefix}>; rel=\"next\"", last.digest)))
}

/// Parses a positive decimal number that consists of digits only. Numbers beyond `usize` are clamped.
fn parse_positive(digits: &str) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(usize::MAX)).filter(|count| *count > 0)
}

fn invalid_parameter(name: &str, problem: &str) -> Response {
    Response::error(400, &format!("Invalid parameter {name}: {problem}"))
}
