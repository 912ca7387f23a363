# Only for who asks for it: without the word nothing changes.
# nooelint: oelint.vars.noncoreoverride
FILESEXTRAPATHS:prepend := "${@bb.utils.contains("DISTRO_FEATURES", "selvedge", "${THISDIR}/linux-yocto:", "", d)}"
# nooelint: oelint.vars.noncoreoverride
SRC_URI:append = "${@bb.utils.contains("DISTRO_FEATURES", "selvedge", " file://selvedge.scc", "", d)}"
