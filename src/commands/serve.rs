//! `serve`: converts the options into those of the server.

use super::context::Context;
use super::exit_status::ExitStatus;
use crate::server::{self, Limits, LogFormat, LogLevel, Options, Scopes, Tls};
use crate::{cli, config, location, message_store, unix_path};

/// Serves until a signal arrives, or prints the settings with `--check`.
pub fn run(context: &mut Context, serve: &cli::Serve) -> anyhow::Result<ExitStatus> {
    if serve.check {
        return print_settings(context);
    }
    let dir = location::directory(&context.global)?;
    let tls = match (&serve.tls_cert, serve.http) {
        (_, true) => Tls::Off,
        (Some(cert), false) => Tls::Files { cert: cert.clone(), key: serve.tls_key.clone() },
        (None, false) => Tls::SelfSigned(dir.as_deref().ok_or_else(missing_certificate_error)?.join("tls")),
    };
    let options = Options {
        local_socket: dir.map(|dir| dir.join(unix_path::SOCKET_NAME)),
        max_message: context.global.store.max_message.as_u64(),
        listen: serve.listen.clone(),
        tls,
        client_ca: serve.tls_client_ca.clone(),
        metrics_listen: serve.metrics_listen.clone(),
        access_log_format: match serve.access_log_format {
            Some(cli::LogFormat::Json) => Some(LogFormat::Json),
            Some(cli::LogFormat::Combined) => Some(LogFormat::Combined),
            None => serve.access_log.is_some().then_some(LogFormat::Combined),
        },
        log_level: match serve.log_level {
            cli::LogLevel::Error => LogLevel::Error,
            cli::LogLevel::Warn => LogLevel::Warn,
            cli::LogLevel::Info => LogLevel::Info,
            cli::LogLevel::Debug => LogLevel::Debug,
        },
        access_log: serve.access_log.clone(),
        token_file: serve.token_file.clone(),
        enabled_scopes: match (serve.read_only, serve.append_only) {
            (true, _) => Scopes::READ_ONLY,
            (false, true) => Scopes::APPEND_ONLY,
            (false, false) => Scopes::ALL,
        },
        ui_enabled: !serve.no_ui,
        limits: limits(serve),
        cache_size: serve.cache_size.as_u64(),
        scrub_interval: serve.scrub_interval.map(Into::into),
        drain_timeout: serve.drain_timeout.into(),
    };
    let (global, events, upstream) = (context.global.clone(), context.progress.event_sink(), serve.upstream.clone());
    server::run(&options, context.output.raw(), move || location::open_for_serving(&global, &upstream, &events))?;
    Ok(ExitStatus::Success)
}

fn missing_certificate_error() -> message_store::Error {
    let reason = "no certificate: a database has no directory for a self-signed certificate; use --tls-cert FILE, or \
                  --http behind a proxy that terminates TLS";
    message_store::Error::Unusable(reason.to_owned())
}

/// Prints each setting with its value and its source.
fn print_settings(context: &mut Context) -> anyhow::Result<ExitStatus> {
    for setting in config::effective_settings(&std::env::args_os().collect::<Vec<_>>())? {
        let value = setting.value.as_deref().unwrap_or("(none)");
        context.output.print_line(format!("{} = {value}  # {}", setting.name, setting.source).as_bytes(), &setting)?;
    }
    Ok(ExitStatus::Success)
}

fn limits(serve: &cli::Serve) -> Limits {
    Limits {
        max_body: serve.max_body.as_u64(),
        max_connections: serve.max_connections,
        max_connections_per_address: serve.max_connections_per_address,
        trusted_proxies: serve.trusted_proxy.clone().into(),
        max_requests: serve.max_requests,
        handshake_timeout: serve.handshake_timeout.into(),
        head_timeout: serve.head_timeout.into(),
        body_timeout: serve.body_timeout.into(),
        write_timeout: serve.write_timeout.into(),
        min_rate: serve.min_rate.as_u64(),
        idle_timeout: serve.idle_timeout.into(),
    }
}
