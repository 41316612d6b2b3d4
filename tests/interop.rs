//! Widely used HTTP clients work unmodified: chunked bodies, persistent connections, HEAD, byte ranges and NDJSON.

use crate::common::server::Server;
use crate::common::{command_without_proxy, has_tool, report_skip};

const PYTHON: &str = r"
import hashlib, json, sys
import requests
base, message = sys.argv[1], bytes(range(256)) * 1000
url = f'{base}/messages/{hashlib.sha256(message).hexdigest()}'
raw = {'Accept': 'application/octet-stream'}
with requests.Session() as session:
    pieces = (message[at:at + 999] for at in range(0, len(message), 999))
    assert session.put(url, data=pieces).status_code == 201
    assert session.put(url, data=message).status_code == 200
    assert session.put(url, data=b'another').status_code == 409
    for _ in range(20):
        assert session.get(url, headers=raw).content == message
    part = session.get(url, headers={**raw, 'Range': 'bytes=1000-1999'})
    assert (part.status_code, part.content) == (206, message[1000:2000])
    head = session.head(url, headers=raw)
    assert (head.status_code, head.content, head.headers['Content-Length']) == (200, b'', str(len(message)))
    tag = {**raw, 'If-None-Match': head.headers['ETag']}
    assert session.get(url, headers=tag).status_code == 304
    assert session.get(url).status_code == 406
    put = session.post(f'{base}/messages', json={'message': 'gr\u00fc\u00dfe'})
    assert session.get(base + put.headers['Location']).json() == {'message': 'gr\u00fc\u00dfe'}
    lines = ''.join(json.dumps({'message': str(number)}) + '\n' for number in range(100))
    put = session.post(f'{base}/messages', data=lines, headers={'Content-Type': 'application/x-ndjson'})
    assert [json.loads(line)['new'] for line in put.iter_lines()] == [True] * 100
";

const NODE: &str = r"
const [base] = process.argv.slice(1);
const { createHash } = require('node:crypto');
const assert = require('node:assert');
const message = Buffer.alloc(256000, 'some bytes ');
const url = `${base}/messages/${createHash('sha256').update(message).digest('hex')}`;
const raw = { Accept: 'application/octet-stream' };
const pieces = () => new ReadableStream({
  start(to) {
    for (let at = 0; at < message.length; at += 999) to.enqueue(message.subarray(at, at + 999));
    to.close();
  },
});
(async () => {
  const put = (body, more) => fetch(url, { method: 'PUT', body, ...more });
  assert.equal((await put(pieces(), { duplex: 'half' })).status, 201);
  assert.equal((await put(message)).status, 200);
  assert.equal((await put('another')).status, 409);
  const all = await Promise.all(Array.from({ length: 20 }, () => fetch(url, { headers: raw })));
  for (const one of all) assert.ok(Buffer.from(await one.arrayBuffer()).equals(message));
  const part = await fetch(url, { headers: { ...raw, Range: 'bytes=-10' } });
  assert.equal(part.status, 206);
  assert.equal(await part.text(), message.subarray(-10).toString());
  const head = await fetch(url, { method: 'HEAD', headers: raw });
  assert.deepEqual([head.status, head.headers.get('content-length')], [200, '256000']);
  assert.equal((await fetch(url, { headers: { ...raw, 'If-None-Match': head.headers.get('etag') } })).status, 304);
  assert.equal((await (await fetch(url)).json()).message, message.toString());
})().catch((error) => { console.error(error); process.exit(1); });
";

/// Runs a script with the URL of a server as its argument. Panics unless the script succeeds.
fn assert_script_succeeds(command: &str, args: &[&str], script: &str) {
    let server = Server::http(&[]);
    let url = format!("http://{}", server.address);
    let output = command_without_proxy(command).args(args).arg(script).arg(url).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    server.assert_healthy();
}

#[test]
fn python_requests_puts_and_gets() {
    if !has_tool("python3") {
        return;
    }
    let probe = command_without_proxy("python3").args(["-c", "import requests"]).output().unwrap();
    if !probe.status.success() {
        return report_skip("the Python module `requests` is not installed");
    }
    assert_script_succeeds("python3", &["-c"], PYTHON);
}

#[test]
fn node_fetch_puts_and_gets() {
    if !has_tool("node") {
        return;
    }
    let probe = command_without_proxy("node").args(["-e", "fetch"]).output().unwrap();
    if !probe.status.success() {
        return report_skip("Node.js has no `fetch`");
    }
    assert_script_succeeds("node", &["-e"], NODE);
}
