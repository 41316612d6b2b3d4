//! `token` prints a new token and stores only its digest in the token file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use predicates::prelude::*;

use crate::common::{Sandbox, digest};

#[test]
fn a_token_is_printed_and_its_digest_is_stored_in_a_private_file() {
    let sandbox = Sandbox::new();
    let file = sandbox.dir().join("tokens");
    let create_token = |name: &str, scopes: &str| {
        let created = sandbox.sha_api(["token", name, "--scope", scopes, "--token-file"]).arg(&file).assert();
        let token = String::from_utf8(created.code(0).stderr("").get_output().stdout.clone()).unwrap();
        assert_eq!(token.trim().len(), 43);
        token.trim().to_owned()
    };
    let (first, second) = (create_token("backup", "read,list"), create_token("app", "write,read"));
    assert_ne!(first, second);
    let lines = [("backup read,list", &first), ("app read,write", &second)];
    let expected: String = lines.map(|(start, token)| format!("{start} {}\n", digest(token.as_bytes()))).concat();
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn used_names_unknown_scopes_and_invalid_files_are_rejected() {
    let sandbox = Sandbox::new();
    let hash = digest(b"x");
    let file = sandbox.write_file("tokens", format!("a read {hash}").as_bytes());
    let token = |name: &str, scopes: &str| {
        let mut token = sandbox.sha_api(["token", name, "--scope", scopes]);
        token.env("SHA_API_TOKEN_FILE", &file);
        token.assert()
    };
    token("a", "write").code(2).stdout("").stderr(predicate::str::contains("duplicate name `a`"));
    token("b", "fly").code(2).stdout("").stderr(predicate::str::contains("`fly` is not a scope"));
    token("b c", "read").code(2).stdout("").stderr(predicate::str::contains("invalid token name `b c`"));
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("a read {hash}"));
    token("b", "read").code(0);
    assert!(fs::read_to_string(&file).unwrap().starts_with(&format!("a read {hash}\nb read ")));
    fs::write(&file, "\n\nnonsense\n").unwrap();
    token("c", "read").code(3).stdout("").stderr(predicate::str::contains("tokens:3: "));
    sandbox
        .sha_api(["token", "a", "--scope", "read"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("--token-file"));
}

#[test]
fn json_prints_the_token_as_one_object() {
    let sandbox = Sandbox::new();
    let config =
        sandbox.write_file("config.toml", format!("token-file = '{}/t'\n", sandbox.dir().display()).as_bytes());
    let token = sandbox.sha_api(["token", "a", "--scope", "read", "--json", "--config"]).arg(config).assert().code(0);
    token.stdout(predicate::str::starts_with(r#"{"name":"a","token":""#));
}
