//! What the server counts, as Prometheus reads it (text format 0.0.4). Counting takes no lock that a reader holds long,
//! and the labels are of our own making, so no client can grow their number.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use crate::message_store::Stats;

/// Upper bounds of the histogram, in milliseconds.
const LATENCY_BUCKETS_MS: [u64; 10] = [1, 2, 5, 10, 50, 100, 500, 1000, 5000, 30_000];

type Labels = (&'static str, &'static str, u16);

/// Counters since the start.
#[derive(Default)]
pub(super) struct Metrics {
    requests: RwLock<BTreeMap<Labels, AtomicU64>>,
    /// Of each bound, and of what took longer.
    buckets: [AtomicU64; LATENCY_BUCKETS_MS.len() + 1],
    total_micros: AtomicU64,
    open_connections: AtomicU64,
    accepted_connections: AtomicU64,
    rejected_connections: AtomicU64,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
}

/// One connection, counted until this goes.
pub(super) struct ConnectionGuard(Arc<Metrics>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.open_connections.fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    /// A request is over.
    pub(super) fn observe_request(&self, route: &'static str, method: &'static str, status: u16, time: Duration) {
        let labels = (route, method, status);
        let known = self.requests.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = known.get(&labels) {
            count.fetch_add(1, Relaxed);
        } else {
            drop(known);
            let mut requests = self.requests.write().unwrap_or_else(PoisonError::into_inner);
            requests.entry(labels).or_default().fetch_add(1, Relaxed);
        }
        let at = LATENCY_BUCKETS_MS
            .iter()
            .position(|bound| time <= Duration::from_millis(*bound))
            .unwrap_or(LATENCY_BUCKETS_MS.len());
        self.buckets[at].fetch_add(1, Relaxed);
        self.total_micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// A connection is let in.
    pub(super) fn track_connection(self: &Arc<Self>) -> ConnectionGuard {
        self.open_connections.fetch_add(1, Relaxed);
        self.accepted_connections.fetch_add(1, Relaxed);
        ConnectionGuard(Arc::clone(self))
    }

    /// A connection is turned away.
    pub(super) fn connection_rejected(&self) {
        self.rejected_connections.fetch_add(1, Relaxed);
    }

    /// The cache was asked.
    pub(super) fn observe_cache_lookup(&self, hit: bool) {
        if hit { &self.cache_hits } else { &self.cache_misses }.fetch_add(1, Relaxed);
    }

    /// All of it as text; `store` and the time `not_after` of the certificate as far as they are known.
    pub(super) fn encode(&self, store: Option<&Stats>, not_after: Option<u64>) -> String {
        let mut out = String::new();
        write_family(&mut out, "requests_total", "counter", "Requests that were answered.");
        for ((route, method, status), count) in &*self.requests.read().unwrap_or_else(PoisonError::into_inner) {
            let labels = format!("{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}}");
            write_sample(&mut out, "requests_total", &labels, count.load(Relaxed));
        }
        self.write_histogram(&mut out);
        let mut one = |name: &str, kind: &str, help: &str, value: u64| {
            write_family(&mut out, name, kind, help);
            write_sample(&mut out, name, "", value);
        };
        one("connections", "gauge", "Connections that are open.", self.open_connections.load(Relaxed));
        one("connections_total", "counter", "Connections that were let in.", self.accepted_connections.load(Relaxed));
        one(
            "connections_refused_total",
            "counter",
            "Connections over the limits.",
            self.rejected_connections.load(Relaxed),
        );
        one("cache_hits_total", "counter", "Reads answered from memory.", self.cache_hits.load(Relaxed));
        one("cache_misses_total", "counter", "Reads that went to the store.", self.cache_misses.load(Relaxed));
        if let Some(stats) = store {
            one("store_messages", "gauge", "Messages in the store.", stats.messages);
            one("store_message_bytes", "gauge", "The sum of their lengths.", stats.bytes);
            one("store_disk_bytes", "gauge", "What they take on disk.", stats.disk);
            one("store_dead_bytes", "gauge", "What of that is to be given back.", stats.dead);
            let since =
                |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let help = "When everything was last verified, in seconds since 1970; 0 is never.";
            one("store_verified_timestamp_seconds", "gauge", help, stats.verified.map_or(0, since));
            one("store_damaged", "gauge", "How much damage was found then.", stats.damaged);
        }
        if let Some(not_after) = not_after {
            let help = "When the certificate expires, in seconds since 1970.";
            one("certificate_expiry_timestamp_seconds", "gauge", help, not_after);
        }
        out
    }

    fn write_histogram(&self, out: &mut String) {
        const NAME: &str = "request_duration_seconds";
        write_family(out, NAME, "histogram", "From a request's first byte to its reply's last.");
        let mut sum = 0;
        for (bound, count) in LATENCY_BUCKETS_MS.iter().zip(&self.buckets) {
            sum += count.load(Relaxed);
            let le = format!("{{le=\"{}.{:03}\"}}", bound / 1000, bound % 1000);
            write_sample(out, &format!("{NAME}_bucket"), &le, sum);
        }
        sum += self.buckets[LATENCY_BUCKETS_MS.len()].load(Relaxed);
        write_sample(out, &format!("{NAME}_bucket"), "{le=\"+Inf\"}", sum);
        let micros = self.total_micros.load(Relaxed);
        let seconds = format_args!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        writeln!(out, "sha_api_{NAME}_sum {seconds}").expect("a string takes all that is written");
        write_sample(out, &format!("{NAME}_count"), "", sum);
    }
}

fn write_family(out: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(out, "# HELP sha_api_{name} {help}\n# TYPE sha_api_{name} {kind}").expect("a string takes it");
}

fn write_sample(out: &mut String, name: &str, labels: &str, value: u64) {
    writeln!(out, "sha_api_{name}{labels} {value}").expect("a string takes it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_values_are_encoded() {
        let metrics = Arc::<Metrics>::default();
        metrics.observe_request("/messages", "POST", 200, Duration::from_millis(3));
        metrics.observe_request("/messages", "POST", 200, Duration::from_secs(60));
        let present = metrics.track_connection();
        let text = metrics.encode(None, Some(7));
        for line in [
            "sha_api_requests_total{route=\"/messages\",method=\"POST\",status=\"200\"} 2",
            "sha_api_request_duration_seconds_bucket{le=\"0.002\"} 0",
            "sha_api_request_duration_seconds_bucket{le=\"0.005\"} 1",
            "sha_api_request_duration_seconds_bucket{le=\"+Inf\"} 2",
            "sha_api_request_duration_seconds_sum 60.003000",
            "sha_api_connections 1",
            "sha_api_certificate_expiry_timestamp_seconds 7",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        drop(present);
        let text = metrics.encode(None, None);
        assert!(
            text.contains("\nsha_api_connections 0\n") && text.contains("\nsha_api_connections_total 1\n"),
            "{text}"
        );
    }
}
