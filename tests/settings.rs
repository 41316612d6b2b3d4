//! Settings: a flag overrides an environment variable, a variable overrides the settings file, and the file overrides
//! the default.

use predicates::prelude::*;

use crate::common::{FOO, Sandbox};

#[test]
fn a_flag_overrides_a_variable_and_a_variable_overrides_the_file() {
    let sandbox = Sandbox::new();
    let config = sandbox.write_file("config.toml", b"max-message = '2B'\n");
    let over_limit = |limit: &str| predicate::str::contains(format!("over the limit of {limit} bytes; "));
    let put = || {
        let mut put = sandbox.sha_api(["put", "12345", "--config"]);
        put.arg(&config);
        put
    };
    put().assert().code(3).stderr(over_limit("2"));
    put().env("SHA_API_MAX_MESSAGE", "3B").assert().code(3).stderr(over_limit("3"));
    put().env("SHA_API_MAX_MESSAGE", "3B").args(["--max-message", "4B"]).assert().code(3).stderr(over_limit("4"));
    put().args(["--max-message", "5B"]).assert().code(0);
}

#[test]
fn the_default_paths_are_those_of_xdg() {
    let sandbox = Sandbox::new();
    let home = |path: &str| sandbox.dir().join(path);
    sandbox.sha_api(["put", "foo"]).env_remove("SHA_API_STORE").assert().code(0);
    assert!(home(".local/share/sha-api/format").exists());
    let data = home("data");
    sandbox.sha_api(["put", "foo"]).env_remove("SHA_API_STORE").env("XDG_DATA_HOME", &data).assert().code(0);
    assert!(data.join("sha-api/format").exists());
    std::fs::create_dir_all(home(".config/sha-api")).unwrap();
    std::fs::write(home(".config/sha-api/config.toml"), format!("store = '{}'", home("elsewhere").display())).unwrap();
    sandbox.sha_api(["put", "foo"]).env_remove("SHA_API_STORE").assert().code(0);
    assert!(home("elsewhere/format").exists());
    let without_home = sandbox.sha_api(["put", "foo"]).env_remove("SHA_API_STORE").env_remove("HOME").assert();
    without_home.code(3).stderr(predicate::str::contains("use --store"));
}

#[test]
fn an_invalid_settings_file_is_reported_with_its_path_and_the_cause() {
    let sandbox = Sandbox::new();
    let assert_rejected = |text: &str, cause: &str| {
        let config = sandbox.write_file("config.toml", text.as_bytes());
        let put = sandbox.sha_api(["put", "foo", "--config"]).arg(&config).assert();
        put.code(2)
            .stdout("")
            .stderr(predicate::str::contains("config.toml").and(predicate::str::contains(cause.to_owned())));
    };
    assert_rejected("stroe = 'x'", "`stroe` is not a setting");
    assert_rejected("store = {}", "`store` must be");
    assert_rejected("store = ", "TOML parse error");
    let missing = sandbox.sha_api(["put", "foo", "--config", "/no/such.toml"]).assert();
    missing.code(2).stderr(predicate::str::contains("/no/such.toml"));
}

#[test]
fn a_boolean_setting_works_in_the_file_and_in_a_variable() {
    let sandbox = Sandbox::new();
    let config = sandbox.write_file("config.toml", b"json = true\n");
    let json = format!("{{\"digest\":\"{FOO}\"}}\n");
    sandbox.sha_api(["put", "foo", "--config"]).arg(&config).assert().code(0).stdout(json.clone());
    for (value, expected) in
        [("1", json.clone()), ("true", json), ("0", format!("{FOO}\n")), ("no", format!("{FOO}\n"))]
    {
        sandbox.sha_api(["put", "foo"]).env("SHA_API_JSON", value).assert().code(0).stdout(expected);
    }
}

