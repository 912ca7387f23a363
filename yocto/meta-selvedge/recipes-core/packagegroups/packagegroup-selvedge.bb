SUMMARY = "What a gateway in a Selvedge network runs"
DESCRIPTION = "The agent and the firewall tool that it uses, which is in meta-networking."

inherit packagegroup features_check

# The kernel's part is opted into by the same word.
REQUIRED_DISTRO_FEATURES = "selvedge"

RDEPENDS:${PN} = "\
    nftables \
    selvedge-agent \
"
