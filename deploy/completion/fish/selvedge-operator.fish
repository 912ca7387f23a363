# fish completion of selvedge-operator
set -l verbs run check serve crds help
complete -c selvedge-operator -f
complete -c selvedge-operator -n "not __fish_seen_subcommand_from $verbs" -a run -d 'write what every node needs'
complete -c selvedge-operator -n "not __fish_seen_subcommand_from $verbs" -a check -d 'say what is wrong with the manifests'
complete -c selvedge-operator -n "not __fish_seen_subcommand_from $verbs" -a serve -d 'live in a cluster'
complete -c selvedge-operator -n "not __fish_seen_subcommand_from $verbs" -a crds -d 'print the definitions of our kinds'
complete -c selvedge-operator -n "not __fish_seen_subcommand_from $verbs" -a help -d 'explain a verb'
complete -c selvedge-operator -n "not __fish_seen_subcommand_from $verbs" -l version -d 'show the version'
complete -c selvedge-operator -l help -d 'show verbs and options'
complete -c selvedge-operator -n '__fish_seen_subcommand_from run check' -l manifests -rF -d 'folder of manifests'
complete -c selvedge-operator -n '__fish_seen_subcommand_from run check serve' -l cluster -r -d 'name of the own Cluster object'
complete -c selvedge-operator -n '__fish_seen_subcommand_from run crds' -l out -rF -d 'folder for the output'
complete -c selvedge-operator -n '__fish_seen_subcommand_from run' -l once -d 'compile once and exit'
complete -c selvedge-operator -n '__fish_seen_subcommand_from serve' -l kubeconfig -rF -d 'where the API server is'
complete -c selvedge-operator -n '__fish_seen_subcommand_from serve' -l namespace -r -d 'namespace of what is written'
complete -c selvedge-operator -n '__fish_seen_subcommand_from serve' -l metrics-listen -r -d 'where metrics and health are'
complete -c selvedge-operator -n '__fish_seen_subcommand_from serve' -l identity -r -d 'name of this operator among several'
complete -c selvedge-operator -n '__fish_seen_subcommand_from serve' -l log -ra 'text json' -d 'how the log is written'
