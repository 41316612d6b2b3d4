# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sha_api_global_optspecs
    string join \n store= server= cacert= cert= key= timeout= config= json q/quiet wait= max-message= index-cache= segment-size= compression= pool-size= connect-timeout= statement-timeout= h/help V/version
end

function __fish_sha_api_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sha_api_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sha_api_using_subcommand
    set -l cmd (__fish_sha_api_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sha-api -n "__fish_sha_api_needs_command" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_needs_command" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_needs_command" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_needs_command" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_needs_command" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_needs_command" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_needs_command" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_needs_command" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_needs_command" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_needs_command" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_needs_command" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_needs_command" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_needs_command" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_needs_command" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_needs_command" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_needs_command" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_needs_command" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sha-api -n "__fish_sha_api_needs_command" -s V -l version -d 'Print version'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "put" -d 'Store messages and print their digests'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "get" -d 'Print the messages of digests'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "has" -d 'Tell whether digests are stored'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "list" -d 'Print the digests of all that is stored, in order'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "rm" -d 'Remove messages'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "stats" -d 'Count what is stored'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "verify" -d 'Read everything and hash it again'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "export" -d 'Write all messages as JSON, one a line'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "import" -d 'Store the messages that `export` wrote'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "copy" -d 'Bring one store up to date with another'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "man" -d 'Print the manual page, as roff'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "completions" -d 'Print the completions for a shell'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "serve" -d 'Serve the store over HTTPS'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "token" -d 'Make a token for `serve`, and print it'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "health" -d 'Ask a server whether it is ready'
complete -c sha-api -n "__fish_sha_api_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -s f -l file -d 'Each FILE is one message; prints lines that `sha256sum -c` can check' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -s l -l lines -d 'Each line of stdin is one message, without its newline'
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -s 0 -l null -d 'Each NUL-ended record of stdin is one message, without its NUL'
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand put" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -s o -l output -d 'Write to FILE instead of stdout, whole or not at all' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -s l -l lines -d 'End each message with a newline; without digests, read them from stdin'
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -s 0 -l null -d 'End each message with a NUL; without digests, read them from stdin'
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand get" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand has" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l after -d 'Only digests after this one' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l limit -d 'At most so many' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l prefix -d 'Only digests that begin with these hex digits' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l long -d 'Also the length in bytes, and when it was stored'
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand list" -s h -l help -d 'Print help'
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand rm" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand stats" -s h -l help -d 'Print help'
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l from -d 'Where to fetch messages from that are corrupt or lost here' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l repair -d 'Move what is corrupt into quarantine, and make the index anew if it does not fit the log'
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l strict -d 'Stop at the first bad line'
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand copy" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l dir -d 'Write sha-api.1 and a page a command into DIR' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand completions" -s h -l help -d 'Print help'
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l listen -d 'Where to listen; port 0 picks a free one [repeatable]' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l tls-cert -d 'The certificate chain, PEM [default: a self-signed one, made once in the store]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l tls-key -d 'The private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l tls-client-ca -d 'Let in only who has a certificate from an authority in FILE, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l token-file -d 'Who may do what: a token a line, made by `sha-api token` [default: everyone reads and writes]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l metrics-listen -d 'Where /metrics is shown, in plain HTTP, to who needs no token [default: where the messages are]' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l log-file -d 'Write down each request in FILE; SIGHUP opens it anew' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l log-format -d 'Write down each request so, on stderr if there is no --log-file [default with --log-file: combined]' -r -f -a "combined\t''
json\t''"
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l upstream -d 'Keep near what passes from and to this server; several URLs serve the same [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l max-body -d 'The longest request body' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l max-connections -d 'Connections at a time; beyond it 503' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l max-connections-per-address -d 'Connections at a time from one address' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l trusted-proxy -d 'Believe this peer, or any in this network, whose requests it hands on (X-Forwarded-For) [repeatable]' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l max-requests -d 'Requests on one connection before it is closed' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l cache-size -d 'Memory for replies that can be sent again as they are' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l handshake-timeout -d 'For the TLS handshake' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l head-timeout -d 'For the head of a request, from its first byte' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l body-timeout -d 'For the body of a request, and more as long as --min-rate is kept' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l write-timeout -d 'For taking the reply, and more as long as --min-rate is kept' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l min-rate -d 'The slowest that a body may come and a reply be taken, a second' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l idle-timeout -d 'How long a connection may idle between requests' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l scrub-interval -d 'Verify everything so often, gently [default: never]' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l drain-timeout -d 'How long requests in flight may take to finish at the end' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l http -d 'Plain HTTP, for use behind a proxy that does TLS'
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l check -d 'Print each setting, its value and where that comes from, and serve nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l read-only -d 'Take no messages and remove none'
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l append-only -d 'Remove no messages'
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l no-ui -d 'No page for people at /'
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l scope -d 'What it permits: some of read, write, list and rm, with commas between' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l token-file -d 'The file to add it to, made if it is not there' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand token" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l listen -d 'Where the server listens, as it was told' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l store -d 'Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]' -r -f -a "(__fish_complete_directories)"
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l server -d 'Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]' -r -f
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l cacert -d 'The authorities that vouch for servers, PEM [default: those of the system]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l cert -d 'Our certificate chain, for a server that asks for one, PEM' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l key -d 'Its private key, PEM [default: in the certificate\'s file]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l timeout -d 'For how long a server may say nothing' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l config -d 'Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]' -r -F
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l wait -d 'How long to wait for a store that another process holds, or for a server to be ready' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l max-message -d 'The longest message that is taken' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l index-cache -d 'Memory for the pages of the index' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l segment-size -d 'How long the files of the log grow; a compaction needs room for one of them' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l compression -d 'How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l pool-size -d 'Connections to a database at a time' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l connect-timeout -d 'How long to wait for a connection to a database' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l statement-timeout -d 'How long a database may work on one statement; 0s: for ever' -r
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l http -d 'The server speaks plain HTTP'
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -l json -d 'Print every result and every error as one JSON object a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -s q -l quiet -d 'No progress bar and no notes; `has` prints nothing'
complete -c sha-api -n "__fish_sha_api_using_subcommand health" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "put" -d 'Store messages and print their digests'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "get" -d 'Print the messages of digests'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "has" -d 'Tell whether digests are stored'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "list" -d 'Print the digests of all that is stored, in order'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "rm" -d 'Remove messages'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "stats" -d 'Count what is stored'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "verify" -d 'Read everything and hash it again'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "export" -d 'Write all messages as JSON, one a line'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "import" -d 'Store the messages that `export` wrote'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "copy" -d 'Bring one store up to date with another'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "man" -d 'Print the manual page, as roff'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "completions" -d 'Print the completions for a shell'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "serve" -d 'Serve the store over HTTPS'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "token" -d 'Make a token for `serve`, and print it'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "health" -d 'Ask a server whether it is ready'
complete -c sha-api -n "__fish_sha_api_using_subcommand help; and not __fish_seen_subcommand_from put get has list rm stats verify export import copy man completions serve token health help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
