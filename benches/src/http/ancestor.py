"""A model of the Python ancestor of sha-api: bottle on wsgiref, one thread, one SQLite file."""

import hashlib
import sqlite3
import sys

from bottle import Bottle, request, response

port, file, first = sys.argv[1:]
database = sqlite3.connect(file)
database.execute("CREATE TABLE IF NOT EXISTS sha_api (digest TEXT PRIMARY KEY, message TEXT)")
app = Bottle()


def put(message):
    digest = hashlib.sha256(message.encode()).hexdigest()
    # SQLite syncs a transaction before it reports the commit.
    with database:
        database.execute("INSERT OR IGNORE INTO sha_api VALUES (?, ?)", (digest.upper(), message))
    return digest


@app.post("/messages")
def post_message():
    try:
        message = request.json["message"]
    except (KeyError, TypeError):
        response.status = 400
        return {"err_msg": "Invalid JSON request, no message key found"}
    return {"digest": put(message)}


@app.get("/messages/<digest>")
def get_message(digest):
    row = database.execute("SELECT message FROM sha_api WHERE digest = ?", (digest.upper(),)).fetchone()
    if row is None:
        response.status = 404
        return {"err_msg": "Message not found"}
    return {"message": row[0]}


put(first)
app.run(server="wsgiref", host="127.0.0.1", port=int(port), quiet=True)
