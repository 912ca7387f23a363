# complete.zsh FOLDER LINE: prints what zsh would offer at the end of LINE, one candidate a line.
# zsh completes only on a terminal: it is given one, and each candidate is printed between two marks.
zmodload zsh/zpty
setup=$(mktemp)
cat >$setup <<END
PROMPT=
fpath=(${(q)1} \$fpath)
autoload -Uz compinit
compinit -u -D
compadd() {
    [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]] && { builtin compadd "\$@"; return }
    local -a found
    builtin compadd -O found "\$@"
    (( \$#found )) && print -l -- \$'\x01'\${^found}\$'\x02'
    return 0
}
show() { zle complete-word; print \$'\x03' }
zle -N show
bindkey '^X' show
print \$'\x03'
END
zpty terminal zsh -f -i
{
    zpty -w terminal "source $setup"
    zpty -r -m terminal answer $'*\x03*'
    zpty -w -n terminal "$2"$'\x18'
    zpty -r -m terminal answer $'*\x03*'
} always {
    zpty -d terminal
    rm -f $setup
}
print -r -- $answer | tr '\001' '\n' | sed -n $'s/^\\([^\x02]*\\)\x02.*/\\1/p' | sort -u
