#!/usr/bin/env python3
"""A client for a sha-api server that needs only the standard library of Python 3.9 or newer.

As a program:

    export SHA_API_TOKEN=…                          # if the server requires a token
    client.py --cacert tls/cert.pem put < FILE       # prints the digest
    client.py --cacert tls/cert.pem get DIGEST       # prints the message
    client.py --cacert tls/cert.pem has DIGEST…      # prints the absent digests

The exit codes are those of sha-api: 0 done, 1 absent, 2 usage, 3 network or server, 4 corrupt, 5 not permitted.

As a module:

    client = Client("https://localhost:8443", cacert="tls/cert.pem", token="…")
    digest = client.put(b"foo")
    assert client.get(digest) == b"foo"

The client does not trust the server: every message is hashed before it is sent and after it is received. Each request
opens a new connection; a program that sends many requests should keep one open, or use the NDJSON requests.
"""

import argparse
import hashlib
import http.client
import json
import os
import re
import ssl
import sys
import urllib.parse

TIMEOUT = 60  # connect and read timeout in seconds


class Absent(Exception):
    """No message with the digest is stored."""


class Corrupt(Exception):
    """The bytes do not hash to the digest."""


class NotPermitted(Exception):
    """The server or the token does not permit the request."""


class ServerError(Exception):
    """The server failed or sent an unexpected response."""


def parse_digest(digest):
    """Return `digest` in lower case; raise ValueError if it is not a digest."""
    if not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise ValueError(f"not a digest: {digest!r}; a digest has 64 hex digits")
    return digest.lower()


class Client:
    """A sha-api server at `url`, such as https://localhost:8443.

    `cacert` is a PEM file of the CA certificates to trust instead of those of the system.
    """

    def __init__(self, url, cacert=None, token=None):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError(f"not a server URL: {url!r}; expected https://HOST:PORT or http://HOST:PORT")
        self.host, self.port, self.token = parts.hostname, parts.port, token
        self.context = ssl.create_default_context(cafile=cacert) if parts.scheme == "https" else None

    def put(self, message):
        """Store the bytes `message` and return its digest. The message is durable when this returns."""
        digest = hashlib.sha256(message).hexdigest()
        status, body = self._request("PUT", f"/messages/{digest}", message)
        if status not in (200, 201):
            raise self._error(status, body)
        return digest

    def get(self, digest):
        """Return the message of `digest`; raise Absent if it is not stored, Corrupt if the bytes are wrong."""
        digest = parse_digest(digest)
        status, message = self._request("GET", f"/messages/{digest}", headers={"Accept": "application/octet-stream"})
        if status == 404:
            raise Absent(digest)
        if status != 200:
            raise self._error(status, message)
        if hashlib.sha256(message).hexdigest() != digest:
            raise Corrupt(f"the server sent bytes that do not hash to {digest}")
        return message

    def missing(self, digests):
        """Return those of `digests` that are not stored, in order. A request holds at most 100,000 digests."""
        digests = [parse_digest(digest) for digest in digests]
        lines = "".join(json.dumps({"digest": digest}) + "\n" for digest in digests)
        headers = {"Content-Type": "application/x-ndjson"}
        status, body = self._request("POST", "/messages/missing", lines.encode(), headers)
        if status != 200:
            raise self._error(status, body)
        try:
            absent = {json.loads(line)["digest"] for line in body.splitlines()}
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError("unexpected response") from error
        return [digest for digest in digests if digest in absent]

    def has(self, digest):
        """Return whether a message with `digest` is stored."""
        return not self.missing([digest])

    def _request(self, method, path, body=None, headers=None):
        headers = dict(headers or {})
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if self.context:
            connection = http.client.HTTPSConnection(self.host, self.port, timeout=TIMEOUT, context=self.context)
        else:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise ServerError(f"invalid response: {error!r}") from error
        finally:
            connection.close()

    @staticmethod
    def _error(status, body):
        try:
            text = json.loads(body)["err_msg"]
        except (ValueError, KeyError, TypeError):
            text = "unexpected response"
        kind = NotPermitted if status in (401, 403, 405) else ServerError
        return kind(f"{text} (status {status})")


def main():
    parser = argparse.ArgumentParser(description="Store and get messages on a sha-api server.")
    parser.add_argument("--url", default="https://localhost:8443", help="URL of the server [%(default)s]")
    parser.add_argument("--cacert", metavar="FILE", help="CA certificates to trust, PEM [those of the system]")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("put", help="store stdin and print its digest")
    commands.add_parser("get", help="print the message of a digest").add_argument("digest")
    commands.add_parser("has", help="print the digests that are not stored").add_argument("digests", nargs="+")
    arguments = parser.parse_args()

    try:
        client = Client(arguments.url, arguments.cacert, os.environ.get("SHA_API_TOKEN"))
        if arguments.command == "put":
            print(client.put(sys.stdin.buffer.read()))
        elif arguments.command == "get":
            sys.stdout.buffer.write(client.get(arguments.digest))
        else:
            absent = client.missing(arguments.digests)
            print("".join(digest + "\n" for digest in absent), end="")
            return 1 if absent else 0
        return 0
    except Absent as error:
        code, text = 1, f"absent: {error}"
    except Corrupt as error:
        code, text = 4, error
    except NotPermitted as error:
        code, text = 5, error
    except (OSError, ServerError) as error:
        code, text = 3, f"{arguments.url}: {error}"
    except ValueError as error:
        code, text = 2, error
    print(f"client.py: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
