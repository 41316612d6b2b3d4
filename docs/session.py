#!/usr/bin/env python3
"""Run a terminal session with the real program and draw it as docs/session.svg.

usage: docs/session.py BINARY > docs/session.svg
"""

import html
import os
import subprocess
import sys
import tempfile

COMMANDS = [
    'sha-api put "foo"',
    "sha-api get 2c26b46b; echo",
    "seq 3 | sha-api put --lines > digests",
    "sha-api get --lines - < digests | paste -sd ' '",
    "sha-api list --prefix 2c",
    "sha-api has $(printf bar | sha256sum | cut -c 1-64); echo exit status $?",
    "sha-api verify",
]
COLUMNS = 78
CHARACTER_WIDTH = 8.4
LINE_HEIGHT = 20
MARGIN = 20
TITLE_BAR = 34

# The window has a background of its own, so it is legible on light and dark pages.
BACKGROUND, BORDER, TEXT, PROMPT, COMMAND = "#1c2128", "#444c56", "#adbac7", "#57ab5a", "#f0f6fc"


def run(binary):
    """Return the session as a list of (is_command, text) lines."""
    lines = []
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.dirname(os.path.abspath(binary)) + ":" + os.environ["PATH"]
        environment = {"PATH": path, "HOME": directory, "LC_ALL": "C"}
        for command in COMMANDS:
            output = subprocess.run(
                ["bash", "-c", command],
                cwd=directory,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=True,
            ).stdout.decode()
            lines.append((True, command))
            lines += [(False, line) for line in output.splitlines()]
    return lines


def draw(lines):
    """Return `lines` as the text of an SVG file."""
    width = round(COLUMNS * CHARACTER_WIDTH + 2 * MARGIN)
    height = TITLE_BAR + len(lines) * LINE_HEIGHT + MARGIN
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' role="img" aria-label="A terminal session with sha-api">',
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8" fill="{BACKGROUND}"'
        f' stroke="{BORDER}"/>',
        f'<g fill="{BORDER}"><circle cx="20" cy="18" r="5"/><circle cx="38" cy="18" r="5"/>'
        '<circle cx="56" cy="18" r="5"/></g>',
        '<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="14"'
        f' fill="{TEXT}" xml:space="preserve">',
    ]
    for number, (is_command, text) in enumerate(lines):
        y = TITLE_BAR + number * LINE_HEIGHT + 14
        text = html.escape(text, quote=False)
        if is_command:
            text = f'<tspan fill="{PROMPT}">$ </tspan><tspan fill="{COMMAND}">{text}</tspan>'
        svg.append(f'<text x="{MARGIN}" y="{y}">{text}</text>')
    svg += ["</g>", "</svg>"]
    return "\n".join(svg) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.stdout.write(draw(run(sys.argv[1])))
