# fish completion of selvedge-connector
set -l verbs run status doctor check clean
complete -c selvedge-connector -f
complete -c selvedge-connector -n "not __fish_seen_subcommand_from $verbs" -a run -d 'run in the foreground'
complete -c selvedge-connector -n "not __fish_seen_subcommand_from $verbs" -a status -d 'what the running program does'
complete -c selvedge-connector -n "not __fish_seen_subcommand_from $verbs" -a doctor -d 'what is wrong on this node and what helps'
complete -c selvedge-connector -n "not __fish_seen_subcommand_from $verbs" -a check -d 'say what is wrong with a configuration'
complete -c selvedge-connector -n "not __fish_seen_subcommand_from $verbs" -a clean -d 'remove everything it ever made'
complete -c selvedge-connector -n "not __fish_seen_subcommand_from $verbs" -l version -d 'show the version'
complete -c selvedge-connector -l help -d 'show verbs and options'
complete -c selvedge-connector -n "__fish_seen_subcommand_from $verbs" -l config -rF -d 'node configuration'
complete -c selvedge-connector -n "__fish_seen_subcommand_from $verbs" -l credentials -rF -d 'ca.crt, tls.crt and tls.key'
complete -c selvedge-connector -n "__fish_seen_subcommand_from $verbs" -l run-dir -rF -d 'sockets of the running program'
complete -c selvedge-connector -n "__fish_seen_subcommand_from $verbs" -l state-dir -rF -d 'last good configuration and credentials'
complete -c selvedge-connector -n '__fish_seen_subcommand_from run' -l user -xa '(__fish_complete_users)' -d 'run as this user'
complete -c selvedge-connector -n '__fish_seen_subcommand_from run' -l no-landlock -d 'leave all files to users and modes'
complete -c selvedge-connector -n '__fish_seen_subcommand_from run' -l metered -d 'keep tunnels as quiet as they can'
complete -c selvedge-connector -n '__fish_seen_subcommand_from status doctor' -l json -d 'one JSON document'
complete -c selvedge-connector -n '__fish_seen_subcommand_from check' -F
