complete --keep-order --exclusive --command sha-api --arguments "(SHA_API_COMPLETE=fish sha-api -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