#[test]
fn a_store_with_an_unknown_scheme_or_a_file_path_is_rejected() {
    let sandbox = Sandbox::new();
    let put = sandbox.sha_api(["put", "foo", "--store", "ftp://somewhere"]).assert();
    put.code(3).stdout("").stderr(predicate::str::contains("ftp://somewhere"));
    let file = sandbox.write_file("file", b"");
    let put = sandbox.sha_api(["put", "foo", "--store"]).arg(&file).assert();
    put.code(3).stdout("").stderr(predicate::str::contains("file"));
}

#[test]
fn an_option_that_a_command_does_not_use_is_rejected() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["serve", "--server", "https://localhost"][..],
        &["--server", "https://localhost", "serve"],
        &["copy", "a", "b", "--store", "c"],
        &["health", "--store", "c"],
        &["health", "--server", "https://localhost"],
        &["stats", "--max-message", "1MiB"],
        &["man", "--db-pool-size", "1"],
        &["completions", "bash", "--lock-timeout", "1s"],
        &["token", "name", "--scope", "read", "--token-file", "tokens", "--store", "c"],
    ] {
        let command = sandbox.sha_api(arguments).current_dir(sandbox.dir()).assert().code(2).stdout("");
        command.stderr(predicate::str::contains("unexpected argument '--").and(predicate::str::contains("not use it")));
    }
    assert!(!sandbox.dir().join("tokens").exists());
    let json = sandbox.sha_api(["man", "--store", "c", "--json"]).assert().code(2).stdout("");
    json.stderr("{\"err_msg\":\"unexpected argument '--store': `man` does not use it\"}\n");
}

#[test]
fn a_variable_of_an_option_that_a_command_does_not_use_is_ignored() {
    let sandbox = Sandbox::new();
    let mut man = sandbox.sha_api(["man"]);
    man.env("SHA_API_LOCK_TIMEOUT", "soon").env("SHA_API_SERVER", "https://localhost").assert().code(0).stderr("");
    let mut check = sandbox.sha_api(["serve", "--check"]);
    let check = check.env("SHA_API_SERVER", "not a URL").assert().code(0).stderr("");
    check.stdout(predicate::str::contains("\nserver = ").not());
    let stats = sandbox.sha_api(["stats"]).env("SHA_API_LOCK_TIMEOUT", "soon").assert().code(2).stdout("");
    stats.stderr(predicate::str::contains("SHA_API_LOCK_TIMEOUT"));
}

#[test]
fn the_usage_line_does_not_name_options_as_required() {
    let sandbox = Sandbox::new();
    let usage = |text: &str| predicate::str::contains(format!("\nUsage: sha-api {text}\n"));
    sandbox.sha_api(["put", "--nonsense"]).assert().code(2).stderr(usage("put [OPTIONS] [MESSAGE]"));
    sandbox.sha_api(["get"]).assert().code(2).stderr(usage("get [OPTIONS] [DIGEST]..."));
    sandbox.sha_api(["--nonsense"]).assert().code(2).stderr(usage("[OPTIONS] <COMMAND>"));
}

#[test]
fn the_help_names_the_token_the_settings_file_and_examples() {
    let sandbox = Sandbox::new();
    for arguments in [&["--help"][..], &["help"]] {
        let help = sandbox.sha_api(arguments).assert().code(0).stderr("");
        let help = String::from_utf8(help.get_output().stdout.clone()).unwrap();
        for text in ["\nEnvironment:\n", "SHA_API_TOKEN", "/sha-api/config.toml", "\nExamples:\n", "\nExit status:\n"] {
            assert!(help.contains(text), "{text}: {help}");
        }
    }
    let short = sandbox.sha_api(["put", "-h"]).assert().code(0).stderr("");
    let short = String::from_utf8(short.get_output().stdout.clone()).unwrap();
    let headings: Vec<_> = short.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).collect();
    assert_eq!(headings, ["Arguments:", "Options:", "Store:", "Server connection:", "Output:"]);
    let long = sandbox.sha_api(["put", "--help"]).assert().code(0).stderr("");
    long.stdout(predicate::str::contains("\nPostgreSQL:\n").and(predicate::str::contains("[env: SHA_API_STORE]")));
}
