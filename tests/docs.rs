//! The documentation agrees with the program: pages, completions, flags, examples, links, routes, metrics.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::server::Server;
use crate::common::{Sandbox, has_tool, non_empty_files};

/// Maximum size of README.md in bytes, so that a newcomer reads all of it.
const MAX_README_BYTES: usize = 9000;

fn repository_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read_file(path: impl AsRef<Path>) -> String {
    let path = repository_root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn file_names(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Returns the paths of README.md and of the pages in docs/, relative to the repository.
fn guides() -> Vec<PathBuf> {
    let docs = file_names(&repository_root().join("docs"));
    let docs = docs.into_iter().map(|name| Path::new("docs").join(name));
    let docs = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    std::iter::once(PathBuf::from("README.md")).chain(docs).collect()
}

/// Returns the paths of all Markdown files for users and contributors, relative to the repository.
fn markdown_files() -> Vec<PathBuf> {
    let mut files = guides();
    for name in ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples/monitoring/README.md"] {
        files.push(name.into());
    }
    files
}

#[test]
fn contributing_lists_every_tool_that_a_test_needs() {
    let contributing = read_file("CONTRIBUTING.md");
    let mut tools = BTreeSet::new();
    for file in non_empty_files(&repository_root().join("tests")) {
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        for call in ["has_tool(\"", "find_tool(\""] {
            tools.extend(text.split(call).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    assert!(tools.contains("strace") && tools.len() > 15, "{tools:?}");
    tools.retain(|tool| !contributing.contains(tool.as_str()));
    assert!(tools.is_empty(), "add to CONTRIBUTING.md: {tools:?}");
}

#[test]
fn manual_pages_match_the_program() {
    let sandbox = Sandbox::new();
    sandbox.sha_api(["man", "--dir"]).arg(sandbox.dir()).assert().code(0).stderr("");
    assert_eq!(file_names(&repository_root().join("man")), file_names(sandbox.dir()));
    for name in file_names(sandbox.dir()) {
        let generated = std::fs::read_to_string(sandbox.dir().join(&name)).unwrap();
        assert!(read_file(format!("man/{name}")) == generated, "man/{name} is outdated; run `make man`");
    }
    let page = sandbox.sha_api(["man"]).assert().code(0).get_output().stdout.clone();
    assert!(read_file("man/sha-api.1").as_bytes() == page);
}

#[test]
fn completions_match_the_program() {
    let shells = [("bash", "sha-api.bash"), ("zsh", "_sha-api"), ("fish", "sha-api.fish")];
    let expected = shells.iter().map(|(_, name)| (*name).to_owned()).collect();
    assert_eq!(file_names(&repository_root().join("completions")), expected);
    for (shell, name) in shells {
        let generated = Sandbox::new().sha_api(["completions", shell]).assert().code(0).get_output().stdout.clone();
        let stored = read_file(format!("completions/{name}"));
        assert!(stored.as_bytes() == generated, "completions/{name} is outdated; run `make completions`");
    }
}

/// Returns the long flags in the inline code of `text` that are flags of sha-api: those that stand alone and those
/// behind the program's name.
fn documented_flags(text: &str) -> BTreeSet<String> {
    let prose: String = text.split("```").step_by(2).collect();
    let mut flags = BTreeSet::new();
    for code in prose.split('`').skip(1).step_by(2) {
        if !code.starts_with('-') && !code.starts_with("sha-api") {
            continue;
        }
        let words = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        flags.extend(words.filter(|word| word.len() > 3 && word.starts_with("--")).map(str::to_owned));
    }
    flags
}

#[test]
fn the_guides_name_every_flag_and_no_other() {
    let command = sha_api::config::command();
    let commands = std::iter::once(&command).chain(command.get_subcommands());
    let arguments = commands.flat_map(clap::Command::get_arguments).filter_map(|argument| argument.get_long());
    let known: BTreeSet<_> =
        arguments.filter(|long| !["help", "version"].contains(long)).map(|long| format!("--{long}")).collect();
    let named: BTreeSet<_> = guides().iter().flat_map(|path| documented_flags(&read_file(path))).collect();
    let unknown: Vec<_> =
        named.difference(&known).filter(|flag| !["--help", "--version"].contains(&flag.as_str())).collect();
    assert_eq!(unknown, Vec::<&String>::new(), "named in the guides, but not a flag");
    assert_eq!(known.difference(&named).collect::<Vec<_>>(), Vec::<&String>::new(), "a flag, but not in the guides");
}

#[test]
fn the_command_line_guide_names_every_command() {
    let guide = read_file("docs/cli.md");
    for command in sha_api::config::command().get_subcommands() {
        assert!(guide.contains(&format!("`sha-api {}", command.get_name())), "{}", command.get_name());
    }
}

#[test]
fn the_readme_is_short() {
    assert!(read_file("README.md").len() <= MAX_README_BYTES);
}

#[test]
fn console_examples_print_what_the_guides_show() {
    let mut count = 0;
    for path in guides() {
        let text = read_file(&path);
        let sandbox = Sandbox::new();
        for block in text.split("```console\n").skip(1).map(|rest| rest.split_once("```").unwrap().0) {
            assert!(block.starts_with("$ "), "{}: a console block starts with a command: {block}", path.display());
            for example in block.split("$ ").skip(1) {
                let (script, expected) = example.split_once('\n').unwrap();
                let output = sandbox.run_shell(&format!("set +e; {{ {script}\n}} 2>&1"));
                assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}: $ {script}", path.display());
                count += 1;
            }
        }
    }
    assert!(count >= 30, "{count} examples");
}

#[test]
fn the_picture_shows_what_the_program_prints() {
    if !has_tool("python3") || !has_tool("bash") {
        return;
    }
    let script = repository_root().join("docs/session.py");
    let output = Command::new("python3").arg(script).arg(env!("CARGO_BIN_EXE_sha-api")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        read_file("docs/session.svg").as_bytes() == output.stdout,
        "docs/session.svg is outdated; run `make session`"
    );
}

/// Returns the anchors of the headings in `text`, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose: String = text.split("```").step_by(2).collect();
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let slug = |heading: &str| {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect::<String>()
    };
    headings.map(slug).collect()
}

#[test]
fn links_and_anchors_exist() {
    let mut count = 0;
    for path in markdown_files() {
        let text = read_file(&path);
        let prose: String = text.split("```").step_by(2).collect();
        for link in prose.split("](").skip(1).map(|rest| rest.split_once(')').unwrap().0) {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(repository_root().join(&target).exists(), "{}: {link} leads nowhere", path.display());
            if !anchor.is_empty() {
                let found = anchors(&read_file(&target));
                assert!(found.contains(anchor), "{}: {link}: there is no such heading: {found:?}", path.display());
            }
            count += 1;
        }
    }
    assert!(count >= 50, "{count} links");
}

#[test]
fn the_http_guide_names_every_route() {
    let server = Server::http(&[]);
    let description: serde_json::Value = serde_json::from_str(server.get("/openapi.json").text()).unwrap();
    let guide = read_file("docs/http-api.md");
    for path in description["paths"].as_object().unwrap().keys() {
        let path = path.replace("{digest}", "DIGEST");
        assert!(guide.contains(&path), "{path} is not in docs/http-api.md");
    }
}

#[test]
fn the_server_guide_and_the_dashboard_name_the_metrics_of_the_server() {
    let server = Server::https(&[]);
    server.put("foo");
    let text = server.get("/metrics").text().to_owned();
    let families: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(families.len() >= 5, "{text}");
    let guide = read_file("docs/server.md");
    for family in &families {
        assert!(guide.contains(&format!("`{family}")), "{family} is not in docs/server.md");
    }
    let dashboard = read_file("examples/monitoring/grafana/dashboards/sha-api.json");
    let names =
        dashboard.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("sha_api_"));
    for name in names {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(families.contains(family) || families.contains(name), "the server exports no {name}");
    }
}

#[test]
fn the_example_clients_put_get_and_report_absent_messages() {
    if !["bash", "curl", "python3", "sha256sum"].into_iter().all(has_tool) {
        return;
    }
    let server = Server::https(&[]);
    let certificate = server.self_signed_cert_path();
    let python = |args: &str| {
        let url = format!("--url https://localhost:{}", server.address.port());
        format!(
            "python3 {}/examples/client.py {url} --cacert {} {args}",
            repository_root().display(),
            certificate.display()
        )
    };
    let shell = |args: &str| {
        let environment = format!(
            "SHA_API_SERVER=https://localhost:{} SHA_API_CACERT={}",
            server.address.port(),
            certificate.display()
        );
        format!("{environment} bash {}/examples/client.sh {args}", repository_root().display())
    };
    let absent = "f".repeat(64);
    for (message, client) in [("foo", &python as &dyn Fn(&str) -> String), ("bar", &shell)] {
        let digest = crate::common::digest(message.as_bytes());
        let script = [
            format!("printf {message} | {}", client("put")),
            format!("{}; echo", client(&format!("get {digest}"))),
            format!("{} > absent; echo \"exit code $?\"", client(&format!("has {absent}"))),
            format!("{} 2> error; echo \"exit code $?\"", client(&format!("get {absent}"))),
        ];
        let output = server.sandbox.run_shell(&format!("set +e; {}", script.join("; ")));
        let expected = format!("{digest}\n{message}\nexit code 1\nexit code 1\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
    }
}
