# fish completion of selvedge-agent
set -l verbs run status doctor check clean
complete -c selvedge-agent -f
complete -c selvedge-agent -n "not __fish_seen_subcommand_from $verbs" -a run -d 'run in the foreground'
complete -c selvedge-agent -n "not __fish_seen_subcommand_from $verbs" -a status -d 'what the running program does'
complete -c selvedge-agent -n "not __fish_seen_subcommand_from $verbs" -a doctor -d 'what is wrong on this node and what helps'
complete -c selvedge-agent -n "not __fish_seen_subcommand_from $verbs" -a check -d 'say what is wrong with a configuration'
complete -c selvedge-agent -n "not __fish_seen_subcommand_from $verbs" -a clean -d 'remove everything it ever made'
complete -c selvedge-agent -n "not __fish_seen_subcommand_from $verbs" -l version -d 'show the version'
complete -c selvedge-agent -l help -d 'show verbs and options'
complete -c selvedge-agent -n "__fish_seen_subcommand_from $verbs" -l config -rF -d 'node configuration'
complete -c selvedge-agent -n "__fish_seen_subcommand_from $verbs" -l credentials -rF -d 'ca.crt, tls.crt and tls.key'
complete -c selvedge-agent -n "__fish_seen_subcommand_from $verbs" -l run-dir -rF -d 'sockets of the running program'
complete -c selvedge-agent -n "__fish_seen_subcommand_from $verbs" -l state-dir -rF -d 'last good configuration and credentials'
complete -c selvedge-agent -n "__fish_seen_subcommand_from $verbs" -l cni-dir -rF -d 'where CNI networks are read'
complete -c selvedge-agent -n '__fish_seen_subcommand_from run' -l user -xa '(__fish_complete_users)' -d 'run as this user'
complete -c selvedge-agent -n '__fish_seen_subcommand_from run' -l no-landlock -d 'leave all files to users and modes'
complete -c selvedge-agent -n '__fish_seen_subcommand_from run' -l metered -d 'keep tunnels as quiet as they can'
complete -c selvedge-agent -n '__fish_seen_subcommand_from status doctor' -l json -d 'one JSON document'
complete -c selvedge-agent -n '__fish_seen_subcommand_from check' -F
