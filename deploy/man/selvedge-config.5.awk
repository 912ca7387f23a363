# Makes the manual page selvedge-config(5) of docs/node-config.md: paragraphs, and one table of field, type, meaning.
function roff(text) {
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    while (match(text, /`[^`]*`/))
        text = substr(text, 1, RSTART - 1) "\\fB" substr(text, RSTART + 1, RLENGTH - 2) "\\fP" substr(text, RSTART + RLENGTH)
    return text
}

# Lines of roff are at most 80 bytes, so that mandoc finds no fault with them.
function fill(text,    words, count, i, line) {
    count = split(roff(text), words, " ")
    line = words[1]
    for (i = 2; i <= count; i++) {
        if (length(line " " words[i]) > 79) {
            print line
            line = words[i]
        } else
            line = line " " words[i]
        # A sentence ends its line.
        if (words[i] ~ /[a-z)]\.$/ && i < count) {
            print line
            line = words[++i]
        }
    }
    print line
}

function flush() {
    if (paragraph != "") {
        if (begun) print ".PP"
        begun = 1
        fill(paragraph)
    }
    paragraph = ""
}

BEGIN {
    print ".TH SELVEDGE\\-CONFIG 5 2026-11-20 \"Selvedge\" \"File Formats Manual\""
    print ".SH NAME"
    print "selvedge\\-config \\- configuration of a node"
    print ".SH DESCRIPTION"
}
/^# / { next }
/^## / {
    flush()
    print ".SH " toupper(roff(substr($0, 4)))
    begun = 0
    next
}
/^\|[-|]*\|$/ || /^\| field / { flush(); next }
/^\|/ {
    split($0, cell, / *\| */)
    print ".TP"
    print roff(cell[2]) " (" roff(cell[3]) ")"
    fill(cell[4])
    next
}
/^$/ { flush(); next }
{ paragraph = paragraph (paragraph == "" ? "" : " ") $0 }
END {
    flush()
    print ".SH SEE ALSO"
    print ".BR selvedge\\-agent (8),"
    print ".BR selvedge\\-connector (8),"
    print ".BR selvedge\\-operator (8)"
}
