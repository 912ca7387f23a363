# fish completion of selvedge-operator
set -l verbs run check help
complete -c selvedge-operator -f
complete -c selvedge-operator -n "not __fish_seen_subcommand_from $verbs" -a run -d 'write what every node needs'
complete -c selvedge-operator -n "not __fish_seen_subcommand_from $verbs" -a check -d 'say what is wrong with the manifests'
complete -c selvedge-operator -n "not __fish_seen_subcommand_from $verbs" -a help -d 'explain a verb'
complete -c selvedge-operator -n "not __fish_seen_subcommand_from $verbs" -l version -d 'show the version'
complete -c selvedge-operator -l help -d 'show verbs and options'
complete -c selvedge-operator -n '__fish_seen_subcommand_from run check' -l manifests -rF -d 'folder of manifests'
complete -c selvedge-operator -n '__fish_seen_subcommand_from run check' -l cluster -r -d 'name of the own Cluster object'
complete -c selvedge-operator -n '__fish_seen_subcommand_from run' -l out -rF -d 'folder for the output'
complete -c selvedge-operator -n '__fish_seen_subcommand_from run' -l once -d 'compile once and exit'
