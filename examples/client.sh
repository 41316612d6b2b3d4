#!/usr/bin/env bash
# A client for a sha-api server that needs only bash, curl and sha256sum.
#
#   export SHA_API_SERVER=https://localhost:8443    # the default
#   export SHA_API_CACERT=tls/cert.pem              # CA certificates to trust, PEM [those of the system]
#   export SHA_API_TOKEN=…                          # if the server requires a token
#   client.sh put [FILE]      stores FILE or stdin, and prints the digest
#   client.sh get DIGEST      verifies and prints the message
#   client.sh has DIGEST      exits with 0 if the message is stored, else with 1
#
# Exit codes are those of sha-api: 0 done, 1 absent, 2 usage, 3 network or server, 4 corrupt, 5 not permitted.
set -euo pipefail

server=${SHA_API_SERVER:-https://localhost:8443}
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

fail() { # CODE TEXT
    echo "client.sh: $2" >&2
    exit "$1"
}

digest_of() { # FILE
    sha256sum < "$1" | cut -d ' ' -f 1
}

# Sends a request, writes the response to $directory/body, and sets `status`. The token is passed in a file, because
# other users of the machine can see arguments.
request() { # PATH CURL-ARGUMENT...
    local path=$1
    shift
    : > "$directory/body"
    printf '%s' "${SHA_API_TOKEN:+Authorization: Bearer $SHA_API_TOKEN}" > "$directory/headers"
    status=$(curl --silent --show-error ${SHA_API_CACERT:+--cacert "$SHA_API_CACERT"} \
        --header "@$directory/headers" --output "$directory/body" --write-out '%{http_code}' "$@" "$server$path") ||
        fail 3 "$server: curl failed with exit code $?"
}

unexpected() {
    local text
    text="$server: status $status: $(head -c 300 "$directory/body" | tr -c '[:print:]' ' ')"
    case $status in
        401 | 403 | 405) fail 5 "$text" ;;
        *) fail 3 "$text" ;;
    esac
}

command=${1-}
case $command in
    put)
        # The digest is part of the URL, so stdin is read completely first.
        cat -- "${2:--}" > "$directory/message"
        digest=$(digest_of "$directory/message")
        # With `Expect`, the server answers before the upload if the message is already stored.
        request "/messages/$digest" --upload-file "$directory/message" --header 'Expect: 100-continue'
        case $status in
            200 | 201) echo "$digest" ;;
            *) unexpected ;;
        esac
        ;;
    get | has)
        digest=${2-}
        digest=${digest,,}
        [[ $digest =~ ^[0-9a-f]{64}$ ]] || fail 2 'not a digest; a digest has 64 hex digits'
        # Without this `Accept`, a message that is not UTF-8 would be status 406.
        accept='Accept: application/octet-stream'
        if [ "$command" = has ]; then
            request "/messages/$digest" --header "$accept" --head
        else
            request "/messages/$digest" --header "$accept"
        fi
        case $status in
            200) ;;
            404) [ "$command" = has ] || echo "client.sh: absent: $digest" >&2
                exit 1 ;;
            *) unexpected ;;
        esac
        if [ "$command" = get ]; then
            [ "$(digest_of "$directory/body")" = "$digest" ] ||
                fail 4 "the server sent bytes that do not hash to $digest"
            cat "$directory/body"
        fi
        ;;
    *)
        fail 2 'usage: client.sh put [FILE] | get DIGEST | has DIGEST'
        ;;
esac
