//! Metrics in the Prometheus text format 0.0.4. Label values come from fixed sets, so clients cannot create new time
//! series.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use crate::message_store::Stats;

/// Upper bounds of the histogram's buckets in milliseconds.
const LATENCY_BUCKETS_MS: [u64; 10] = [1, 2, 5, 10, 50, 100, 500, 1000, 5000, 30_000];

/// Route, method and status of a request.
type Labels = (&'static str, &'static str, u16);

/// Counters since the start.
#[derive(Default)]
pub(super) struct Metrics {
    requests: RwLock<BTreeMap<Labels, AtomicU64>>,
    /// Number of requests in each bucket; the last one counts requests above all bounds.
    buckets: [AtomicU64; LATENCY_BUCKETS_MS.len() + 1],
    total_micros: AtomicU64,
    open_connections: AtomicU64,
    accepted_connections: AtomicU64,
    rejected_connections: AtomicU64,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    /// Expiry of the certificate as Unix time in seconds; 0: unknown.
    certificate_expiry: AtomicU64,
}

/// Counts a connection as open until it is dropped.
pub(super) struct ConnectionGuard(Arc<Metrics>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.open_connections.fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    /// Counts a completed request that took `duration`.
    pub(super) fn observe_request(&self, route: &'static str, method: &'static str, status: u16, duration: Duration) {
        let labels = (route, method, status);
        let requests = self.requests.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = requests.get(&labels) {
            count.fetch_add(1, Relaxed);
        } else {
            drop(requests);
            let mut requests = self.requests.write().unwrap_or_else(PoisonError::into_inner);
            requests.entry(labels).or_default().fetch_add(1, Relaxed);
        }
        let bucket = LATENCY_BUCKETS_MS
            .iter()
            .position(|bound| duration <= Duration::from_millis(*bound))
            .unwrap_or(LATENCY_BUCKETS_MS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.total_micros.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Counts an accepted connection, which is open until the returned guard is dropped.
    pub(super) fn track_connection(self: &Arc<Self>) -> ConnectionGuard {
        self.open_connections.fetch_add(1, Relaxed);
        self.accepted_connections.fetch_add(1, Relaxed);
        ConnectionGuard(Arc::clone(self))
    }

    /// Counts a connection that was rejected because of a limit.
    pub(super) fn connection_rejected(&self) {
        self.rejected_connections.fetch_add(1, Relaxed);
    }

    /// Counts a lookup that the hot cache answered.
    pub(super) fn cache_hit(&self) {
        self.cache_hits.fetch_add(1, Relaxed);
    }

    /// Counts a lookup that the hot cache could not answer.
    pub(super) fn cache_miss(&self) {
        self.cache_misses.fetch_add(1, Relaxed);
    }

    /// Sets the certificate's expiry, as Unix time in seconds; 0: unknown.
    pub(super) fn set_certificate_expiry(&self, not_after: u64) {
        self.certificate_expiry.store(not_after, Relaxed);
    }

    /// Returns all metrics as text. The metrics of the store and the certificate's expiry are left out if they are
    /// unknown.
    pub(super) fn encode(&self, store: Option<&Stats>) -> String {
        let mut out = String::new();
        write_family(&mut out, "requests_total", "counter", "Requests answered.");
        for ((route, method, status), count) in &*self.requests.read().unwrap_or_else(PoisonError::into_inner) {
            let labels = format!("{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}}");
            write_sample(&mut out, "requests_total", &labels, count.load(Relaxed));
        }
        self.write_histogram(&mut out);
        let mut write_single = |name: &str, kind: &str, help: &str, value: u64| {
            write_family(&mut out, name, kind, help);
            write_sample(&mut out, name, "", value);
        };
        write_single("connections", "gauge", "Open connections.", self.open_connections.load(Relaxed));
        write_single("connections_total", "counter", "Accepted connections.", self.accepted_connections.load(Relaxed));
        write_single(
            "connections_refused_total",
            "counter",
            "Connections rejected because of a limit.",
            self.rejected_connections.load(Relaxed),
        );
        write_single("cache_hits_total", "counter", "Reads served from the hot cache.", self.cache_hits.load(Relaxed));
        write_single("cache_misses_total", "counter", "Reads that went to the store.", self.cache_misses.load(Relaxed));
        if let Some(stats) = store {
            write_single("store_messages", "gauge", "Messages in the store.", stats.messages);
            write_single("store_message_bytes", "gauge", "Sum of the message lengths in bytes.", stats.bytes);
            write_single("store_disk_bytes", "gauge", "Bytes on disk.", stats.disk);
            write_single("store_dead_bytes", "gauge", "Bytes on disk that can be freed.", stats.dead);
            let unix_time =
                |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
            let help = "Unix time of the last complete verification; 0: never.";
            write_single("store_verified_timestamp_seconds", "gauge", help, stats.verified.map_or(0, unix_time));
            write_single(
                "store_damaged",
                "gauge",
                "Damaged places found by the last complete verification.",
                stats.damaged,
            );
        }
        if let Some(stats) = store {
            write_single("lost_messages", "gauge", "Lost messages whose loss is not accepted.", stats.lost);
        }
        let not_after = self.certificate_expiry.load(Relaxed);
        if not_after > 0 {
            let help = "Unix time at which the certificate expires.";
            write_single("certificate_expiry_timestamp_seconds", "gauge", help, not_after);
        }
        out
    }

    fn write_histogram(&self, out: &mut String) {
        const NAME: &str = "request_duration_seconds";
        write_family(out, NAME, "histogram", "Time from the first byte of a request to the last byte of its response.");
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
        writeln!(out, "sha_api_{NAME}_sum {seconds}").expect("writing to a string never fails");
        write_sample(out, &format!("{NAME}_count"), "", sum);
    }
}

fn write_family(out: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(out, "# HELP sha_api_{name} {help}\n# TYPE sha_api_{name} {kind}")
        .expect("writing to a string never fails");
}

fn write_sample(out: &mut String, name: &str, labels: &str, value: u64) {
    writeln!(out, "sha_api_{name}{labels} {value}").expect("writing to a string never fails");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_values_are_encoded() {
        let metrics = Arc::<Metrics>::default();
        metrics.observe_request("/messages", "POST", 200, Duration::from_millis(3));
        metrics.observe_request("/messages", "POST", 200, Duration::from_secs(60));
        let guard = metrics.track_connection();
        metrics.set_certificate_expiry(7);
        let text = metrics.encode(None);
        for sample in [
            "sha_api_requests_total{route=\"/messages\",method=\"POST\",status=\"200\"} 2",
            "sha_api_request_duration_seconds_bucket{le=\"0.002\"} 0",
            "sha_api_request_duration_seconds_bucket{le=\"0.005\"} 1",
            "sha_api_request_duration_seconds_bucket{le=\"+Inf\"} 2",
            "sha_api_request_duration_seconds_sum 60.003000",
            "sha_api_connections 1",
            "sha_api_certificate_expiry_timestamp_seconds 7",
        ] {
            assert!(text.lines().any(|line| line == sample), "{sample}\n{text}");
        }
        drop(guard);
        let text = metrics.encode(None);
        assert!(
            text.contains("\nsha_api_connections 0\n") && text.contains("\nsha_api_connections_total 1\n"),
            "{text}"
        );
    }
}
